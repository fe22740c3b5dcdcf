"""Exports promise: Minari and d3rlpy read them, and what comes back has the same transitions to the bit."""

import io
import os
import subprocess
import zipfile
from pathlib import Path

import h5py
import minari
import numpy as np
import pytest

from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.exporting import export_log, packed
from mtf_engine.logs.importing import read_log
from mtf_engine.spec import Refusal
from tests.fixtures.logs import clean, write
from tests.fixtures.steps import HIGH, neorl, pendulum, write_csv

ROOT = Path(__file__).parent.parent
D3RLPY = Path(os.environ.get("MTF_D3RLPY") or ROOT / ".venv-d3rlpy") / "bin" / "python"
COLUMNS = ("observations", "actions", "baseline_actions", "lower", "upper", "rewards", "terminals")


def imported(path, folder, format="auto", **how) -> Dataset:
    folder.mkdir(exist_ok=True)
    log = read_log(path, format, name="log", **how)
    write_dataset(folder, "log", log.meta, log.batches)
    return Dataset.open(folder / "log.duckdb")


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> Dataset:
    """A log of steps, some of whose sessions end and some of which are cut off."""
    folder = tmp_path_factory.mktemp("steps")
    return imported(write_csv(neorl(), folder / "steps.csv"), folder)


def same_transitions(one: Dataset, other: Dataset, columns=COLUMNS) -> None:
    """Holds that two logs have the same steps in each split, and that they lead to the same, to the bit."""
    assert one.splits == other.splits
    for split in one.splits or ("train",):
        here, there = one.known_steps(split), other.known_steps(split)
        assert len(here) == len(there) > 0
        pairs = ((here[:], there[:]), (here.after(slice(None)), there.after(slice(None))))
        for ours, theirs in pairs:
            for column in columns:
                a, b = getattr(ours, column), getattr(theirs, column)
                assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), (split, column)
        np.testing.assert_array_equal(here.session_starts, there.session_starts)


def test_a_log_that_went_through_minari_has_the_same_transitions_to_the_bit(steps, tmp_path):
    told = export_log(steps, "minari", tmp_path / "steps-v0")
    assert told == {"episodes": 20, "steps": 80}
    back = imported(tmp_path / "steps-v0", tmp_path / "back")
    same_transitions(steps, back)
    assert back.meta.source == "minari" and back.meta.fusion == steps.meta.fusion
    same = ("feature_names", "numeric_mask", "exploration", "plan", "baseline_action")
    assert {name: getattr(back.meta, name) for name in same} == {
        name: getattr(steps.meta, name) for name in same
    }
    assert back.n_requests == steps.n_requests and back.n_users == steps.n_users


def test_minari_loads_the_export_by_its_id(steps, tmp_path, monkeypatch):
    export_log(steps, "minari", tmp_path / "steps-v0")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    loaded = minari.load_dataset("steps-v0")
    assert (loaded.total_episodes, loaded.total_steps, loaded.id) == (20, 80, "steps-v0")
    rows = steps.arrays(
        "SELECT observation, action, reward, session_id FROM requests ORDER BY session_id, step"
    )
    for episode in loaded.iterate_episodes():
        own = rows["session_id"] == episode.id
        n = len(episode)
        assert episode.observations.shape == (n + 1, 3) and loaded.action_space.contains(episode.actions[0])
        np.testing.assert_array_equal(episode.actions, rows["action"][own][:n])
        np.testing.assert_array_equal(episode.rewards, rows["reward"][own][:n])
        assert episode.terminations[-1] != episode.truncations[-1]
        if episode.truncations[-1]:
            np.testing.assert_array_equal(episode.observations, rows["observation"][own])


def test_a_minari_dataset_of_others_is_read_with_its_last_observations(tmp_path):
    folder = pendulum(tmp_path / "pendulum-v0")
    log = imported(folder, tmp_path / "log")
    (dimension,) = log.meta.fusion.dimensions
    assert (dimension.low, dimension.high) == (-HIGH, HIGH)
    splits = [log.known_steps(split) for split in log.splits]
    assert sum(map(len, splits)) == 60 and not sum(part.n_left_out for part in splits)
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        episode = file["episode_3"]
        wanted = {name: episode[name][()] for name in ("observations", "actions", "rewards")}
    rows = log.arrays(
        "SELECT observation, action, reward, truncated FROM requests WHERE session_id = 3 ORDER BY step"
    )
    np.testing.assert_array_equal(rows["observation"], wanted["observations"])
    np.testing.assert_array_equal(rows["action"][:5], wanted["actions"] / np.float32(HIGH))
    np.testing.assert_array_equal(rows["reward"][:5], wanted["rewards"])
    assert np.isnan(rows["action"][5]).all() and rows["truncated"].tolist() == [False] * 4 + [True, False]


def test_d3rlpys_files_of_either_version_come_back_with_the_same_steps(steps, tmp_path):
    assert export_log(steps, "d3rlpy", tmp_path / "steps.h5") == {"episodes": 20, "steps": 80}
    told = ("observations", "rewards", "terminals")
    back = imported(tmp_path / "steps.h5", tmp_path / "back")
    rows = steps.arrays("SELECT observation, reward, action FROM requests ORDER BY session_id, step")
    n = len(rows["reward"])
    flat = {
        "observations": rows["observation"],
        "actions": np.nan_to_num(rows["action"]),
        "rewards": rows["reward"],
    }
    ends = steps.arrays("SELECT terminal, step, action FROM requests ORDER BY session_id, step")
    flat["terminals"] = ends["terminal"]
    flat["timeouts"] = np.append(ends["step"][1:] == 0, True) & ~ends["terminal"]
    with h5py.File(tmp_path / "flat.hdf5", "w") as file:
        file.update(flat)
    again = imported(tmp_path / "flat.hdf5", tmp_path / "again", "d3rlpy")
    for log in (back, again):
        parts = [log.known_steps(split) for split in log.splits]
        assert sum(map(len, parts)) == 80 and log.n_requests == n
    same_transitions(back, again, told)


def test_parquet_comes_back_as_it_went(steps, tmp_path):
    export_log(steps, "parquet", tmp_path / "out")
    back = imported(tmp_path / "out", tmp_path / "back", mapping=tmp_path / "out" / "mapping.yaml")
    same_transitions(steps, back)


def test_a_log_with_impressions_comes_back_from_parquet_and_leaves_them_out_elsewhere(tmp_path):
    folder = write(clean(), tmp_path / "log")
    first = imported(folder, tmp_path / "first", mapping=folder / "mapping.yaml")
    export_log(first, "parquet", tmp_path / "out")
    back = imported(tmp_path / "out", tmp_path / "back", mapping=tmp_path / "out" / "mapping.yaml")
    assert back.content_hash == first.content_hash and back.meta.fusion == first.meta.fusion
    export_log(first, "minari", tmp_path / "log-v0")
    steps = imported(tmp_path / "log-v0", tmp_path / "steps")
    same_transitions(first, steps)
    pscores = (log.arrays("SELECT pscore FROM requests ORDER BY session_id, step") for log in (first, steps))
    np.testing.assert_array_equal(*(found["pscore"] for found in pscores))
    assert steps.meta.exploration == "uniform"
    assert steps.n_impressions == 0 < back.n_impressions
    with zipfile.ZipFile(io.BytesIO(packed(first, "parquet"))) as file:
        assert set(file.namelist()) == {"requests.parquet", "impressions.parquet", "mapping.yaml"}


def test_a_log_that_nobody_called_uniform_is_not_believed_to_be_so_once_it_is_exported(tmp_path):
    log = clean()
    folder = write(log._replace(requests=log.requests.drop(columns="pscore")), tmp_path / "log")
    first = imported(folder, tmp_path / "first", mapping=folder / "mapping.yaml")
    export_log(first, "parquet", tmp_path / "out")
    back = imported(tmp_path / "out", tmp_path / "back", mapping=tmp_path / "out" / "mapping.yaml")
    for one in (first, back):
        assert np.isnan(one.arrays("SELECT pscore FROM requests")["pscore"]).all()


def test_what_cannot_be_written_or_read_is_refused_and_leaves_nothing(steps, tmp_path):
    (tmp_path / "there").mkdir()
    for format in ("minari", "d3rlpy", "parquet"):
        with pytest.raises(Refusal, match="exists; name a file or folder that does not"):
            export_log(steps, format, tmp_path / "there")
    with pytest.raises(Refusal, match="there is no folder"):
        export_log(steps, "d3rlpy", tmp_path / "no" / "steps.h5")
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\nno")
    with pytest.raises(Refusal, match=r"broken\.h5 cannot be read as a file of d3rlpy"):
        read_log(tmp_path / "broken.h5")
    (tmp_path / "there" / "metadata.json").write_text('{"env_spec": "{}"}')
    with pytest.raises(Refusal, match="names no observation_space and action_space"):
        read_log(tmp_path / "there")
    (tmp_path / "there" / "metadata.json").write_text('{"observation_space": "{}", "action_space": "{}"}')
    with pytest.raises(Refusal, match="cannot be read as a Minari dataset"):
        read_log(tmp_path / "there")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


TRAINING = """
import sys
import d3rlpy
import numpy as np
from d3rlpy.dataset import InfiniteBuffer, ReplayBuffer
with open(sys.argv[1], "rb") as file:
    buffer = ReplayBuffer.load(file, InfiniteBuffer())
assert buffer.transition_count == 80, buffer.transition_count
algo = d3rlpy.algos.TD3PlusBCConfig(batch_size=16).create(device=False)
silent = d3rlpy.logging.NoopAdapterFactory()
algo.fit(buffer, n_steps=20, n_steps_per_epoch=20, show_progress=False, logger_adapter=silent)
actions = algo.predict(np.zeros((4, 3), np.float32))
assert actions.shape == (4, 2) and np.abs(actions).max() <= 1
print("trained")
"""


@pytest.mark.slow
@pytest.mark.skipif(not D3RLPY.exists(), reason="no .venv-d3rlpy: CONTRIBUTING.md tells how to make one")
def test_d3rlpy_trains_on_the_export(steps, tmp_path):
    export_log(steps, "d3rlpy", tmp_path / "steps.h5")
    ran = subprocess.run(
        [D3RLPY, "-c", TRAINING, tmp_path / "steps.h5"], capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.stdout.rstrip().endswith("trained"), ran.stderr
