"""The signal of a log: uniform p-values where there is none, planted slopes found, errors that are true."""

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import f, kstest, ncx2

from mtf_engine.exploration.clustered import FOLDS, RIDGES, clustered_slopes, folds_of, residuals
from mtf_engine.exploration.explored_returns import ExploredReturns, explored_returns
from mtf_engine.exploration.signal import ALPHA, POWER, Signal, signal, signals
from mtf_engine.logs import explored
from mtf_engine.logs.explored import ExploredRequests
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import Refusal
from tests.signal_oracle import slow_signal

NAMES = ("pow_a", "pow_b", "pow_c")
HALF = 0.15
ROWS = tuple(one.name for one in fields(ExploredReturns) if one.name != "gamma")


def log(
    seed: int, n_sessions=200, slopes=(0.0, 0.0, 0.0), *, longest=8, noise=1.0, session_noise=1.0, off=0.0
) -> ExploredReturns:
    """Explored requests whose return is V(observation) + slopes x offset + noise of the session and the request.

    V is not linear. With `off` the box lies off centre, the more the larger the first feature.
    """
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, n_sessions)
    sessions = np.repeat(np.arange(n_sessions), lengths)
    n, d = len(sessions), len(slopes)
    observations = generator.standard_normal((n, 6)) + generator.standard_normal((n_sessions, 6))[sessions]
    observations[:, 5] = 1
    middle = off * np.tanh(observations[:, :1]) * np.ones(d)
    offsets = middle + generator.uniform(-HALF, HALF, (n, d))
    value = 3 * np.sin(observations[:, 0]) + observations[:, 1]
    returns = 20 + value + offsets @ np.array(slopes) + noise * generator.standard_normal(n)
    returns += session_noise * generator.standard_normal(n_sessions)[sessions]
    return ExploredReturns(
        observations=observations.astype(np.float32),
        offsets=offsets.astype(np.float32),
        lower=(middle - HALF).astype(np.float32),
        upper=(middle + HALF).astype(np.float32),
        returns=returns,
        steps=np.arange(n) - np.repeat(np.cumsum(lengths) - lengths, lengths),
        sessions=sessions,
        segments=np.array(["new", "loyal"])[sessions % 2],
        cut=np.zeros(n, bool),
        gamma=0.9,
    )


def found(rows: ExploredReturns) -> Signal:
    return signal(rows, NAMES)


@pytest.mark.parametrize("off", [0.0, 0.3])
def test_without_an_effect_the_p_values_are_uniform(off):
    """Boxes off centre move with V, which no linear fit knows whole; neither makes a signal."""
    p_values = [found(log(seed, n_sessions=120, off=off)).p_value for seed in range(200)]
    assert kstest(p_values, "uniform").pvalue > 0.05


def test_planted_slopes_are_found_within_their_errors():
    planted = np.array([2.0, 0.0, -1.0])
    t = np.array(
        [
            [
                (row.slope - true) / row.error
                for row, true in zip(found(log(seed, 300, planted)).slopes, planted, strict=True)
            ]
            for seed in range(100)
        ]
    )
    assert np.abs(t.mean()) < 0.2 and 0.85 < t.std() < 1.15
    held = [
        row
        for seed in range(100)
        for row in found(log(seed, 300, planted)).slopes[:1]
        if row.low < 2 < row.high
    ]
    assert 88 <= len(held) <= 100


def test_the_signal_grows_with_the_sessions_as_it_says():
    planted = (0.6, -0.6, 0.6)
    few = [found(log(seed, 500, planted)) for seed in range(40)]
    many = [found(log(seed, 2_000, planted)) for seed in range(40)]
    excess = [np.mean([one.chi2 - one.df for one in of]) for of in (few, many)]
    assert excess[1] / excess[0] == pytest.approx(4, rel=0.35)
    one = many[0]
    assert one.sessions_needed == pytest.approx(2_000 * (one.wished - 3) / (one.chi2 - 3), abs=1)
    assert one.sessions_needed_low <= one.sessions_needed <= one.sessions_needed_high


def test_a_gain_that_is_told_is_told_with_the_power_it_says():
    """Slopes in proportion to C a have the least noncentrality of all with their gain at a corner a."""
    null = found(log(0, 1_000))
    reach = float((0.9 ** log(0, 1_000).steps).sum() / 1_000)
    slope = null.gain / reach / (3 * HALF)
    told = [found(log(seed, 1_000, (slope, slope, -slope))).p_value < ALPHA for seed in range(100)]
    assert POWER - 0.12 < np.mean(told) < POWER + 0.15
    assert null.relative_gain == pytest.approx(null.gain / null.mean_return)


def test_a_dead_dimension_is_left_out_and_named():
    rows = log(1, 300, (2.0, 5.0, 0.0))
    offsets = rows.offsets.copy()
    offsets[:, 1] = 0.1
    one = found(replace(rows, offsets=offsets))
    assert one.dead == ("pow_b",) and one.df == 2
    assert [row.dimension for row in one.slopes] == ["pow_a", "pow_c"]
    offsets[:, 1] = rows.observations[:, 0] / 10  # moves, but by what the observation says
    assert found(replace(rows, offsets=offsets)).dead == ("pow_b",)


def kept_through_sessions(rows: ExploredReturns) -> ExploredReturns:
    """The same requests, if each session kept the action of its first."""
    return replace(rows, offsets=rows.offsets[np.unique(rows.sessions, return_index=True)[1]][rows.sessions])


def test_errors_know_that_a_session_has_a_luck_of_its_own():
    """An action that a session keeps meets the session's luck at each request; naive errors are too small."""
    logs = [kept_through_sessions(log(seed, 500, session_noise=3.0)) for seed in range(100)]
    naive = [replace(rows, sessions=np.arange(len(rows))) for rows in logs]
    of_both = [[[row.error for row in found(rows).slopes] for rows in of] for of in (logs, naive)]
    assert (np.mean(of_both[0], axis=0) > 1.5 * np.mean(of_both[1], axis=0)).all()
    assert np.mean([found(rows).p_value < ALPHA for rows in logs]) <= 0.1
    assert np.mean([found(rows).p_value < ALPHA for rows in naive]) > 0.3


def slow_sandwich(x: NDArray, y: NDArray, clusters: NDArray) -> tuple[NDArray, NDArray]:
    """The definition, a row at a time."""
    d = x.shape[1]
    x, y = x - x.mean(axis=0), y - y.mean()
    gram = sum(np.outer(row, row) for row in x)
    b = np.linalg.inv(gram) @ sum(row * value for row, value in zip(x, y, strict=True))
    names = sorted(set(clusters.tolist()))
    covariance = np.zeros((d, d))
    for cluster in names:
        own, score = np.zeros((d, d)), np.zeros(d)
        for i in np.flatnonzero(clusters == cluster):
            own += np.outer(x[i], x[i])
            score += x[i] * (y[i] - x[i] @ b)
        lost = np.linalg.inv(gram - own) @ score
        covariance += np.outer(lost, lost)
    return b, covariance * (len(names) - 1) / len(names)


@pytest.mark.parametrize("seed", range(5))
def test_the_sandwich_is_that_of_its_definition(seed):
    rows = log(seed, 40, (1.0, 0.0, 2.0))
    x, y = rows.offsets.astype(np.float64), rows.returns
    for fast, slow in zip(
        clustered_slopes(x, y, rows.sessions), slow_sandwich(x, y, rows.sessions), strict=True
    ):
        np.testing.assert_allclose(fast, slow, rtol=1e-9)


def test_the_sandwich_is_what_leaving_out_a_session_does():
    """The jackknife: slopes without each session in turn, x and y about the means of all."""
    rows = log(8, 40, (1.0, 0.0, 2.0))
    x, y = rows.offsets - rows.offsets.mean(axis=0, dtype=float), rows.returns - rows.returns.mean()
    slopes, covariance = clustered_slopes(x, y, rows.sessions)
    without = [
        np.linalg.lstsq(x[rows.sessions != c], y[rows.sessions != c], rcond=None)[0] for c in range(40)
    ]
    moved = slopes - np.array(without)
    np.testing.assert_allclose(covariance, moved.T @ moved * 39 / 40, rtol=1e-6)


def test_few_sessions_and_many_dimensions_do_not_make_a_signal():
    names = tuple(f"pow_{i}" for i in range(10))
    p_values = np.array([signal(log(seed, 60, (0.0,) * 10), names).p_value for seed in range(300)])
    assert np.mean(p_values < ALPHA) < 0.09


def test_chi2_and_its_p_value_are_those_of_the_sandwich():
    rows = log(3, 60, (1.0, 0.0, 0.0))
    x, y = residuals(rows.observations, rows.offsets, rows.returns, rows.folds)
    b, covariance = slow_sandwich(x, y, rows.sessions)
    chi2 = b @ np.linalg.inv(covariance) @ b
    one = found(rows)
    assert one.chi2 == pytest.approx(chi2) and one.ratio == pytest.approx(chi2 / 3)
    assert one.p_value == pytest.approx(f.sf(chi2 * 57 / (3 * 59), 3, 57))
    assert [row.t for row in one.slopes] == pytest.approx(list(b / np.sqrt(covariance.diagonal())))


def test_the_interval_of_the_sessions_inverts_the_noncentral_chi2():
    one = found(log(4, 2_000, (0.8, 0.0, -0.8)))
    for sessions, share in ((one.sessions_needed_low, ALPHA / 2), (one.sessions_needed_high, 1 - ALPHA / 2)):
        noncentrality = one.sessions * (one.wished - one.df) / sessions
        assert ncx2.cdf(one.chi2, one.df, noncentrality) == pytest.approx(share, abs=1e-3)


def test_what_fits_leave_is_that_of_ridges_and_of_v_on_the_other_sessions():
    rows = log(5, 60)
    targets = np.column_stack([rows.offsets, rows.returns])
    design = rows.observations[:, :5].astype(np.float64)  # the sixth is constant
    design = (design - design.mean(axis=0)) / design.std(axis=0)
    design = np.column_stack([np.ones(len(design)), design])
    left = np.column_stack(residuals(rows.observations, rows.offsets, rows.returns, rows.sessions))
    fold = rows.sessions % FOLDS
    for target in range(4):
        y = targets[:, target]
        errors = {}
        for ridge in RIDGES:
            pull = ridge * np.diag([0.0, *np.ones(5)])
            errors[ridge] = np.empty(len(rows))
            for k in range(FOLDS):
                z = design[fold != k]
                w = np.linalg.solve(z.T @ z + pull, z.T @ y[fold != k])
                errors[ridge][fold == k] = y[fold == k] - design[fold == k] @ w
        best = min(errors, key=lambda ridge: (errors[ridge] ** 2).sum())
        pull = best * np.diag([0.0, *np.ones(5)])
        on_all = y - design @ np.linalg.solve(design.T @ design + pull, design.T @ y)
        np.testing.assert_allclose(left[:, target], errors[best] if target == 3 else on_all, atol=1e-6)


def test_segments_are_told_apart_and_small_ones_left_out():
    rows = log(6, 400)
    few = np.isin(rows.sessions, [1, 3, 5])
    rows = replace(rows, segments=np.where(few, "few", rows.segments))
    returns = rows.returns + np.where(rows.segments == "new", 6, 0) * rows.offsets[:, 0]
    all_of_it = signals(replace(rows, returns=returns), NAMES)
    by_name = {str(one.segment): one for one in all_of_it.segments}
    assert set(by_name) == {"loyal", "new"} and list(all_of_it.left_out) == ["few"]
    assert "3 explored sessions are too few" in all_of_it.left_out["few"]
    assert by_name["new"].verdict == "enough" and by_name["loyal"].verdict == "nothing"
    assert by_name["new"].requests + by_name["loyal"].requests + few.sum() == len(rows)
    assert all_of_it.everybody == signal(replace(rows, returns=returns), NAMES)


def test_the_sentence_says_what_to_expect():
    nothing = found(log(0, 300)).model_copy(
        update={"chi2": 4.2, "ratio": 1.4, "p_value": 0.24, "sessions_needed": 2_700}
    )
    assert nothing.sentence == (
        "This log holds 1.4 times the signal of none: expect nothing; 9.0 times as many sessions would do."
    )
    below = nothing.model_copy(
        update={"chi2": 2.1, "ratio": 0.7, "sessions_needed": None, "sessions_needed_low": 1_200}
    )
    assert "0.7 times the signal of none: expect nothing; it takes 4.0 times as many" in below.sentence
    assert "or explore wider bounds" in below.model_copy(update={"sessions_needed_low": None}).sentence
    some = nothing.model_copy(update={"p_value": 0.01, "segment": "new"})
    assert "For new this log holds" in some.sentence and "part of it can be learned" in some.sentence
    assert found(log(0, 1_000, (3.0, 3.0, 3.0))).sentence.endswith("enough to learn from.")


def test_another_chi2_may_be_wished_for():
    rows = log(7, 500, (0.8, 0.0, 0.0))
    one, other = found(rows).wishing(13), found(rows).wishing(23)
    assert other.sessions_needed == pytest.approx(2 * one.sessions_needed, abs=2)


def together(rows: ExploredReturns) -> ExploredReturns:
    offsets = rows.offsets.copy()
    offsets[:, 2] = 2 * offsets[:, 0]
    return replace(rows, offsets=offsets)


REFUSED = {
    "few sessions": (lambda: found(log(0, 29)), "29 explored sessions are too few for 3 slopes; collect 30"),
    "one return": (lambda: found(replace(log(0), returns=np.ones(len(log(0))))), "has the same return"),
    "nothing moves": (lambda: found(replace(log(0), offsets=0 * log(0).offsets)), "no dimension of this log moves"),
    "two as one": (lambda: found(together(log(0))), "pow_a and pow_c move as one"),
    "wish of none": (lambda: found(log(0)).wishing(3), "a chi2 of 3 is that of none; give more than 3"),
    "gamma": (lambda: explored_returns({}, 1.1), "a gamma of 1.1 discounts nothing"),
    "no rows": (lambda: found(log(0).among(np.zeros(len(log(0)), bool))), "no training row of this dataset was"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_told_is_refused_in_a_sentence(what):
    ask, sentence = REFUSED[what]
    with pytest.raises(Refusal, match=sentence) as refused:
        ask()
    assert str(refused.value).count("\n") == 0


def whole(small_workspace, gamma=0.9) -> ExploredReturns:
    parts = list(ExploredRequests(open_dataset(small_workspace, "explored"), gamma).each(itself))
    return joined(parts)


def itself(part: ExploredReturns) -> ExploredReturns:
    return part


def joined(parts: list[ExploredReturns]) -> ExploredReturns:
    columns = {name: np.concatenate([vars(part)[name] for part in parts]) for name in ROWS}
    return replace(parts[0], **columns)


def test_a_log_without_exploration_is_refused(small_workspace):
    bare = open_dataset(small_workspace, "test")
    with pytest.raises(Refusal, match="collect one with --explore uniform"):
        signals(ExploredRequests(bare, 0.9), bare.meta.fusion.names)


@pytest.mark.parametrize("requests", [pytest.param(7, marks=pytest.mark.slow), 700, 10**6])
def test_explored_returns_are_those_of_the_transitions(small_workspace, requests, monkeypatch):
    monkeypatch.setattr(explored, "PART_REQUESTS", requests)
    dataset = open_dataset(small_workspace, "explored")
    rows = whole(small_workspace)
    log = dataset.transitions()
    steps = log[:]
    moved = (steps.actions != steps.baseline_actions).any(axis=1)
    assert len(rows) == moved.sum() and not rows.cut.any()
    by_offset = np.lexsort(rows.offsets.T)
    same = np.lexsort((steps.actions - steps.baseline_actions)[moved].T)
    np.testing.assert_allclose(rows.returns[by_offset], log.returns(0.9)[moved][same])
    np.testing.assert_array_equal(rows.observations[by_offset], steps.observations[moved][same])
    assert (rows.steps == 0).sum() == len(np.unique(rows.sessions))


def test_rows_without_exploration_count_in_returns_alone():
    part = {
        "session_id": np.array([5, 5, 5, 2, 2]), "step": np.array([2, 0, 1, 0, 1]),
        "reward": np.array([4.0, 1.0, 2.0, 1.0, 1.0]), "terminal": np.array([True, False, False, False, False]),
        "segment": np.array(["x"] * 5), "observation": np.zeros((5, 2), np.float32),
        "action": np.ones((5, 3), np.float32), "baseline_action": np.zeros((5, 3), np.float32),
        "lower": -np.ones((5, 3), np.float32), "upper": np.ones((5, 3), np.float32),
        "explored": np.array([True, True, False, True, True]),
    }  # fmt: skip
    rows = explored_returns(part, 0.5)
    assert rows.returns.tolist() == [1.5, 1.0, 3.0, 4.0]
    assert rows.steps.tolist() == [0, 1, 0, 1] and rows.sessions.tolist() == [2, 2, 5, 5]
    assert rows.cut.tolist() == [True, True, False, False]


@dataclass(frozen=True)
class InParts:
    """A log in parts of so many sessions, one of them empty."""

    log: ExploredReturns
    sessions: int
    gamma: float = 0.9

    def each(self, work):
        number = np.unique(self.log.sessions, return_inverse=True)[1] // self.sessions
        for part in range(-1, number.max() + 1):
            yield work(self.log.among(number == part))


def hard(seed: int) -> ExploredReturns:
    """A log with boxes off centre, columns that are large and alike, in a segment too, constant ones, and open ends."""
    rows = log(seed, 300, (2.0, 0.0, -1.0), off=0.2)
    n, large = len(rows), 1e4 + rows.observations[:, 0]
    of_segment = 1e5 * (rows.segments == rows.segments[0]) + rows.observations[:, 0] ** 2
    observations = np.column_stack(
        [rows.observations, large, of_segment, np.full(n, 0.1), np.full(n, 7e3 / 3)]
    )
    cut = (rows.sessions % 7 == 0) & (rows.sessions > 50)
    observations = observations.astype(np.float32)
    return replace(rows, observations=observations, cut=cut, sessions=rows.sessions * 3 + 1)


@pytest.mark.parametrize("sessions", [300, 41, 1])
@pytest.mark.parametrize("dead", [False, True])
def test_the_sums_of_parts_are_those_of_all_rows(sessions, dead):
    rows = hard(9)
    if dead:
        offsets = rows.offsets.copy()
        offsets[:, 1] = 0.1
        rows = replace(rows, offsets=offsets)
    told = signals(InParts(rows, sessions), NAMES)
    assert told.everybody.df == 3 - dead and len(told.segments) == 2
    for one in (told.everybody, *told.segments):
        slow = slow_signal(rows if one.segment is None else rows.among(rows.segments == one.segment), NAMES)
        fast = one.model_dump() | {"slopes": [row.slope for row in one.slopes], "dead": list(one.dead)}
        fast |= {"errors": [row.error for row in one.slopes]}
        fast |= {"half_widths": [row.half_width for row in one.slopes]}
        for name, value in slow.items():
            assert fast[name] == (value if name == "dead" else pytest.approx(value, rel=1e-9)), name


def test_folds_depend_on_the_session_alone_and_are_even():
    for apart in (1, 10, 144, 377, 610, 987, 1_597, 2**32):
        counted = np.bincount(folds_of(2**20 + apart * np.arange(1_000)), minlength=FOLDS)
        assert counted.min() > 150 and counted.max() < 250, apart
    np.testing.assert_array_equal(folds_of(np.array([3, 900])), folds_of(np.arange(1_000))[[3, 900]])
