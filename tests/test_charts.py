"""Figures and words: frame in, figure out; what users typed is shown as it is."""

import numpy as np
import pandas as pd
import pytest

from mtf_engine.algos import ALGOS
from pages.shared import charts, words


def scores_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": ["baseline", "<b>mine</b>"],
            "algo": ["baseline", "integrated_rl"],
            "value": [0.60, np.nan],
            "low": [0.58, np.nan],
            "high": [0.63, np.nan],
        }
    )


def test_intervals_reach_from_low_to_high_and_say_where_there_is_no_value():
    figure = charts.intervals(scores_frame(), "weighted GAUC")
    dots = figure.data[0]
    assert list(dots.text) == ["no valid group", "0.6000"]
    assert dots.error_x.array[1] == pytest.approx(0.03)
    assert dots.error_x.arrayminus[1] == pytest.approx(0.02)
    assert figure.layout.xaxis.title.text == "weighted GAUC"


def test_text_that_users_typed_is_shown_and_not_obeyed():
    assert charts.intervals(scores_frame(), "x").data[0].y[0] == "&lt;b&gt;mine&lt;/b&gt;"
    assert words.plain("**no** :red[x] $y$\n# z") == r"\*\*no\*\* \:red\[x\] \$y\$ \# z"


def test_every_method_has_a_colour_of_its_own():
    colours = [charts.method_colour(algo) for algo in ("baseline", *ALGOS)]
    assert len(set(colours)) == len(colours)
    assert set(ALGOS) <= set(charts.METHODS)


def test_curves_put_known_metrics_together_and_leave_none_out():
    names = ["step", "critic_loss", "q_std_inside", "q_std_outside", "share_outside/pow_a", "new", "seconds"]
    panels = charts.metric_panels(names)
    assert [list(shown) for _, _, shown in panels] == [
        ["critic_loss"],
        ["q_std_inside", "q_std_outside"],
        ["share_outside/pow_a"],
        ["new"],
    ]
    frame = pd.DataFrame(np.arange(14.0).reshape(2, 7), columns=names)
    figure = charts.curves(frame, panels)
    assert sorted(trace.name for trace in figure.data) == sorted(set(names) - {"step", "seconds"})
    assert all(list(trace.x) == [0, 7] for trace in figure.data)


def deviation_frame() -> pd.DataFrame:
    left = np.array([-0.3, -0.1, 0.1, 0.3])
    parts = [
        pd.DataFrame({"dimension": name, "left": left, "right": left + 0.1, "share": [0.1, 0.4, 0.4, 0.1]})
        for name in ("pow_click", "pow_like")
    ]
    return pd.concat(parts)


def test_deviation_marks_what_lies_beyond_the_bounds():
    figure = charts.deviation(deviation_frame(), ([-0.2, -0.5], [0.2, 0.5]), signed=True)
    colours = [list(bar.marker.color) for bar in figure.data]
    assert colours[0] == [charts.OUTSIDE, charts.INSIDE, charts.INSIDE, charts.OUTSIDE]
    assert colours[1] == [charts.INSIDE] * 4
    walls = sorted(shape.x0 for shape in figure.layout.shapes)
    assert walls == [-0.5, -0.2, 0.2, 0.5]
    assert not charts.deviation(deviation_frame(), None, signed=False).layout.shapes


def test_disagreement_draws_a_line_and_a_band_for_each_policy():
    frame = pd.DataFrame(
        {
            "label": ["a", "a", "b", "b"],
            "algo": "integrated_rl",
            "distance": [0.0, 1.0, 0.0, 1.0],
            "mean": [1.0, 2.0, 2.0, 3.0],
            "low": [0.5, 1.0, 1.5, 2.0],
            "high": [1.5, 3.0, 2.5, 4.0],
        }
    )
    lines = [trace for trace in charts.disagreement(frame).data if trace.mode == "lines+markers"]
    assert [list(line.y) for line in lines] == [[1, 2], [2, 3]]
    assert lines[0].line.dash != lines[1].line.dash
