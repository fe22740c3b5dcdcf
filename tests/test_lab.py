"""The lab: what a narrower plan would have taught, which dimensions count, how far rounds reach, and when they stop."""

from itertools import pairwise

import numpy as np
import pytest

from mtf_engine.exploration.cost import CandidateLists
from mtf_engine.exploration.coverage import certify_coverage
from mtf_engine.exploration.explored_returns import ExploredReturns
from mtf_engine.exploration.policies import explore
from mtf_engine.exploration.reach import progressive_reach
from mtf_engine.exploration.sensitivity import rank_sensitivity
from mtf_engine.exploration.signal import signal
from mtf_engine.exploration.sub_box import inside, narrower, sub_box
from mtf_engine.logs import aggregates
from mtf_engine.logs.exporting import export_log
from mtf_engine.logs.held_out import held_out_sessions
from mtf_engine.registry import BASELINE
from mtf_engine.release.stopping import next_round
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import BoundsPlan, Box, FusionSpec, Refusal
from tests.fixtures.rounds import a_round, estimate
from tests.test_cli import Shell
from tests.workspaces import copy_workspace

NAMES = ("pow_a", "pow_b")
WIDE, NARROW = BoundsPlan.symmetric(0.2, 2), BoundsPlan(lower=(-0.1, -0.2), upper=(0.1, 0.2))


def explored(n: int, half: tuple[float, float], seed: int, slope: float = 3.0) -> ExploredReturns:
    """Returns a log of n sessions of one request each, uniform in a box, whose return rises with the first action."""
    generator = np.random.default_rng(seed)
    offsets = generator.uniform(-1, 1, (n, 2)).astype(np.float32) * np.float32(half)
    box = np.tile(np.float32(half), (n, 1))
    return ExploredReturns(
        observations=generator.normal(size=(n, 1)).astype(np.float32),
        offsets=offsets,
        lower=-box,
        upper=box,
        returns=2 + slope * offsets[:, 0].astype(float) + generator.normal(0, 0.5, n),
        steps=np.zeros(n, int),
        sessions=np.arange(n),
        segments=np.full(n, "all"),
        cut=np.zeros(n, bool),
        gamma=0.9,
    )


def test_rows_inside_a_narrower_box_teach_what_a_log_explored_in_it_does():
    log = explored(8_000, (0.2, 0.2), 0)
    found = sub_box(log, signal(log, NAMES), NAMES, NARROW)
    assert found.expected == pytest.approx(4_000) and found.kept == pytest.approx(4_000, abs=150)
    own = signal(explored(found.kept, (0.1, 0.2), 1), NAMES)
    told = found.inside
    for one, other in zip(told.slopes, own.slopes, strict=True):
        assert one.error == pytest.approx(other.error, rel=0.06), "half the rows, a quarter of the variance"
        assert abs(one.slope - other.slope) < 4 * np.hypot(one.error, other.error)
        assert one.half_width == pytest.approx(other.half_width)
    assert told.chi2 - told.df == pytest.approx((found.whole.chi2 - 2) / 8, rel=0.25), "as rows x variance"
    assert f"{found.kept:,} of 8,000 rows lie inside" in found.sentence


@pytest.mark.parametrize(
    ("logged", "most"),
    [
        (BoundsPlan(lower=(-0.15, 0.1, -0.15), upper=(0.15, 0.1, 0.15)), 0.8),  # one dimension is fixed
        (BoundsPlan.symmetric(0.15, 3), 0.99),  # boxes that are cut at the ends of the range
    ],
)
def test_every_row_of_a_log_lies_in_the_plan_that_it_was_drawn_by(logged, most):
    generator, n = np.random.default_rng(0), 500
    baseline = generator.uniform(-most, most, (n, 3)).astype(np.float32)
    control, luck, of = np.zeros(n, bool), generator.random((n, 3)), np.full(n, "all")
    drawn = explore("uniform", baseline, logged, of, sigma=0.2, control=control, luck=luck)
    offsets = drawn.actions - baseline
    assert inside(offsets, drawn.lower, drawn.upper, of, logged)[0].all()
    off_centre = BoundsPlan(lower=(0.06, *logged.lower[1:]), upper=logged.upper)
    kept, low, high = inside(offsets, drawn.lower, drawn.upper, of, off_centre)
    assert 0 < kept.sum() < n and (high >= low).all()
    np.testing.assert_array_equal(kept, (offsets[:, 0] >= np.float32(0.06)))


def test_a_plan_that_holds_no_row_is_refused_and_one_of_few_rows_says_so():
    log = explored(400, (0.2, 0.2), 0)
    with pytest.raises(Refusal, match="dimension 1 is explored in the log and has no width in the plan"):
        sub_box(log, signal(log, NAMES), NAMES, BoundsPlan(lower=(-0.1, 0), upper=(0.1, 0)))
    few = sub_box(log, signal(log, NAMES), NAMES, BoundsPlan.symmetric(0.01, 2))
    assert few.inside is None and "too few" in few.sentence
    far = Box(lower=(0.3, 0), upper=(0.4, 0.1))
    with pytest.raises(
        Refusal, match="dimension 0 of young of the plan and of the log have nothing in common"
    ):
        narrower(BoundsPlan(lower=(0, 0), upper=(1, 1), segments={"young": far}), WIDE)
    assert narrower(BoundsPlan(lower=(-1, 0), upper=(0.1, 1)), WIDE) == BoundsPlan(
        lower=(-0.2, 0), upper=(0.1, 0.2)
    )


def test_a_narrowed_log_is_learned_from_with_exact_densities_and_its_certificate_passes(
    small_workspace, tmp_path
):
    shell = Shell(copy_workspace(small_workspace, tmp_path / "copy").path)
    shell.workspace.registry.save_plan("half", BoundsPlan(lower=(-0.075,) + (-0.15,) * 9, upper=(0.15,) * 10))
    told = shell("dataset", "narrow", "explored", "--bounds", "half", "--name", "inside")
    assert told["kept"] == pytest.approx(told["expected"], rel=0.1)
    log, whole = (open_dataset(shell.workspace, name) for name in ("inside", "explored"))
    assert shell("dataset", "signal", "inside")["chi2"] == pytest.approx(told["inside"]["chi2"])
    steps, all_steps = (one.known_steps("train") for one in (log, whole))
    here, there = steps[:], all_steps[:]
    offset = there.actions[:, 0] - there.baseline_actions[:, 0]
    control = np.isin(there.sessions, _control_sessions(whole))
    same = np.flatnonzero((offset >= np.float32(-0.075)) | control)
    np.testing.assert_array_equal(here.actions, there.actions[same])
    np.testing.assert_array_equal(here.rewards, there.rewards[same])
    after, successors = steps.after(slice(None)), all_steps.after(same)
    np.testing.assert_array_equal(after.observations, successors.observations)
    assert len(same) < len(there) and (here.lower[:, 0] >= -0.0750001).all()
    rows = log.arrays("SELECT pscore, lower, upper FROM requests WHERE pscore IS NOT NULL")
    np.testing.assert_allclose(
        rows["pscore"], 1 / (rows["upper"] - rows["lower"]).prod(1, dtype=float), rtol=1e-5
    )
    counts = aggregates.coverage(log)
    certificate = certify_coverage(counts, log.meta.fusion.names)
    assert [check.name for check in certificate.checks if not check.passed] == ["rows"], "fewer than 1,000"
    assert counts.n_explored == len(rows["pscore"]) and counts.control_moved == 0
    with pytest.raises(Refusal, match="its sessions lack actions; plan by"):
        aggregates.pilot(log)
    with pytest.raises(Refusal, match="its sessions lack actions; export"):
        export_log(log, "minari", tmp_path / "m-v0")
    with pytest.raises(Refusal, match="its sessions lack actions; evaluate off-policy on"):
        held_out_sessions(log)
    assert "evaluate off-policy on" in shell.refused("evaluate", "baseline", "--on", "inside", "--off-policy")
    assert "was not explored uniformly (baseline)" in shell.refused(
        "dataset", "narrow", "test", "--bounds", "half"
    )


def _control_sessions(log):
    return log.arrays("SELECT DISTINCT session_id FROM requests WHERE pscore IS NULL")["session_id"]


def lists(predictions: np.ndarray, n_actions: int) -> CandidateLists:
    """Returns requests of two candidates each, predictions [r, 2, p], at the default action."""
    n = len(predictions)
    return CandidateLists(
        source="candidates",
        baseline_actions=np.zeros((n, n_actions), np.float32),
        segments=np.full(n, "all"),
        first=np.arange(n + 1) * 2,
        predictions=predictions.reshape(2 * n, -1).astype(np.float32),
    )


def test_dimensions_that_swap_the_same_pairs_count_once_and_those_that_swap_none_do_not():
    generator = np.random.default_rng(0)
    p = np.exp(generator.normal(0, 1, (3_000, 2, 3)))
    plan = BoundsPlan.symmetric(0.2, 3)
    fusion = FusionSpec.default(("a", "b", "c"))
    apart = rank_sensitivity(fusion, lists(p, 3), plan)
    logs = np.log(p[:, 0]) - np.log(p[:, 1])  # [r, 3]
    by_hand = np.mean(0.2 * np.abs(logs) > np.abs(logs.sum(1))[:, None], axis=0)
    assert [one.swapped for one in apart.dimensions] == pytest.approx(by_hand.tolist(), abs=0.002)
    twins = rank_sensitivity(fusion, lists(np.stack([p[..., 0], p[..., 0], p[..., 2]], -1), 3), plan)
    idle = rank_sensitivity(fusion, lists(np.stack([p[..., 0], p[..., 1], np.ones((3_000, 2))], -1), 3), plan)
    assert idle.dimensions[2].swapped == 0 and idle.effective < 2.01
    alone = rank_sensitivity(fusion, lists(np.stack([p[..., 0], *[np.ones((3_000, 2))] * 2], -1), 3), plan)
    assert alone.effective == 0, "a single prediction ranks alike at every pow above 0"
    assert twins.effective < apart.effective - 0.4
    with pytest.raises(Refusal, match="every pair of candidates ties"):
        rank_sensitivity(fusion, lists(np.ones((4, 2, 3)), 3), plan)


def test_small_boxes_reach_as_far_as_a_wide_one_with_fewer_samples_as_drawing_them_shows():
    found = progressive_reach(5, 0.15, 10)
    small, wide = found.ways
    assert wide.half_width == pytest.approx(0.75) and wide.log10_covered == 0
    assert small.log10_covered == pytest.approx(np.log10(5 * 0.2**10))
    assert wide.log10_samples - small.log10_samples == pytest.approx(9 * np.log10(5))
    assert (small.relative_loss, small.relative_sessions) == (1, 5)
    assert (wide.relative_loss, wide.relative_sessions) == pytest.approx((25, 1 / 25))
    assert small.relative_sessions * small.relative_loss == pytest.approx(
        5 * wide.relative_sessions * wide.relative_loss
    )
    drawn = np.abs(np.random.default_rng(0).uniform(-0.75, 0.75, (100_000, 10))).max(1)
    assert wide.beyond == pytest.approx((drawn > 0.4).mean(), abs=0.003) and small.beyond == 0
    with pytest.raises(Refusal, match=r"5 boxes of 0.3 end outside \[-1, 1\]; give 0.2 at most"):
        progressive_reach(5, 0.3, 10)


def test_rounds_stop_where_no_gain_that_shows_is_expected():
    def played(*gains: float, error: float = 0.005):
        def one(number: int, gain: float):
            found = a_round(number, BASELINE)
            effects = tuple(
                effect.model_copy(
                    update={"relative": gain, "ci_low": gain - 1.96 * error, "ci_high": gain + 1.96 * error}
                )
                for effect in found.effects
            )
            log = found.log.model_copy(
                update={"control_reward": estimate(40), "explored_reward": estimate(39)}
            )
            return found.model_copy(update={"effects": effects, "log": log})

        return next_round(tuple(one(i, gain) for i, gain in enumerate(gains, 1)))

    steady = played(0.04, 0.04, 0.04)
    assert steady.gain == pytest.approx(0.04) and not steady.stop and steady.number == 4
    assert steady.smallest == pytest.approx(2.802 * 0.005)
    assert steady.cost == pytest.approx(0.025 * 100) and steady.pays_after == pytest.approx(2.5 / 0.04)
    fading = [played(*(0.04 - 0.008 * i for i in range(n))) for n in (3, 4, 6)]
    assert [one.gain for one in fading] == pytest.approx([0.016, 0.008, 0.0], abs=1e-6)
    assert [one.stop for one in fading] == [False, False, True]
    assert "no gain is expected" in fading[-1].sentence
    small = played(*(0.002 for _ in range(16)), error=0.005)
    assert small.stop and "less than a test of this size can show" in small.sentence
    for one, other in pairwise(played(*[0.02] * n) for n in (2, 4, 8, 16)):
        assert other.ci_high - other.ci_low < one.ci_high - one.ci_low
    with pytest.raises(Refusal, match="two rounds with a measured gain are needed"):
        played(0.02)
