"""Transitions promise: a table of steps is a log without impressions, whose sessions end as the table says."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mtf_engine.cli import app as cli
from mtf_engine.logs.aggregates import quality
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.exporting import export_log
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.mapping import Mapping
from mtf_engine.registry import RunState
from mtf_engine.runs import executor
from mtf_engine.runs.storage import live_policy, open_dataset
from mtf_engine.spec import Refusal
from mtf_engine.work.evaluate import submit_evaluate
from mtf_engine.work.import_log import submit_import
from mtf_engine.work.train import submit_train
from mtf_engine.work.tune import submit_tune
from mtf_engine.workspace import Workspace
from pages.shared import words
from pages.shared.places import TEACHING
from tests.fixtures.steps import LENGTH, N_EPISODES, neorl, pendulum, write_csv
from tests.test_pages import checked, opened, texts

RANGES = """fusion:
  dimensions:
    - {prediction: a, kind: pow, low: -2, high: 2}
    - {prediction: b, kind: pow, low: -4, high: 4}
"""


def imported(path, folder, **how) -> Dataset:
    log = read_log(path, name="log", **how)
    write_dataset(folder, "log", log.meta, log.batches)
    return Dataset.open(folder / "log.duckdb")


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Dataset:
    """The NeoRL-like table, imported by its header."""
    folder = tmp_path_factory.mktemp("steps")
    return imported(write_csv(neorl(), folder / "steps.csv"), folder)


def numbered(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with the ids of its episodes, without what each step led to."""
    ids = np.arange(len(frame)) // LENGTH
    return frame.drop(columns=[*frame.filter(regex="^next")]).assign(episode=[f"e{i}" for i in ids])


def boxed(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with a baseline action and bounds that hold all actions, and densities."""
    ends = {"baseline_action": 0.0, "lower": -2.5, "upper": 2.5}
    return numbered(frame).assign(pscore=0.04, **{f"{name}_{i}": ends[name] for name in ends for i in (0, 1)})


def blank(frame: pd.DataFrame, row: int, *columns: str) -> pd.DataFrame:
    """Returns the table with a gap in one row."""
    return frame.assign(**{name: frame[name].where(frame.index != row) for name in columns})


def refused(frame, folder, **how) -> str:
    with pytest.raises(Refusal) as told:
        read_log(write_csv(frame, folder / "steps.csv"), name="log", **how)
    return str(told.value)


def test_a_neorl_table_is_told_by_its_header_and_cut_episodes_keep_where_they_led(log):
    frame = neorl()
    assert log.meta.source == "transitions" and log.n_impressions == 0
    assert log.n_requests == len(frame) + N_EPISODES // 2, "one row more where an episode was cut off"
    steps = [log.known_steps(split) for split in log.splits]
    assert sum(map(len, steps)) == len(frame) and not sum(part.n_left_out for part in steps)
    train = log.transitions()
    ends = np.arange(len(train)) % LENGTH == LENGTH - 1
    assert (
        train[:].terminals.sum() in (ends.sum() // 2, ends.sum() // 2 + 1)
        and not train[:].terminals[~ends].any()
    )
    first, after = train[:], train.after(slice(None))
    at = {tuple(row): i for i, row in enumerate(frame.filter(regex="^obs").to_numpy(np.float32).round(4))}
    rows = frame.iloc[[at[tuple(seen.round(4))] for seen in first.observations]]
    np.testing.assert_allclose(first.rewards, rows["reward"], rtol=1e-6)
    going_on = ~first.terminals
    led_to = rows.filter(regex="^next").to_numpy(np.float32)
    np.testing.assert_allclose(after.observations[going_on], led_to[going_on], rtol=1e-6)
    assert (
        going_on[ends].any() and np.isfinite(after.baseline_actions).all() and np.isfinite(after.upper).all()
    )


def test_what_the_log_does_not_tell_is_taken_from_its_actions_and_said(log):
    frame = neorl()
    steps = log.transitions()[:]
    actions = frame.filter(regex="^action").to_numpy()
    assert [(d.low, d.high) for d in log.meta.fusion.dimensions] == [
        pytest.approx((low, high)) for low, high in zip(actions.min(axis=0), actions.max(axis=0), strict=True)
    ]
    middle, half = (actions.max(axis=0) + actions.min(axis=0)) / 2, np.ptp(actions, axis=0) / 2
    mean = (actions.mean(axis=0) - middle) / half
    np.testing.assert_allclose(steps.baseline_actions, np.tile(mean, (len(steps), 1)), atol=1e-6)
    np.testing.assert_allclose(steps.baseline_actions + steps.lower, -1, atol=1e-6)
    np.testing.assert_allclose(steps.baseline_actions + steps.upper, 1, atol=1e-6)
    np.testing.assert_allclose(
        live_policy(log.meta).act(steps.observations), steps.baseline_actions, atol=1e-7
    )
    told = " ".join(log.meta.details["warnings"])
    for said in (
        "the mean of its actions stands",
        "they are the box of its actions",
        "10 sessions were cut off",
    ):
        assert said in told
    assert log.meta.exploration == "unknown"


def test_a_mapping_states_names_and_ranges_and_parquet_has_lists_and_bounds(tmp_path):
    frame = neorl()
    listed = pd.DataFrame(
        {
            "seen": frame.filter(regex="^obs").to_numpy().tolist(),
            "did": frame.filter(regex="^action").to_numpy().tolist(),
            "baseline_action": [[0.5, 1.0]] * len(frame),
            "lower": [[-2.5, -4.0]] * len(frame),
            "upper": [[1.5, 2.0]] * len(frame),
            "pscore": 0.1,
            "reward": frame["reward"],
            "who": [f"u{i // LENGTH}" for i in range(len(frame))],
            "trajectory": np.arange(len(frame)) // LENGTH,
        }
    ).sample(frac=1, random_state=0).sort_values("trajectory", kind="stable")  # fmt: skip
    listed["step"] = listed.index % LENGTH
    listed.to_parquet(tmp_path / "steps.parquet", index=False)
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        f"requests: {{observation: seen, action: did, user_id: who}}\nfeatures: [x, y, z]\n{RANGES}\n"
    )
    log = imported(tmp_path / "steps.parquet", tmp_path, format="transitions", mapping=mapping)
    stored = log.arrays(
        "SELECT action, baseline_action, lower, upper, reward FROM requests ORDER BY request_id"
    )
    actions = frame.filter(regex="^action").to_numpy() / [2, 4]
    np.testing.assert_allclose(stored["action"], actions, rtol=1e-6)
    np.testing.assert_array_equal(stored["reward"], frame["reward"])
    assert stored["baseline_action"][0].tolist() == [0.25, 0.25]
    assert (stored["lower"][0].tolist(), stored["upper"][0].tolist()) == ([-1.25, -1.0], [0.75, 0.5])
    assert log.meta.feature_names == ("x", "y", "z") and log.meta.exploration == "uniform"
    assert log.meta.baseline_action == (0.25, 0.25) and log.n_users == N_EPISODES
    lost = next(said for said in log.meta.details["warnings"] if "do not tell where they led" in said)
    assert lost.startswith(f"{N_EPISODES} sessions") and log.known_steps("train").n_left_out > 0


def test_rows_in_any_order_are_sessions_of_a_step_that_keep_what_they_led_to(tmp_path):
    mixed = neorl().sample(frac=1, random_state=3)
    log = imported(write_csv(mixed, tmp_path / "steps.csv"), tmp_path)
    steps = [log.known_steps(split) for split in log.splits]
    assert sum(map(len, steps)) == len(mixed)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: f.drop(columns=["done", *f.filter(regex="^next")]), "column terminal: is missing"),
        (lambda f: f.assign(episode=1), "row 4, column done: is true, and its session goes on (and 9 more rows)"),
        (lambda f: f.assign(reward=f["reward"].where(f.index != 6)), "row 7, column reward: is blank"),
        (lambda f: f.assign(action_1=f["action_1"].where(f.index != 6)), "row 7, column action"),
        (lambda f: f.assign(obs_1=f["obs_1"].where(f.index != 6)), "row 7, column obs_1"),
        (lambda f: f.iloc[3:4].assign(action_0=np.nan, action_1=np.nan), "holds no step with an action"),
        (lambda f: f.assign(action_0=np.nan, action_1=np.nan), "holds no step with an action"),
        (lambda f: numbered(f).assign(obs_1=np.inf), "row 1, column obs_1: is inf, not finite"),
        (lambda f: blank(numbered(f), 6, "action_0", "action_1"), "row 7, column action_0: is blank, and its session"),
        (lambda f: blank(numbered(f), 3, "action_0", "action_1"), "row 4, column done: is true of a row without"),
        (lambda f: numbered(f).assign(step=f.index // 2), "row 2, column step: is not the next of its session"),
        (lambda f: numbered(f).assign(time=[f"2026-05-01 09:00:{59 - i % 60}" for i in f.index]),
         "row 2, column time: goes back within its session"),
        (lambda f: numbered(f).assign(who=f.index), "row 2, column who: changes within its session"),
        (lambda f: blank(numbered(f).assign(who="u"), 6, "who"), "row 7, column who: is blank"),
        (lambda f: numbered(f).assign(split=np.where(f.index % LENGTH, "train", "test")),
         "row 2, column split: changes within its session"),
        (lambda f: blank(boxed(f), 6, "lower_1"), "row 7, column lower: has a blank"),
        (lambda f: blank(boxed(f), 6, "lower_0", "lower_1"), "row 7, column lower_0: is blank or not finite"),
        (lambda f: boxed(f).drop(columns=["lower_0", "lower_1"]), "has no lower, but the other bound"),
        (lambda f: boxed(f).assign(lower_0=3.0), "column lower_0: is above the upper bound"),
        (lambda f: boxed(f).assign(pscore=-1.0), "row 1, column pscore: is no density above 0"),
        (lambda f: boxed(f).assign(upper_0=0.1), "lies outside its bounds around the baseline action"),
    ],
)  # fmt: skip
def test_a_table_that_is_no_log_of_steps_is_refused_with_the_row(tmp_path, spoil, told):
    mapping = tmp_path / "mapping.yaml"
    frame = spoil(neorl())
    named = {"who": "user_id", "time": "timestamp"}
    mapping.write_text(f"requests: { {ours: name for name, ours in named.items() if name in frame} }")
    with pytest.raises(Refusal) as found:
        read_log(write_csv(frame, tmp_path / "steps.csv"), "transitions", name="log", mapping=mapping)
    assert any(told in str(defect) for defect in found.value.defects or [found.value])


UNREAD = """impressions: {item_id: v}
slate: {items: inview}
predict: {signals: [click]}
signals: [click]
predictions: [a, b]
profile: {numeric: [age]}
reward: {weights: {click: 2}}
counts: {like: 3}
thresholds: {finish: 3}
time_unit: ms
watch_time_unit: ms
fusion: {negative: [a], bias: [b], on_unit: true}
"""
"""What a mapping may say that is not read of a table of transitions without times."""
UNFIT = {
    "time_format": '"%d"',
    "fill": "{nope: 1}",
    "categories": "{nope: [a]}",
    "requests": "{nope: reward}",
    "features": "[a]",
    "binary_features": "[nope]",
    "exploration": "gaussian",
    "mixture": "{random_share: 0.5}",
    "columns": "[nope, more]",
}
"""Its other fields, with what does not go with such a table."""


@pytest.mark.parametrize("said", [UNREAD, *(f"{field}: {value}" for field, value in UNFIT.items())])
def test_what_is_not_read_of_transitions_is_refused_in_a_mapping(tmp_path, said):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(said)
    told = refused(numbered(neorl()), tmp_path, format="transitions", mapping=mapping)
    named = {line.partition(":")[0] for line in said.splitlines()}
    assert all(field in told for field in named)
    if said == UNREAD:
        assert "fusion: bias, fusion: negative, fusion: on_unit" in told
        assert {*named, *UNFIT} == set(Mapping.model_fields), "every field is known here"


def test_what_is_of_requests_is_refused_in_a_mapping_of_impressions_alone(tmp_path):
    (tmp_path / "mapping.yaml").write_text("requests: {action: a}\nfeatures: [x]\n")
    (tmp_path / "shown.csv").write_text(
        "user_id,timestamp,prediction_click,click\nu,2026-05-01 09:00:00,0.1,1\n"
    )
    with pytest.raises(Refusal, match="says what is not read of impressions: features, requests"):
        read_log(tmp_path / "shown.csv", mapping=tmp_path / "mapping.yaml")


@pytest.mark.parametrize(
    ("said", "pscore", "told", "explored"),
    [
        (None, 0.04, "uniform", True),
        (None, None, "unknown", False),
        ("uniform", None, "uniform", True),
        ("gaussian", 0.04, "gaussian", True),
        ("unknown", 0.04, "unknown", True),
    ],
)
def test_how_actions_were_drawn_is_what_densities_or_the_mapping_say(tmp_path, said, pscore, told, explored):
    frame = boxed(neorl()).assign(pscore=pscore)
    frame.loc[5, ["action_0", "action_1"]] = 0.0
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(RANGES + (f"exploration: {said}\n" if said else ""))
    log = read_log(write_csv(frame, tmp_path / "steps.csv"), mapping=mapping)
    (batch,) = log.batches
    pscore = batch.requests["pscore"]
    assert log.meta.exploration == told and np.isfinite(pscore[:5]).all() == explored
    if believed := "count as explored, since the mapping says" in " ".join(log.warnings):
        assert pscore[0] == pytest.approx(1 / (2.5 * 1.25)) and np.isnan(pscore[5])
    assert believed == (said == "uniform")


def test_an_export_of_actions_of_which_nobody_knows_how_they_were_drawn_says_so(tmp_path):
    frame = numbered(neorl()).assign(pscore=0.04)
    log = imported(write_csv(frame, tmp_path / "steps.csv"), tmp_path)
    export_log(log, "parquet", tmp_path / "out")
    back = read_log(tmp_path / "out", mapping=tmp_path / "out" / "mapping.yaml")
    (batch,) = back.batches
    assert log.meta.exploration == back.meta.exploration == "unknown" and np.isfinite(
        batch.requests["pscore"][0]
    )


def test_ranges_that_do_not_hold_the_actions_are_refused(tmp_path):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(RANGES.replace("2", "1"))
    assert "lie outside the stated ranges -1 to 1, -4 to 4" in refused(neorl(), tmp_path, mapping=mapping)
    assert "no row of transitions can be left out" in refused(neorl(), tmp_path, bad_rows="drop")


@pytest.fixture
def workspace(tmp_path, monkeypatch, in_process) -> Workspace:
    """A workspace with the log of steps."""
    found = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(found.path))
    done(found, submit_import(found, write_csv(neorl(), tmp_path / "steps.csv"), name="steps"))
    return found


@pytest.fixture
def stored(workspace) -> Workspace:
    """The workspace with a policy trained on the log for 50 steps."""
    settings = {"n_steps": "50", "n_critics": "2", "hidden": "8"}
    done(workspace, submit_train(workspace, "steps", algo="integrated_rl", preset="demo", settings=settings))
    return workspace


def done(workspace: Workspace, run_id: str):
    run = executor.wait(workspace, run_id)
    assert run.state is RunState.COMPLETED, run.error
    return run


def test_it_trains_and_what_needs_impressions_says_so(stored):
    (run,), log = stored.registry.runs(kind="train"), stored.dataset("steps")
    told = run.result["no_validation"]
    assert told.startswith("Not validated by weighted GAUC: the log has no impressions")
    assert run.result["left_out"] == 0 and run.best_step is None
    app = opened("runs", run=run.id)
    assert words.plain(told) in texts(app)
    search = submit_train(stored, "steps", algo="grid_search", preset="demo", settings={})
    assert "the log has no impressions, which it ranks" in executor.wait(stored, search).error
    how = {"algo": "iql", "preset": "demo", "settings": {}, "search": {"tau": "0.1,0.2"}, "trials": 2}
    with pytest.raises(Refusal, match="the log has no impressions"):
        submit_tune(stored, "steps", **how)
    with pytest.raises(Refusal, match="has no impressions to replay"):
        open_dataset(stored, log.id).user_log()
    evaluated = done(stored, submit_evaluate(stored, [run.id, "baseline"], "steps"))
    app = opened("compare", policies=[run.id, "baseline"], dataset=log.id)
    assert evaluated.result["no_gauc"] in texts(app)


def test_a_log_is_exported_on_its_page_and_by_command(workspace, tmp_path, monkeypatch):
    log, to = workspace.dataset("steps"), "steps-v0"
    monkeypatch.chdir(tmp_path)
    app = opened("datasets", dataset=log.id)
    offered = next(box for box in app.selectbox if box.label == "Format")
    assert offered.options == ["Parquet, as an import reads it", "Minari dataset", "d3rlpy, HDF5"]
    assert f"dataset export {log.id} --format parquet --to {log.id}" in texts(app)
    asked = ["--workspace", str(workspace.path), "--json", "dataset", "export", "steps", "--format", "minari"]
    ran = CliRunner().invoke(cli, [*asked, "--to", to])
    assert (tmp_path / to / "data" / "metadata.json").is_file()
    assert json.loads(ran.stdout) == {"to": to, "format": "minari", "episodes": 20, "steps": 80}


@pytest.mark.slow
def test_every_page_of_it_says_what_cannot_be_told(stored, tmp_path):
    (run,), log = stored.registry.runs(kind="train"), stored.dataset("steps")
    quality(open_dataset(stored, log.id))
    told = {
        "datasets": "The log has no times",
        "rewards": "This log has no watch times",
        "coverage": "there is no box to certify; policies do learn from it",
    }
    for page, said in told.items():
        assert said in texts(opened(page, dataset=log.id)), page
    assert "cannot be told; policies do learn from it" in texts(
        opened("datasets", dataset=log.id, tab=TEACHING)
    )
    done(stored, submit_evaluate(stored, [run.id, "baseline"], "steps"))
    for page in ("deviation", "critics", "explain"):
        opened(page, policies=[run.id, "baseline"], dataset=log.id)
    for path in (
        pendulum(tmp_path / "pendulum-v0"),
        tmp_path / "log.h5",
        write_csv(neorl(), tmp_path / "more.csv"),
    ):
        path.touch()
        app = opened("import_logs")
        app.text_input(key="import_path").set_value(str(path))
        assert not checked(app.run()).warning and "Which column of" not in texts(app), path
    for page in (None, "start", "import_logs", "collect", "bounds"):
        opened(page)
