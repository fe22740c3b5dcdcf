"""What is stored knows its hash: a damaged file is told in a sentence, and never read as other numbers."""

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mtf_engine import sealed
from mtf_engine.disk import refusals
from mtf_engine.learning.training import checkpoint_step, load_critics
from mtf_engine.logs.datasets import Dataset
from mtf_engine.policies.examples import Examples
from mtf_engine.policies.policy import Policy
from mtf_engine.registry import RunState, now
from mtf_engine.release import review
from mtf_engine.runs import executor, files, keeping, metrics
from mtf_engine.runs.doctor import examine
from mtf_engine.runs.repair import repair
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.workspace import BACKUPS, REGISTRY, Workspace
from tests.fixtures.rounds import a_round, add_rounds
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
        at = len(content) // 2
        (folder / name).write_bytes(bytes([*content[:at], content[at] ^ 1, *content[at + 1 :]]))
        (sentence,) = examine(workspace)["damaged"]
        assert run.id in sentence and name in sentence and "rest on this run" in sentence
        (folder / name).write_bytes(content)


def everything(workspace: Workspace) -> tuple[object, ...]:
    registry = workspace.registry
    return registry.runs(), registry.datasets(), registry.plans(), registry.decisions()


def test_a_registry_is_made_anew_from_its_backup_and_the_folders(small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "w")
    workspace.registry.save_plan("wide", BoundsPlan.symmetric(0.2, 10))
    kept = workspace.registry.runs(kind="train")[0]
    keeping.note(workspace, kept.id, "ours")
    workspace.back_up()
    late = [run for run in workspace.registry.runs() if run.kind in ("evaluate", "collect")]
    with closing(sqlite3.connect(next((workspace.path / BACKUPS).glob("registry-*")))) as old, old:
        old.executemany(
            "DELETE FROM runs WHERE id = ?", [(run.id,) for run in late]
        )  # they came after the backup
        old.execute("DELETE FROM datasets")
    before = everything(workspace)
    registry = workspace.path / REGISTRY
    registry.write_bytes(b"no database " * 500)
    for suffix in ("-wal", "-shm"):
        registry.with_name(REGISTRY + suffix).unlink(missing_ok=True)
    with pytest.raises(Refusal, match="doctor --repair"), refusals(workspace.path):
        Workspace(workspace.path)

    told = repair(workspace.path)
    assert told["runs_added"] == sorted(run.id for run in late) and not told["not_readable"]
    mended = Workspace(workspace.path)
    runs, datasets, plans, decisions = everything(mended)
    assert (runs, plans, decisions) == (before[0], before[2], before[3])
    same = {"created_at": now()}
    assert {d.id: d.model_copy(update=same) for d in datasets} == {
        d.id: d.model_copy(update=same) for d in before[1]
    }
    assert examine(mended)["damaged"] == []
    assert (workspace.path / told["kept_aside"] / REGISTRY).read_bytes().startswith(b"no database")


@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 40))])
def test_a_damaged_registry_is_told_or_says_as_before(small_workspace, tmp_path, seed):
    workspace = copy_workspace(small_workspace, tmp_path / "w")
    registry, generator = workspace.path / REGISTRY, np.random.default_rng(seed)
    with closing(sqlite3.connect(registry)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before, content = everything(workspace)[:2], registry.read_bytes()

    def read() -> object:
        with refusals(workspace.path):
            opened = Workspace(workspace.path)
            report = examine(opened)
            return everything(opened)[:2], report["damaged"] + report["ledger_mismatches"]

    told = 0
    for bad in (bad for _ in range(2) for bad in damages(content, generator).values()):
        for suffix in ("-wal", "-shm"):
            registry.with_name(REGISTRY + suffix).unlink(missing_ok=True)
        registry.write_bytes(bad)
        found = outcome(read)
        told += isinstance(found, Refusal) or bool(found[1])
        assert isinstance(found, Refusal) or found[1] or found[0] == before
    assert told >= 2


def test_a_registry_that_is_gone_or_empty_is_refused_and_never_backed_up(small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "w")
    workspace.back_up()
    before, registry = everything(workspace), workspace.path / REGISTRY
    for damage, told in ((registry.unlink, "gone"), (lambda: registry.write_bytes(b""), "empty")):
        damage()
        for _ in range(2):
            with pytest.raises(Refusal, match=f"registry.sqlite is {told}; `doctor --repair`"):
                Workspace(workspace.path)
        repair(workspace.path)
        assert everything(Workspace(workspace.path)) == before


def test_a_round_that_waits_keeps_what_it_found(small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "w")
    add_rounds(workspace, a_round(1, "baseline"))
    (run,) = workspace.registry.runs(kind="progressive")
    workspace.run_dir(run.id).mkdir()
    executor.keep_row(workspace.run_dir(run.id), run.model_copy(update={"state": RunState.WAITING}))
    for backup in (workspace.path / BACKUPS).glob("registry-*"):
        backup.unlink()
    (workspace.path / REGISTRY).unlink()
    assert run.id in repair(workspace.path)["runs_added"]
    assert Workspace(workspace.path).registry.run(run.id).result == run.result


def test_a_folder_that_says_nothing_of_its_run_is_told(small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "w")
    (workspace.runs_dir / "train-00000000").mkdir()
    assert ["train-00000000" in line for line in repair(workspace.path)["not_readable"]] == [True]
    (run,) = workspace.registry.runs(RunState.COMPLETED, kind="train")
    workspace = Workspace(workspace.path)
    workspace.registry.delete_runs(run.id)
    assert any(f"{run.id} is not in it" in line for line in examine(workspace)["damaged"])


def test_a_repair_ends_what_was_stopped_while_it_was_added_or_deleted(small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "w")
    (added, deleted) = (run.id for run in workspace.registry.runs(RunState.COMPLETED)[:2])
    workspace.run_dir(added).rename(workspace.runs_dir / f".{added}.tmp")
    (workspace.runs_dir / f".{deleted}.deleted").touch()
    (workspace.runs_dir / ".train-00000000.tmp").mkdir()
    assert not [line for line in examine(workspace)["orphans"] if "/." in line]
    (workspace.path / REGISTRY).write_bytes(b"no registry")
    repair(workspace.path)
    repaired = Workspace(workspace.path)
    assert {added, deleted} <= {run.id for run in repaired.registry.runs()}
    assert repaired.run_dir(added).is_dir() and not [*repaired.runs_dir.glob(".*")]
    assert repaired.registry.deletions() == []


def test_backups_at_once_are_one_and_none_undoes_a_decision(small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "w")
    with ThreadPoolExecutor(3) as several:
        tuple(several.map(lambda _: workspace.back_up(), range(12)))
    assert [path.name[:8] for path in (workspace.path / BACKUPS).iterdir()] == ["registry"]
    shutil.rmtree(workspace.path / BACKUPS)
    (workspace.path / BACKUPS).write_text("no folder")
    add_rounds(workspace, a_round(1, "baseline"))
    (run,) = workspace.registry.runs(kind="progressive")
    review.decide(workspace, run.id, 1, "reject", name="Ada", reason="too small")
    assert [row.decision for row in workspace.registry.decisions()] == ["reject"]


def test_metrics_of_an_earlier_version_go_on(tmp_path):
    (tmp_path / files.METRICS).write_bytes(b'{"step":1,"loss":2.0}\n{"step":2,"loss":1.0}\n')
    metrics.cut_back(tmp_path, before=3)
    metrics.append(tmp_path, {"step": 3, "loss": 0.5})
    assert [row["step"] for row in metrics.read(tmp_path)] == [1, 2, 3] and metrics.last(tmp_path)[
        "loss"
    ] == 0.5


def test_a_damaged_list_of_hashes_is_called_so(folder):
    (folder / sealed.HASHES).write_bytes(b"no hash\n")
    with pytest.raises(
        Refusal, match=r"hashes\.txt is damaged: line 1 .*; restore it from a copy, or delete it"
    ):
        Policy.load(folder / files.POLICY)
    (folder / sealed.HASHES).unlink()
    Policy.load(folder / files.POLICY)


def test_a_file_that_never_appeared_is_damage_of_a_completed_run_alone(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(sealed, "write_atomically", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sealed.write(tmp_path / "file", b"first")
    assert [path.name for path, _ in sealed.damaged(tmp_path)] == ["file"]
    assert not [*sealed.damaged(tmp_path, is_whole=False)]
