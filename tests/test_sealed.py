"""What is stored knows its hash: a damaged file is told in a sentence, and never read as other numbers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtf_engine import sealed
from mtf_engine.learning.training import checkpoint_step, load_critics
from mtf_engine.logs.datasets import Dataset
from mtf_engine.policies.examples import Examples
from mtf_engine.policies.policy import Policy
from mtf_engine.registry import RunState
from mtf_engine.runs import files, metrics
from mtf_engine.runs.doctor import examine
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace
from tests.workspaces import copy_workspace

READERS: dict[str, Callable[[Path], object]] = {
    files.POLICY: lambda path: Policy.load(path).to_bytes(),
    files.CRITICS: lambda path: {k: v.tolist() for k, v in load_critics(path).state_dict().items()},
    files.EXAMPLES: lambda path: Examples.load(path).predictions.tolist(),
    files.CHECKPOINT: checkpoint_step,
    files.METRICS: lambda path: metrics.read(path.parent),
}
"""What reads each file of a training."""


def damages(content: bytes, generator: np.random.Generator) -> dict[str, bytes]:
    """Returns the content with a flipped bit, cut off, and with 64 other bytes in it."""
    flipped, written = bytearray(content), bytearray(content)
    at, block = (int(generator.integers(len(content) - size)) for size in (1, 64))
    flipped[at] ^= 1 << int(generator.integers(8))
    written[block : block + 64] = generator.bytes(64)
    return {
        "flipped": bytes(flipped),
        "cut": content[: int(generator.integers(len(content)))],
        "written": bytes(written),
    }


def outcome(read: Callable[[], object]) -> object:
    """Returns what is read, or the refusal; anything else is an error."""
    try:
        return read()
    except Refusal as refusal:
        return refusal


@pytest.fixture
def folder(small_workspace: Workspace, tmp_path: Path) -> Path:
    """A copy of a training's folder."""
    (run,) = small_workspace.registry.runs(RunState.COMPLETED, kind="train")
    return Path(shutil.copytree(small_workspace.run_dir(run.id), tmp_path / run.id))


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_told_or_read_as_before(folder, name):
    generator = np.random.default_rng(0)
    path, read = folder / name, READERS[name]
    content, before = path.read_bytes(), read(path)
    told = 0
    for _ in range(10):
        for bad in damages(content, generator).values():
            path.write_bytes(bad)
            found = outcome(lambda: read(path))
            if isinstance(found, Refusal):
                told += 1
                assert folder.name in str(found) or path.name in str(found)
            elif (
                isinstance(before, list) and name == files.METRICS
            ):  # cut at the end of a line, it is a shorter file
                assert isinstance(found, list) and found == before[: len(found)]
            else:
                assert found == before
    assert told >= 19


def test_the_list_of_hashes_knows_of_its_own_damage(folder):
    generator = np.random.default_rng(1)
    hashes = folder / sealed.HASHES
    content, policy = hashes.read_bytes(), Policy.load(folder / files.POLICY).to_bytes()
    for _ in range(10):
        for bad in damages(content, generator).values():
            hashes.write_bytes(bad)
            found = outcome(lambda: Policy.load(folder / files.POLICY).to_bytes())
            assert found == policy or "is damaged" in str(found)


def test_whoever_is_stopped_between_the_hash_and_the_file_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    sealed.write(path, b"old")
    with monkeypatch.context() as patched:
        patched.setattr(sealed, "write_atomically", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sealed.write(path, b"new")
    assert sealed.read(path, "") == b"old"
    with (tmp_path / sealed.HASHES).open("ab") as torn:
        torn.write(b"0123")
    sealed.write(path, b"newer")
    assert sealed.read(path, "") == b"newer" and not [*sealed.damaged(tmp_path)]


def test_a_dataset_whose_blocks_are_damaged_is_refused(small_workspace, tmp_path):
    generator = np.random.default_rng(2)
    row = small_workspace.registry.datasets()[0]
    content = small_workspace.dataset_path(row.id).read_bytes()
    path = tmp_path / "d.duckdb"
    for bad in (bad for _ in range(3) for bad in damages(content, generator).values()):
        path.write_bytes(bad)
        found = outcome(lambda: Dataset.open(path).recompute_content_hash())
        assert found == row.content_hash or "d.duckdb cannot be read" in str(found)


def test_the_doctor_names_every_damaged_file_and_what_rests_on_it(small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "w")
    assert examine(workspace)["damaged"] == []
    (run,) = workspace.registry.runs(RunState.COMPLETED, kind="train")
    folder = workspace.run_dir(run.id)
    named = [line.split()[1] for line in (folder / sealed.HASHES).read_text().splitlines()]
    for name in {*named, files.METRICS}:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(bytes([*content[:-20], content[-20] ^ 1, *content[-19:]]))
        (sentence,) = examine(workspace)["damaged"]
        assert run.id in sentence and name in sentence and "rest on this run" in sentence
        (folder / name).write_bytes(content)
