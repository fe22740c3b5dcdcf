"""Evaluation of policies whose ranking, actions and bounds are known."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mtf_engine.evaluation import EvaluationResult, evaluate, weighted_gauc
from mtf_engine.evaluation.deviation import deviation
from mtf_engine.evaluation.evaluate import evaluation
from mtf_engine.evaluation.scored import Scoring, scored, together
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import BoundsPlan, FusionSpec, Refusal

FUSION = FusionSpec.default(("click", "like"))
CLICK, LIKE, BOTH = (1.0, -1.0), (-1.0, 1.0), (0.0, 0.0)  # pow 2 of one and 0 of the other; 1 of both


class Affine(nn.Module):
    """Actions `action + observations @ slope`."""

    def __init__(self, action, slope):
        super().__init__()
        self.action, self.slope = torch.tensor(action), torch.tensor(slope)

    def forward(self, observations):
        return self.action + observations @ self.slope


def affine(action, slope=((0.0, 0.0), (0.0, 0.0)), fusion=FUSION, **info):
    return Policy(Affine(action, slope), fusion, ("age", "mood"), (True, True), info)


def two_users():
    """User 0 sees requests 0 and 1, user 1 request 2, user 2 request 3 (one class)."""
    return EvaluationRows(
        split="test",
        request_id=np.array([10, 11, 12, 13]),
        user=np.array([0, 0, 1, 2]),
        segment=np.array(["new", "new", "old", "old"]),
        observations=np.zeros((4, 2), np.float32),
        baseline_actions=None,
        lower=None,
        upper=None,
        request=np.array([0, 0, 1, 1, 2, 2, 3]),
        predictions=np.float32(
            [[0.8, 0.1], [0.4, 0.2], [0.9, 0.3], [0.5, 0.5], [0.2, 0.2], [0.2, 0.1], [0.3, 0.3]]
        ),
        reward=np.array([1.0, 0.0, 0.0, 3.0, 0.0, 1.0, 4.0]),
        label=np.array([True, False, False, True, False, True, True]),
        fusion=FUSION,
        feature_names=("age", "mood"),
    )


def test_weighted_gauc_worked_by_hand():
    result = evaluate({"click": affine(CLICK), "like": affine(LIKE)}, two_users())
    click, like = result.policies
    # By click, user 0 ranks .9 (negative, weight 1), .8 (positive, 2), .5 (positive, 4), .4 (negative, 1):
    # (2 * 1 + 4 * 1) / (6 * 2) = 1/2, weight 8; user 1 ties: 1/2, weight 3; user 2 is left out.
    assert click.weighted_gauc == pytest.approx(1 / 2)
    # By like, user 0 ranks .5 (4) > .3 > .2 > .1 (2): 4 * 2 / 12 = 2/3; user 1 is wrong: 0.
    assert like.weighted_gauc == pytest.approx((8 * 2 / 3 + 3 * 0) / 11)
    assert (click.users_used, click.users_left_out, click.weight_used, click.weight_left_out) == (2, 1, 11, 5)
    # By request and click: right (weight 3), wrong (weight 5), tied (weight 3).
    assert click.by_request.weighted_gauc == pytest.approx((3 * 1 + 5 * 0 + 3 / 2) / 11)
    assert (click.by_request.requests_used, click.by_request.requests_left_out) == (3, 1)
    assert (click.split, result.split, result.n_users, result.n_impressions) == ("test", "test", 3, 7)


def simulated(n_users=80, seed=0):
    """Users with 5 requests of 6 impressions; `click` predicts the label better than `like` does."""
    generator = np.random.default_rng(seed)
    requests, impressions = 5 * n_users, 30 * n_users
    label = generator.random(impressions) < 0.4
    noise = generator.normal(0, [0.7, 1.5], (impressions, 2))
    return EvaluationRows(
        split="validation",
        request_id=np.arange(requests),
        user=np.repeat(np.arange(n_users), 5),
        segment=np.where(np.arange(requests) % 2, "old", "new"),
        observations=generator.normal(size=(requests, 2)).astype(np.float32),
        baseline_actions=generator.uniform(-0.5, 0.5, (requests, 2)).astype(np.float32),
        lower=np.full((requests, 2), -0.2, np.float32),
        upper=np.full((requests, 2), 0.2, np.float32),
        request=np.repeat(np.arange(requests), 6),
        predictions=(1 / (1 + np.exp(-(label[:, None] + noise)))).astype(np.float32),
        reward=label * generator.exponential(2, impressions),
        label=label,
        fusion=FUSION,
        feature_names=("age", "mood"),
    )


POLICIES = {"click": affine(CLICK), "both": affine(BOTH), "like": affine(LIKE)}


def test_each_policy_is_scored_by_its_own_actions():
    rows = simulated()
    policy = affine(BOTH, slope=((0.5, 0.0), (0.0, -0.5)))
    pows = 1 + policy.act(rows.observations).astype(float)[rows.request]
    scores = (pows * np.log(rows.predictions.astype(float))).sum(1)
    expected = weighted_gauc(scores, rows.label, rows.reward + 1, rows.user[rows.request])
    result = evaluate({"it": policy}, rows).policies[0]
    assert result.weighted_gauc == pytest.approx(expected.value, abs=1e-5)  # actions are float32


def test_the_better_prediction_wins_and_the_interval_says_so():
    result = evaluate(POLICIES, simulated())
    gauc = {p.run_id: p for p in result.policies}
    assert gauc["click"].weighted_gauc > gauc["both"].weighted_gauc > gauc["like"].weighted_gauc
    for policy in result.policies:
        assert policy.ci_low < policy.weighted_gauc < policy.ci_high
        by_request = policy.by_request
        assert by_request.ci_low < by_request.weighted_gauc < by_request.ci_high
    (difference,) = (
        d for d in result.differences if (d.run_id, d.base, d.group) == ("click", "like", "user")
    )
    assert difference.value == pytest.approx(gauc["click"].weighted_gauc - gauc["like"].weighted_gauc)
    assert 0 < difference.ci_low < difference.value < difference.ci_high
    assert difference.probability_better == 1


def test_every_pair_is_there_in_both_directions():
    result = evaluate(POLICIES, simulated())
    by_pair = {(d.run_id, d.base, d.group): d for d in result.differences}
    assert len(by_pair) == len(result.differences) == 3 * 2 * 2
    for (run_id, base, group), one in by_pair.items():
        other = by_pair[base, run_id, group]
        assert (one.value, one.ci_low, one.ci_high) == (-other.value, -other.ci_high, -other.ci_low)
        assert one.probability_better == pytest.approx(1 - other.probability_better)


def test_a_policy_equals_its_twin():
    result = evaluate({"one": affine(BOTH), "two": affine(BOTH)}, simulated())
    for difference in result.differences:
        assert (difference.value, difference.ci_low, difference.ci_high) == (0, 0, 0)
        assert difference.probability_better == 0.5


def test_intervals_do_not_depend_on_the_company_and_follow_the_seed():
    rows = simulated()
    alone = evaluate({"both": affine(BOTH)}, rows).policies[0]
    among_others = evaluate(POLICIES, rows).policies[1]
    assert (among_others.ci_low, among_others.ci_high) == pytest.approx(
        (alone.ci_low, alone.ci_high), abs=1e-12
    )
    assert evaluate({"both": affine(BOTH)}, rows) == evaluate({"both": affine(BOTH)}, rows)
    assert evaluate({"both": affine(BOTH)}, rows, seed=1).policies[0].ci_low != alone.ci_low


def test_paired_intervals_are_narrower_than_unpaired_ones():
    rows = simulated()
    nearly = {"a": affine((0.0, 0.0)), "b": affine((0.05, 0.0))}
    result = evaluate(nearly, rows)
    a, b = result.policies
    unpaired = np.hypot(a.ci_high - a.ci_low, b.ci_high - b.ci_low)
    paired = result.differences[0].ci_high - result.differences[0].ci_low
    assert paired < unpaired / 5


def test_a_scale_of_scores_that_differs_between_requests_moves_users_and_not_requests():
    rows = simulated()
    scaled = affine(BOTH, slope=((0.3, 0.3), (0.0, 0.0)))  # both pows grow with age alone
    result = evaluate({"plain": affine(BOTH), "scaled": scaled}, rows)
    plain, by_age = result.policies
    assert by_age.by_request.weighted_gauc == pytest.approx(plain.by_request.weighted_gauc, abs=2e-3)
    assert by_age.weighted_gauc < plain.weighted_gauc - 0.01


def among(rows, user_mask):
    """Returns `rows` with the requests of the users in `user_mask` alone."""
    requests = np.flatnonzero(user_mask[rows.user])
    kept = np.isin(rows.request, requests)
    per_request = ("request_id", "user", "segment", "observations", "baseline_actions", "lower", "upper")
    per_impression = ("predictions", "reward", "label")
    return replace(
        rows,
        request=np.searchsorted(requests, rows.request[kept]),
        **{name: getattr(rows, name)[requests] for name in per_request},
        **{name: getattr(rows, name)[kept] for name in per_impression},
    )


def test_a_segment_is_scored_as_if_its_users_were_the_whole_log():
    rows = simulated()
    by_user = np.array(["a", "b", "c", "a"])[np.arange(80) % 4]
    rows = replace(rows, segment=by_user[rows.user])
    result = evaluate(POLICIES, rows, n_bootstrap=300)
    assert result.segments == ("a", "b", "c")  # by size
    for segment in result.segments:
        alone = evaluate(POLICIES, among(rows, by_user == segment), n_bootstrap=300)
        for policy, expected in zip(result.policies, alone.policies, strict=True):
            (user,) = (s for s in policy.by_segment if (s.segment, s.group) == (segment, "user"))
            assert user.weighted_gauc == pytest.approx(expected.weighted_gauc)
            assert user.groups_used == expected.users_used
            assert user.weight_used == pytest.approx(expected.weight_used)
            assert user.ci_high - user.ci_low == pytest.approx(expected.ci_high - expected.ci_low, rel=0.35)
            assert policy.deviation_by_segment[segment] == expected.deviation
        values = {
            (d.run_id, d.base, d.group): d.value for d in result.segment_differences if d.segment == segment
        }
        expected_values = {(d.run_id, d.base, d.group): d.value for d in alone.differences}
        assert values == pytest.approx(expected_values)


def test_a_log_of_one_segment_is_not_told_apart():
    rows = simulated(n_users=10)
    result = evaluate(POLICIES, replace(rows, segment=np.full(len(rows.segment), "all")), n_bootstrap=20)
    assert (result.segments, result.segment_differences) == ((), ())
    assert all(policy.by_segment == () and not policy.deviation_by_segment for policy in result.policies)


def test_small_segments_are_put_together():
    rows = simulated()
    names = np.array([f"s{i:02}" for i in range(20)])
    result = evaluate(POLICIES, replace(rows, segment=names[rows.user % 20]), n_bootstrap=20)
    assert result.segments == (*names[:11], "other segments")
    used = [s.groups_used for s in result.policies[0].by_segment if s.group == "user"]
    assert sum(used) == result.policies[0].users_used


def test_a_user_who_changes_segment_counts_where_it_started():
    rows = two_users()
    rows = replace(rows, segment=np.array(["new", "old", "old", "old"]))  # user 0 first new, then old
    policy = evaluate({"click": affine(CLICK)}, rows).policies[0]
    by_segment = {(s.segment, s.group): s for s in policy.by_segment}
    assert by_segment["new", "user"].weighted_gauc == pytest.approx(1 / 2)
    assert by_segment["new", "request"].groups_used == 2
    assert by_segment["new", "user"].ci_low is None  # one user shows no spread


def test_the_best_policy_is_named_with_its_probability():
    result = evaluate(POLICIES | {"twin": affine(CLICK)}, simulated())
    best = {policy.run_id: policy.probability_best for policy in result.policies}
    assert best == pytest.approx({"click": 0.5, "twin": 0.5, "both": 0, "like": 0})
    for difference in result.differences:
        assert difference.resolvable_gap == pytest.approx(
            2.8016 * (difference.ci_high - difference.ci_low) / 3.92, rel=0.1
        )


def test_the_summary_holds_the_scores_and_not_the_pictures():
    result = evaluate(POLICIES, simulated(n_users=5), n_bootstrap=20)
    summary = result.summary()
    assert (
        summary["policies"][0]["by_request"]["weighted_gauc"] == result.policies[0].by_request.weighted_gauc
    )
    assert not {"deviation", "deviation_by_segment", "disagreement"} & set(summary["policies"][0])
    assert len(summary["segment_differences"]) == 3 * 2 * 2 * 2


def test_no_valid_group_gives_null():
    rows = replace(two_users(), label=np.ones(7, bool))
    policy = evaluate({"click": affine(CLICK)}, rows).policies[0]
    assert (policy.weighted_gauc, policy.ci_low, policy.ci_high) == (None, None, None)
    assert (policy.users_used, policy.users_left_out) == (0, 3)


def test_the_result_survives_json():
    rows = simulated(n_users=5)
    result = evaluate(POLICIES, rows, n_bootstrap=20)
    assert EvaluationResult.model_validate_json(result.model_dump_json()) == result


def test_a_reward_of_minus_one_is_refused():
    rows = simulated(n_users=5)
    rows.reward[3] = -1
    with pytest.raises(Refusal, match=r"the weight of row 3 .* is 0.0; give finite weights above 0"):
        evaluate({"click": affine(CLICK)}, rows)


def test_a_policy_of_another_fusion_is_refused():
    other = affine(CLICK, fusion=FusionSpec.default(("click", "share")))
    with pytest.raises(
        Refusal, match="differ in their predictions: the data lacks share; import the log like"
    ):
        evaluate({"other": other}, simulated(n_users=5))
    other = replace(affine(CLICK), feature_names=("age", "city=Rome"))
    with pytest.raises(
        Refusal, match="differ in their features: the data lacks city=Rome; import the log like"
    ):
        evaluate({"other": other}, simulated(n_users=5))


def test_a_policy_reads_another_log_by_the_names_of_what_it_holds():
    """Features in another order, cities that one of the two does not know, a prediction that nothing fuses."""
    slope = ((0.1, 0.0), (0.0, 0.2), (0.3, 0.0), (0.0, -0.3))
    names = ("age", "mood", "city=Oslo", "city=missing")
    policy = Policy(Affine(BOTH, slope), FUSION, names, (True, True, False, False))
    rows = simulated(n_users=20)
    lives_in = np.arange(len(rows.request_id)) % 3  # Paris, Rome or nobody knows where
    paris, rome, nowhere = (np.float32(lives_in == city) for city in range(3))
    age, mood = rows.observations.T
    theirs = replace(
        rows,
        feature_names=("mood", "weather", "city=Paris", "city=Rome", "city=missing", "age"),
        observations=np.stack([mood, age * 9, paris, rome, nowhere, age], axis=1),
        predictions=np.concatenate([rows.predictions[:, ::-1], rows.predictions[:, :1] / 2], axis=1),
        fusion=FusionSpec.default(("like", "click", "share")),
    )
    ours = replace(
        rows,
        feature_names=names,
        observations=np.stack([age, mood, age * 0, age * 0 + 1], axis=1),
        baseline_actions=None,
        lower=None,
        upper=None,
    )
    found, expected = (evaluate({"it": policy}, of, n_bootstrap=50).policies[0] for of in (theirs, ours))
    assert found.weighted_gauc == expected.weighted_gauc and found.deviation == expected.deviation
    assert expected.differs == ()
    assert found.differs == (
        "categories that the log has not, 0 for all: city=Oslo",
        "categories that the policy does not know, read as missing: city=Paris, city=Rome",
        "features that the policy does not read: weather",
        "predictions that the policy does not fuse: share",
        "the log's fusion has other dimensions or ranges: its actions and bounds say nothing here",
    )


def test_of_a_large_log_samples_are_kept_and_sums_are_those_of_all(monkeypatch):
    """Quantiles are of sampled actions; means, counts and scores are not, and what is held is the same of any log."""
    monkeypatch.setattr("mtf_engine.evaluation.scored.MOST_SAMPLED", 300)
    monkeypatch.setattr("mtf_engine.evaluation.scored.LEAST_SAMPLED", 40)
    policies = {"click": affine((0.4, 0.0), ((0.1, 0.0), (0.0, 0.2)))}
    held = []
    for n_users in (400, 1_600):
        rows = simulated(n_users)
        rare = np.where(np.arange(len(rows.segment)) < 5 * n_users // 50, "rare", rows.segment)
        rows = replace(rows, segment=rare)
        how = Scoring(rows.whole, 8, n_bootstrap=20)
        whole = together(list(scored(policies, rows, how)))
        held.append(len(pickle.dumps(whole)))
        (found,) = evaluation(policies, [whole], how).policies
        drift = policies["click"].act(rows.observations) - rows.baseline_actions
        for segment, of in (("", found.deviation), *found.deviation_by_segment.items()):
            chosen = (rows.segment == segment) | (segment == "")
            first, of_all = of.dimensions[0], drift[chosen, 0]
            assert (of.n_requests, first.drift_mean) == (chosen.sum(), pytest.approx(of_all.mean(), abs=1e-6))
            assert sum(first.counts) == chosen.sum()
            median = float((of_all < first.drift_quantiles["0.5"]).mean())
            assert median == pytest.approx(0.5, abs=0.25 if segment == "rare" else 0.12)
            assert segment or first.drift_quantiles["0.05"] != pytest.approx(
                np.quantile(of_all, 0.05), abs=1e-6
            )
    assert held[1] < 1.1 * held[0]


def test_deviation_worked_by_hand():
    baseline = np.float32([[0.0], [0.5], [0.5], [-0.5], [0.0]])
    drift = np.float32([[0.0], [0.11], [0.199], [-0.205], [-0.51]])
    bounds = (np.full((5, 1), -0.2, np.float32), np.full((5, 1), 0.2, np.float32))
    result = deviation(("pow_click",), baseline + drift, baseline, bounds)
    (dimension,) = result.dimensions
    assert dimension.mean == pytest.approx((0.11 + 0.199 + 0.205 + 0.51) / 5)
    assert dimension.drift_mean == pytest.approx((0.11 + 0.199 - 0.205 - 0.51) / 5)
    assert dimension.quantiles["0.5"] == pytest.approx(0.199)
    assert dimension.drift_quantiles["0.5"] == pytest.approx(0.0)
    assert {k: n for k, n in enumerate(dimension.counts) if n} == {0: 1, 4: 1, 7: 1, 8: 1, 20: 1}
    assert sum(dimension.drift_counts) == 5 and dimension.drift_counts[59] == 1  # [-.525, -.5)
    assert (dimension.bounds.lower, dimension.bounds.upper) == pytest.approx((-0.2, 0.2))
    assert dimension.bounds.share_outside == 2 / 5  # -.205 and -.51
    assert dimension.bounds.share_at_wall == 3 / 5  # .199, -.205 and -.51


def test_deviation_uses_logged_bounds_then_the_policy_s_own_plan():
    rows = simulated(n_users=5)
    plan = BoundsPlan(
        lower=(-0.3, -0.3), upper=(0.3, 0.3), segments={"old": {"lower": (0, 0), "upper": (0.1, 0.1)}}
    )
    policy = affine((0.15, 0.15), plan=plan.model_dump(mode="json"))
    logged = evaluate({"it": policy}, rows)
    assert logged.baseline_actions == "logged"
    assert logged.policies[0].deviation.dimensions[0].bounds.upper == pytest.approx(0.2)
    planned = evaluate({"it": policy}, replace(rows, baseline_actions=None, lower=None, upper=None))
    assert planned.baseline_actions == "zero"
    old = float((rows.segment == "old").mean())
    assert planned.policies[0].deviation.dimensions[1].bounds.share_outside == pytest.approx(old)
    neither = evaluate({"it": affine(BOTH)}, replace(rows, baseline_actions=None, lower=None, upper=None))
    assert neither.policies[0].deviation.dimensions[0].bounds is None


class OpposedCritics:
    """Two critics that disagree by the distance from the baseline action."""

    def q(self, observations, baseline_actions, lower, upper, actions):
        return np.array([[1.0], [-1.0]]) * np.abs(actions - baseline_actions).max(1)


def test_critics_are_asked_where_bounds_are_known():
    rows = replace(simulated(n_users=5), baseline_actions=np.zeros((25, 2), np.float32))
    critics = {"outside": OpposedCritics()}
    result = evaluate({"outside": affine((0.4, 0.0)), "inside": affine((0.1, 0.0))}, rows, critics=critics)
    asked, silent = result.policies
    assert silent.disagreement is None
    assert asked.disagreement.inside is None
    assert asked.disagreement.outside.std_mean == pytest.approx(0.4)
    without_bounds = evaluate(
        {"outside": affine((0.4, 0.0))}, replace(rows, lower=None, upper=None), critics=critics
    )
    assert without_bounds.policies[0].disagreement is None


@pytest.mark.parametrize("n_parts", [2, 16])
def test_whoever_scores_which_part_the_result_has_the_same_bits(n_parts):
    rows = simulated(n_users=80)
    rows = replace(rows, baseline_actions=np.zeros((len(rows.request_id), 2), np.float32))
    policies = {"click": affine((0.4, 0.0), ((0.1, 0.0), (0.0, 0.2))), "like": affine(LIKE)}
    critics = {"click": OpposedCritics()}
    how = Scoring(rows.whole, n_parts)
    at_once = list(scored(policies, rows, how, critics))
    whole = evaluation(policies, at_once, how, critics=critics)
    parts = []
    for half in (slice(0, 200), slice(200, 400)):  # requests; six impressions each
        of = slice(6 * half.start, 6 * half.stop)
        shard = rows.of(np.arange(400)[half], np.arange(2400)[of])
        parts += scored(policies, shard, how, critics, of.start)
    assert len(parts) == len(at_once) == n_parts
    assert evaluation(policies, parts, how, critics=critics) == whole
    undivided = evaluate(policies, rows, critics=critics)
    assert len(whole.policies[0].disagreement.by_segment) == len(
        undivided.policies[0].disagreement.by_segment
    )
    for one, other in zip(whole.policies, undivided.policies, strict=True):
        assert (one.weighted_gauc, one.ci_low, one.ci_high) == pytest.approx(
            (other.weighted_gauc, other.ci_low, other.ci_high), rel=1e-12
        )
        for mine, its in zip(one.deviation.dimensions, other.deviation.dimensions, strict=True):
            assert (mine.mean, mine.drift_mean) == pytest.approx((its.mean, its.drift_mean), rel=1e-12)
            assert mine == its.model_copy(update={"mean": mine.mean, "drift_mean": mine.drift_mean})
