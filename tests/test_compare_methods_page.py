"""The page that compares methods, on a comparison whose figures are known."""

import pytest

from mtf_engine.registry import RunState
from mtf_engine.runs import executor
from mtf_engine.study.comparison import Comparison
from mtf_engine.study.factorial import factorial, over_seeds
from mtf_engine.workspace import Workspace
from pages.evaluate import _factorial_charts, _factorial_tables
from tests.fixtures.comparison import BASE_MEAN, a_comparison, add_comparison, gain
from tests.test_evaluate_pages import table
from tests.test_pages import button, checked, opened, tables, texts
from tests.test_replay import add_source
from tests.workspaces import copy_workspace

FOUND = a_comparison()


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """A workspace in which nothing starts."""
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    return workspace


def test_the_page_tells_both_tables_the_factorial_and_what_it_comes_to(workspace):
    add_comparison(workspace, FOUND)
    app = opened("compare_methods", metric="session_reward")
    assert "Synthetic" in app.warning[0].value
    one, two = (table for table in tables(app) if "in the paper" in table)
    assert one["published"].tolist() == [
        "0.7836", "0.7881", "0.7892", "0.7894", "0.7906", "0.7941", "0.7953", "", "",
    ]  # fmt: skip
    assert one["in the paper"].tolist()[7:] == ["grid search", "bayesian optimization"]
    mean = sum(0.65 + gain("evolution_strategy", "1", seed) / 4 for seed in range(3)) / 3
    assert one["found"].iloc[0].startswith(f"{mean:.4f} [")
    ddpg = two.set_index("in the paper").loc["DDPG"]
    ratios = [(1 + gain("ddpg", "1", s)) / (1 + gain("evolution_strategy", "1", s)) - 1 for s in range(3)]
    assert ddpg["consumption, published"] == "+1.39%"
    assert ddpg["consumption, found"].startswith(f"{sum(ratios) / 3:+.2%} [")
    cells = table(app, "method", "trained on", "mean", "evaluations")
    assert len(cells) == 8 * 4 + 5
    assert cells["fitness"].dropna().unique().tolist() == ["weighted GAUC"]
    assert cells["evaluations"].dropna().unique().tolist() == [140]
    effects = table(app, "effect", "p-value")
    assert set(effects["effect"]) == {"data", "method", "both", "rounds"}
    assert app.selectbox(key="effect").options == [
        "of the data", "of the method", "of both, beyond their sum", "of own rounds",
    ]  # fmt: skip
    agreement = table(app, "agreement", "policies")
    assert agreement["mean"].tolist() == pytest.approx([1.0] * 6), "the figures rank alike by construction"
    assert table(app, "under its")["mean"].iloc[0] < 0
    assert table(app, "critics")["critics"].tolist() == [2, 4, 8, 24]


def test_single_seeds_are_shown_on_demand_and_floors_by_the_data_they_were_chosen_on(workspace):
    add_comparison(workspace, FOUND)
    app = opened("compare_methods")
    assert not [table for table in tables(app) if "seed 1" in table]
    floors = table(app, "floor", "chosen on", "mean")
    assert floors["floor"].tolist()[:2] == ["best single head (floor)", "regression weights (floor)"]
    assert floors["mean"].tolist() == pytest.approx([0.61, 0.7] * 5) and len(set(floors["chosen on"])) == 5
    app = opened("compare_methods", single="true", metric="session_reward")
    one, two = (table for table in tables(app) if "in the paper" in table)
    assert one["seed 2"].iloc[0] == pytest.approx(0.65 + gain("evolution_strategy", "1", 2) / 4)
    assert two["published"].iloc[2] == pytest.approx(1.39), "in per cent"
    cells = table(app, "method", "trained on", "evaluations", "seed 0", "seed 1", "seed 2")
    assert cells["seed 2"].iloc[0] == pytest.approx(gain("evolution_strategy", "1", 2))


def test_other_numbers_of_critics_alone_are_no_comparison_yet(workspace):
    critics = tuple(cell for cell in FOUND.cells if cell.n_critics)
    add_comparison(workspace, FOUND.model_copy(update={"cells": critics}))
    assert "No method is scored yet" in texts(opened("compare_methods"))


def test_a_comparison_at_work_tells_what_is_known_and_the_time_left(workspace):
    known = FOUND.model_copy(update={"cells": FOUND.cells[:3], "seconds_left": 600.0})
    add_comparison(workspace, known, RunState.INTERRUPTED, error="the worker died; `runs resume` goes on")
    app = opened("compare_methods")
    assert "the worker died" in app.error[0].value and button(app, "Resume")
    checked(button(app, "Resume").click().run())
    assert workspace.registry.run("compare-1").state is RunState.QUEUED
    assert "10 min" in app.get("progress")[0].proto.text


def test_the_form_is_its_command_line(workspace):
    app = opened("compare_methods")
    assert "No methods were compared yet" in app.info[0].value
    app.multiselect(key="compare methods").set_value(["integrated_rl"])
    app.multiselect(key="compare data").set_value(["1", "2"])
    app.multiselect(key="compare critics").set_value(["2", "8"])
    app.checkbox(key="compare rounds").set_value(True)
    checked(app.run())
    assert (
        "compare --methods integrated_rl --datasets 1,2 --seeds 3 --env session --world feed --preset laptop "
        "--sessions 20000 --users 10000 --rounds --n-critics 2,8 --background"
    ) in texts(app)
    checked(button(app, "Start the comparison").click().run())
    (run,) = workspace.registry.runs(kind="compare")
    assert run.config["datasets"] == ["1", "2"] and run.config["n_critics"] == [2, 8]
    assert run.config["rounds"] is True and run.config["seeds"] == [0, 1, 2]


def test_methods_are_compared_on_a_replayed_log(workspace):
    add_source(workspace)
    app = opened("compare_methods", env="replay", dataset="source")
    assert "--env replay --replay 20/3/5 --from source" in texts(app) and "--users" not in texts(app)
    checked(button(app, "Start the comparison").click().run())
    (run,) = workspace.registry.runs(kind="compare")
    assert (run.config["env"], run.config["source"]) == ("replay:20/3/5", "source")


def test_what_a_replay_offers_and_shows_is_chosen_and_linked(workspace):
    add_source(workspace)
    app = opened(
        "compare_methods", env="replay", dataset="source", replay_n_candidates="12", replay_n_shown="2"
    )
    assert "--replay 12/2/5" in texts(app)
    app.number_input(key="replay_n_shown").set_value(13)
    (said,) = checked(app.run()).error
    assert "shows 13 of 12 candidates" in said.value and not [b for b in app.button if "Start" in b.label]


def test_the_lines_of_the_factorial_are_the_methods_with_their_intervals():
    frame = _factorial_tables.factorial_table(FOUND.cells, "session_reward", single=False)
    drawn = _factorial_charts.lines(frame, "session reward", percent=True)
    first = drawn.data[0]
    assert first.name == "evolution_strategy" and list(first.x)[:2] == [
        "1: Gaussian",
        "1b: Gaussian, matched",
    ]
    expected = over_seeds({s: gain("evolution_strategy", "1", s) for s in range(3)})
    assert expected is not None and expected.ci_high is not None
    assert (first.y[0], first.error_y.array[0]) == pytest.approx(
        (expected.value, expected.ci_high - expected.value)
    )


def test_one_seed_has_dots_without_intervals():
    alone = Comparison.model_validate(a_comparison(seeds=(0,)))
    frame = _factorial_tables.effects_table(factorial(alone.cells, "session_reward"), single=False)
    drawn = _factorial_charts.dots(frame, ["effect", "method"], "effect", percent=True, zero=True)
    assert set(drawn.data[0].error_x.array) == {0.0} and frame["interval from"].isna().all()
    assert alone.cells[0].effects[0].base_mean == BASE_MEAN


def test_each_number_of_critics_has_a_line_of_its_own():
    frame = _factorial_tables.critics_table(FOUND.cells, "session_reward", single=False)
    drawn = _factorial_charts.dots(frame.astype({"critics": str}), ["critics"], "gain", percent=True)
    assert list(drawn.data[0].y) == ["24", "8", "4", "2"]
    assert drawn.layout.yaxis.type == "category", (
        "as numbers they would stand far apart, most of them outside"
    )


def test_policies_are_ranked_again_if_the_reward_weighed_otherwise(small_workspace, tmp_path, monkeypatch):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    (training,) = copy.registry.runs(kind="train")
    own = {"policy": training.id, "test_dataset": copy.dataset("test").id}
    cell = a_comparison(seeds=(0,)).cells[0].model_copy(update=own)
    add_comparison(copy, a_comparison(seeds=(0,)).model_copy(update={"cells": (cell,)}))
    app = opened("compare_methods", signal="like")
    ranked = table(app, "weight", "evolution_strategy on 1: Gaussian")
    assert len(ranked) == 13 and ranked["weight"].iloc[0] == 0 and ranked.notna().all().all()
    assert "no two of them change places" in texts(app)
