"""Figures of an evaluation, its critics and one request: what is drawn is what the frame says."""

import numpy as np
import pandas as pd
import pytest

from mtf_engine.evaluation.critic_pairs import critic_pairs
from mtf_engine.evaluation.deviation import deviation
from mtf_engine.evaluation.explain import Explanation, LoggedRequest
from mtf_engine.logs.schema import DatasetMeta
from mtf_engine.spec import FusionSpec, RewardSpec
from pages.evaluate import _critic_charts, _explain_charts, _explaining
from pages.shared import action_results, evaluation_charts


def segment_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "segment": ["<new>", "old", "<new>", "old"],
            "policy": ["a", "a", "b", "b"],
            "algo": "integrated_rl",
            "difference": [0.1, 0.2, 0.3, np.nan],
            "low": [0.0, 0.1, 0.2, np.nan],
            "high": [0.2, 0.3, 0.4, np.nan],
        }
    )


def test_segments_lie_below_each_other_and_their_policies_side_by_side():
    figure = evaluation_charts.segments(segment_frame(), "difference", "unit", "no difference")
    one, other = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["&lt;new&gt;", "old"]
    assert list(one.x) == [0.1, 0.2] and list(one.error_x.array) == pytest.approx([0.1, 0.1])
    assert one.y[0] > other.y[0] > one.y[1] > other.y[1]
    assert one.marker.symbol != other.marker.symbol
    assert figure.layout.shapes[0].x0 == 0


def deviations(n_policies: int, spread: float, n_dimensions: int = 10):
    """Returns policies that deviate by up to `spread` from bounds of 0.15."""
    generator = np.random.default_rng(0)
    names = tuple(f"pow_{i}" for i in range(n_dimensions))
    baseline = np.zeros((500, n_dimensions), np.float32)
    bounds = (np.full_like(baseline, -0.15), np.full_like(baseline, 0.15))
    return {
        str(i): (
            {"policy": f"policy {i}", "algo": "integrated_rl"},
            deviation(
                names, generator.uniform(-spread, spread, baseline.shape).astype(np.float32), baseline, bounds
            ),
        )
        for i in range(n_policies)
    }


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("n_policies", "spread"), [(1, 0.1), (3, 0.3), (10, 1.0)])
def test_deviations_keep_every_request_and_few_bins(n_policies, spread, signed):
    found = deviations(n_policies, spread)
    bins = action_results.deviation_bins(found, signed)
    assert len(bins) <= action_results.MOST_CELLS
    shares = bins.groupby(["policy", "dimension"])["share"].sum()
    assert len(shares) == 10 * n_policies
    np.testing.assert_allclose(shares, 1)
    assert (bins["right"] > bins["left"]).all()
    assert bins["right"].max() >= min(spread, 1.0)


def test_deviations_are_overlaid_with_their_bounds():
    found = deviations(2, 0.2, n_dimensions=3)
    table = action_results.deviation_table(found)
    figure = evaluation_charts.deviation(action_results.deviation_bins(found, True), table, True, columns=3)
    assert len(figure.data) == 2 * 3
    assert [trace.name for trace in figure.data if trace.showlegend] == ["policy 0", "policy 1"]
    assert sorted({round(shape.x0, 6) for shape in figure.layout.shapes}) == [-0.15, 0.15]
    sizes = evaluation_charts.deviation(action_results.deviation_bins(found, False), table, False, columns=3)
    assert {round(shape.x0, 6) for shape in sizes.layout.shapes} == {0.15}


def profile_frame(n_lines: int, algo: str | None) -> pd.DataFrame:
    lines = [
        {"policy": f"p{i}", "algo": algo, "distance": d, "std over critics": 1 + d + i / 100,
         "std 5 %": d, "std 95 %": 2 + d}
        for i in range(n_lines)
        for d in (0.0, 1.0)
    ]  # fmt: skip
    return pd.DataFrame(lines)


def test_disagreement_draws_a_line_and_a_band_for_each_policy():
    figure = _critic_charts.disagreement(profile_frame(2, "integrated_rl"))
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [list(line.y) for line in lines] == [[1, 2], [1.01, 2.01]]
    assert lines[0].line.dash != lines[1].line.dash
    assert len(figure.data) == 4


def test_many_lines_have_no_bands_and_labels_that_do_not_cover_each_other():
    figure = _critic_charts.disagreement(profile_frame(6, None))
    assert len(figure.data) == 6
    assert len({line.line.color for line in figure.data}) == 6
    labels = sorted(a.y for a in figure.layout.annotations if a.text.startswith("p"))
    assert min(np.diff(labels)) > 0.1


def test_each_critic_is_a_row():
    frame = pd.DataFrame(
        {"critic": [1, 1, 2, 2], "distance": [0.0, 0.5, 0.0, 0.5], "bias": [1, 2, -1, -2], "size": 1.0}
    )
    heat = _critic_charts.each_critic(frame, "bias").data[0]
    np.testing.assert_array_equal(heat.z, [[1, 2], [-1, -2]])
    assert list(heat.x) == ["inside", "0.5"]
    assert heat.zmid == 0


def test_two_critics_are_drawn_with_the_line_on_which_they_agree():
    pairs = critic_pairs(np.random.default_rng(0).normal(size=(3, 200)))
    counts = action_results.two_critics(pairs, 0, 2)
    assert counts.sum(axis=None) == 200
    heat, identity = _critic_charts.two_critics(counts, ("critic 1", "critic 3")).data
    assert np.nansum(heat.z) == 200 and np.size(heat.z) <= 5_000
    assert list(identity.x) == list(identity.y)


def test_the_critics_least_alike_are_found():
    x = np.arange(50.0)
    assert action_results.least_alike(critic_pairs(np.stack([x, x + 1, -x, x]))) in ((0, 2), (1, 2), (2, 3))
    assert action_results.least_alike(critic_pairs(np.ones((3, 4)))) == (0, 1)


def request(position=(0.0, 1.0, np.nan)) -> LoggedRequest:
    meta = DatasetMeta(
        name="log",
        source="csv",
        fusion=FusionSpec.default(("click",)),
        reward=RewardSpec(weights={"like": 1}),
        signals=("like",),
        feature_names=("a",),
        numeric_mask=(True,),
    )
    items = pd.DataFrame({"item_id": [7, 8, 9], "position": position, "label": [True, False, None]})
    return LoggedRequest({}, np.zeros(1), None, items, np.float32([[0.5], [0.4], [0.3]]), None, meta)


def explanation(**ranks: list[int]) -> Explanation:
    ranking = pd.concat(
        pd.DataFrame(
            {"policy": name, "item": [0, 1, 2], "item_id": [7, 8, 9], "score": -1.0, "rank": order,
             "part click": [1.0, 2.0, 6.0]}
        )
        for name, order in ranks.items()
    )  # fmt: skip
    weights = pd.DataFrame(
        {
            "policy": list(ranks),
            "item": pd.NA,
            "dimension": "pow_click",
            "weight": 1.0,
            "action": 0.0,
            "low": 0.0,
            "high": 2.0,
        }
    )
    return Explanation(weights, ranking.reset_index(drop=True))


def test_items_are_followed_from_how_they_were_shown_to_each_policy():
    weights, ranking = _explaining.frames(explanation(baseline=[2, 3, 1]), request(), {})
    assert list(ranking["policy"].unique()) == ["as shown", "baseline"]
    figure = _explain_charts.ranks(ranking, most=10)
    lines = {trace.name: (list(trace.x), list(trace.y), trace.line.dash) for trace in figure.data}
    assert lines == {
        "watched": (["as shown", "baseline"], [1, 2], "solid"),
        "shown, not watched": (["as shown", "baseline"], [2, 3], "dash"),
        "not shown": (["baseline"], [1], "dot"),
    }
    assert len(_explain_charts.ranks(ranking, most=1).data) == 2  # item 8 is first nowhere
    dots = _explain_charts.weights(weights, "pow").data
    assert [list(dot.x) for dot in dots] == [[0, 2], [1]]


def test_the_log_s_own_action_comes_before_the_policies():
    _, ranking = _explaining.frames(explanation(logged=[1, 2, 3], baseline=[1, 3, 2]), request(), {})
    assert list(ranking["policy"].unique()) == ["the log's own", "baseline"]
    assert next(iter(_explaining.item_titles(ranking).values())).startswith(
        "8 · shown, not watched · rank differs by 1"
    )


def test_contributions_are_told_above_the_mean_of_the_list():
    _, ranking = _explaining.frames(explanation(baseline=[1, 2, 3]), request(), {})
    parts = _explaining.contributions(ranking, item=2)
    assert list(parts["prediction"]) == ["click"]
    assert list(parts["above"]) == [3.0]
    assert list(_explain_charts.contributions(parts).data[0].x) == [3.0]
