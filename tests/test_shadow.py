"""The shadow diff, against a slow one that ranks each list by itself."""

from dataclasses import replace

import numpy as np
import pytest

from mtf_engine.evaluation.shadow import DECILES, Shadow, shadow
from mtf_engine.fusion import log_final_score
from mtf_engine.questions.shadow import shadow_diff
from mtf_engine.spec import Refusal
from tests.test_cli import Shell, filled  # noqa: F401 (a fixture)
from tests.test_evaluate import BOTH, CLICK, LIKE, affine, simulated

TURNING = affine((0.0, 0.0), slope=((0.6, 0.0), (0.0, -0.9)))
K = 2


@pytest.fixture(scope="module")
def rows():
    """Lists of 1 to 7 items, not in the order of their requests, with ties, and users of two segments."""
    made, generator = simulated(40), np.random.default_rng(3)
    predictions = made.predictions.repeat(2, axis=0)[: len(made.request)]  # each item twice: ties
    request = generator.integers(0, len(made.request_id), len(made.request))
    return replace(made, request=request, predictions=predictions)


@pytest.fixture(scope="module")
def found(rows) -> Shadow:
    return shadow(TURNING, affine(BOTH), rows, top_k=K)


def slow(rows, policy) -> list[list[int]]:
    """Returns the items of each request, the first in front: the slow way, one list after the other."""
    actions = policy.act(rows.observations)
    lists = []
    for r in range(len(rows.request_id)):
        items = [int(i) for i in np.flatnonzero(rows.request == r)]
        scores = log_final_score(
            rows.fusion, actions[[r] * len(items)], rows.predictions[items].astype(float)
        )
        lists.append(sorted(items, key=dict(zip(items, -scores, strict=True)).get))
    return lists


def test_tops_are_those_of_every_list_ranked_by_itself(rows, found):
    new, old = slow(rows, TURNING), slow(rows, affine(BOTH))
    kept = [r for r, items in enumerate(old) if len(items) > K]
    common = {r: len({*new[r][:K]} & {*old[r][:K]}) for r in kept}
    assert (found.n_requests, found.n_left_out) == (len(kept), len(old) - len(kept)) and found.n_left_out
    assert found.overlap.value == pytest.approx(np.mean([*common.values()]) / K)
    assert found.in_common == pytest.approx([[*common.values()].count(n) / len(kept) for n in range(K + 1)])
    assert found.same_first.value == pytest.approx(np.mean([new[r][0] == old[r][0] for r in kept]))
    moved = {r: np.mean([abs(new[r].index(i) - old[r].index(i)) for i in old[r]]) for r in kept}
    first = sorted(kept, key=lambda r: (common[r], -moved[r]))[0]
    told = found.requests[0]
    assert (told.overlap * K, told.places_moved) == pytest.approx((common[first], moved[first]))
    assert moved[told.request_id] == pytest.approx(told.places_moved)
    assert found.overlap.ci_low < found.overlap.value < found.overlap.ci_high < 1


def test_what_rises_and_falls_adds_up_and_is_told_by_tenths_of_each_prediction(rows, found):
    new, old = slow(rows, TURNING), slow(rows, affine(BOTH))
    tops = [[i for items in lists if len(items) > K for i in items[:K]] for lists in (old, new)]
    for column, name in enumerate(rows.fusion.predictions):
        told = [one for one in found.attributes if one.prediction == name]
        assert 2 <= len(told) <= DECILES
        assert sum(one.difference.value for one in told) == pytest.approx(0, abs=1e-12)
        last = told[-1]
        live, candidate = (
            np.mean([rows.predictions[i, column] >= np.float32(last.low) for i in top]) for top in tops
        )
        assert (last.live, last.candidate) == pytest.approx((live, candidate))
        assert last.difference.value == pytest.approx(candidate - live)


def test_the_score_shifts_by_what_a_policy_multiplies_it_by(rows):
    halved, double = affine((-0.5, -0.5)), affine((1.0, 1.0))  # pow .5 and 2 of both predictions
    told = shadow(double, halved, rows, top_k=K)
    assert told.overlap.value == told.same_first.value == 1 and not told.requests, "one order, another scale"
    for figure in (told.score_mean, told.score_spread):
        assert figure.candidate == pytest.approx(4 * figure.live)
        assert figure.difference.value == pytest.approx(3 * figure.live)
    assert {one.segment: one.overlap.value for one in told.segments} == {"new": 1, "old": 1} or len(
        told.segments
    ) == 1


def test_segments_are_those_of_the_users(rows):
    by_user = replace(rows, segment=np.where(rows.user < 25, "old", "new"))
    new, old = slow(rows, affine(CLICK)), slow(rows, affine(LIKE))
    for one in shadow(affine(CLICK), affine(LIKE), by_user, top_k=K).segments:
        theirs = [r for r, items in enumerate(old) if len(items) > K and by_user.segment[r] == one.segment]
        common = [len({*new[r][:K]} & {*old[r][:K]}) / K for r in theirs]
        assert (one.n_requests, one.overlap.value) == (len(theirs), pytest.approx(np.mean(common)))


def test_without_a_number_half_a_list_is_compared_and_more_than_there_is_is_refused(rows):
    assert shadow(TURNING, affine(BOTH), rows).top_k == np.median(np.bincount(rows.request)) // 2
    with pytest.raises(Refusal, match="no request of this log has more than 60 items"):
        shadow(TURNING, affine(BOTH), rows, top_k=60)


def test_the_command_compares_on_all_candidates_of_held_out_requests(small_workspace, filled):  # noqa: F811
    (run,) = small_workspace.registry.runs(kind="train")
    told = filled("shadow", run.id, "--against", "live", "--on", "test", "--top-k", "3")
    assert told == shadow_diff(small_workspace, run.id, "baseline", "test", top_k=3).model_dump(mode="json")
    assert told["source"] == "candidates" and told["top_k"] == 3
    assert 0 < told["overlap"]["ci_low"] <= told["overlap"]["value"] <= 1
    with pytest.raises(Refusal, match="live and baseline are one policy, baseline"):
        shadow_diff(small_workspace, "live", "baseline", "test")
