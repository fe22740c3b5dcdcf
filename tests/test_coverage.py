import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from mtf_engine.exploration.coverage import Certificate, certify_coverage
from mtf_engine.exploration.coverage_counts import (
    CoverageCounts,
    LoggedActions,
    count_coverage,
    read_logged_actions,
)
from mtf_engine.exploration.mixture import Mixture
from mtf_engine.exploration.policies import explore
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.schema import DatasetMeta, Tables
from mtf_engine.spec import BoundsPlan, Box, FusionSpec, Refusal, RewardSpec

N, D = 20_000, 10
NAMES = tuple(f"pow_{i}" for i in range(D))
PLAN = BoundsPlan.symmetric(0.15, D)
HASH = np.random.default_rng(99).integers(1, 2**63, 64, np.uint64) * np.uint64(2) + np.uint64(1)


def log(seed=0, plan=PLAN, *, kind="uniform", baseline=0.0, luck=None, n=N, mixture=None) -> LoggedActions:
    """An explored log of `n` rows, 10 % of them control users, as the collector makes it."""
    d = plan.n_actions
    generator = np.random.default_rng(seed)
    baselines = np.broadcast_to(np.float32(baseline), (n, d))
    segments = np.array(["new", "loyal"])[generator.integers(0, 2, n)]
    control = generator.random(n) < 0.1
    luck = generator.random((n, d)) if luck is None else luck
    drawn = {"luck": luck, "mixture": mixture, "part": generator.random(n)}
    noise = explore(kind, baselines, plan, segments, sigma=0.2, control=control, **drawn)
    return logged(baselines, noise.actions, noise.lower, noise.upper, segments, ~control, noise.clipped)


def logged(baselines, actions, lower, upper, segments, explored, clipped) -> LoggedActions:
    bits = np.ascontiguousarray(actions).view(np.uint32).astype(np.uint64)
    keys = (bits * HASH[: actions.shape[1]]).sum(axis=1, dtype=np.uint64)
    users = np.arange(len(actions), dtype=np.uint64) // np.uint64(10)
    return LoggedActions(baselines, actions, lower, upper, segments, explored, clipped, keys, users)


def certify(rows: LoggedActions, plan=PLAN, mixture=None) -> Certificate:
    return certify_coverage(
        count_coverage([rows], plan, mixture), [f"pow_{i}" for i in range(rows.actions.shape[1])]
    )


def moved(change) -> LoggedActions:
    """The clean log with `change(offsets)` applied to the offsets of the explored rows."""
    rows = log()
    offsets = (rows.actions - rows.baseline_actions).copy()
    offsets[rows.explored] = change(offsets[rows.explored])
    actions = np.float32(rows.baseline_actions + offsets)
    return logged(
        rows.baseline_actions, actions, rows.lower, rows.upper, rows.segments, rows.explored, rows.clipped
    )


def change_third(function):
    def change(offsets):
        offsets[:, 3] = function(offsets[:, 3])
        return offsets

    return change


def clipped():
    baseline = np.zeros(D)
    baseline[3] = 0.95
    plan = PLAN.model_copy(update={"edge": "clip"})
    return certify(log(plan=plan, baseline=baseline), plan)


def correlated():
    generator = np.random.default_rng(1)
    normal = generator.standard_normal((N, D))
    normal[:, 7] = 0.2 * normal[:, 3] + np.sqrt(1 - 0.2**2) * normal[:, 7]
    return certify(log(luck=norm.cdf(normal)))


def duplicated():
    rows = log()
    again = np.arange(N) < 0.05 * N
    return certify(LoggedActions(*(np.concatenate([x, x[again]]) for x in vars(rows).values())))


DEFECTS = {
    "clipped": (clipped, "clipping", "pow_3: 3"),
    "Gaussian called uniform": (
        lambda: certify(log(kind="gaussian")), "uniformity", "is not uniform but thinner at the ends",
    ),
    "correlated": (correlated, "dependence", "positions of pow_3 and pow_7 are correlated, \\+0.1"),
    "shifted": (
        lambda: certify(moved(change_third(lambda x: x + np.float32(0.03)))),
        "shift", "pow_3 is shifted.* 10.* above",
    ),
    "gap": (
        lambda: certify(moved(change_third(lambda x: np.where(np.abs(x - 0.06) < 0.02, -x, x)))),
        "gaps", "pow_3 has a gap: between 6.%",
    ),
    "wrong declared bounds": (
        lambda: certify(log(), PLAN.model_copy(update={"upper": (0.15,) * 3 + (0.2,) + (0.15,) * 6})),
        "declared", "pow_3: 100.0% of the rows",
    ),
    "constant dimension": (
        lambda: certify(moved(change_third(np.zeros_like))), "constant", "pow_3 never moves",
    ),
    "duplicated rows": (duplicated, "duplicates", "repeat the action of another"),
}  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_fails_for_its_own_reason(defect):
    make, reason, sentence = DEFECTS[defect]
    certificate = make()
    assert not certificate.passed
    assert certificate.failed[0] == reason
    first = next(check for check in certificate.checks if not check.passed)
    assert certificate.reason == first.reason
    assert re.search(sentence, certificate.reason), certificate.reason
    if reason not in {"dependence", "duplicates", "uniformity"}:
        assert first.dimensions == ("pow_3",)


def clean(seed: int) -> tuple[LoggedActions, BoundsPlan]:
    """Logs as different as plans allow: asymmetric, by segment, cut at the edge, with a fixed dimension."""
    generator = np.random.default_rng([seed, 7])
    d = int(generator.integers(1, 11))
    lower, width = -generator.uniform(0, 0.4, d), generator.uniform(0.01, 0.6, d)
    if d > 2:
        width[0] = 0
    plan = BoundsPlan(
        lower=tuple(lower),
        upper=tuple(lower + width),
        segments={"new": Box(lower=tuple(lower / 2), upper=tuple((lower + width) / 2))} if seed % 2 else {},
    )
    baseline = np.tanh(generator.standard_normal((N, d)) * (seed % 4)).astype(np.float32)
    return log(seed, plan, baseline=baseline), plan


@pytest.mark.parametrize("seed", range(20))
def test_clean_logs_pass(seed):
    certificate = certify(*clean(seed))
    assert certificate.passed, certificate.reason
    assert certificate.failed == ()
    assert 0.09 * N < certificate.n_control < 0.11 * N
    assert certificate.n_control + certificate.n_explored == certificate.n_requests == N


@pytest.mark.parametrize("seed", [1, 2])
def test_a_log_of_a_mixture_is_certified_in_its_quantiles_and_in_those_of_no_other(seed):
    """Baselines anywhere, a fixed dimension in every second log."""
    mixture = Mixture(sigma=0.05, random_share=0.2 + 0.2 * seed, random_sigma=0.3 + seed)
    width = np.full(5, 0.2)
    width[0] *= seed % 2
    plan = BoundsPlan(lower=tuple(-width), upper=tuple(width))
    generator = np.random.default_rng(seed)
    baseline = generator.uniform(-0.7, 0.7, (N, 5)).astype(np.float32)
    rows = log(seed, plan, kind="mixed", baseline=baseline, mixture=mixture)
    passed = certify(rows, plan, mixture)
    assert passed.passed and passed.reason.endswith("rows are drawn as their mixture says"), passed.reason
    others = {"sigma": 0.06, "random_share": mixture.random_share + 0.1, "random_sigma": 0.4}
    for name, value in others.items():
        assert not certify(rows, plan, mixture.model_copy(update={name: value})).passed, name
    assert not certify(rows, plan).passed
    for kind in ("uniform", "gaussian"):
        other = certify(log(seed, plan, kind=kind, baseline=baseline), plan, mixture)
        assert not other.passed
        assert other.reason.startswith("in quantiles of the declared mixture, ") or "clipped" in other.reason


def test_the_family_of_tests_keeps_its_level():
    """Of 300 clean logs a third of one fails at alpha .001; Holm's p-values are not too small either."""
    plan = BoundsPlan.symmetric(0.15, 3)
    found = [certify(log(seed, plan, n=2_000), plan) for seed in range(1000, 1300)]
    assert sum(not c.passed for c in found) <= 3
    for name in ("shift", "uniformity", "reach", "dependence", "pairs"):
        p = np.array([next(k.figure for k in c.checks if k.name == name) for c in found])
        assert (p < 0.1).mean() < 0.1 + 4 * np.sqrt(0.09 / 300), name
        assert (p < 0.5).mean() > 0.2, name


def test_a_range_drawn_narrower_or_wider_than_logged_is_named():
    narrow = certify(moved(lambda x: x / 2))
    assert narrow.failed[0] == "reach" and "stops short: no draw comes nearer" in narrow.reason
    wide = certify(moved(lambda x: x * 4 / 3))
    assert wide.failed[0] == "outside" and re.search(r"2\d\.\d% of the draws lie outside", wide.reason)


@pytest.mark.parametrize("limit", [0.1, 0.3])
def test_clipping_away_from_the_walls_is_seen(limit):
    certificate = certify(moved(lambda x: (x * 3).clip(-limit, limit)))
    assert certificate.failed[0] == "clipping"
    assert "of the draws sit exactly at their outermost offset: they were clipped" in certificate.reason


def test_dependence_without_correlation_is_seen():
    squares = moved(lambda x: np.where(np.arange(D) == 7, np.sign(x) * np.abs(x[:, [3]]), x))
    assert certify(squares).failed[0] == "dependence"
    u = np.random.default_rng(3).random((N, D))
    u[:, 7] = (2 * u[:, 3] + u[:, 7] / 10) % 1
    ribbon = certify(log(luck=u))
    assert not ribbon.passed and "pairs" in ribbon.failed


def test_a_control_row_away_from_the_baseline_is_named():
    rows = log()
    explored = rows.explored.copy()
    explored[np.flatnonzero(explored)[0]] = False
    certificate = certify(replace(rows, explored=explored))
    assert certificate.failed == ("control",)
    assert certificate.reason.startswith("1 of ")


def test_repeated_noise_of_other_users_counts_as_duplicated():
    rows = log(luck=np.tile(np.random.default_rng(2).random((N // 2, D)), (2, 1)))
    assert "duplicates" in certify(rows).failed


def test_too_few_rows_are_not_certified():
    assert certify(log(n=900)).failed[0] == "rows"


def test_a_plan_without_width_explores_nothing():
    plan = BoundsPlan.symmetric(0.0, 2)
    certificate = certify(log(plan=plan), plan)
    assert certificate.failed[0] == "constant" and certificate.fixed == ("pow_0", "pow_1")


def test_a_log_of_the_bare_baseline_is_refused():
    with pytest.raises(Refusal, match="no row of this dataset was explored"):
        certify(replace(log(), explored=np.zeros(N, bool)))


def test_counts_are_those_of_a_slow_loop_and_travel_as_json():
    plan = BoundsPlan.symmetric(0.15, 2)
    rows = log(plan=plan, n=3_000, kind="gaussian")
    counts = count_coverage([rows], plan)
    position = ((rows.actions - rows.baseline_actions - rows.lower) / 0.3)[rows.explored]
    for i in range(2):
        expected = np.histogram(position[:, i].clip(-0.999, 1.999), np.linspace(-1, 2, 61))[0]
        assert np.abs(counts.cells[i] - expected).max() <= 1  # a draw on a cell's edge
    expected = np.histogram2d(*position.clip(0, 1).T, bins=5, range=[[0, 1], [0, 1]])[0]
    assert np.abs(counts.pair_cells[0, 1] - expected).max() <= 1
    assert CoverageCounts.model_validate_json(counts.model_dump_json()) == counts
    certificate = certify_coverage(counts, ["a", "b"])
    assert Certificate.model_validate_json(certificate.model_dump_json()) == certificate


def test_chunks_add_up():
    rows = log()
    parts = [LoggedActions(*(x[i : i + 7_001] for x in vars(rows).values())) for i in range(0, N, 7_001)]
    assert count_coverage(parts, PLAN) == count_coverage([rows], PLAN)


def test_a_dataset_file_is_certified_chunk_by_chunk(tmp_path):
    rows = log(n=5_000)
    names = tuple(f"p{i}" for i in range(D))
    meta = DatasetMeta(
        name="planted", source="session", fusion=FusionSpec.default(names),
        reward=RewardSpec(weights={"click": 1.0}),
        signals=("click",), feature_names=("age",), numeric_mask=(True,), exploration="uniform", plan=PLAN,
    )  # fmt: skip
    ids = np.arange(5_000)
    users = np.array([f"u{i // 10}" for i in ids], dtype=object)
    requests = {
        "request_id": ids, "session_id": ids // 5, "user_id": users, "step": (ids % 5).astype(np.int32),
        "timestamp": np.full(5_000, np.datetime64("2026-01-01", "us")),
        "split": np.full(5_000, "train", object),
        "segment": rows.segments.astype(object), "observation": np.zeros((5_000, 1), np.float32),
        "baseline_action": np.ascontiguousarray(rows.baseline_actions), "action": rows.actions,
        "lower": rows.lower, "upper": rows.upper, "pscore": np.where(rows.explored, 1.0, np.nan),
        "clipped": rows.clipped, "reward": np.zeros(5_000), "terminal": ids % 5 == 4,
        "truncated": np.zeros(5_000, bool),
    }  # fmt: skip
    impressions = {
        "request_id": ids, "user_id": users, "item_id": ids, "position": np.zeros(5_000, np.int32),
        "predictions": np.ones((5_000, D), np.float32), "click": np.zeros(5_000, np.float32),
        "reward": np.zeros(5_000), "label": np.zeros(5_000, bool),
    }  # fmt: skip
    write_dataset(tmp_path, "planted", meta, [Tables(requests, impressions)])
    dataset = Dataset.open(tmp_path / "planted.duckdb")
    chunks = read_logged_actions(dataset.parts, chunk=2_048)
    counts = count_coverage(chunks, dataset.meta.plan)
    in_memory = count_coverage([rows], PLAN)
    assert counts == in_memory
    assert certify_coverage(counts, dataset.meta.fusion.names).passed
