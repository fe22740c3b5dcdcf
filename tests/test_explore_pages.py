"""Exploring, page by page: what a visitor draws is what is shown, stored, linked and handed on."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from mtf_engine.logs.aggregates import coverage_path, pilot_path
from mtf_engine.logs.aggregates import pilot as measure_pilot
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import BoundsPlan, Box, Refusal
from mtf_engine.workspace import Workspace
from pages.shared import bounds_charts, densities, log_charts, plans, worlds
from tests.test_pages import app_of, button, checked, opened, tables, texts
from tests.workspaces import copy_workspace

PAGES = ("bounds", "drift", "walls", "cost", "coverage", "density", "formulas")


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path / "empty"))
    return Workspace(tmp_path / "empty")


@pytest.fixture
def filled(small_workspace, tmp_path, monkeypatch) -> Workspace:
    """A copy of the filled workspace, so that plans and counts can be stored."""
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path))
    return copy_workspace(small_workspace, tmp_path)


def tiles(app: AppTest) -> dict[str, str]:
    return {tile.label: tile.value for tile in app.metric}


def widget(kind, label: str):
    return next(w for w in kind if w.label.replace("\\", "") == label)


def address(app: AppTest, name: str) -> str:
    value = app.query_params[name]
    return value if isinstance(value, str) else value[0]


def plan_of(app: AppTest) -> BoundsPlan:
    return plans.from_text(address(app, "box"))


def test_density_names_every_definition_and_the_papers_2_to_the_10(empty):
    app = opened("density")
    assert tiles(app) == {
        "centre": "170 ×", "mean": "419 ×", "corner": "2,828 ×", "5 cells": "1,052 ×", "range": "1,024 ×",
    }  # fmt: skip
    assert "2^10" in texts(app)
    assert "5 boxes of 0.15 reach as far as one of 0.75" in texts(app).replace("\\", "")
    widget(app.slider, "Dimensions").set_value(1)
    widget(app.slider, "Share at random").set_value(0.5)
    # half of +-1.5 * 0.2 and half of +-1.5 * 0.5, in the box of +-0.15: a mean of 1/2 and 1/5
    assert tiles(checked(app.run()))["range"] == "2.86 ×"
    assert "--dims 1 --random-share 0.5 --random-sigma 0.5" in texts(app)


def test_the_planner_starts_from_the_papers_box(filled):
    app = opened("bounds")
    shown = tiles(app)
    assert shown["mean"] == "419 ×" and shown["covers"] == "10⁻⁸"
    assert plan_of(app) == BoundsPlan.symmetric(0.15, 10)
    assert "--bounds plan.yaml" in texts(app)


@pytest.mark.parametrize(
    ("env", "options", "query"),
    [
        ("session:noisy", "--env session --world noisy", {"env": "session", "world": "noisy"}),
        ("session", "--env session --world clickbait", {"env": "session", "world": "clickbait"}),
        ("gym:Pendulum-v1", "--env gym:Pendulum-v1", {"env": "gym:", "gym": "Pendulum-v1"}),
    ],
)
def test_the_planner_collects_where_its_log_is_from(filled, env, options, query):
    row = filled.dataset("explored")
    meta = row.meta | {"details": row.meta["details"] | {"env": env}}
    found = worlds.of_log(row.model_copy(update={"meta": meta}))
    assert (" ".join(found[0]), found[1]) == (options, query)
    assert "dataset collect --env session --world feed --explore" in texts(opened("bounds", dataset=row.id))


def set_by_numbers(app: AppTest) -> None:
    app.session_state["by"] = "numbers"
    checked(app.run())


def test_a_slider_and_a_number_move_the_same_walls(filled):
    app = opened("bounds")
    widget(app.slider, "pow_click").set_value(0.2)
    checked(app.run())
    assert plan_of(app).upper[4] == -plan_of(app).lower[4] == 0.2
    assert widget(app.number_input, "Half width of all dimensions").value == 0.2
    set_by_numbers(app)
    assert widget(app.number_input, "pow_click").value == 0.2
    widget(app.number_input, "pow_click").set_value(0.3)
    checked(app.run())
    assert plan_of(app).upper[4] == 0.3 and plan_of(app).upper[:4] == (0.15,) * 4


def test_an_asymmetric_box_keeps_its_walls_in_order(filled):
    app = opened("bounds")
    widget(app.toggle, "Symmetric").set_value(False)
    checked(app.run())
    widget(app.slider, "pow_like").set_value((-0.1, 0.3))
    checked(app.run())
    assert (plan_of(app).lower[5], plan_of(app).upper[5]) == (-0.1, 0.3)
    set_by_numbers(app)
    widget(app.number_input, "pow_click, lower").set_value(0.25)
    checked(app.run())
    assert (plan_of(app).lower[4], plan_of(app).upper[4]) == (0.25, 0.25)
    widget(app.toggle, "Symmetric").set_value(True)
    checked(app.run())
    assert (plan_of(app).lower[5], plan_of(app).upper[5]) == (-0.3, 0.3)


def test_a_segment_gets_a_box_of_its_own_and_loses_it(filled):
    app = opened("bounds", segment="under_25/light")
    assert widget(app.slider, "pow_click").disabled
    own = "under_25/light has a box of its own"
    widget(app.toggle, own).set_value(True)
    checked(app.run())
    widget(app.number_input, "Half width of all dimensions").set_value(0.05)
    checked(app.run())
    assert plan_of(app).segments["under_25/light"] == Box(lower=(-0.05,) * 10, upper=(0.05,) * 10)
    assert plan_of(app).upper == (0.15,) * 10
    widget(app.toggle, own).set_value(False)
    checked(app.run())
    assert plan_of(app) == BoundsPlan.symmetric(0.15, 10)


def test_a_link_shows_the_same_plan(filled):
    text = "-0.1:0.2*10;under_25%2Flight=-0.3:0.3*10"
    app = opened("bounds", **{"box": text, "from": "from drift of mine", "segment": "under_25/light"})
    assert plan_of(app) == plans.from_text(text)
    assert widget(app.slider, "pow_click").value == 0.3
    assert "from drift of mine" in texts(app).replace("\\", "")


def test_the_box_that_teaches_most_is_measured_drawn_and_one_click_from_the_plan(filled):
    app = opened("bounds")
    assert not any("half width" in table for table in tables(app))
    button(app, "Measure the pilot").click()
    checked(app.run())
    pilot = filled.dataset("explored")
    assert pilot_path(filled.dataset_path(pilot.id)).exists()
    table = next(table for table in tables(app) if "half width" in table)
    assert list(table.columns) == [
        "dimension",
        "half width",
        "widest",
        "information",
        "standard error",
        "loss, %",
    ]
    assert table["loss, %"].sum() <= 1.0001 and len(table) == 10
    said = texts(app).replace("\\", "")
    assert "times as much as the pilot" in said and "less than the" in said
    assert f"bounds teach {pilot.id} --sessions {pilot_of(app)} --loss 0.01 --widest 0.4 --save NAME" in said
    button(app, "Make it the plan").click()
    checked(app.run())
    assert plan_of(app).upper == tuple(table["half width"].round(4))
    assert address(app, "from").startswith("teaches most by explored")
    assert "under Stored plans" in app.toast[0].value
    widget(app.text_input, "Name").set_value("taught")
    checked(app.run())
    button(app, "Store").click()
    checked(app.run())
    (row,) = filled.registry.plans()
    assert row.plan == plan_of(app) and row.note.startswith("teaches most by explored")


def pilot_of(app: AppTest) -> int:
    return widget(app.number_input, "Sessions of the log to come").value


def test_what_teaches_most_follows_what_is_stated(filled):
    measure_pilot(open_dataset(filled, "explored"))
    app = opened("bounds", given="information", wished="1", each="true", widest="0.3")
    table = next(table for table in tables(app) if "half width" in table)
    assert np.ptp(table["standard error"]) < 1e-9 and table["half width"].max() <= 0.3
    assert "--information 1 --widest 0.3 --each" in texts(app)
    widget(app.number_input, "Information wished, times the pilot's").set_value(1_000.0)
    app = checked(app.run())
    assert any("times the sessions" in info.value for info in app.info)


def test_without_a_pilot_the_planner_says_what_to_collect(empty):
    app = opened("bounds")
    tables(app)
    assert any("Collect a small one first" in info.value for info in app.info)


def test_the_chart_of_teaching_names_its_marks_and_the_line():
    frontier = pd.DataFrame({"loss, %": [0.0, 5.0], "information": [0.0, 4.0]})
    ways = pd.DataFrame(
        {
            "way": ["Uniform", "matched", "sigma"],
            "noise": ["uniform", "gaussian", "gaussian"],
            "loss, %": [1.0, 1.0, 6.0],
            "information": [0.8, 0.8, 4.2],
            "beyond 0.4, %": [0.0, 16.1, 37.2],
        }
    )
    figure = bounds_charts.teaching(frontier, ways, 0.4)
    named = [note.text for note in figure.layout.annotations]
    assert named[0] == "best boxes" and named[1] == "Uniform<br>none beyond ±0.4"
    assert named[2:] == ["matched<br>16 % beyond ±0.4", "sigma<br>37 % beyond ±0.4"]
    assert figure.layout.annotations[1].xanchor == "left"  # there is no room to the left of it
    line = pd.DataFrame({"loss, %": [0.0, 1.0, 3.0, 5.9], "information": [0.0, 0.8, 2.0, 4.0]})
    assert bounds_charts.teaching(line, ways, 0.4).layout.annotations[0].x == 3.0, "away from all marks"
    ways.loc[:1, "loss, %"] = 4.0
    assert bounds_charts.teaching(frontier, ways, 0.4).layout.annotations[1].xanchor == "right"
    assert len(figure.data) == 4 and figure.layout.xaxis.range[1] > 6


def test_an_unreadable_link_is_refused_in_a_sentence(filled):
    assert "cannot be read" in opened("bounds", box="1:0").error[0].value


def test_a_plan_is_stored_compared_gone_on_from_and_deleted(filled):
    app = opened("bounds", box="-0.1:0.1*10")
    widget(app.text_input, "Name").set_value("narrow")
    widget(app.text_input, "Note (optional)").set_value("first try")
    checked(app.run())
    button(app, "Store").click()
    checked(app.run())
    (row,) = filled.registry.plans()
    assert (row.name, row.plan) == ("narrow", BoundsPlan.symmetric(0.1, 10))
    assert row.note.endswith("first try")
    assert "--bounds narrow" in texts(app)
    widget(app.selectbox, "Compare it with").set_value(plans.DRAFT)
    assert "The two plans are the same" in texts(checked(app.run()))
    widget(app.number_input, "Half width of all dimensions").set_value(0.2)
    checked(app.run())
    differences = app.dataframe[-1].value
    assert list(differences["upper, stored"]) == [0.1] * 10
    assert list(differences["upper, other"]) == [0.2] * 10
    button(app, "Go on from it").click()
    checked(app.run())
    assert plan_of(app) == row.plan and "from the stored plan narrow" in texts(app).replace("\\", "")
    button(app, "Delete for good").click()
    checked(app.run())
    assert filled.registry.plans() == []


@pytest.mark.parametrize(("page", "origin"), [("drift", "drift"), ("walls", "wall pressure")])
def test_a_proposal_is_one_click_from_the_planner(page, origin, filled):
    app = opened(page)
    before = plans.from_text("-0.15:0.15*10")
    take = button(app, "Take it to the planner")
    if take.disabled:
        assert "No wall is pressed" in texts(app)
        return
    take.click()
    checked(app.run())
    assert [title.value for title in app.title] == ["Bounds planner"]
    assert plan_of(app) != before
    assert address(app, "from").startswith(f"from {origin} of small")


def test_drift_offers_boxes_by_segment_and_its_command(filled):
    app = opened("drift", segments="true", baseline="true", share="90")
    assert "--share 0.9 --by-segment --include-baseline" in texts(app)
    assert widget(app.selectbox, "Drift of").options[0] == "all requests (the default box)"


def test_cost_compares_a_plan_with_gaussian_noise(filled):
    filled.registry.save_plan("narrow", BoundsPlan.symmetric(0.01, 10))
    app = opened("cost", plan="narrow", k="2")
    assert "--bounds narrow --sigma 0.2 --k 2" in texts(app)
    table = next(table for table in tables(app) if "measure" in table)
    changed = table[table["measure"] == "Top 2 that changes"].set_index("noise")["value"]
    assert changed["uniform"] < changed["Gaussian"] < changed["mixed"]
    assert "of 10 dimensions change the ranking inside the bounds" in texts(app).replace("\\", "")
    swapped = next(table for table in tables(app) if "pairs swapped, %" in table)
    assert len(swapped) == 10 and swapped["pairs swapped, %"].max() > 0


def test_coverage_counts_once_and_says_why_a_log_fails(filled):
    app = opened("coverage", dataset=filled.dataset("explored").id)
    verdict = next(w.value for w in app.warning if "Failed" in w.value)
    assert "at least 1,000" in verdict
    dataset = open_dataset(filled, "explored")
    assert json.loads(coverage_path(dataset.path).read_text())["content_hash"] == dataset.content_hash
    checks = next(table.value for table in app.dataframe if "result" in table.value)
    assert list(checks["result"]) == ["✖ failed"] + ["✔ passed"] * (len(checks) - 1)


def test_a_cancelled_count_waits_to_be_asked_for(filled):
    app = app_of()
    app.switch_page("pages/logs/datasets.py")
    app.query_params["tab"] = "Coverage"
    app.query_params["dataset"] = filled.dataset("explored").id
    app.session_state["count cancelled"] = filled.dataset("explored").id
    checked(app.run())
    assert "are not counted yet" in app.info[0].value
    assert not coverage_path(open_dataset(filled, "explored").path).exists()
    button(app, "Count them").click()
    checked(app.run())
    assert any("Failed" in warning.value for warning in app.warning)
    assert coverage_path(open_dataset(filled, "explored").path).exists()


def test_formulas_are_drawn_on_the_plans_own_box(filled):
    app = opened("formulas", box="-0.1:0.3*10", eta="2")
    table = tables(app)[0]
    inside = table["offset"].between(-0.099, 0.299)
    assert not table[inside].filter(like="value").to_numpy().any()
    assert (table[~inside]["expm1 value"] >= 0).all()
    assert "--set eta=2" in texts(app)


def test_a_fixed_dimension_has_no_formula(filled):
    assert "has no width" in opened("formulas", box="0:0*10").error[0].value


offsets = st.floats(-2, 2).map(lambda x: round(x, 6) + 0.0)
boxes = st.lists(st.tuples(offsets, offsets).map(sorted), min_size=3, max_size=3).map(
    lambda edges: {"lower": [low for low, _ in edges], "upper": [high for _, high in edges]}
)


@given(
    boxes,
    st.dictionaries(st.text(min_size=1, max_size=8), boxes, max_size=3),
    st.sampled_from(["truncate", "clip"]),
)
def test_every_plan_survives_its_link(default, segments, edge):
    plan = BoundsPlan(**default, segments={name: Box(**box) for name, box in segments.items()}, edge=edge)
    assert plans.from_text(plans.to_text(plan)) == plan


@pytest.mark.parametrize(
    "text", ["", "-", "clip;", "1:0", "0:1*x", "0:1*0", "nan:1", "-3:1", "0:1;a=0:1*2", ";"]
)
def test_any_other_text_in_a_link_is_refused(text):
    with pytest.raises(Refusal, match="ask for the link again"):
        plans.from_text(text)


def test_samples_are_told_in_words_of_any_size():
    assert [densities.times(np.log(x)) for x in (0.5, 19, 1_052.4, 578_124, 1e6)] == [
        "0.5 ×", "19 ×", "1,052 ×", "578 k ×", "1.0 · 10⁶ ×",
    ]  # fmt: skip
    assert densities.times(2_000.0) == "3.9 · 10⁸⁶⁸ ×"


def test_the_picture_shows_the_box_and_both_noises():
    figure = bounds_charts.picture(((-0.1, 0.2), (0.0, 0.3)), 0.2, ("a", "<b>b"))
    gaussian, uniform = figure.data[:2]
    assert uniform.x.min() >= -0.1 and uniform.x.max() <= 0.2
    assert uniform.y.min() >= 0.0 and uniform.y.max() <= 0.3
    assert len(uniform.x) == bounds_charts.DRAWS >= len(gaussian.x)
    (box,) = figure.layout.shapes
    assert (box.x0, box.x1, box.y0, box.y1) == (-0.1, 0.2, 0.0, 0.3)
    assert "&lt;b&gt;b" in figure.layout.yaxis.title.text
    heights = [trace.y.max() for trace in figure.data[2:4]]
    assert heights == pytest.approx([1 / (0.2 * np.sqrt(2 * np.pi)), 1 / 0.3])


def test_names_of_lines_never_meet():
    frame = pd.DataFrame({"x": [0.0, 1.0], "a": [0, 1.0], "b": [0, 1.001], "c": [0, 1.002]})
    figure = bounds_charts.efficiency([("t", frame, "x", 0.5)], {"a": "a", "b": "b", "c": "c"})
    ends = sorted(note.y for note in figure.layout.annotations if note.text in "abc")
    assert min(np.diff(ends)) >= 0.07 * 1.002 * 0.999
    assert max(ends) <= 1.002 + 1e-9


def test_walls_add_up_to_every_request():
    frame = pd.DataFrame(
        {
            "dimension": ["a", "b"],
            "below": [0.1, 0],
            "at lower": [0.2, 0],
            "inside": [0.7, 1],
            "at upper": [0, 0],
            "above": [0, 0],
            "proposal": ["widen", "keep"],
        }
    )
    figure = log_charts.walls(frame)
    assert np.sum([trace.x for trace in figure.data], axis=0) == pytest.approx([100, 100])
    assert [note.text for note in figure.layout.annotations] == ["keep", "widen"]
