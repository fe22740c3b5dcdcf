"""Figures and words: frame in, figure out; what users typed is shown as it is."""

import numpy as np
import pandas as pd
import pytest

from mtf_engine.algos import ALGOS
from mtf_engine.learning.training import fit, make_config
from pages.shared import charts, glossary, words
from tests.problems import sessions


def scores_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "policy": ["baseline", "<b>mine</b>"],
            "algo": ["baseline", "integrated_rl"],
            "weighted GAUC": [0.60, np.nan],
            "low": [0.58, np.nan],
            "high": [0.63, np.nan],
        }
    )


def test_intervals_reach_from_low_to_high_and_say_where_there_is_no_value():
    figure = charts.intervals(scores_frame(), "weighted GAUC", "weighted GAUC, 95 % interval")
    dots = figure.data[0]
    assert list(dots.text) == ["no valid group", "0.6000"]
    assert dots.error_x.array[1] == pytest.approx(0.03)
    assert dots.error_x.arrayminus[1] == pytest.approx(0.02)
    assert figure.layout.xaxis.title.text == "weighted GAUC, 95 % interval"


def test_text_that_users_typed_is_shown_and_not_obeyed():
    assert charts.intervals(scores_frame(), "weighted GAUC", "x").data[0].y[0] == "&lt;b&gt;mine&lt;/b&gt;"
    assert words.plain("**no** :red[x] $y$\n# z") == r"\*\*no\*\* \:red\[x\] \$y\$ \# z"


def luminance(colour: str) -> float:
    """Returns the relative luminance of WCAG 2."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize(
    "colour",
    [charts.INSIDE, charts.OUTSIDE, charts.BOUND, *charts.METHODS.values(), *charts.NEW_METHODS],
    ids=str,
)
def test_lines_and_their_names_can_be_read_on_white_and_on_near_black(colour):
    on_white = 1.05 / (luminance(colour) + 0.05)
    on_black = (luminance(colour) + 0.05) / (luminance("#181715") + 0.05)
    assert min(on_white, on_black) > 3.7, "no colour does better than 4.2 on both"


def test_every_method_has_a_colour_of_its_own():
    colours = [charts.method_colour(algo) for algo in ("baseline", *ALGOS)]
    assert len(set(colours)) == len(colours)


def test_a_method_that_no_page_knows_has_a_colour_and_keeps_it():
    assert charts.method_colour("magic") == charts.method_colour("magic") in charts.NEW_METHODS


@pytest.mark.parametrize("name", [name for name in ALGOS if "fitness" not in ALGOS[name].Config.model_fields])
def test_every_curve_of_a_learning_method_has_a_title_of_its_own(name):
    log = sessions(30)
    small = {"hidden": "4", "n_steps": "1", "batch_size": "8"}
    own = {setting: value for setting, value in small.items() if setting in ALGOS[name].Config.model_fields}
    algo = ALGOS[name](make_config(name, "demo", own, 0), log)
    (row,) = fit(algo, log)
    curves = [metric for metric in row if metric not in charts.NOT_CURVES]
    untitled = [metric for metric in curves if charts.metric_title(metric)[0] == metric.replace("_", " ")]
    assert not untitled


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


@pytest.mark.parametrize("name", ["weighted GAUC", "Requests", "rank, baseline", "predicted click", "95 %"])
def test_a_number_is_explained_by_its_name_or_the_start_of_it(name):
    assert glossary.meaning(name)
    assert glossary.meaning("no such thing") is None


def test_policies_of_one_method_are_told_apart_by_their_colours():
    frame = pd.DataFrame({"policy": ["baseline", "a", "b", "a"], "algo": [None, "iql", "iql", "iql"]})
    colours = charts.policy_colours(frame)
    assert colours["baseline"] == charts.BASELINE and len(set(colours.values())) == 3
    assert charts.policy_colours(frame[1:]) == {name: colours[name] for name in ("a", "b")}
