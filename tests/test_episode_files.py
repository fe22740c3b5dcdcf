"""Exports promise: Minari and d3rlpy read them, and what comes back has the same transitions to the bit."""

import io
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import h5py
import minari
import numpy as np
import pytest

from mtf_engine.exploration.mixture import Mixture
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.exporting import export_log, packed
from mtf_engine.logs.hdf5_files import check_written
from mtf_engine.logs.importing import read_log
from mtf_engine.spec import FusionDimension, FusionSpec, Refusal
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
    dimensions = [FusionDimension.power("a"), FusionDimension.bias("a")]
    fusion = FusionSpec(predictions=("a",), dimensions=dimensions)
    copy = Dataset.open(steps.path)
    copy.meta = steps.meta.model_copy(update={"fusion": fusion})
    (tmp_path / ".out0.tmp").mkdir()
    for i, log in enumerate((steps, copy)):
        out = tmp_path / f"out{i}"
        export_log(log, "parquet", out)
        back = imported(out, tmp_path / f"back{i}", mapping=out / "mapping.yaml")
        same_transitions(steps, back)
        assert back.meta.fusion == log.meta.fusion and back.meta.exploration == "unknown"


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
    own = {"exploration": "mixed", "mixture": Mixture(sigma=0.1, random_share=0.4)}
    first.meta = first.meta.model_copy(update=own)
    export_log(first, "parquet", tmp_path / "mixed")
    mixed = imported(tmp_path / "mixed", tmp_path / "again", mapping=tmp_path / "mixed" / "mapping.yaml")
    assert {name: getattr(mixed.meta, name) for name in own} == own


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
    named, unread = "names no observation_space and action_space", "cannot be read as a Minari dataset"
    for text, told in (
        ('{"env_spec": "{}"}', named),
        ("[]", named),
        ('{"observation_space": "{}", "action_space": "{}"}', unread),
        ('{"observation_space": 1, "action_space": 2}', unread),
        ("no JSON", unread),
    ):
        (tmp_path / "there" / "metadata.json").write_text(text)
        with pytest.raises(Refusal, match=told):
            read_log(tmp_path / "there")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_file_whose_tables_are_damaged_is_refused(steps, tmp_path):
    export_log(steps, "d3rlpy", tmp_path / "log.h5")
    export_log(steps, "minari", tmp_path / "log-v0")
    for path in (tmp_path / "log.h5", tmp_path / "log-v0" / "data" / "main_data.hdf5"):
        path.write_bytes(path.read_bytes().replace(b"SNOD", b"SNOB").replace(b"OHDR", b"OHDX"))
        with pytest.raises(Refusal, match="cannot be read as a"):
            read_log(path if path.suffix == ".h5" else tmp_path / "log-v0")


def test_an_export_that_a_full_disk_left_unwritten_is_refused(tmp_path):
    values = np.arange(1_000.0)
    wanted = {"rewards": values, "names": ["a", "bc"]}
    path = hdf5(tmp_path / "log.h5", **wanted)
    check_written(path, path, wanted.items())
    content = path.read_bytes()
    for lost in (values.tobytes()[-800:], b"bc"):
        assert content.count(lost) == 1
        path.write_bytes(content.replace(lost, bytes(len(lost))))
        with pytest.raises(Refusal, match=r"log\.h5 could not be written whole: the disk is full"):
            check_written(path, path, wanted.items())


def hdf5(path: Path, **columns) -> Path:
    """Returns the file with the columns of one flat episode of four steps that ends, `columns` in their place."""
    whole = {
        "observations": np.arange(8.0).reshape(4, 2), "actions": np.linspace(-1, 1, 4)[:, None],
        "rewards": np.ones(4), "terminals": np.array([0, 1, 0, 1]),
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        file.update({name: value for name, value in (whole | columns).items() if value is not None})
    return path


def _external(file: h5py.File) -> None:
    file.create_dataset("observations", (4, 2), "u1", external=[(file.filename + ".txt", 0, 8)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 2), "f8")
    layout[:] = h5py.VirtualSource(file.filename.replace("log.h5", "other.h5"), "observations", (4, 2))
    file.create_virtual_dataset("observations", layout)


def _linked(file: h5py.File) -> None:
    file["observations"] = h5py.ExternalLink(file.filename.replace("log.h5", "other.h5"), "observations")


def _circle(file: h5py.File) -> None:
    file["observations"] = np.zeros((4, 2))
    file["more"] = file["/"]


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (_external, "/observations lies in other files"),
        (_virtual, "/observations lies in other files"),
        (_linked, "/observations is a link"),
        (lambda file: file.update(observations=h5py.SoftLink("/rewards")), "/observations is a link"),
        (_circle, "stands in two places"),
        (
            lambda file: file.create_dataset("observations", (10**12, 8), "f4", chunks=(1024, 8)),
            "32,000,000,0",
        ),
    ],
)
def test_a_file_of_a_user_reads_no_other_and_asks_for_no_more_than_it_holds(tmp_path, plant, told):
    hdf5(tmp_path / "other.h5")
    (tmp_path / "log.h5.txt").write_text("a secret")
    with h5py.File(hdf5(tmp_path / "log.h5", observations=None), "a") as file:
        plant(file)
    with pytest.raises(Refusal, match=rf"log\.h5: .*{told}"):
        read_log(tmp_path / "log.h5")
    folder = pendulum(tmp_path / "pendulum-v0")
    (folder / "data" / "main_data.hdf5").write_bytes((tmp_path / "log.h5").read_bytes())
    with pytest.raises(Refusal, match=rf"main_data\.hdf5: .*{told}"):
        read_log(folder)


def spoilt(values: object, at: object, value: float) -> np.ndarray:
    """Returns the numbers with one of them replaced."""
    found = np.array(values, float)
    found[at] = value
    return found


OBSERVATIONS, ACTIONS = np.arange(8.0).reshape(4, 2), np.arange(8.0).reshape(4, 2) / 8


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (
            {"observations": spoilt(OBSERVATIONS, 1, np.nan)},
            "column observation: at step 1 of session 0 it is blank",
        ),
        (
            {"observations": spoilt(OBSERVATIONS, 2, 1e300)},
            "observation: at step 0 of session 1 it is blank or not",
        ),
        (
            {"rewards": spoilt(np.ones(4), 3, np.inf)},
            "column reward: at step 1 of session 1 it is blank or not finite",
        ),
        (
            {"actions": spoilt(ACTIONS, (2, 0), np.nan)},
            "column action: at step 0 of session 1 it is not finite",
        ),
        (
            {"actions": spoilt(ACTIONS, 0, np.nan)},
            "column action: at step 0 of session 0 it is blank, and its session",
        ),
        (
            {"actions": spoilt(ACTIONS, 1, np.nan)},
            "terminal: at step 1 of session 0 it is true of a row without",
        ),
        ({"actions": ACTIONS[:3]}, "it has 4 observations, 3 actions, 4 rewards, 4 terminals"),
        ({"observations": np.zeros((8, 2))}, "it has 8 observations, 4 actions, 4 rewards, 4 terminals"),
        ({"terminals": [0, 1]}, "4 rewards, 2 terminals"),
        ({"terminals": [0, 1, np.nan, 1]}, "terminals are not all 0 or 1"),
        ({"timeouts": [0, 1, 2, 1]}, "timeouts are not all 0 or 1"),
        ({"actions": spoilt(ACTIONS, 2, 1e300)}, "column action: at step 0 of session 1 it is not finite"),
        ({"timeouts": [0, 1]}, "4 terminals, 2 timeouts"),
        ({"observations": ["a", "b", "c", "d"]}, "cannot be read as a file of d3rlpy"),
        ({"rewards": np.full(4, 1j)}, "rewards are complex128, no numbers"),
        ({"observations": OBSERVATIONS * 1j}, "observations are complex128, no numbers"),
        ({"rewards": 1.0}, "cannot be read as a file of d3rlpy"),
    ],
)
def test_a_flat_file_with_gaps_or_columns_of_other_lengths_is_refused_with_the_place(tmp_path, columns, told):
    with pytest.raises(Refusal) as found:
        read_log(hdf5(tmp_path / "log.h5", **columns))
    assert any(told in str(one) for one in found.value.defects or [found.value])


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"observations": OBSERVATIONS.reshape(8, 1)}, "episode 1 has 8 observations, 4 actions, 4 rewards"),
        (
            {"observations": np.zeros((4, 3))},
            "an observation of episode 1 has 3 numbers, and one of episode 0 2",
        ),
        ({"actions": np.zeros((4, 3))}, "an action of episode 1 has 3 numbers, and one of episode 0 2"),
        ({"rewards": np.ones(3)}, "episode 1 has 4 observations, 4 actions, 3 rewards"),
    ],
)
def test_a_dumped_file_whose_episodes_do_not_fit_is_refused_with_the_episode(tmp_path, columns, told):
    whole = {"observations": OBSERVATIONS, "actions": ACTIONS, "rewards": np.ones(4), "terminated": True}
    with h5py.File(tmp_path / "log.h5", "w") as file:
        file.update({"columns": list(whole), "num_episodes": 2})
        for i, episode in enumerate((whole, whole | columns)):
            file.update({f"{name}_{i}": value for name, value in episode.items()})
    with pytest.raises(Refusal, match=told):
        read_log(tmp_path / "log.h5")


@pytest.fixture(scope="module")
def exported(steps, tmp_path_factory) -> Path:
    """The log of steps as a Minari dataset."""
    folder = tmp_path_factory.mktemp("exported") / "steps-v0"
    export_log(steps, "minari", folder)
    return folder


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("observations", np.zeros((8, 3), np.float32), "episode 3 has 7 observations but the last, 4 actions"),
        ("observations", np.full((5, 3), np.inf, np.float32), "at step 0 of session 3 it is blank or not finite"),
        ("actions", np.full((4, 2), np.nan, np.float32), "at step 0 of session 3 it is blank, and its session goes on"),
        ("actions", np.zeros((4, 3), np.float32), r"infos baseline_action .* should be \(5, 3\)"),
        ("rewards", np.full(4, np.nan), "at step 0 of session 3 it is blank or not finite"),
        ("rewards", np.full(4, 1j), "rewards are complex128, no numbers"),
        ("terminations", [False, True], "4 rewards, 2 terminations"),
        ("terminations", [False, True, False, False], "at step 1 of session 3 it is true, and its session goes on"),
        ("infos/pscore", np.zeros(2), r"infos pscore are float64 of the shape \(2,\)"),
        ("infos/lower", np.zeros((5, 3)), r"infos lower are float64 of the shape \(5, 3\)"),
        ("infos/user_id", np.zeros(5), "infos user_id are float64"),
        ("infos/upper", None, "cannot be read as a Minari dataset: .*upper"),
        ("metadata", {"features": ["a"]}, "features: names 1, and observations have 3 numbers"),
        ("metadata", {"binary_features": ["nope"]}, "binary_features: nope is none of the features"),
        ("metadata", {"more": 1}, "mtf_engine in the metadata.json"),
    ],
)  # fmt: skip
def test_a_minari_dataset_that_is_not_sound_is_refused_with_the_place(
    exported, tmp_path, column, values, told
):
    data = shutil.copytree(exported, tmp_path / "steps-v0") / "data"
    if column == "metadata":
        metadata = json.loads((data / "metadata.json").read_text()) | {"mtf_engine": values}
        (data / "metadata.json").write_text(json.dumps(metadata))
    else:
        with h5py.File(data / "main_data.hdf5", "a") as file:
            del file[f"episode_3/{column}"]
            if values is not None:
                file[f"episode_3/{column}"] = values
    with pytest.raises(Refusal, match=told):
        read_log(data.parent)


def test_infos_of_others_are_not_taken_for_those_of_an_export(tmp_path):
    folder = pendulum(tmp_path / "pendulum-v0")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for i in range(12):
            file[f"episode_{i}/infos/baseline_action"] = np.full((6, 1), 7.0)
    (batch,) = read_log(folder).batches
    assert (np.abs(batch.requests["baseline_action"]) <= 1).all()


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
