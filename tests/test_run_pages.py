"""The pages of trainings: started with changes and several seeds, found, kept in order, compared."""

import numpy as np
import pandas as pd
import pytest

from mtf_engine.registry import RunRow, RunState, new_id, now
from mtf_engine.runs import executor, metrics
from mtf_engine.runs.files import LOG, log_tail
from mtf_engine.work import kinds
from mtf_engine.workspace import Workspace
from pages.shared import run_table, words
from pages.shared.run_table import Filters
from pages.train import _run_charts
from pages.train._run_charts import Look
from tests.test_pages import button, checked, opened, tables, texts


def row(**values) -> RunRow:
    columns = {"kind": "train", "name": "n", "state": RunState.COMPLETED, "created_at": now(), "config": {}}
    return RunRow(**{"id": new_id("train"), **columns, **values})


def test_the_last_lines_of_a_log_are_whole_however_long(tmp_path):
    lines = [f"{i} {'é' * n}" for i, n in enumerate((3, 200_000, 9, 70_000, 0, 900))]
    (tmp_path / LOG).write_text("".join(f"{line}\n" for line in lines))
    for n in range(1, 9):
        assert log_tail(tmp_path, n) == lines[-n:]
    assert log_tail(tmp_path) == lines and log_tail(tmp_path / "none") == []


@pytest.fixture
def filled(small_workspace, monkeypatch) -> Workspace:
    monkeypatch.setenv("MTF_WORKSPACE", str(small_workspace.path))
    return small_workspace


@pytest.fixture
def still(tmp_path, monkeypatch, small_workspace) -> Workspace:
    """A workspace with a dataset, two seeds of one training and one of another, in which nothing starts."""
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    (explored,) = (row for row in small_workspace.registry.datasets() if row.name == "explored")
    workspace.registry.add_dataset(explored)
    config = small_workspace.registry.runs(kind="train")[0].config
    for i, (name, eta) in enumerate((("one", 1.2), ("one", 1.2), ("other", 0.5))):
        run = row(id=f"train-{i}", name=name, algo="integrated_rl", seed=i, dataset_id=explored.id)
        run = run.model_copy(
            update={"config": config | {"eta": eta, "seed": i}, "best_score": 0.6 + i / 100, "best_step": 20}
        )
        workspace.registry.add_run(run)
        workspace.run_dir(run.id).mkdir()
        for step in (10, 20, 30):
            logged = {"step": step, "critic_loss": 1.0 + i, "seconds": step}
            metrics.append(workspace.run_dir(run.id), logged)
    return workspace


def test_a_training_is_run_again_with_changes(still):
    app = opened("start", **{"from": "train-2"})
    assert app.selectbox(key="dataset").value == still.registry.run("train-2").dataset_id
    assert app.number_input(key="integrated_rl.train-2.eta").value == 0.5
    assert app.number_input(key="seed").value == 2
    assert "--set eta=0.5" in texts(app)
    app.number_input(key="integrated_rl.train-2.eta").set_value(1.2)
    checked(app.run())
    assert "eta" not in texts(app).split("--algo")[1]
    assert "critics 4" in texts(app), "what differs from the preset is said"


def test_a_training_is_as_long_as_its_passes_unless_a_number_of_steps_is_given(still):
    app = opened("start")
    first, second = (
        app.text_input(key="integrated_rl.laptop.n_steps"),
        app.number_input(key="integrated_rl.laptop.passes"),
    )
    assert (first.value, first.placeholder, second.value) == (
        "",
        "as many as the passes make, 500 at least",
        2.5,
    )
    assert "About 500 steps" in texts(app)
    second.set_value(4.0)
    assert "--set passes=4" in texts(checked(app.run()))
    app.text_input(key="integrated_rl.laptop.n_steps").set_value("70")
    (said,) = checked(app.run()).error
    assert "and passes both say how long to train" in said.value
    app.number_input(key="integrated_rl.laptop.passes").set_value(2.5)
    app = checked(app.run())
    assert "--set n_steps=70" in texts(app) and "70 steps" in texts(app)


def test_several_seeds_start_as_one_group_and_wait_in_order(still):
    app = opened("start")
    app.number_input(key="n_seeds").set_value(3)
    app.text_input(key="name").set_value("three")
    checked(app.run())
    assert "--seeds 0-2 --name three" in texts(app)
    button(app, "Start 3 trainings").click()
    checked(app.run())
    queue = still.registry.queue()
    assert [(run.seed, run.seed_group) for run in queue] == [(0, "three"), (1, "three"), (2, "three")]
    app = opened("runs")
    app.button(key=f"↓ down {queue[0].id}").click()
    checked(app.run())
    assert [run.seed for run in still.registry.queue()] == [1, 0, 2]


def test_policies_are_called_by_name_and_seed_and_by_id_only_where_two_are_called_the_same():
    runs = [
        row(id="train-000000aa", name="wide", algo="iql", seed=1, n_steps=30, best_step=20),
        row(id="train-000000bb", name="wide", seed=0, seed_group="wide"),
        row(id="train-000000cc", name="wide", seed=1, seed_group="wide"),
        row(id="train-000000dd", name="twice"),
        row(id="train-000000ee", name="twice"),
        row(id="train-000000ff", name="baseline"),
        row(id="train-00000000", name="", algo="iql"),
    ]
    titles = words.policy_titles(runs, {run.id: run for run in runs})
    assert list(titles.values()) == [
        "wide",
        "wide (best step 20)",
        "wide, seed 0",
        "wide, seed 1",
        "twice (00dd)",
        "twice (00ee)",
        "baseline (00ff)",
        "iql",
    ]
    assert titles == {policy: words.policy_title(policy, {run.id: run for run in runs}) for policy in titles}


def test_a_run_is_renamed_on_its_page(still):
    app = opened("runs", run="train-2")
    app.text_input[[one.label for one in app.text_input].index("Name")].set_value("wider *clicks*")
    button(app, "Save").click()
    checked(app.run())
    assert still.registry.run("train-2").name == "wider *clicks*"
    assert "runs rename train-2 'wider *clicks*'" in texts(app)


def test_runs_are_found_by_the_choices_in_the_address(still):
    app = opened("runs", find="other")
    assert app.dataframe[0].value["Run"].tolist() == ["train-2"]
    app = opened("runs", sort="Best score", descending="false")
    assert app.dataframe[0].value["Run"].tolist() == ["train-0", "train-1", "train-2"]


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_run_can_be_chosen_and_none_is_said(still, kind):
    app = opened("runs", kind=kind)
    there = {run.kind for run in Workspace().registry.runs()}
    assert ("choose “all”" in texts(app)) == (kind not in there)


def test_parts_are_folded_under_the_run_that_they_are_parts_of(still):
    whole = row(id="compare-1", kind="compare", name="all methods")
    still.registry.add_run(whole)
    for i in range(3):
        still.registry.add_run(row(id=f"train-part{i}", name="part", parent_id="compare-1"))
    app = opened("runs", run="compare-1")
    listed, parts = (table.value for table in app.dataframe)
    assert set(listed["Run"]) == {"compare-1", "train-0", "train-1", "train-2"}
    assert list(parts["Name"]) == ["part"] * 3 and "3 parts, 3 of them completed" in {
        e.label for e in app.expander
    }
    assert len(opened("runs", parts="true").dataframe[0].value) == 7
    assert len(opened("runs", find="part1").dataframe[0].value) == 1, "who looks for one finds it"
    assert "train-part" not in " ".join(str(t.value) for t in opened().markdown), (
        "home does not ask to compare them"
    )


def test_where_a_run_works_stands_in_columns_that_can_be_asked_for(still):
    there = dict(executor="ray://head:8265", host="node-7", submission_id="train-far-1")
    still.registry.add_run(row(id="train-far", name="far", **there))
    still.registry.update_run("train-0", host="desk")
    assert not {"Executor", "Host"} & {*opened("runs").dataframe[0].proto.column_order}
    (table, *_) = opened("runs", columns=["Run", "Executor", "Host"]).dataframe
    assert [*table.proto.column_order] == ["Run", "Executor", "Host"]
    where = table.value.set_index("Run")[["Executor", "Host"]]
    assert [*where.loc["train-far"]] == ["ray://head:8265", "node-7"]
    assert [*where.loc["train-0"]] == ["local", "desk"]
    assert where.loc["train-1", "Executor"] == "local" and pd.isna(where.loc["train-1", "Host"])


def test_what_parts_made_comes_after_what_people_made(still):
    (explored,) = still.registry.datasets()
    still.registry.add_run(row(id="progressive-1", kind="progressive", name="rounds"))
    still.registry.add_run(row(id="collect-part", kind="collect", name="round 1", parent_id="progressive-1"))
    newer = {"id": "dataset-part", "name": "round 1", "run_id": "collect-part", "created_at": now()}
    still.registry.add_dataset(explored.model_copy(update=newer))
    assert opened("start").selectbox(key="dataset").options[0].startswith(explored.name)
    assert opened("runs").selectbox(key="run").value == "progressive-1"


def test_a_note_and_tags_are_kept(still):
    app = opened("runs", run="train-1")
    app.text_area[0].set_value("for the review")
    button(app, "Save").click()
    checked(app.run())
    assert still.registry.run("train-1").note == "for the review"
    assert "runs note train-1 'for the review'" in texts(app)


def test_trainings_are_compared_settings_first(still):
    app = opened("compare_runs", runs=["train-0", "train-1", "train-2"], group_seeds="true")
    differing = app.dataframe[0].value.set_index("setting")
    assert differing.loc["eta"].tolist() == ["1.2", "1.2", "0.5"]
    assert differing.loc["seed"].tolist() == ["0", "1", "2"]
    assert set(differing.index) == {"eta", "seed"}
    ends = next(table for table in tables(app) if "training" in table)
    assert ends["value"].tolist() == [1.5, 3.0] and ends["n"].tolist() == [2, 1]
    assert "runs compare train-0 train-1 train-2" in texts(app)


def test_filters_hide_what_they_should():
    runs = [
        row(name="wide bounds", tags=["a"], state=RunState.FAILED),
        row(name="narrow", note="BOUNDS", archived=True),
        row(name="x", kind="import", dataset_id="dataset-1"),
    ]

    def shown(**filters) -> list[str]:
        return [run.name for run in runs if Filters(**filters).shows(run)]

    assert shown() == ["wide bounds", "x"]
    assert shown(archived=True) == ["wide bounds", "narrow", "x"]
    assert shown(text="bounds wide") == ["wide bounds"]
    assert shown(text="bounds", archived=True) == ["wide bounds", "narrow"]
    assert shown(kind="import") == shown(datasets=["dataset-1"]) == ["x"]
    assert shown(tags=["a", "b"]) == shown(states=["failed"]) == ["wide bounds"]
    assert shown(methods=["iql"]) == []


@pytest.mark.parametrize("by", run_table.ORDERS)
def test_runs_without_a_value_come_last_in_either_order(by):
    runs = [
        row(seed=3, algo="a", best_score=0.5, started_at=now()),
        row(),
        row(seed=1, algo="b", best_score=0.6),
    ]
    for descending in (True, False):
        found = run_table.ordered(runs, by, descending)
        known = [run_table.ORDERS[by](run) is not None for run in found]
        assert len(found) == 3 and known == sorted(known, reverse=True)


def test_states_differ_in_their_sign_and_word():
    states = run_table.table([row(state=state) for state in RunState], {})["State"]
    assert len({text[0] for text in states}) == len({text.split()[1] for text in states}) == len(RunState)


FRAME = pd.DataFrame(
    {"step": [0, 10, 20], "seconds": [np.nan, 60, 120], "loss": [np.nan, 4, 2], "score": [0.5, np.nan, 0.7]}
)


def test_curves_are_of_the_rows_that_have_a_value():
    curves = _run_charts.lines({"A": FRAME, "B": FRAME[["step"]]}, "score", Look(smoothing=0.5))
    assert list(curves) == ["A"]
    assert curves["A"]["x"].tolist() == [0, 20] and curves["A"]["raw"].tolist() == [0.5, 0.7]
    assert 0.5 < curves["A"]["value"].iloc[-1] < 0.7
    assert _run_charts.lines({"A": FRAME}, "score", Look(over="minutes"))["A"]["x"].tolist() == [0, 2]


def test_seeds_become_one_curve_of_mean_and_interval():
    other = FRAME.assign(loss=FRAME["loss"] + 2)
    curves = _run_charts.grouped({"A": {"x": FRAME, "y": other}, "B": {"z": FRAME}}, "loss", Look())
    assert curves["A"]["value"].tolist() == [5, 3] and curves["A"]["n"].tolist() == [2, 2]
    assert (curves["A"]["low"] < curves["A"]["value"]).all() and curves["B"]["low"].isna().all()


def test_a_curve_keeps_its_colour_where_another_is_missing_and_its_name_is_text():
    titles = {"A": "a <b>", "B": "b"}
    curves = _run_charts.lines({"A": FRAME, "B": FRAME}, "loss", Look(smoothing=0.9))
    both = _run_charts.overlaid(curves, titles, "", Look(logarithmic=True))
    alone = _run_charts.overlaid({"B": curves["B"]}, titles, "", Look())
    colour = {trace.name: trace.line.color for trace in both.data if trace.name}
    assert {trace.line.color for trace in alone.data if trace.name} == {colour["b"]}
    assert "a &lt;b&gt;" in colour and both.layout.yaxis.type == "log"


def test_ten_long_curves_send_few_points():
    long = pd.DataFrame({"step": np.arange(50_000), "loss": np.random.default_rng(0).normal(size=50_000)})
    signs = _run_charts.signs(10)
    curves = _run_charts.lines(dict.fromkeys(signs, long), "loss", Look(smoothing=0.5))
    figure = _run_charts.overlaid(curves, {sign: sign for sign in signs}, "", Look())
    assert sum(len(trace.x) for trace in figure.data) <= 5_000
    assert {trace.x[-1] for trace in figure.data} == {49_999}, "each reaches its end"


def test_a_seed_that_another_run_drew_is_left_out_of_the_table():
    run = row(seed=835_098_446, parent_id="progressive-1")
    assert run_table.table([run], {})["Seed"].isna().all()
    own = run_table.table([run.model_copy(update={"parent_id": None})], {})
    assert own["Seed"].tolist() == [835_098_446]
