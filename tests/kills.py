"""Kills workers at random moments, resumes their runs, and holds what they end with against runs left alone.

A worker takes seconds to load torch, and a kill milliseconds. So one nursery bears all workers, as that of a
dashboard does: processes that do what the command line's `run-job` does, and die of a real SIGKILL. Workspaces are
opened by copies of a process that has loaded too. `python -m tests.kills` is what `started` runs.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
from pydantic_core import to_json
from typer.main import get_command

from mtf_engine.algos import ALGOS
from mtf_engine.cli import app
from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs import executor, files, metrics
from mtf_engine.runs.doctor import examine
from mtf_engine.runs.nursery import NURSERY, Nursery
from mtf_engine.spec import BoundsPlan
from mtf_engine.work import kinds
from mtf_engine.work.abtest import submit_abtest
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.evaluate import submit_evaluate
from mtf_engine.work.export import submit_export
from mtf_engine.work.import_log import submit_import
from mtf_engine.work.join import submit_join
from mtf_engine.work.narrow import submit_narrow
from mtf_engine.work.paper_data import submit_paper_data
from mtf_engine.work.progressive import submit_progressive
from mtf_engine.work.shard import submit_shard
from mtf_engine.work.study import submit_compare
from mtf_engine.work.train import submit_train
from mtf_engine.work.tune import submit_tune
from mtf_engine.workspace import Workspace
from tests.faults import BITS, CLOCK, OF_LOGS, OF_POLICIES
from tests.fixtures import logs
from tests.waiting import wait_until
from tests.workspaces import has_loaded

ROOT = Path(__file__).parent.parent
CLOCKS = {*CLOCK, "seconds_left"}
KILLS_OF_A_RUN = 5
"""At most; a run that has ended before is not killed any more."""
WRITING = 0.3
"""Share of kills that wait until the run writes what it must not tear: a checkpoint, a dataset, its result."""
SETTINGS = {
    "n_steps": "30",
    "checkpoint_every": "5",
    "log_every": "1",
    "validate_every": "10",
    "batch_size": "16",
}
SETTINGS |= {"n_critics": "3", "hidden": "8", "population": "6"}
COMMAND = get_command(app)
NURSERIES: list[Nursery] = []
"""The one that this process keeps, whose copies ask it too."""
LINEAR: dict[str, Any] = {"algo": "linear_one_step", "preset": "laptop", "settings": {"n_steps": "2"}}
"""Of runs with parts: a training that takes no time."""


def started(folder: Path, n_kills: int, *names: str, seed: int = 0) -> list[dict[str, Any]]:
    """Returns the stories of the runs that a process of its own kills in `folder`, so many kills in all."""
    environment = os.environ | executor._environment(1)
    command = [sys.executable, "-m", "tests.kills", str(folder), str(n_kills), str(seed), *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class Case:
    """A run that is killed: what must be there before, and how it is asked for."""

    base: str
    submit: Callable[[Workspace], str]
    share: int = 4
    """Of all kills, to those of the others: runs that take long get fewer."""
    modules: tuple[str, ...] = OF_POLICIES
    """What its worker loads."""


def _import(workspace: Workspace, name: str = "log", seed: int = 0, to: str = "") -> str:
    """Imports a log around a constant baseline, which an actor need not learn before it is trained."""
    log = logs.write(logs.clean(n_users=24, seed=seed), workspace.path.parent / name)
    return submit_import(workspace, log, mapping=log / "mapping.yaml", name=name, to=to)


def _train(workspace: Workspace, algo: str = "integrated_rl") -> str:
    has = ALGOS[algo].Config.model_fields
    settings = {name: value for name, value in SETTINGS.items() if name in has}
    return submit_train(
        workspace, "explored", algo=algo, preset="demo", settings=settings, seed=4, name="trained"
    )


def _trained(workspace: Workspace) -> str:
    return workspace.registry.runs(kind="train")[0].id


def _collect(workspace: Workspace) -> str:
    return submit_collect(workspace, env="session:feed", n_requests=60, name="collected")


def _join(workspace: Workspace) -> str:
    return submit_join(workspace, ["explored", "test"], name="joined")


def _narrow(workspace: Workspace) -> str:
    n_actions = len(workspace.registry.datasets()[0].meta["fusion"]["dimensions"])
    return submit_narrow(workspace, "explored", BoundsPlan.symmetric(0.1, n_actions), "narrowed")


def _evaluate(workspace: Workspace) -> str:
    return submit_evaluate(workspace, ["baseline", _trained(workspace)], "test")


def _export(workspace: Workspace) -> str:
    return submit_export(workspace, _trained(workspace))


def _abtest(workspace: Workspace) -> str:
    return submit_abtest(
        workspace, ["random:1"], against="baseline", env="session:feed", n_users=20, seeds=(0, 1)
    )


def _tune(workspace: Workspace, at_once: int = 1) -> str:
    search = {"ridge": "0.1..1000 log", "target": "td_residual,return"}
    return submit_tune(workspace, "explored", **LINEAR, search=search, trials=3, at_once=at_once, seed=1)


def _progressive(workspace: Workspace) -> str:
    how = {
        "rounds": 2,
        "sessions_per_round": 10,
        "ab_users": 10,
        "train_on": "cumulative",
        "promote": "always",
    }
    return submit_progressive(workspace, **LINEAR, env="session:feed", **how)


def _paper_data(workspace: Workspace) -> str:
    return submit_paper_data(
        workspace, **LINEAR | {"settings": {"n_steps": "5"}}, env="session:feed", sessions=100
    )


def _compare(workspace: Workspace) -> str:
    design = {"datasets": ("2",), "seeds": (4,), "sessions": 20, "users": 10}
    how = {"methods": ("linear_one_step",), "preset": "demo", "settings": {}}
    return submit_compare(workspace, **how, env="session:feed", **design)


BASES: dict[str, tuple[Callable[[Workspace], str], ...]] = {
    "empty": (),
    "logs": (partial(_import, name="explored"), partial(_import, name="test", seed=1)),
}
BASES["trained"] = (*BASES["logs"], _train)
CASES = {
    "import": Case("empty", _import, 4, OF_LOGS),
    "import to parquet": Case("empty", partial(_import, to="parquet"), 4, OF_LOGS),
    "join": Case("logs", _join, 4, OF_LOGS),
    "narrow": Case("logs", _narrow, 4, OF_LOGS),
    "shard": Case("logs", partial(submit_shard, dataset="explored", name="sharded"), 4, OF_LOGS),
    "collect": Case("empty", _collect),
    **{f"train {algo}": Case("logs", partial(_train, algo=algo)) for algo in ALGOS},
    "evaluate": Case("trained", _evaluate),
    "abtest": Case("empty", _abtest),
    "export": Case("trained", _export, 1),
    "tune": Case("logs", _tune, 1),
    "tune two at once": Case("logs", partial(_tune, at_once=2), 1),
    "progressive": Case("empty", _progressive, 1),
    "paper-data": Case("empty", _paper_data, 1),
    "compare": Case("empty", _compare, 1),
}
"""Every kind of run, and trainings by every method."""


def lives(pid: int) -> bool:
    """Returns whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def worked(pid: int) -> float:
    """Returns the seconds of processor time that a process has taken, however busy the machine is; 0 of none."""
    with suppress(psutil.NoSuchProcess):
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system
    return 0.0


def borne() -> list[psutil.Process]:
    """Returns the workers that live, all of which the nursery bore."""
    (nursery,) = NURSERIES
    return psutil.Process(nursery.process.pid).children()


def fork(function: Callable[[], object]) -> int:
    """Returns the number of a copy of this process that does `function` and ends."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def told(function: Callable[[], Any]) -> Any:
    """Returns what a copy of this process returns: of workspaces that it opened nothing is left here."""
    ours, theirs = os.pipe()
    pid = fork(lambda: os.write(theirs, to_json(function())))
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, "see standard error"
    return json.loads(content)


def outcome(workspace: Workspace) -> dict[str, Any]:
    """Returns what a workspace holds, bit for bit, but for the time of day and for which ids parts of runs got."""
    runs = sorted(workspace.registry.runs(), key=lambda run: (run.kind, run.name))
    assert len({(run.kind, run.name) for run in runs}) == len(runs), "each is known by its name"
    names = {}
    for number, run in enumerate(runs):
        names[run.id] = f"{run.kind}-{number:08x}"
        if run.writes_dataset:
            names[str(run.dataset_id)] = f"dataset-{number:08x}"
    rename = partial(re.sub, "|".join(names).encode(), lambda found: names[found[0].decode()].encode())
    found = examine(workspace)
    return {
        "runs": {f"{run.kind} {run.name}": _of_run(workspace, run, rename) for run in runs},
        "datasets": sorted([row.name, row.content_hash] for row in workspace.registry.datasets()),
        "wrong": [*found["damaged"], *found["ledger_mismatches"], *found["orphans"], *left_over(workspace)],
    }


def left_over(workspace: Workspace) -> list[str]:
    """Returns the temporary files in a workspace in which nobody works."""
    found = (path.relative_to(workspace.path) for path in workspace.path.rglob(".*") if ".tmp" in path.name)
    return sorted(map(str, found))


def _of_run(workspace: Workspace, run: RunRow, rename: Callable[[bytes], bytes]) -> dict[str, Any]:
    """Returns the state of a run, what its row and its files say, and hashes of them."""
    if run.state is not RunState.COMPLETED:
        return {"state": run.state}
    folder = workspace.run_dir(run.id)
    bits = {
        name: hashlib.sha256(rename((folder / name).read_bytes())).hexdigest()
        for name in BITS
        if (folder / name).exists()
    }
    if (folder / files.CHECKPOINT).exists():
        bits[files.CHECKPOINT] = _of_checkpoint(folder / files.CHECKPOINT)
    said = {"result": run.result, "rows": metrics.read(folder), "best": (run.best_step, run.best_score)}
    said |= {"file": json.loads((folder / files.RESULT).read_bytes()), "step": (run.step, run.n_steps)}
    return {
        "state": run.state,
        "bits": bits,
        **json.loads(rename(to_json(_timeless(said), inf_nan_mode="constants"))),
    }


def _of_checkpoint(path: Path) -> str:
    """Returns a hash of all tensors, optimisers and random states in a checkpoint."""
    from benchmarks import resume

    digest = hashlib.sha256()
    for name, tensor in sorted(resume.tensors(path).items()):
        if name not in resume.WALL_CLOCK:
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items() if name not in CLOCKS}
    return [_timeless(one) for one in value] if isinstance(value, list | tuple) else value


class Story:
    """A run that is killed a few times, in a copy of a workspace in which it is queued."""

    def __init__(self, place: Path, run_id: str, seconds: float, generator: random.Random) -> None:
        self._workspace, self._id = Workspace(place), run_id
        self._seconds, self._generator = seconds, generator
        self.kills: list[dict[str, Any]] = []

    @property
    def _run(self) -> RunRow:
        return self._workspace.registry.run(self._id)

    def told(self, whole: dict[str, Any]) -> dict[str, Any]:
        """Returns the kills, and what is wrong with what the run comes to, which `whole` says of one left alone."""
        wrong: list[str] = []
        executor.reconcile(self._workspace)
        while len(self.kills) < KILLS_OF_A_RUN and self._kill():
            wrong += self._problems()
            self._go_on()
        for _ in range(KILLS_OF_A_RUN + 1):  # a comparison whose part was killed fails once for each
            if executor.wait(self._workspace, self._id).state is RunState.COMPLETED:
                break
            self._go_on()
        wait_until(self._all_gone, "workers end")
        return {"kills": self.kills, "wrong": wrong + differences(whole, outcome(self._workspace))}

    def _kill(self) -> bool:
        """Returns whether a worker was there to be killed, and is dead now."""
        how = "writing" if self._generator.random() < WRITING else "moment"
        after, temp = self._generator.uniform(0, self._seconds), self._temp()
        pid = self._run.pid or 0
        if how == "moment":
            while lives(pid) and worked(pid) < after:
                time.sleep(self._generator.uniform(0, 0.005))
        else:
            while lives(pid) and not any(temp.exists() for _ in range(100)):
                pass
        pids = sorted({run.pid for run in self._workspace.registry.runs(RunState.RUNNING) if run.pid})
        if not pids:
            return False
        pid = self._generator.choice(pids)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        wait_until(lambda: not lives(pid), "the worker is gone", 0.001)
        self.kills.append({"how": how, "torn": how == "writing" and temp.exists()})
        executor.reconcile(self._workspace)
        return True

    def _temp(self) -> Path:
        """Returns the file that is there while the run writes what it must not tear."""
        run = self._run
        if run.writes_dataset:
            return self._workspace.datasets_dir / f".{run.dataset_id}.tmp.duckdb"
        name = files.CHECKPOINT if kinds()[run.kind].checkpoints else files.RESULT
        return self._workspace.run_dir(run.id) / f".{name}.tmp"

    def _problems(self) -> Iterator[str]:
        """Yields what is wrong after a kill: a state that no kill leads to, and what nobody cleared away."""
        if any(run.state is RunState.RUNNING for run in self._workspace.registry.runs()):
            return  # the other workers of a comparison are writing
        run = self._run
        legal = {RunState.INTERRUPTED, RunState.COMPLETED, *({RunState.FAILED} if run.coordinates else ())}
        if run.state not in legal:
            yield f"{run.state} after a kill: {run.error}"
        yield from left_over(self._workspace)

    def _go_on(self) -> None:
        if self._run.state.can_resume:
            executor.resume(self._workspace, self._id)

    def _all_gone(self) -> bool:
        return not borne()


def differences(whole: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Returns in what `found` is not what a run that was left alone comes to, a sentence each."""
    told = [
        f"{name}: {whole[name]} -> {found[name]}"[:2000]
        for name in ("datasets", "wrong")
        if whole[name] != found[name]
    ]
    for name in whole["runs"].keys() | found["runs"].keys():
        one, other = whole["runs"].get(name, {}), found["runs"].get(name, {})
        differing = [part for part in one.keys() | other.keys() if one.get(part) != other.get(part)]
        told += [f"{name}, {part}: {one.get(part)} -> {other.get(part)}"[:2000] for part in differing]
    return told


def prepared(place: Path, case: Case) -> str:
    """Returns the id of a run that is queued in a new workspace, and what it rests on done."""
    executor.MAX_WORKING, working = 2, executor.MAX_WORKING
    workspace = Workspace(place)
    for make in BASES[case.base]:
        executor.completed(workspace, executor.wait(workspace, make(workspace)))
    wait_until(lambda: not borne(), "workers end")
    executor.MAX_WORKING = 0
    run_id = case.submit(workspace)
    executor.MAX_WORKING = working
    return run_id


def left_alone(place: Path, run_id: str) -> tuple[float, dict[str, Any]]:
    """Returns how long the worker of a run works that nobody kills, and what it comes to."""
    workspace, seconds = Workspace(place), 0.0
    executor.reconcile(workspace)
    for (run,) in executor.watch(workspace, run_id, poll_seconds=0.02):
        seconds = max(seconds, worked(run.pid or 0))
    executor.completed(workspace, run)
    wait_until(lambda: not borne(), "workers end")
    return seconds, outcome(workspace)


def killed(
    place: Path, run_id: str, seconds: float, whole: dict[str, Any], generator: random.Random
) -> dict[str, Any]:
    """Returns the story of a run whose worker works so many seconds if nobody kills it."""
    return Story(place, run_id, seconds, generator).told(whole)


def stories(folder: Path, name: str, n_kills: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yields what comes of the runs of a case, until so many kills have hit."""
    before = folder / name.replace(" ", "-") / "before"
    before.parent.mkdir()
    run_id = told(partial(prepared, before, CASES[name]))
    place = before.with_name("whole")
    shutil.copytree(before, place)
    seconds, whole = told(partial(left_alone, place, run_id))
    assert not whole["wrong"], whole["wrong"]
    number, hit = 0, 0
    while hit < n_kills:
        place = before.with_name(f"killed-{number}")
        shutil.copytree(before, place)
        generator = random.Random(f"{seed} {name} {number}")
        story = told(partial(killed, place, run_id, seconds, whole, generator))
        yield {"case": name, "run": number, "alone": round(seconds, 3), **story}
        if not story["wrong"]:
            shutil.rmtree(place)
        number, hit = number + 1, hit + len(story["kills"])


def main(folder: str, n_kills: str, seed: str, *names: str) -> None:
    """Prints what comes of the runs of each case, a line of JSON each."""
    for name in names:
        for module in CASES[name].modules:
            import_module(module)
    kinds()
    environment = os.environ | executor._environment(1)
    NURSERIES.append(Nursery(folder, environment))
    os.environ[NURSERY] = NURSERIES[0].place
    wait_until(lambda: has_loaded(NURSERIES[0]), "the nursery has loaded")
    shares = sum(CASES[name].share for name in names)
    for name in names:
        of_it = -(-int(n_kills) * CASES[name].share // shares)
        for story in stories(Path(folder), name, of_it, int(seed)):
            print(json.dumps(story), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
