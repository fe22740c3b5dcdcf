"""A disk with no room, or no right to write, is told in one sentence; nothing half written is left behind."""

import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtf_engine.cli import app
from mtf_engine.disk import refusals, write_atomically
from mtf_engine.permissions import Person, Role
from mtf_engine.registry import RunState
from mtf_engine.runs import executor, worker
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.work import kinds
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.evaluate import submit_evaluate
from mtf_engine.work.export import fetch_bundle
from mtf_engine.work.import_log import submit_import
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import REGISTRY_URL, Workspace
from tests.fixtures import logs
from tests.workspaces import copy_workspace

MIB = 1 << 20
SETTINGS = {"n_steps": "4", "checkpoint_every": "2", "n_critics": "4", "hidden": "256"}
FULL = (
    r"the disk is full \(/.+ [\d,]+ bytes (that are free|are free now)\); free some space there and try again"
)


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[Path]:
    """Mounts something at `path` for as long as a test takes; skips it where that is not allowed."""
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"only root may mount a file system: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB."""
    with mounted(tmp_path / "tiny", "-t", "tmpfs", "-o", "size=16m", "tmpfs") as path:
        yield path


def fill(folder: Path, leave: int) -> Path:
    """Returns a file that takes all of the disk but `leave` bytes."""
    found = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(bytes(found.f_bavail * found.f_frsize - leave))
    return filler


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def an_import(workspace: Workspace) -> str:
    log = logs.write(logs.clean(), workspace.path.parent)
    return submit_import(workspace, log, mapping=log / "mapping.yaml")


def a_collection(workspace: Workspace) -> str:
    return submit_collect(workspace, env="session:feed", n_requests=300)


def a_training(workspace: Workspace) -> str:
    how = {"algo": "integrated_rl", "preset": "demo", "settings": SETTINGS}
    return submit_train(workspace, "explored", **how)


def an_evaluation(workspace: Workspace) -> str:
    return submit_evaluate(workspace, ["baseline"], "test")


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Starts no worker: the test itself is one."""
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


WORK = (an_import, a_collection, a_training, an_evaluation)


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("submit", WORK, ids=lambda submit: submit.__name__)
def test_a_full_disk_fails_a_run_in_one_sentence_and_room_makes_it_go_on(submit, small_workspace, tiny):
    workspace = copy_workspace(small_workspace, tiny / "workspace")
    run_id = submit(workspace)
    before = tree(workspace.path)
    filler = fill(tiny, leave=worker.SPARE + 64_000)  # the pages of the registry that a run begins with
    assert worker.run_job(workspace, run_id, kinds()) is RunState.FAILED
    run = workspace.registry.run(run_id)
    with pytest.raises(Refusal, match=f"^{FULL}$"):
        executor.completed(workspace, run)
    if submit is an_import:
        return  # it is forgotten, as every refused import is
    left = {Path(name).name for name in tree(workspace.path) - before}
    assert left <= {
        "attempts.txt",
        "config.json",
        "provenance.json",
        "report.json",
        "metrics.jsonl",
        "worker.lock",
        "hashes.txt",
    }
    filler.unlink()
    executor.resume(workspace, run_id)
    assert worker.run_job(workspace, run_id, kinds()) is RunState.COMPLETED


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Has the kernel refuse to let a file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("submit", [a_collection, a_training], ids=lambda submit: submit.__name__)
def test_a_limit_to_the_size_of_files_fails_a_run_in_one_sentence(submit, small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "workspace")
    run_id = submit(workspace)
    datasets = tree(workspace.datasets_dir)
    with largest_file(MIB // 2):
        assert worker.run_job(workspace, run_id, kinds()) is RunState.FAILED
    assert "no file may grow further" in str(workspace.registry.run(run_id).error)
    left = tree(workspace.datasets_dir) - datasets
    assert all(name.split("/")[0].endswith(".transitions") for name in left), "whole, for the next training"
    assert not [name for name in left | tree(workspace.run_dir(run_id)) if "tmp" in name]


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    (path := tmp_path / "file").write_bytes(b"before")
    with largest_file(1000), pytest.raises(OSError, match="File too large"):
        write_atomically(path, bytes(2000))
    assert (path.read_bytes(), tree(tmp_path)) == (b"before", {"file"})


def test_a_full_disk_is_told_by_path_need_and_what_is_free(tiny):
    fill(tiny, leave=100_000)
    path = tiny / "policy.zip"
    with pytest.raises(Refusal) as refused, refusals(tiny):
        write_atomically(path, bytes(MIB))
    assert f"({path} needs 1,048,576 bytes, more than the " in str(refused.value)
    free = int(re.search(r"than the ([\d,]+) bytes that are free", str(refused.value))[1].replace(",", ""))
    assert free == shutil.disk_usage(tiny).free > 0


def test_a_command_says_where_the_disk_is_full(small_workspace, tiny, tmp_path):
    export = small_workspace.registry.runs(kind="export")[0]
    fill(tiny, leave=4096)
    with pytest.raises(OSError, match="No space left"):
        fetch_bundle(small_workspace, export.id, tiny / "policy.zip")
    assert tree(tiny) == {"filler"}
    done = CliRunner().invoke(app, ["--workspace", str(tiny / "new"), "dataset", "list"])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "full" in done.stderr


LOOKS: tuple[tuple[str, ...], ...] = (
    ("dataset", "list"),
    ("dataset", "show", "explored"),
    ("dataset", "quality", "explored"),
    ("bounds", "list"),
    ("bounds", "drift", "{run}", "--on", "explored"),
    ("runs", "list"),
    ("runs", "show", "{run}"),
    ("runs", "logs", "{run}"),
    ("review", "history"),
    ("doctor",),
)
WRITES: tuple[tuple[str, ...], ...] = (
    ("dataset", "collect", "--env", "session", "--explore", "uniform", "--requests", "10"),
    ("dataset", "delete", "test", "--yes"),
    ("train", "explored"),
    ("evaluate", "{run}", "--on", "test"),
    ("runs", "note", "{run}", "seen"),
    ("runs", "move", "{run}", "up"),
    ("runs", "resume", "{run}"),
    ("bounds", "drift", "{run}", "--on", "explored", "--save", "wide"),
)


@pytest.fixture
def read_only(
    small_workspace: Workspace, tmp_path: Path
) -> Iterator[Callable[[tuple[str, ...]], tuple[int, str, str]]]:
    """A command line on a workspace that is mounted read-only: exit code, output, errors."""
    workspace = copy_workspace(small_workspace, tmp_path / "workspace")
    run_id = workspace.registry.runs(kind="train")[0].id

    def call(words: tuple[str, ...]) -> tuple[int, str, str]:
        arguments = [
            "--workspace",
            str(workspace.path),
            "--json",
            *(word.format(run=run_id) for word in words),
        ]
        done = CliRunner().invoke(app, arguments)
        return done.exit_code, done.stdout, done.stderr

    with mounted(workspace.path, "--bind", str(workspace.path)) as path:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
        yield call


def test_a_read_only_workspace_can_be_looked_at_and_what_writes_refuses(read_only):
    for words in LOOKS:
        code, output, errors = read_only(words)
        assert (code, errors) == (0, ""), words
        json.loads(output)
    for words in WRITES:
        code, output, errors = read_only(words)
        assert (code, errors.count("\n")) == (1, 1), words
        assert json.loads(output)["error"].startswith("nothing can be written (")


def test_a_visitor_stays_one_where_only_the_registry_elsewhere_can_be_written(tmp_path, monkeypatch):
    path = Workspace(tmp_path / "workspace").path
    monkeypatch.setenv(REGISTRY_URL, f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    plan = BoundsPlan.symmetric(0.1, 2)
    with mounted(path, "--bind", str(path)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
        ada = Workspace(path, Person("ada", Role.EDITOR))
        ada.registry.save_plan("narrow", plan)
        assert [row.person for row in ada.registry.plans()] == ["ada"]
        with pytest.raises(Refusal, match="you may look here, and change nothing"):
            Workspace(path, Person("vera", Role.VIEWER)).registry.save_plan("wide", plan)


def test_a_read_only_registry_shows_what_a_writer_has_not_moved_over_yet(small_workspace, tmp_path):
    workspace = copy_workspace(small_workspace, tmp_path / "workspace")
    with closing(sqlite3.connect(workspace.path / "registry.sqlite")) as open_elsewhere:
        open_elsewhere.execute("SELECT 1 FROM runs").fetchall()
        workspace.registry.save_plan("new", BoundsPlan.symmetric(0.1, 2))
        with mounted(workspace.path, "--bind", str(workspace.path)) as path:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
            assert [row.name for row in Workspace(path).registry.plans()] == ["new"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"not SQLite, but a text of some length", "registry.sqlite is no registry"),
        (None, "cannot be opened"),
    ],
)
def test_a_registry_that_is_none_is_refused(content, sentence, tmp_path):
    file = tmp_path / "registry.sqlite"
    file.write_bytes(content) if content else file.mkdir()
    with pytest.raises(Refusal, match=sentence):
        Workspace(tmp_path)
