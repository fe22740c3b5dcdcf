"""What a pilot tells of exploring, and the boxes that follow: planted curvatures, losses and reaches come out."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from mtf_engine.exploration.pilot import Arms, Pilot, PilotDimension, arms_loss, pilot, read_arms
from mtf_engine.exploration.teaching import teach
from mtf_engine.logs.aggregates import pilot as pilot_of
from mtf_engine.logs.aggregates import pilot_path
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import BoundsPlan, Refusal
from tests.signal_oracle import explained_away, slow_curvatures, slow_signal
from tests.test_signal import NAMES, InParts, found, hard, log

NOBODY = Arms(np.zeros(0, bool), np.zeros(0, np.int64), np.zeros(0))
CURVED = np.array([200.0, 100.0, 50.0])
CHURN = np.array([0.02, 0.01, 0.0])


def arms(loss: float, seed=0, n_users=400, noise=1.0) -> Arms:
    """Users, a quarter of them control, with one to three sessions; exploring takes `loss` of each return."""
    generator = np.random.default_rng(seed)
    explored, sessions = np.arange(n_users) % 4 > 0, generator.integers(1, 4, n_users)
    user = 20 - loss * explored + noise * generator.standard_normal(n_users)
    return Arms(explored, sessions, sessions * user)


def measured(seed=0, curvatures=0.0, *, n_sessions=400, seen=NOBODY, churn=CHURN, **how) -> Pilot:
    rows = log(seed, n_sessions, **how)
    rows = replace(rows, returns=rows.returns - np.square(rows.offsets) @ (curvatures * np.ones(3)) / 2)
    return pilot(rows, seen, churn, NAMES, (0.0, 0.0, 0.0), n_sessions)


def test_the_rate_foretells_the_errors_of_a_larger_log_and_of_a_wider_box():
    few = measured(0, n_sessions=500)
    many = found(log(1, n_sessions=4_000))
    for told, later in zip(teach(few, 4_000, information=8, each=True).dimensions, many.slopes, strict=True):
        assert told.half_width == pytest.approx(0.15, rel=0.1)
        assert told.error == pytest.approx(later.error, rel=0.15)


def test_curvatures_that_a_log_tells_are_its_own():
    z = []
    for seed in range(30):
        one = measured(seed, CURVED, n_sessions=600, noise=0.3, session_noise=0.3)
        z += [
            (row.estimated - true) / row.estimated_error
            for row, true in zip(one.dimensions, CURVED, strict=True)
        ]
    assert abs(np.mean(z)) < 0.4 and 0.8 < np.std(z) < 1.25
    clear = measured(0, 30 * CURVED, n_sessions=600, noise=0.1, session_noise=0.1)
    assert clear.basis == "curvature" and clear.loss_told
    assert [row.curvature for row in clear.dimensions] == pytest.approx(30 * CURVED, rel=0.2)
    assert min(row.curvature for row in clear.dimensions) > 0
    assert clear.loss_low < clear.loss < clear.loss_high


def test_where_it_does_not_they_follow_the_square_of_the_churn_and_the_loss_of_control_users():
    one = measured(0, seen=arms(2.0))
    assert one.basis == "churn" and one.loss_told
    first, second, third = (row.curvature for row in one.dimensions)
    assert first / second == pytest.approx(4) and third == 0
    loss = one.control.loss
    assert loss == pytest.approx(0.1, abs=4 * one.control.error)
    assert one.loss == pytest.approx(loss, rel=0.35)  # the log's own curvatures tell a little too
    assert measured(0, seen=arms(2.0), churn=np.zeros(3)).basis == "even"


def test_a_loss_not_told_from_none_is_told_at_most():
    one = measured(0, seen=arms(0.0, noise=3.0))
    assert not one.loss_told and one.loss > 0
    assert "at most" in teach(one, 400, information=1).sentence
    gaining = measured(0, seen=arms(-5.0))
    assert not gaining.loss_told and 0 < gaining.loss < one.loss


def test_where_exploring_gains_no_loss_is_told_however_clear_the_curvatures_are():
    one = measured(0, -3_000, n_sessions=600, noise=0.1, session_noise=0.1)
    told = [abs(row.estimated) > 3 * row.estimated_error for row in one.dimensions]
    assert all(told), "each curvature shows"
    assert one.basis == "churn" and not one.loss_told and one.loss > 0
    assert one.loss_low < 0 and "at most" in teach(one, 600, information=1).sentence


@pytest.mark.parametrize("values", [(-0.1, 0.1), (-0.05, 0.15)])
def test_a_dimension_that_was_moved_to_two_values_is_refused(values):
    rows = log(0, 400)
    offsets = rows.offsets.copy()
    offsets[:, 1] = np.random.default_rng(0).choice(values, len(offsets))
    with pytest.raises(Refusal, match="pow_b was moved to two values only"):
        pilot(replace(rows, offsets=offsets), NOBODY, CHURN, NAMES, (0.0,) * 3, 400)


def test_dimensions_that_are_moved_by_one_size_are_refused():
    rows = log(0, 400)
    offsets = rows.offsets.copy()
    offsets[:, 1] = offsets[:, 0] * np.random.default_rng(0).choice((-1, 1), len(offsets))
    with pytest.raises(Refusal, match="moved by sizes that go together"):
        pilot(replace(rows, offsets=offsets), NOBODY, CHURN, NAMES, (0.0,) * 3, 400)


def test_a_box_explores_whatever_the_table_says_it_explores():
    steep = measured(0, seen=arms(2.0))
    steep = steep.model_copy(
        update={
            "dimensions": tuple(
                row.model_copy(update={"curvature": row.curvature * 10.0 ** (9 * (i == 0))})
                for i, row in enumerate(steep.dimensions)
            )
        }
    )
    one = teach(steep, 400, loss=1e-7)
    assert one.dimensions[0].half_width < 5e-5
    assert all(edge > 0 for edge in one.plan.upper)


def test_the_widest_box_is_the_widest_cube_too():
    one = measured(0, seen=arms(2.0))
    widest = teach(one, 400, information=1).frontier[-1][1]
    told = teach(one, 400, information=widest * (1 - 1e-12))
    assert all(row.at_most for row in told.dimensions)
    assert told.cube is not None and told.cube.information == pytest.approx(told.uniform.information)


def test_the_loss_of_control_users_is_that_of_ratios_by_user():
    seen = Arms(
        np.array([True, True, False, False]), np.array([1, 3, 2, 2]), np.array([8.0, 32.0, 22.0, 26.0])
    )
    one = arms_loss(
        seen
    )  # means 10 and 12; squares (8 - 10)^2, (32 - 30)^2 over 16; (22 - 24)^2, (26 - 24)^2 over 16
    assert one.sessions == 4 and one.loss == pytest.approx(0.2)
    assert one.error == pytest.approx(math.sqrt(0.5 + 0.5) / 10)
    assert arms_loss(NOBODY) is None


def test_equal_variances_tell_and_cost_the_same_and_reach_differently():
    one = teach(measured(0, seen=arms(2.0)), 4_000, information=10, each=True)
    box, matched, gaussian = one.uniform, one.matched, one.gaussian
    assert (matched.information, matched.loss) == (box.information, box.loss)
    assert box.beyond == 0 < matched.beyond < gaussian.beyond
    assert gaussian.beyond == pytest.approx(1 - (1 - 2 * norm.sf(2)) ** 3)
    sigmas = np.array([row.half_width for row in one.dimensions]) / math.sqrt(3)
    assert matched.beyond == pytest.approx(1 - np.prod(1 - 2 * norm.sf(0.4 / sigmas)))
    assert gaussian.information / box.information == pytest.approx(0.04 * 3 / 0.15**2, rel=0.1)
    wide = teach(measured(0, seen=arms(2.0)), 4_000, information=50, each=True, far=0.3)
    inside = [min(1, 0.3 / row.half_width) for row in wide.dimensions]
    assert wide.uniform.beyond == pytest.approx(1 - np.prod(inside)) and wide.uniform.beyond > 0


@pytest.mark.parametrize("way", ["uniform", "matched", "gaussian"])
def test_what_a_way_tells_costs_and_reaches_is_that_of_logs_drawn_so(way):
    """Of 400 logs with returns `b'd + noise`: their slopes, losses `sum_i k_i d_i^2 / 2`, and farthest deviations."""
    k, b, noise, n = np.array([40.0, 10.0, 5.0]), np.array([1.0, 0.0, -1.0]), 2.0, 500
    rows = [
        PilotDimension(
            dimension=name,
            baseline=0.0,
            moved=True,
            rate=noise**-2,
            error=noise / math.sqrt(1_000 * 0.0075),
            variance=0.0075,
            estimated=curvature,
            estimated_error=0.1,
            churn=0.0,
            curvature=curvature,
        )
        for name, curvature in zip(NAMES, k, strict=True)
    ]
    known = Pilot(
        gamma=0.9,
        sessions=1_000,
        learned=1_000,
        mean_return=20.0,
        requests=1.0,
        basis="curvature",
        loss=0.0,
        loss_low=0.0,
        loss_high=0.0,
        loss_told=True,
        control=None,
        dimensions=rows,
    )
    one = teach(known, n, loss=0.03, widest=0.6)
    told, generator = getattr(one, way), np.random.default_rng(0)
    widths = np.array([row.half_width for row in one.dimensions])
    sigmas = np.full(3, 0.2) if way == "gaussian" else widths / math.sqrt(3)
    d = widths * generator.uniform(-1, 1, (400, n, 3))
    d = d if way == "uniform" else sigmas * generator.standard_normal((400, n, 3))
    assert told.beyond == pytest.approx((np.abs(d) > 0.4).any(axis=2).mean(), abs=0.005)
    assert told.loss == pytest.approx(np.square(d).mean(axis=(0, 1)) @ k / 2 / 20, rel=0.02)
    returns = d @ b + noise * generator.standard_normal((400, n))
    missed = np.array([np.linalg.lstsq(x, y, rcond=None)[0] - b for x, y in zip(d, returns, strict=True)])
    assert told.information == pytest.approx(rows[0].error ** 2 / told.error**2)
    assert told.error == pytest.approx(math.sqrt(np.square(missed).mean()), rel=0.08)


def test_the_best_box_costs_less_than_a_cube_that_tells_as_much():
    one = teach(measured(0, seen=arms(2.0)), 400, information=1)
    assert one.cube.information == pytest.approx(one.uniform.information)
    assert one.uniform.loss < one.cube.loss
    assert sum(row.loss for row in one.dimensions) == pytest.approx(one.uniform.loss)
    assert one.dimensions[2].at_most and one.dimensions[2].half_width == pytest.approx(0.4)
    again = teach(measured(0, seen=arms(2.0)), 400, loss=one.uniform.loss)
    assert again.plan == one.plan
    losses, told = np.transpose(one.frontier)
    assert np.interp(one.uniform.loss, losses, told) == pytest.approx(1, rel=0.02)
    assert (np.diff(losses) > 0).all() and (np.diff(told) > 0).all()


def test_walls_of_the_range_and_what_never_moved_hold_the_box():
    rows = log(0, 400)
    offsets = rows.offsets.copy()
    offsets[:, 1] = 0
    one = pilot(replace(rows, offsets=offsets), arms(2.0), CHURN, NAMES, (0.9, 0.0, -0.2), 400)
    told = teach(one, 400, loss=0.5)
    assert told.fixed == ("pow_b",)
    assert told.plan == BoundsPlan(lower=(-0.1, 0, -0.4), upper=(0.1, 0, 0.4))
    assert [row.dimension for row in told.dimensions] == ["pow_a", "pow_c"]
    at_the_end = one.model_copy(
        update={"dimensions": tuple(row.model_copy(update={"baseline": 1.0}) for row in one.dimensions)}
    )
    with pytest.raises(Refusal, match="none is left"):
        teach(at_the_end, 400, loss=0.5)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, "one of the two"),
        ({"loss": 0.1, "information": 1}, "one of the two"),
        ({"loss": 0.0}, "a loss of 0 teaches nothing"),
        ({"information": 1, "widest": 3}, "a widest half width of 3"),
        ({"information": 1, "sigma": 0.0}, "a sigma of 0"),
        ({"information": 1e4}, "times the sessions"),
    ],
)
def test_what_cannot_be_is_refused(how, said):
    with pytest.raises(Refusal, match=said):
        teach(measured(0), 400, **how)


def test_returns_of_mean_0_have_no_share():
    rows = log(0)
    with pytest.raises(Refusal, match="no share of it can be told"):
        pilot(
            replace(rows, returns=np.where(rows.steps == 0, 0, rows.returns)),
            NOBODY,
            CHURN,
            NAMES,
            (0.0,) * 3,
            200,
        )


def test_a_log_is_measured_once_with_its_control_users(small_workspace, tmp_path):
    dataset = open_dataset(small_workspace, "explored")
    one = pilot_of(dataset)
    assert pilot_path(dataset.path).exists() and pilot_of(dataset) == one
    assert one.names == dataset.meta.fusion.names and one.basis == "churn"
    seen = read_arms(dataset.arrays, 0.9)
    rows = dataset.query(
        "SELECT session_id, step, reward, pscore IS NULL AS control FROM requests ORDER BY 1, 2"
    )
    returns = rows.groupby("session_id").apply(lambda s: (s["reward"] * 0.9 ** np.arange(len(s))).sum())
    control = rows.groupby("session_id")["control"].first()
    assert seen.sessions[~seen.explored].sum() == control.sum() == one.control.sessions
    assert seen.returns[~seen.explored].sum() == pytest.approx(returns[control].sum())
    churn = {row.dimension: row.churn for row in one.dimensions}
    assert churn["pow_like"] > churn["bias_play_finish_rate"] >= 0


@pytest.mark.parametrize("sessions", [400, 30])
def test_the_sums_of_parts_are_those_of_all_rows(sessions):
    rows = hard(3)
    rows = replace(rows, returns=rows.returns - np.square(rows.offsets) @ CURVED / 2)
    one = pilot(InParts(rows, sessions), NOBODY, CHURN, NAMES, (0.0,) * 3, 400)
    live, moves, _ = explained_away(rows)
    slow, (curvatures, covariance) = slow_signal(rows, NAMES), slow_curvatures(rows)
    assert len(live) == 3 and one.learned == 300
    assert [row.error for row in one.dimensions] == pytest.approx(slow["errors"], rel=1e-9)
    assert [row.variance for row in one.dimensions] == pytest.approx(list(moves.var(axis=0)), rel=1e-9)
    assert [row.estimated for row in one.dimensions] == pytest.approx(list(curvatures), rel=1e-8)
    errors = [row.estimated_error for row in one.dimensions]
    assert errors == pytest.approx(list(np.sqrt(covariance.diagonal())), rel=1e-8)
