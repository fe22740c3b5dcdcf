"""Logs, page by page: what is collected, what a log holds, what moved, and where each leads."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx

from mtf_engine.environments.world import World, names
from mtf_engine.exploration import signal
from mtf_engine.logs import aggregates
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.next_day import NextDay
from mtf_engine.registry import RunRow, RunState
from mtf_engine.reward import Correlation
from mtf_engine.runs import estimates, executor
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import BoundsPlan, Refusal, RewardSpec
from mtf_engine.study.premises import PREMISES, stored
from mtf_engine.work.collect import CollectConfig
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import Workspace
from pages.shared import dataset_charts, loaders, words
from pages.shared.places import TEACHING, TRAIN
from tests.fixtures import logs
from tests.fixtures.shapes import SHAPES
from tests.test_explore_pages import address, tiles, widget
from tests.test_pages import button, checked, opened, tables, texts
from tests.workspaces import copy_workspace


@pytest.fixture
def filled(small_workspace, tmp_path, monkeypatch) -> Workspace:
    """A copy of the filled workspace, so that logs can be collected and deleted."""
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path))
    return copy_workspace(small_workspace, tmp_path)


def ask(app, **numbers: int) -> None:
    for key, value in numbers.items():
        app.number_input(key=key).set_value(value)
    checked(app.run())


def collected(app, workspace: Workspace) -> Dataset:
    """Returns the log that a click on Collect brings, with the page showing its end."""
    button(app, "Collect").click()
    checked(app.run())
    run = executor.wait(workspace, address(app, "collected"))
    assert run.state is RunState.COMPLETED, run.error
    checked(app.run())
    assert run.dataset_id in app.success[0].value
    return Dataset.open(workspace.dataset_path(str(run.dataset_id)))


def test_a_log_is_collected_as_the_form_says_and_leads_on(filled, in_process):
    filled.registry.save_plan("narrow", BoundsPlan.symmetric(0.05, 10))
    (training,) = filled.registry.runs(kind="train")
    app = opened("collect", plan="narrow", baseline=training.id)
    ask(app, requests=300, control=25, collect_seed=7, processes=2)
    command = (
        f"--bounds narrow --baseline {training.id} --control-share 0.25 --requests 300 --seed 7 --workers 2"
    )
    assert f"--env session --world feed --explore uniform {command}" in texts(app)
    meta = collected(app, filled).meta
    assert meta.plan == BoundsPlan.symmetric(0.05, 10)
    assert (meta.baseline, meta.control_share, meta.seed) == (training.id, 0.25, 7)
    links = {link.label for link in app.get("page_link")}
    assert {"Certify its coverage →", "Train on it →"} <= links


@pytest.fixture
def waiting(filled, monkeypatch) -> Workspace:
    """The workspace, in which runs wait in the queue."""
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    return filled


def asked_for(app, workspace: Workspace) -> RunRow:
    """Returns the run that a click on Collect queues."""
    button(app, "Collect").click()
    checked(app.run())
    return workspace.registry.run(address(app, "collected"))


def test_a_plan_that_is_being_drawn_is_collected_with(waiting):
    app = opened("collect", plan="*draft", box="-0.1:0.3*10")
    assert "plan.yaml is the planner's download" in texts(app)
    config = CollectConfig.model_validate(asked_for(app, waiting).config)
    assert config.plan == BoundsPlan(lower=(-0.1,) * 10, upper=(0.3,) * 10)


def test_a_cancelled_collection_says_what_became_of_it(waiting):
    app = opened("collect", explore="baseline")
    run = asked_for(app, waiting)
    button(app, "Cancel").click()
    checked(app.run())
    assert f"{run.id} was cancelled" in checked(app.run()).error[0].value.replace("\\", "")


def test_a_bare_baseline_log_leads_to_no_training(filled):
    (run,) = (run for run in filled.registry.runs(kind="collect") if run.name == "test")
    app = opened("collect", collected=run.id)
    assert run.dataset_id in app.success[0].value
    assert "Train on it →" not in {link.label for link in app.get("page_link")}


def test_a_link_to_another_kind_of_run_is_refused_in_a_sentence(filled):
    (run,) = filled.registry.runs(kind="train")
    assert "is no collection" in opened("collect", collected=run.id).error[0].value


def test_gaussian_noise_has_a_sigma_and_the_default_box_no_option(filled):
    app = opened("collect", explore="gaussian", sigma="0.3")
    assert "--explore gaussian --sigma 0.3 --requests" in texts(app)
    assert "--explore uniform --requests" in texts(opened("collect"))


def test_a_mixture_has_its_share_and_both_sigmas(waiting):
    app = opened("collect", explore="mixed", random_share="0.3")
    assert "--explore mixed --sigma 0.2 --random-share 0.3 --random-sigma 0.5 --requests" in texts(app)
    config = CollectConfig.model_validate(asked_for(app, waiting).config)
    assert (config.explore, config.random_share, config.random_sigma) == ("mixed", 0.3, 0.5)


def test_a_collection_is_estimated_by_the_pace_of_the_largest_so_far(filled, tmp_path):
    logged = {run.id: (run.result or {})["requests"] for run in filled.registry.runs(kind="collect")}
    most = max(logged.values())
    as_it = estimates.collection(filled, "session:feed", most)
    (by,) = [run_id for run_id in logged if run_id in as_it.basis]
    assert logged[by] == most
    assert as_it.seconds == pytest.approx(filled.registry.run(by).seconds)
    assert estimates.collection(filled, "session:feed", 10 * most).seconds > as_it.seconds
    assert "a guess" in estimates.collection(filled, "replay", 100).basis


def test_only_imported_logs_are_replayed(filled):
    app = opened("collect")
    assert list(widget(app.selectbox, "Collect from").options) == [
        "Synthetic users",
        "A Gymnasium environment",
    ]


def test_a_gymnasium_environment_is_collected_by_its_id(waiting):
    app = opened("collect", env="gym:")
    assert "such as `Pendulum-v1`" in texts(app) and not [b for b in app.button if b.label == "Collect"]
    app.text_input(key="gym").set_value("CartPole-v1")
    (said,) = checked(app.run()).error
    assert "only a bounded Box" in said.value and not [b for b in app.button if b.label == "Collect"]
    app.text_input(key="gym").set_value("Pendulum-v1")
    assert "--env gym:Pendulum-v1 --explore uniform" in texts(checked(app.run()))
    run = asked_for(app, waiting)
    assert run.config["env"] == "gym:Pendulum-v1" and len(run.config["plan"]["lower"]) == 1


def test_the_quality_of_a_log_is_measured_once_and_shown(filled):
    row = filled.dataset("explored")
    app = opened("datasets", dataset=row.id)
    found = aggregates.stored_quality(filled.dataset_path(row.id), row.content_hash)
    assert found is not None
    assert (
        tiles(app)["Sessions"] == f"{found.n_sessions:,}" and tiles(app)["Requests"] == f"{row.n_requests:,}"
    )
    assert set(app.dataframe[0].value["Dataset"]) == {"explored", "test"}
    signals = next(d.value for d in app.dataframe if "signal" in d.value)
    weights = row.meta["reward"]["weights"]
    assert dict(zip(signals["signal"], signals["reward weight"], strict=True)) == {
        name: weights.get(name, 0) for name in row.meta["signals"]
    }
    assert f"dataset quality {row.id}" in texts(app)


@pytest.fixture
def few_will_do(monkeypatch):
    """Segments of a dozen sessions may tell."""
    monkeypatch.setattr(signal, "FEWEST", 11)
    monkeypatch.setattr(signal, "FEWEST_EACH", 1)


@pytest.fixture
def forgotten():
    """What pages keep of a log's signal is forgotten before and after."""
    loaders._signal.clear()
    yield
    loaders._signal.clear()


def test_a_log_is_written_as_parquet_files_and_says_where_they_lie(filled, in_process):
    row = filled.dataset("explored")
    app = opened("datasets", dataset=row.id)
    assert "Parquet files" not in texts(app)
    widget(app.text_input, "Place of the files (optional)").set_value("ftp://x")
    button(app, "Write Parquet files").click()
    checked(app.run())
    assert "or s3://BUCKET/PREFIX for a server" in app.error[0].value.replace("\\", "")
    widget(app.text_input, "Place of the files (optional)").set_value("")
    button(app, "Write Parquet files").click()
    checked(app.run())
    (run,) = filled.registry.runs(kind="shard")
    app = opened("datasets", dataset=row.id)
    assert button(app, "Write Parquet files").disabled, "a second click writes no second one"
    assert executor.wait(filled, run.id).state is RunState.COMPLETED
    app = opened("datasets", dataset=str(run.dataset_id))
    assert widget(app.text_input, "Name of the dataset").value == f"{run.name} in Parquet"
    assert not button(app, "Write Parquet files").disabled
    assert f"Parquet files, in {run.dataset_id}.parquet." in texts(app).replace("\\", "")


def test_what_a_log_can_teach_is_measured_once_and_shown(filled, few_will_do):
    row = filled.dataset("explored")
    app = opened("datasets", dataset=row.id, tab=TEACHING)
    found = aggregates.stored_signal(filled.dataset_path(row.id), row.content_hash)
    assert found is not None
    assert found.everybody.sentence in {said.value.replace("\\", "") for said in [*app.warning, *app.success]}
    assert f"dataset signal {row.id} --by-segment" in texts(app)
    shown = next(table for table in tables(app) if "slope" in table)
    assert list(shown["dimension"]) == [one.dimension for one in found.everybody.slopes]
    segments = next(table for table in tables(app) if "sessions needed" in table)
    assert list(segments["segment"]) == ["everybody", *(one.segment for one in found.segments)]
    widget(app.selectbox, "Slopes of").set_value(found.segments[0].segment)
    checked(app.run())
    shown = next(table for table in tables(app) if "slope" in table)
    assert list(shown["slope"]) == [one.slope for one in found.segments[0].slopes]
    said = texts(app).replace("\\", "")
    assert f"dataset narrow {row.id} --bounds plan.yaml" in said and "rows lie inside (100.0%)" in said


def test_of_a_large_log_the_command_tells_what_a_narrower_plan_would_have_taught(filled, monkeypatch):
    monkeypatch.setattr(loaders, "MOST_REQUESTS", 10)
    row = filled.dataset("explored")
    app = opened("datasets", dataset=row.id, tab=TEACHING)
    app.session_state["unfold What a narrower plan would have taught"] = True
    said = texts(checked(app.run())).replace("\\", "")
    assert (
        "too large to be read while you wait" in said
        and f"dataset narrow {row.id} --bounds plan.yaml" in said
    )
    assert "rows lie inside" not in said


def test_segments_that_cannot_tell_are_named(filled):
    app = opened("datasets", dataset=filled.dataset("explored").id, tab=TEACHING)
    assert "Segments that cannot tell by themselves: 25_to_44/heavy" in texts(app).replace("\\", "")


def test_only_an_explored_log_is_asked_what_it_can_teach(filled):
    app = opened("datasets", dataset=filled.dataset("test").id, tab=TEACHING)
    assert "This log was not explored" in app.info[0].value


def test_a_log_that_cannot_tell_says_why(filled, monkeypatch, forgotten):
    def refuse(*_):
        raise Refusal("signal: 9 explored sessions are too few for 10 slopes; collect 30 or more")

    monkeypatch.setattr(aggregates, "signals", refuse)
    for page, tab in (("datasets", TEACHING), ("start", TRAIN)):
        app = opened(page, dataset=filled.dataset("explored").id, tab=tab)
        assert "9 explored sessions are too few" in texts(app) and not app.error


def test_a_training_is_told_before_it_starts_what_its_log_can_teach(filled, monkeypatch, forgotten):
    row = filled.dataset("explored")
    found = aggregates.signal(open_dataset(filled, row.id)).everybody
    aggregates.signal_path(filled.dataset_path(row.id)).unlink()
    assert found.sentence in texts(opened("start", dataset=row.id)).replace("\\", "")
    monkeypatch.setattr(loaders, "MOST_REQUESTS", 10)
    aggregates.signal_path(filled.dataset_path(row.id)).unlink(missing_ok=True)
    assert "is not measured yet" in texts(opened("start", dataset=row.id)).replace("\\", "")


def test_the_figure_of_slopes_shows_which_are_told_without_colour():
    frame = pd.DataFrame(
        {"dimension": ["a", "b"], "slope": [2.0, 1.0], "low": [1.0, -1.0], "high": [3.0, 3.0]}
    )
    (dots,) = dataset_charts.slopes(frame).data
    assert dict(zip(dots.y, dots.marker.symbol, strict=True)) == {"a": "diamond", "b": "circle"}
    assert dict(zip(dots.y, dots.error_x.array, strict=True)) == {"a": 1, "b": 2}


def test_drift_from_another_log_is_told_in_words_and_by_link(filled):
    here, there = filled.dataset("explored"), filled.dataset("test")
    app = opened("datasets", dataset=here.id, drift_from=there.id)
    assert any("as before" in str(told.value) for told in [*app.success, *app.warning])
    assert f"dataset quality {here.id} --against {there.id}" in texts(app)
    table = next(table for table in tables(app) if "PSI" in table)
    assert len(table) == len(
        here.meta["feature_names"] + here.meta["signals"] + here.meta["fusion"]["predictions"]
    )


def test_a_cancelled_measurement_waits_to_be_asked_for(filled):
    row = filled.dataset("explored")
    app = opened()
    app.switch_page("pages/logs/datasets.py")
    app.query_params["dataset"] = row.id
    app.session_state["count cancelled"] = row.id
    checked(app.run())
    assert "are not counted yet" in texts(app) and not tiles(app)
    button(app, "Count them").click()
    assert tiles(checked(app.run()))


def delete(app) -> None:
    assert button(app, "Delete for good").disabled
    widget(app.checkbox, "I know that this cannot be undone.").set_value(True)
    checked(app.run())
    button(app, "Delete for good").click()
    checked(app.run())


def test_a_dataset_is_deleted_when_asked_twice(filled):
    row = filled.dataset("test")
    delete(opened("datasets", dataset=row.id))
    assert [left.name for left in filled.registry.datasets()] == ["explored"]
    assert not list(filled.datasets_dir.glob(f"{row.id}*"))


def test_a_dataset_that_a_run_works_with_is_kept(waiting):
    row = waiting.dataset("explored")
    settings = {"algo": "integrated_rl", "preset": "demo", "settings": {}}
    run_id = submit_train(waiting, row.id, **settings)
    app = opened("datasets", dataset=row.id)
    delete(app)
    assert run_id in app.error[0].value.replace("\\", "")
    assert waiting.dataset("explored") == row


def test_the_figure_of_a_drift_shows_what_moved_without_colour():
    frame = pd.DataFrame(
        {
            "column": ["<b>a", "b"], "kind": ["feature", "signal"], "verdict": ["moved", "as before"],
            "PSI": [0.5, 0.01], "difference": [1.0, None], "low": [0.9, None], "high": [1.1, None],
        }
    )  # fmt: skip
    figure = dataset_charts.drift(frame)
    assert list(figure.data[0].marker.symbol) == ["circle", "diamond"]
    assert "&lt;b&gt;a, feature" in list(figure.data[0].y)
    assert {note.text for note in figure.layout.annotations} == {"PSI 0.50", "PSI 0.01"}


def test_reward_weights_are_shown_with_what_they_rest_on(filled):
    row = filled.dataset("explored")
    found = NextDay(
        n_pairs=5_000, n_days=9, mean_watch_time=20.0, collected=False,
        correlations={
            "like": Correlation(value=0.1, low=0.05, high=0.15),
            "watch_time": Correlation(value=0.2, low=0.1, high=0.3),
        },
    )  # fmt: skip
    stored = aggregates.Stored(content_hash=row.content_hash, counts=found)
    aggregates.next_day_path(filled.dataset_path(row.id)).write_text(stored.model_dump_json())
    app = opened("rewards", dataset=row.id)
    assert not app.warning
    table = next(table for table in tables(app) if "signal" in table)
    assert list(table["signal"]) == ["watch_time", "like"]
    assert list(table["suggested weight"]) == [0.025, 0.25]
    (suggested,) = (code.value for code in app.code if code.value.startswith("reward:"))
    reward = yaml.safe_load(suggested)["reward"]
    assert RewardSpec.model_validate(reward).weights == {"like": 0.25, "watch_time": 0.025}
    assert f"dataset rewards {row.id}" in texts(app)


def test_a_log_of_too_few_days_warns_and_suggests_nothing(filled):
    app = opened("rewards", dataset=filled.dataset("explored").id)
    assert app.warning and "no weights are suggested" in app.info[0].value


def foreign_log(tmp_path):
    path = tmp_path / "foreign.csv"
    rows = "".join(f"{i % 3},{1_700_000_000 + 60 * i},0.5,0.1,{i % 2},9,<b>x</b>\n" for i in range(30))
    path.write_text("member,ts,p_click,p_like,click,play_time,note\n" + rows)
    return path


def test_a_log_in_other_words_is_mapped_in_the_form_and_imported(filled, in_process, tmp_path):
    path = foreign_log(tmp_path)
    app = opened("import_logs")
    app.text_input(key="import_path").set_value(str(path))
    checked(app.run())
    first = next(d.value for d in app.dataframe if "note" in d.value)
    assert list(first["note"]) == ["<b>x</b>"] * 5
    predictions = widget(checked(app.run()).multiselect, "predictions, needed")
    assert predictions.proto.set_value, (
        "every drawing tells the browser, for the one before may have been cut"
    )
    assert list(predictions.proto.raw_values) == ["p_click", "p_like"]
    assert any("user_id not found by name" in e.label.replace("\\", "") for e in app.expander)
    widget(app.selectbox, "user_id, needed").set_value("member")
    widget(app.selectbox, "Times that are numbers").set_value("s")
    widget(app.selectbox, "Unit of watch_time").set_value("min")
    checked(app.run())
    mapping = yaml.safe_load(app.code[0].value)
    assert (mapping["time_unit"], mapping["watch_time_unit"]) == ("s", "min")
    assert mapping["impressions"] == {
        "user_id": "member", "timestamp": "ts", "predictions": ["p_click", "p_like"], "watch_time": "play_time",
    }  # fmt: skip
    assert "--mapping mapping.yaml" in texts(app)
    button(app, "Check and import").click()
    checked(app.run())
    following = app.session_state["an import"]
    executor.wait(filled, following.run_id)
    folder = following.folder
    assert "Imported 30 requests" in checked(app.run()).success[0].value
    assert filled.dataset("foreign").n_impressions == 30 and not folder.exists()


def test_a_log_of_another_shape_is_told_in_the_form(tmp_path, monkeypatch):
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path / "workspace"))
    app = opened("import_logs")
    app.text_input(key="import_path").set_value(str(SHAPES["mind"](tmp_path))).run()
    names = "impression_id, user_id, time, history, impressions, prediction_click"
    app.text_input(key="import_columns behaviors.tsv").set_value(names).run()
    assert next(d.value for d in app.dataframe if "history" in d.value)["user_id"].tolist()[:2] == [
        "U0",
        "U1",
    ]
    widget(app.selectbox, "Its row is a request, and a list of items is in").set_value("impressions")
    app.text_input(key="import_time_format behaviors.tsv").set_value("%m/%d/%Y %I:%M:%S %p")
    widget(checked(app.run()).multiselect, "Lists of a value for each item").set_value(["prediction_click"])
    app.text_input(key="import_marks behaviors.tsv").set_value("click")
    checked(app.run())
    widget(app.selectbox, "label").set_value("click")
    widget(app.selectbox, "request_id").set_value("impression_id")
    app.text_input(key="import_counts behaviors.tsv").set_value("click: 2")
    mapping = Mapping.model_validate(yaml.safe_load(checked(app.run()).code[0].value))
    assert mapping == Mapping.read(Path("docs/mappings/mind.yaml")).model_copy(
        update={"counts": {"click": 2.0}, "signals": ()}
    )
    together = ["user_id", "impression_id"]
    widget(app.multiselect, "Columns that tell users together, without an id").set_value(together).run()
    assert yaml.safe_load(app.code[0].value)["impressions"]["user_id"] == together
    widget(app.multiselect, "Signals to predict, where there are no predictions").set_value(["click"]).run()
    widget(app.multiselect, "By its numeric features").set_value(["time"])
    predict = yaml.safe_load(checked(app.run()).code[0].value)["predict"]
    assert predict == {"signals": ["click"], "numeric": ["time"]}
    app.text_input(key="import_counts behaviors.tsv").set_value("click").run()
    assert "click is no table" in app.error[0].value and button(app, "Check and import").disabled
    app.text_input(key="import_counts behaviors.tsv").set_value("").run()
    assert not app.error and "marks: click" in app.code[0].value and "label: click" in app.code[0].value


def test_a_log_without_a_header_whose_first_row_repeats_a_value_is_mapped_and_imported(
    filled, in_process, tmp_path
):
    path = SHAPES["movielens"](tmp_path)
    assert path.read_text().startswith("1::40::1::")
    app = opened("import_logs")
    app.text_input(key="import_path").set_value(str(path)).run()
    assert {"1", "1 (2)"} <= set(app.dataframe[0].value) and not app.warning
    names = ["user_id", "item_id", "valid", "timestamp", "prediction_valid", "prediction_like"]
    app.text_input(key="import_columns ratings.dat").set_value(", ".join(names)).run()
    app.text_input(key="import_thresholds ratings.dat").set_value("valid: 3").run()
    assert yaml.safe_load(app.code[0].value) == {"columns": names, "thresholds": {"valid": 3}}
    _click_import(app, filled)
    assert "Imported 64 requests" in app.success[0].value
    assert filled.dataset("ratings").meta["fusion"]["predictions"] == ["valid", "like"]


def _click_import(app, workspace: Workspace) -> None:
    """Has the log of the form imported, and leaves the page as it then is."""
    button(app, "Check and import").click().run()
    executor.wait(workspace, app.session_state["an import"].run_id)
    checked(app.run())


def test_a_log_with_one_prediction_is_told_that_it_tells_no_policies_apart(filled, in_process, tmp_path):
    app = opened("import_logs")
    app.text_input(key="import_path").set_value(str(SHAPES["mind"](tmp_path)))
    app.text_input(key="import_mapping").set_value("docs/mappings/mind.yaml").run()
    _click_import(app, filled)
    assert "Imported 64 requests" in app.success[0].value
    assert "rank the impressions of the test users alike" in texts(app)
    assert "would show from" not in texts(app)


def test_a_split_by_another_column_is_imported_once_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path / "workspace"))
    app = opened("import_logs")
    app.text_input(key="import_path").set_value("docs/example_log")
    app.selectbox(key="import_split").set_value("column").run()
    assert "Name the column" in app.error[0].value and button(app, "Check and import").disabled
    assert "--split-by" not in texts(app)
    app.text_input(key="import_split_column").set_value("fold").run()
    assert not app.error and not button(app, "Check and import").disabled
    assert "--split-by fold" in texts(app)
    app.selectbox(key="import_format").set_value("minari").run()
    assert "--split-by" not in texts(app) and not [s for s in app.selectbox if s.key == "import_split"]


@pytest.mark.parametrize(("page", "action"), [("import_logs", "Check and import"), ("collect", "Collect")])
def test_a_log_is_kept_on_a_server_once_its_place_is_named(page, action, tmp_path, monkeypatch):
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path / "workspace"))
    app = opened(page)
    if page == "import_logs":
        app.text_input(key="import_path").set_value("docs/example_log").run()
    assert "--to" not in texts(app)
    app.selectbox(key="kept").set_value("s3://").run()
    assert "Name the place of the files" in app.error[0].value and button(app, action).disabled
    assert "--to" not in texts(app)
    app.text_input(key="kept_to").set_value("s3://logs/mine").run()
    assert not app.error and not button(app, action).disabled and "--to s3://logs/mine" in texts(app)


def test_how_actions_were_drawn_and_users_are_chosen_of_the_requests(tmp_path, monkeypatch):
    monkeypatch.setenv("MTF_WORKSPACE", str(tmp_path / "workspace"))
    app = opened("import_logs")
    app.text_input(key="import_path").set_value("docs/example_log").run()
    widget(app.selectbox, "How actions were drawn").set_value("uniform")
    widget(app.multiselect, "Numeric features of users").set_value(["step"])
    made = yaml.safe_load(checked(app.run()).code[0].value)
    assert made == {"profile": {"numeric": ["step"]}, "exploration": "uniform"}


def test_a_refused_import_keeps_the_form_to_be_mended(filled, in_process, tmp_path):
    path = foreign_log(tmp_path)
    app = opened("import_logs")
    app.text_input(key="import_path").set_value(str(path))
    checked(app.run())
    widget(app.selectbox, "timestamp, needed").set_value("note")
    checked(app.run())
    button(app, "Check and import").click()
    checked(app.run())
    executor.wait(filled, app.session_state["an import"].run_id)
    assert "Nothing was imported" in checked(app.run()).error[0].value
    assert app.text_input(key="import_path").value == str(path)
    assert widget(app.selectbox, "timestamp, needed").value == "note"
    assert not app.warning


@pytest.mark.parametrize(
    ("column", "said"), [("ts", "Imported 30 requests"), ("note", "Nothing was imported")]
)
def test_a_move_while_an_import_ends_loses_nothing_of_what_it_said(
    column, said, filled, in_process, tmp_path, monkeypatch
):
    """Whatever a visitor moves ends the page at the next use of the session, and draws it anew."""

    def moved(workspace, run):
        get_script_run_ctx().script_requests.request_rerun(RerunData())
        monkeypatch.undo()
        monkeypatch.setenv("MTF_WORKSPACE", str(filled.path))
        return executor.completed(workspace, run)

    app = opened("import_logs")
    app.text_input(key="import_path").set_value(str(foreign_log(tmp_path)))
    checked(app.run())
    widget(app.selectbox, "user_id, needed").set_value("member")
    widget(app.selectbox, "timestamp, needed").set_value(column)
    checked(app.run())
    button(app, "Check and import").click()
    checked(app.run())
    executor.wait(filled, app.session_state["an import"].run_id)
    monkeypatch.setattr(executor, "completed", moved)
    app.run()
    told = checked(app.run())
    assert said in [*told.success, *told.error][0].value


def test_rows_that_are_left_out_are_counted_by_the_import_and_on_its_dataset(filled, in_process, tmp_path):
    logs.DEFECTS["negative_watch_time"](tmp_path / "bad")
    app = opened("import_logs")
    app.text_input(key="import_path").set_value(str(tmp_path / "bad"))
    app.text_input(key="import_mapping").set_value(str(tmp_path / "bad" / "mapping.yaml")).run()
    button(app, "Check and import").click().run()
    executor.wait(filled, app.session_state["an import"].run_id)
    assert "leave those rows out" in texts(app.run())
    app.segmented_control(key="import_bad_rows").set_value("drop").run()
    assert "--bad-rows drop" in texts(app)
    button(app, "Check and import").click().run()
    executor.wait(filled, app.session_state["an import"].run_id)
    assert "rows left out: 1 negative" in texts(app.run()).replace("\\", "")
    page = opened("datasets", dataset=filled.registry.datasets()[0].id)
    assert "Left out of impressions" in texts(page).replace("\\", "")


def test_a_synthetic_log_names_its_world(small_workspace):
    assert words.source(small_workspace.dataset("explored")) == "session, feed (synthetic)"
    assert words.synthetic("session").startswith("Synthetic, world clickbait: ")
    assert words.synthetic("gym:Pendulum-v1").startswith("Synthetic: ")


@pytest.mark.parametrize("world", names())
def test_the_page_of_synthetic_users_tells_what_a_world_misses(world, filled):
    app = checked(opened("synthetic", world=world))
    misses = sum(not premise.holds(p) for premise in PREMISES for p in stored(world))
    assert f"the {misses} of {3 * len(PREMISES)} that are missed" in texts(app)
    assert World.named(world).what in texts(app)
    assert ("orders policies the other way" in texts(app)) == (world == "clickbait")


def test_a_log_is_imported_like_another_and_split_as_chosen(filled, in_process, tmp_path):
    folder = logs.write(logs.clean(n_users=12), tmp_path / "mine")
    app = opened("import_logs")
    for key, value in (("import_path", folder), ("import_mapping", folder / "mapping.yaml")):
        app.text_input(key=key).set_value(str(value))
    app.selectbox(key="import_split").set_value("user")
    checked(app.run())
    app.number_input(key="import_hold_out").set_value(40)
    app.selectbox(key="import_like").set_value(filled.dataset("explored").id)
    checked(app.run())
    like = filled.dataset("explored").id
    assert f"--split-by user --hold-out 0.4 --like {like}" in texts(app)
    button(app, "Check and import").click()
    checked(app.run())
    executor.wait(filled, app.session_state["an import"].run_id)
    refused = checked(app.run()).error[0].value
    assert "the mapping says signals, and explored has its own" in refused
    app.selectbox(key="import_like").set_value(None)
    app.selectbox(key="kept").set_value("parquet")
    checked(app.run())
    assert "--split-by user --hold-out 0.4 --to parquet" in texts(app)
    button(app, "Check and import").click()
    checked(app.run())
    executor.wait(filled, app.session_state["an import"].run_id)
    assert "Imported 72 requests" in checked(app.run()).success[0].value
    assert "users are for test. A true difference in weighted GAUC" in texts(app)
    dataset = Dataset.open(filled.dataset_path(filled.dataset("mine").id))
    assert "test" in dataset.splits and dataset.n_files > 1
