"""Figures and words: frame in, figure out; what users typed is shown as it is."""

import ast
import inspect
import io
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from hypothesis import given, strategies
from streamlit import config

from mtf_engine.algos import ALGOS
from mtf_engine.learning.training import fit, make_config
from pages.evaluate import _critic_charts
from pages.release import _round_charts
from pages.shared import bounds_charts, charts, dataset_charts, glossary, log_charts, words
from pages.shared.exhibit import FORMULA, described, digits, exhibit, safe_csv
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


CELLS = strategies.text(alphabet="'=+-@\t\r\n 1,\"a;", min_size=1, max_size=6) | strategies.sampled_from(
    ["=cmd|' /C calc'!A0", "-2+3", "-2.5", "+1e3", "-", "@SUM(A1)", "'=1", "''", "-inf", "\t7", "x"]
)


def test_tables_offer_no_csv_of_streamlits_own():
    settings = tomllib.loads((Path(__file__).parent.parent / ".streamlit" / "config.toml").read_text())
    for name, value in settings["client"].items():
        config.get_option(f"client.{name}")  # one that Streamlit does not know raises
        assert name != "disableDataExport" or value is True
    assert "disableDataExport" in settings["client"]


def test_every_table_can_be_taken_away():
    """Not by Streamlit: but for a preview of a file, and the list of a bundle's files, the page draws the button."""
    bare = set()
    for path in sorted((Path(__file__).parent.parent / "pages").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                called = [ast.unparse(c.func) for c in ast.walk(function) if isinstance(c, ast.Call)]
                if "st.dataframe" in called and "csv_download" not in called:
                    bare.add(f"{path.stem}.{function.name}")
    assert bare == {"exhibit._drawn", "_mapping_form.mapping_form", "export.show_bundle"}
    drawn = inspect.getsource(described) + inspect.getsource(exhibit)
    assert drawn.count("_drawn(") == drawn.count("csv_download(") == 2


@given(strategies.lists(CELLS, min_size=1, max_size=8))
def test_no_cell_of_a_download_is_a_formula_and_its_texts_come_back(texts):
    table = pd.DataFrame({"=name": texts, "figure": np.linspace(-1, 1, len(texts))})
    cells = pd.read_csv(io.StringIO(safe_csv(table)), dtype=str, keep_default_na=False)
    for column, text in [(cells.columns[0], "=name"), *zip(cells.iloc[:, 0], texts, strict=True)]:
        assert not column.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) or float(column) == float(text)
        assert (column[1:] if column[0] == "'" and FORMULA.match(column) else column) == text
    assert cells["figure"].astype(float).tolist() == table["figure"].tolist()


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


def test_an_axis_of_rounds_has_ticks_at_the_rounds_that_there_are():
    assert charts.wholes(pd.Series([1])) == {"tickvals": [1], "range": [0.5, 1.5]}
    many = charts.wholes(pd.Series(range(1, 41)))["tickvals"]
    assert len(many) <= 12 and set(np.diff(many)) == {4}
    table = pd.DataFrame({"round": [1], "gain": [0.1], "low": [0.0], "high": [0.2]})
    axis = _round_charts.gains(table, [("Gain", "", "gain", "low", "high")]).layout.xaxis
    assert list(axis.tickvals) == [1] and axis.range == (0.5, 1.5)


@pytest.mark.parametrize(
    ("unit", "ends"),
    [
        ("weighted GAUC, 95 % interval", (0, 1)),
        ("share of requests", (0, 1)),
        ("difference of weighted GAUC", (None, None)),
        ("weighted GAUC or reward", (None, None)),
    ],
)
def test_an_axis_ends_where_what_it_counts_does(unit, ends):
    axis = charts.intervals(scores_frame(), "weighted GAUC", unit).layout.xaxis
    assert (axis.minallowed, axis.maxallowed) == ends


def test_a_difference_on_a_chart_has_its_sign():
    frame = scores_frame().rename(columns={"weighted GAUC": "difference"})
    assert charts.intervals(frame, "difference", "gap", "none").data[0].text[1] == "+0.6000"


def test_days_are_written_as_days_without_hours():
    two = pd.DataFrame({"day": ["2023-12-31", "2024-01-01"], "requests": [1, 2]})
    axis = dataset_charts.bars(two, "day", "requests").layout.xaxis
    assert axis.tickformat == "%Y-%m-%d" and axis.dtick == 24 * 60 * 60 * 1_000
    assert "dtick" not in charts.dates(pd.Series(["2023-01-01", "2024-01-01"])), (
        "a year has too many for that"
    )


def test_maps_leave_their_colours_to_the_theme_and_what_lies_both_ways_is_in_the_middle_neither_black_nor_white():
    names = ("pow_click", "pow_like")
    assert log_charts.pair(np.arange(4).reshape(2, 2), names).data[0].colorscale is None
    frame = pd.DataFrame({"critic": [0, 1], "distance": [0.0, 0.0], "bias": [-1.0, 1.0], "size": [1.0, 2.0]})
    assert _critic_charts.each_critic(frame, "size").data[0].colorscale is None
    middle = luminance(_critic_charts.each_critic(frame, "bias").data[0].colorscale[1][1])
    assert 0.1 < middle < 0.5


@pytest.mark.parametrize("colour", [bounds_charts.UNIFORM, bounds_charts.GAUSSIAN])
@pytest.mark.parametrize("ground", [3, 255])
def test_draws_of_noise_can_be_seen_on_black_and_on_white(colour, ground):
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    mixed = [round(bounds_charts.DRAWN * c + (1 - bounds_charts.DRAWN) * ground) for c in channels]
    seen = sorted(luminance("#" + "".join(f"{c:02x}" for c in each)) for each in (mixed, [ground] * 3))
    assert (seen[1] + 0.05) / (seen[0] + 0.05) > 3, "WCAG 2 asks 3 : 1 of graphics"


def test_numbers_of_a_table_have_as_many_digits_as_can_be_read():
    table = pd.DataFrame(
        {
            "weighted GAUC": [0.7],
            "low": [0.6],
            "difference": [0.1],
            "high": [0.2],
            "mean": [20.9284],
            "users live": [1_234.5],
            "said": [0.5],
        }
    )
    columns = digits(table, {"said": st.column_config.NumberColumn(format="percent")})
    forms = {name: column["type_config"]["format"] for name, column in columns.items()}
    assert forms == {
        "weighted GAUC": "%.4f",
        "low": "%.4f",
        "difference": "%+.4f",
        "high": "%+.4f",
        "mean": "%.3g",
        "users live": "%.0f",
        "said": "percent",
    }


def test_a_share_too_small_for_percent_is_a_power_of_ten():
    assert words.share(-8.2) == "10⁻⁸" and words.share(-1) == "10.0%"
