"""Does an operation again and again, each time with another of its calls failing, and looks at what is left.

A call is one that changes the workspace's folder: a write, a sync, a new name or size, a deletion, by Python, SQLite
and DuckDB alike (`tests/fixtures/faults.c`, built by `built`). Whatever fails, what is there is the old or the new,
never between; done again, or resumed, it ends with the same bits. `python -m tests.faults` is what `started` runs.
"""

import ctypes
import errno
import hashlib
import json
import os
import pickle
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from mtf_engine import disk, registry, sealed
from mtf_engine.disk import REPAIR, refusals
from mtf_engine.logs.exporting import export_log
from mtf_engine.registry import RunRow, RunState
from mtf_engine.release import review
from mtf_engine.runs import executor, files, metrics, notices, worker
from mtf_engine.runs.doctor import examine
from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.repair import repair
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import BoundsPlan, Refusal
from mtf_engine.work import collect, evaluate, export, import_log, join, progressive, train, tune
from mtf_engine.workspace import REGISTRY, Workspace
from tests.fixtures import logs
from tests.fixtures.rounds import a_round, add_rounds
from tests.workspaces import worked_on_here

ROOT = Path(__file__).parent.parent
NEVER = 1 << 40
FAULTS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "kill": 0, "power": 0}
"""What a call comes to: two errors, the end of the process, and that of the machine: what was not synced is gone."""
BITS = (files.POLICY, files.BEST_POLICY, files.CRITICS, files.EXAMPLES, files.EVALUATION, files.BUNDLE)
"""Files of a run whose bytes hang on nothing but what it was asked for; a part is asked for runs by their ids."""
CLOCK = ("seconds", "steps_per_second")


def built(folder: Path) -> Path:
    """Returns the library that lets calls fail, compiled into `folder`."""
    library = folder / "faults.so"
    source = ROOT / "tests/fixtures/faults.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def started(library: Path, folder: Path, sample: int, *names: str, planted: str = "") -> list[dict[str, Any]]:
    """Returns the outcomes of the trials that a process of its own does in `folder`, perhaps with a bug."""
    environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.faults", str(library), str(folder), planted, str(sample), *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class Operation:
    """Something that is done to a workspace; `prepare` returns what it is about."""

    prepare: Callable[[Workspace], str]
    act: Callable[[Workspace, str], bool]
    """Returns whether it says that it is done; a Refusal says why it is not."""
    again: Callable[[Workspace, str], object]
    opened: Callable[[Path], Any] = Workspace
    """What of a folder it is done to."""
    has_parts: bool = False
    """Whether what was done of it stands: then the state may be between, and it goes on from there."""


def _submitted(submit: Callable[[Workspace], str]) -> Operation:
    return Operation(submit, _worked, _resumed)


def _worked(workspace: Workspace, run_id: str) -> bool:
    return worker.run_job(workspace, run_id, KINDS) is RunState.COMPLETED


def _resumed(workspace: Workspace, run_id: str) -> bool:
    if workspace.registry.run(run_id).state is not RunState.QUEUED:
        executor.resume(workspace, run_id)
    return _worked(workspace, run_id)


def _repeated(prepare: Callable[[Workspace], str], act: Callable[[Workspace, str], object]) -> Operation:
    def done(workspace: Workspace, about: str) -> bool:
        act(workspace, about)
        return True

    return Operation(prepare, done, done)


def _steps(job: worker.Job, _: dict[str, Any]) -> dict[str, Any]:
    """Logs steps and keeps checkpoints as a training does, and goes on as one."""
    path = job.folder / files.CHECKPOINT
    first = int(sealed.read(path, "begin anew")) if path.exists() else 0

    def rows() -> Iterator[dict[str, Any]]:
        for step in range(first + 1, 5):
            yield {"step": step, "loss": step / 8}
            if step % 2 == 0:
                sealed.write(path, str(step).encode())

    for row in job.logged(rows()):
        job.progress(row["step"])
    return {"rows": len(metrics.read(job.folder))}


STEPS = RunKind("steps", None, _steps, checkpoints=True)
"""What a training writes, without the seconds that torch takes to load."""
KINDS = {
    one.name: one
    for one in (
        STEPS,
        *(of.KIND for of in (collect, evaluate, export, import_log, join, progressive, train, tune)),
    )
}


def _import(workspace: Workspace, n_users: int = 4) -> str:
    log = logs.write(logs.clean(n_users), workspace.path.parent)
    return import_log.submit_import(workspace, log, mapping=log / "mapping.yaml")


def _imported(workspace: Workspace, n_users: int = 4) -> str:
    """Returns the id of a log around a constant baseline, which an actor need not learn before it is trained."""
    run_id = _import(workspace, n_users)
    assert _worked(workspace, run_id)
    return str(workspace.registry.run(run_id).dataset_id)


def _train(workspace: Workspace) -> str:
    settings = {"n_steps": "4", "checkpoint_every": "2", "log_every": "1", "n_critics": "2", "hidden": "8"}
    return train.submit_train(
        workspace, _imported(workspace), algo="integrated_rl", preset="demo", settings=settings
    )


def _trained(workspace: Workspace) -> str:
    run_id = _train(workspace)
    assert _worked(workspace, run_id)
    return run_id


def _evaluate(workspace: Workspace) -> str:
    policy = _trained(workspace)
    dataset = str(workspace.registry.run(policy).dataset_id)
    return evaluate.submit_evaluate(workspace, ["baseline", policy], dataset, floors=False)


def _submit_steps(workspace: Workspace) -> str:
    return executor.submit(workspace, STEPS, {}, name="steps", n_steps=4)


def _stepped(workspace: Workspace) -> str:
    run_id = _submit_steps(workspace)
    assert _worked(workspace, run_id)
    return run_id


def _a_round(workspace: Workspace) -> str:
    add_rounds(workspace, a_round(1, "baseline"), promote="by-hand")
    return "progressive-1"


_open: list[sqlite3.Connection] = []


def _decide(workspace: Workspace, run_id: str) -> object:
    """Decides while somebody reads the registry to the end: no last one who closes it moves over what was committed."""
    _open.append(sqlite3.connect(workspace.path / REGISTRY))
    _open[-1].execute("SELECT id FROM runs").fetchall()
    return review.decide(workspace, run_id, 1, "promote", name="somebody", reason="it is better")


def _collect(workspace: Workspace, _: str = "") -> str:
    return collect.submit_collect(workspace, env="session:feed", n_requests=20)


def _join(workspace: Workspace) -> str:
    return join.submit_join(workspace, [_imported(workspace), _imported(workspace)], name="both")


def _tune(workspace: Workspace) -> str:
    return tune.submit_tune(
        workspace,
        _imported(workspace, n_users=40),
        algo="linear_one_step",
        preset="demo",
        settings={"n_steps": "2"},
        search={"ridge": "0.1,10"},
        trials=2,
    )


def _searched(workspace: Workspace, run_id: str) -> bool:
    with worked_on_here():
        return _resumed(workspace, run_id)


def _rounds(workspace: Workspace) -> str:
    return progressive.submit_progressive(
        workspace,
        algo="linear_one_step",
        preset="demo",
        settings={"n_steps": "2"},
        env="session:feed",
        rounds=1,
        sessions_per_round=12,
        promote="by-hand",
        ab_users=0,
    )


def _decided(workspace: Workspace, run_id: str) -> bool:
    """Works a run of rounds until it waits, decides its round, and works it to its end."""
    if workspace.registry.run(run_id).state not in (RunState.QUEUED, RunState.WAITING):
        executor.resume(workspace, run_id)
    if workspace.registry.run(run_id).state is RunState.QUEUED:
        ended = worker.run_job(workspace, run_id, KINDS)
        if ended is not RunState.WAITING:
            return ended is RunState.COMPLETED
    if review.decision_of(workspace, run_id, 1) is None:
        progressive.decide(workspace, run_id, 1, "promote", name="somebody", reason="it is better")
    return _resumed(workspace, run_id)


def _lost(workspace: Workspace) -> str:
    """Backs a registry up, adds a run that the backup does not know, and writes over the registry."""
    _imported(workspace)
    workspace.back_up()
    _stepped(workspace)
    (workspace.path / REGISTRY).write_bytes(b"no registry" * 500)
    for file in workspace.path.glob(f"{REGISTRY}-*"):
        file.unlink()
    return ""


def _repaired(folder: Path, _: str) -> bool:
    repair(folder)
    return True


EXPORTED = "exported"
"""Where a log is exported to: inside the workspace, where calls fail."""


def _export_as(format: str) -> Operation:
    return _repeated(
        _imported,
        lambda workspace, name: export_log(
            open_dataset(workspace, name), format, workspace.path / f"{EXPORTED}-v0"
        ),
    )


WEBHOOK = "http://127.0.0.1:9/hook"


def _claim(workspace: Workspace, run_id: str) -> None:
    """Claims the end of a run for the one notice that is sent of it."""
    run = workspace.registry.run(run_id)
    workspace.registry.claim_end(run)
    assert not workspace.registry.claim_end(run), "an end is told twice"


OPERATIONS = {
    "import": _submitted(_import),
    "collect": _submitted(_collect),
    "train": _submitted(_train),
    "evaluate": _submitted(_evaluate),
    "export": _submitted(lambda workspace: export.submit_export(workspace, _trained(workspace))),
    "steps": _submitted(_submit_steps),
    "submit": _repeated(lambda _: "", _collect),
    "decide": _repeated(_a_round, _decide),
    "plan": _repeated(
        lambda _: "wide",
        lambda workspace, name: workspace.registry.save_plan(name, BoundsPlan.symmetric(0.1, 2)),
    ),
    "delete-run": _repeated(_stepped, lambda workspace, run_id: workspace.delete_runs(run_id)),
    "delete-dataset": _repeated(_imported, lambda workspace, name: workspace.delete_dataset(name)),
    "join": _submitted(_join),
    "tune": Operation(_tune, _searched, _searched, has_parts=True),
    "rounds": Operation(_rounds, _decided, _decided, has_parts=True),
    "repair": Operation(_lost, _repaired, _repaired, opened=Path),
    "to-parquet": _export_as("parquet"),
    "to-d3rlpy": _export_as("d3rlpy"),
    "to-minari": _export_as("minari"),
    "webhook": _repeated(lambda _: "", lambda workspace, _: notices.set_receiver(workspace, WEBHOOK)),
    "notice": _repeated(_stepped, _claim),
}


OF_LOGS = ("mtf_engine.logs.importing", "mtf_engine.evaluation.power")
OF_POLICIES = (
    *OF_LOGS,
    "torch._dynamo",
    "onnxruntime",
    "mtf_engine.algos",
    "mtf_engine.environments.collect",
    "mtf_engine.environments.session",
    "mtf_engine.evaluation",
    "mtf_engine.policies.bundle",
    "mtf_engine.policies.graphs",
    "mtf_engine.work.fitness",
)
OF_FORMATS = (*OF_LOGS, "h5py", "minari.dataset.minari_storage")
LOADED = (
    dict.fromkeys(("import", "delete-dataset", "join", "repair", "to-parquet"), OF_LOGS)
    | dict.fromkeys(("collect", "train", "evaluate", "export", "tune", "rounds"), OF_POLICIES)
    | dict.fromkeys(("to-d3rlpy", "to-minari"), OF_FORMATS)
)
"""What an operation loads, which takes seconds: once, not in each trial."""


class Trial(NamedTuple):
    """The call number `at` of an operation comes to `fault`, those after it too if `for_good`."""

    operation: str
    at: int
    fault: str
    for_good: bool = False
    names: str = ""
    """Of a loss of power: whether the "synced" names are left, or "all", of contents that were not synced."""


def state(place: Path) -> dict[str, Any]:
    """Returns what a workspace holds, whatever the ids of runs and the time of day."""
    try:
        workspace = Workspace(place)
    except Refusal as refusal:
        return {"refused": REPAIR in str(refusal) or str(refusal), "wrong": []}
    found = examine(workspace)
    left = sorted(str(path.relative_to(place)) for path in place.rglob(".*") if ".tmp" in path.name)
    registry, told = workspace.registry, notices.receiver(workspace)
    return {
        "runs": sorted((_of_run(workspace, run) for run in registry.runs()), key=repr),
        "datasets": sorted((row.name, row.content_hash) for row in registry.datasets()),
        "decisions": [
            (ID.sub("ID", f"{row.run_id}"), row.round, row.decision) for row in registry.decisions()
        ],
        "plans": [row.name for row in registry.plans()],
        "exported": {
            str(path.relative_to(place)): _digest(path)
            for path in sorted([*place.glob(f"{EXPORTED}*"), *place.glob(f"{EXPORTED}*/**/*")])
            if path.is_file()
        },
        "receiver": told and str(told.url),
        "untold": [run.name for run in registry.runs(RunState.COMPLETED) if run.told_end != run.finished_at],
        "wrong": [*found["damaged"], *found["ledger_mismatches"], *found["orphans"], *left],
    }


ID = re.compile(r"[a-z]+-[0-9a-f]{8}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _of_run(workspace: Workspace, run: RunRow) -> tuple[Any, ...]:
    if run.state is not RunState.COMPLETED:
        return run.kind, run.name, "not completed"
    folder = workspace.run_dir(run.id)
    bits = {name: _digest(folder / name) for name in BITS if (folder / name).exists() and not run.parent_id}
    rows = [{k: v for k, v in row.items() if k not in CLOCK} for row in metrics.read(folder)]
    return run.kind, run.name, "completed", ID.sub("ID", repr(run.result)), bits, rows


Entries = dict[str, tuple[bool, int]]
"""What lies in a folder: whether each name is a folder too, and its number."""


def _listings(folder: Path) -> dict[int, Entries]:
    return {
        path.stat().st_ino: {one.name: (one.is_dir(), one.inode()) for one in os.scandir(path)}
        for path in (folder, *folder.rglob("*"))
        if path.is_dir()
    }


class Disk:
    """What of a folder is on the disk: a copy of `before`, and what `durable` holds of it, which was synced since."""

    def __init__(self, place: Path, before: Path, durable: Path) -> None:
        self._place, self._durable = place, durable
        self._listed = _listings(place)
        self._content = {
            path.stat().st_ino: before / path.relative_to(place)
            for path in place.rglob("*")
            if path.is_file()
        }

    def lose_power(self, names: str) -> None:
        """Makes the folder what is left of it; "all" names may be, of files whose content was not synced."""
        lost = self._place.rename(self._place.with_name("lost"))
        self._restore(lost.stat().st_ino, self._place, _listings(lost) if names == "all" else {})
        shutil.rmtree(lost)

    def _restore(self, folder: int, to: Path, known: dict[int, Entries]) -> None:
        to.mkdir()
        synced = self._durable / f"{folder}.names"
        if folder in known:
            entries = known[folder]
        elif synced.exists():
            lines = (line.split(" ", 2) for line in synced.read_text().splitlines())
            entries = {name: (kind == "1", int(number)) for kind, number, name in lines}
        else:
            entries = self._listed.get(folder, {})
        for name, (is_folder, number) in entries.items():
            content = self._durable / str(number)
            if is_folder:
                self._restore(number, to / name, known)
            elif content.exists() or number in self._content:
                shutil.copyfile(content if content.exists() else self._content[number], to / name)
            else:
                (to / name).touch()


class Campaign:
    """Trials in a folder, each in a process of its own that begins as a copy of this one."""

    def __init__(self, library: ctypes.CDLL, folder: Path) -> None:
        self._library, self._folder = library, folder
        self._place, self._durable, self._log = folder / "workspace", folder / "durable", folder / "calls"
        executor.MAX_WORKING = 0

    def of(self, name: str) -> tuple[list[str], Callable[[Trial], dict[str, Any]]]:
        """Returns the calls of an operation, and what does a trial of it."""
        before, prepare = self._folder / name / "before", OPERATIONS[name].prepare
        before.parent.mkdir()
        about = self._told(lambda: prepare(Workspace(before)))
        self._copy(before)
        old = self._told(lambda: state(self._place))
        self._copy(before)
        assert self._told(partial(self._act, Trial(name, NEVER, "EIO"), about)) is True
        calls = self._log.read_text().splitlines()
        assert calls, "the library is not loaded"
        new = self._told(lambda: state(self._place))
        assert old != new and not old["wrong"] and not new["wrong"] and "runs" in new, (name, old, new)
        return calls, partial(self._tried, before, about, old, new)

    def _tried(self, before: Path, about: str, old: Any, new: Any, trial: Trial) -> dict[str, Any]:
        """Returns a trial, the call it was about, what was said, and what is wrong with what it left."""
        self._copy(before)
        left = Disk(self._place, before, self._durable)
        how, said = self._forked(partial(self._act, trial, about))
        call = self._log.read_text().splitlines()[trial.at : trial.at + 1]
        if trial.fault == "power":
            left.lose_power(trial.names)
        is_done = (how, said) == ("returned", True)
        looked, found = self._forked(partial(self._looked, trial.operation, about, old, new, is_done))
        problem, sentence = found if looked == "returned" else (f"looking at it {looked}: {found}", "")
        if how == "raised" and not problem:
            problem, sentence = "" if said.startswith("Refusal") else f"raised {said}", said
        return {"trial": trial._asdict(), "call": call, "wrong": problem, "said": sentence}

    def _act(self, trial: Trial, about: str) -> bool:
        done_to = OPERATIONS[trial.operation].opened(self._place)
        durable = self._durable if trial.fault == "power" else ""
        names = (os.fsencode(str(path)) for path in (self._place, self._log, durable))
        good = int(trial.for_good)
        self._library.faults_arm(*names, ctypes.c_long(trial.at), FAULTS[trial.fault], good)
        with refusals(self._place):
            return OPERATIONS[trial.operation].act(done_to, about)

    def _looked(self, name: str, about: str, old: Any, new: Any, is_done: bool) -> tuple[str, str]:
        """Returns what is wrong with what is left, and what its run says; then ends it, and looks again."""
        operation, sentence = OPERATIONS[name], ""
        with suppress(Refusal):  # of a registry that is lost, as `state` says
            workspace = Workspace(self._place)
            executor.reconcile(workspace)
            run = next((run for run in workspace.registry.runs() if run.id == about), None)
            sentence = (run and run.error) or ""
        found = state(self._place)
        if found == new:
            return "", sentence
        if found != old and (found["wrong"] or not operation.has_parts):
            return f"between: {_differences(old, found)}", sentence
        if is_done:
            return "it said that it was done, and is not", sentence
        if "internal error" in sentence:
            return sentence, sentence
        operation.again(operation.opened(self._place), about)
        found = state(self._place)
        return ("" if found == new else f"done again: {_differences(new, found)}"), sentence

    def _copy(self, before: Path) -> None:
        """Makes the place where trials are done a copy of what was before, and forgets the trial of before."""
        shutil.rmtree(self._place, ignore_errors=True)
        shutil.rmtree(self._durable, ignore_errors=True)
        self._log.unlink(missing_ok=True)
        shutil.copytree(before, self._place)
        self._durable.mkdir()

    def _told(self, function: Callable[[], Any]) -> Any:
        how, told = self._forked(function)
        assert how == "returned", told
        return told

    def _forked(self, function: Callable[[], Any]) -> tuple[str, Any]:
        """Returns whether a copy of this process "returned", "raised" or was "killed", and what."""
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            log = os.open(self._folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            try:
                told = "returned", function()
            except BaseException as error:
                traceback.print_exc()
                told = "raised", f"{type(error).__name__}: {error}"
            os.write(theirs, pickle.dumps(told))
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            content = pipe.read()
        os.waitpid(child, 0)
        return pickle.loads(content) if content else ("killed", None)


def _differences(was: dict[str, Any], found: dict[str, Any]) -> str:
    return "; ".join(
        f"{name}: {was.get(name)} -> {found.get(name)}"[:2000]
        for name in {*was, *found}
        if was.get(name) != found.get(name)
    )


def all_trials(name: str, calls: Sequence[str]) -> Iterator[Trial]:
    """Yields each call of an operation with all that it can come to."""
    for at, call in enumerate(calls):
        takes_room = call.split()[1] == "1"
        for good in (False, True):
            yield Trial(name, at, "EIO", good)
            if takes_room:
                yield Trial(name, at, "ENOSPC", good)
        yield Trial(name, at, "kill")
        for names in ("synced", "all"):
            yield Trial(name, at, "power", names=names)
    for names in ("synced", "all"):
        yield Trial(name, len(calls), "power", names=names)


def _no_sync_of_files() -> None:
    settle = disk.settle
    disk.settle = lambda path: settle(path) if path.is_dir() else None


def _no_sync_of_folders() -> None:
    settle = disk.settle
    disk.settle = lambda path: None if path.is_dir() else settle(path)


def _no_sync_of_rows() -> None:
    metrics.os = SimpleNamespace(**{**vars(os), "fsync": lambda _: None})


def _no_sync_of_commits() -> None:
    configure = registry._configure_sqlite

    def configured(connection: Any, record: object) -> None:
        configure(connection, record)
        connection.execute("PRAGMA synchronous = NORMAL")

    registry._configure_sqlite = configured


def _written_in_place() -> None:
    sealed.write_atomically = lambda path, content: path.write_bytes(content)


PLANTED = {
    "": ("", lambda: None),
    "no sync of files": ("steps", _no_sync_of_files),
    "no sync of folders": ("steps", _no_sync_of_folders),
    "no sync of metrics": ("steps", _no_sync_of_rows),
    "no sync of commits": ("decide", _no_sync_of_commits),
    "written in place": ("steps", _written_in_place),
}
"""Bugs that the trials of an operation must find, each in a few."""


def main(library: str, folder: str, planted: str, sample: str, *names: str) -> None:
    """Prints the outcomes of trials of operations, a line of JSON each: of so many drawn, and of each one's end."""
    PLANTED[planted][1]()
    campaign = Campaign(ctypes.CDLL(library), Path(folder))
    generator = random.Random(0)
    for name in names:
        for module in LOADED.get(name, ()):
            import_module(module)
        calls, tried = campaign.of(name)
        *trials, last, end = all_trials(name, calls)
        for trial in (*generator.sample(trials, min(int(sample), len(trials))), last, end):
            print(json.dumps(tried(trial)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
