"""The workspace: a folder of datasets and runs, and the registry that describes them."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

from filelock import BaseFileLock, FileLock

from mtf_engine.disk import REPAIR, appear, is_full, refusals, settle, workspace_path
from mtf_engine.permissions import Action, Person, Role, needed_for
from mtf_engine.registry import (
    BASELINE,
    BEST,
    CANDIDATE,
    LIVE,
    POLICY_KINDS,
    REGRESSION,
    ROUNDS,
    DatasetRow,
    Registry,
    RunRow,
    RunState,
    is_outdated,
    is_trained,
    now,
    run_of,
)
from mtf_engine.spec import BoundsPlan, Refusal

REGISTRY, BACKUPS = "registry.sqlite", "backups"
REGISTRY_URL = "MTF_REGISTRY_URL"
ADDED, DELETED = ".tmp", ".deleted"
"""Endings of what lies in a folder while a run is added, or a run or a dataset deleted."""
KEPT_DAYS = 7
"""Of backups: one a day that the workspace is opened, made anew after each decision."""


class Workspace:
    """A folder with datasets, runs and their registry; created on first use.

    `path` defaults to the environment's MTF_WORKSPACE, else `data`. The registry is `registry.sqlite` in it,
    unless MTF_REGISTRY_URL names another database. A workspace that cannot be written to is `read_only`: it
    can be looked at, and what would write refuses; so does one of a `visitor` who may only look. What is written
    carries the visitor's name, who is whoever is logged in, where somebody is.
    """

    def __init__(self, path: Path | str | None = None, visitor: Person | None = None) -> None:
        self.path, self.visitor = workspace_path(path), visitor
        self.person = visitor and visitor.name
        self.datasets_dir = self.path / "datasets"
        self.runs_dir = self.path / "runs"
        file = self.path / REGISTRY
        self.read_only = file.is_file() and not all(os.access(p, os.W_OK) for p in (self.path, file))
        try:
            with refusals(self.path):
                self.registry = self._open(f"sqlite:///{file}")
        except OSError as error:
            raise Refusal(
                f"{self.path} cannot be a workspace: {error.strerror}; name another folder"
            ) from None

    def _open(self, own: str) -> Registry:
        """Returns the registry, its `own` or the one that the environment names, once the folders are there."""
        named = os.environ.get(REGISTRY_URL)
        url, look_only = named or own, self.visitor is not None and self.visitor.role is Role.VIEWER
        if self.read_only or look_only:
            shut, self.read_only = self.read_only and not named, True
            return Registry(url, read_only=shut, person=self.person, look_only=look_only)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # one that is there stays as open as it is
        for folder in (self.datasets_dir, self.runs_dir):
            folder.mkdir(exist_ok=True)
        with FileLock(self.path / "registry.lock"):
            if not named:
                self._refuse_lost()
                self._back_up_daily(own)
            return Registry(url, person=self.person)

    def _refuse_lost(self) -> None:
        """Refuses a registry that is gone or empty where there are runs or logs: a new one would forget them."""
        file = self.path / REGISTRY
        if file.exists() and file.stat().st_size:
            return
        if any(self.runs_dir.iterdir()) or any(self.datasets_dir.glob("dataset-*.*")):
            raise Refusal(f"{REGISTRY} is {'empty' if file.exists() else 'gone'}; {REPAIR}")

    def _back_up_daily(self, own: str) -> None:
        """Backs up the registry on the first opening of a day, so before an older version's tables are changed.

        On a full disk the backup of the day before stands, unless the tables are to be changed.
        """
        if self._backup.exists() or not (self.path / REGISTRY).exists():
            return
        try:
            self._copy()
        except (OSError, sqlite3.Error) as error:
            if not is_full(error) or is_outdated(own):
                raise

    @property
    def _backup(self) -> Path:
        """Where the registry of today is backed up."""
        return self.path / BACKUPS / f"registry-{now():%Y-%m-%d}.sqlite"

    def back_up(self) -> None:
        """Copies the registry of this folder as today's backup, and keeps those of the last `KEPT_DAYS` days."""
        if not os.environ.get(REGISTRY_URL):
            with FileLock(self.path / "registry.lock"), refusals(self.path):
                self._copy()

    def _copy(self) -> None:
        self._backup.parent.mkdir(exist_ok=True)
        descriptor, name = mkstemp(prefix=".", dir=self._backup.parent)
        os.close(descriptor)
        temp = Path(name)
        try:
            with closing(sqlite3.connect(self.path / REGISTRY, timeout=60)) as connection:
                connection.execute("VACUUM INTO ?", (str(temp),))
            appear(temp, self._backup)
        finally:
            temp.unlink(missing_ok=True)
        for old in sorted(self._backup.parent.glob("registry-*.sqlite"))[:-KEPT_DAYS]:
            old.unlink(missing_ok=True)

    def ask(self, action: Action) -> None:
        """Refuses what the visitor's role does not allow; where nobody is logged in, everything is allowed."""
        if self.visitor and not self.visitor.may(action):
            raise Refusal(f"{needed_for(action)}; {self.visitor.name} is {self.visitor.role} here")

    def dataset_path(self, dataset_id: str) -> Path:
        """Returns where a dataset lies: a DuckDB file, or a folder of Parquet files."""
        folder = self.datasets_dir / f"{dataset_id}.parquet"
        return folder if folder.exists() else folder.with_suffix(".duckdb")

    def run_dir(self, run_id: str) -> Path:
        return self.runs_dir / run_id

    def dataset(self, name: str) -> DatasetRow:
        """Returns the dataset whose id, or else whose only name, is `name`."""
        rows = self.registry.datasets()
        found = [row for row in rows if row.id == name] or [row for row in rows if row.name == name]
        if len(found) == 1:
            return found[0]
        if not found:
            raise Refusal(f"there is no dataset {name!r}; `dataset list` shows those there are")
        ids = ", ".join(row.id for row in found)
        raise Refusal(f"{len(found)} datasets are named {name!r}; use the id of one: {ids}")

    def trained(self, policy: str) -> RunRow:
        """Returns the completed training or import behind `RUN` or `RUN@best`; Refusal if it has no such policy yet."""
        run = self.registry.run(run_of(policy))
        if run.kind not in POLICY_KINDS:
            raise Refusal(f"{run.id} is a run of kind {run.kind}, it has no policy; name a training")
        if run.state is not RunState.COMPLETED:
            raise Refusal(f"{run.id} is {run.state}, so it has no final policy; wait for it or resume it")
        if policy.endswith(BEST) and run.best_step is None:
            raise Refusal(
                f"{run.id} has no best step, since its log had no validation users; use its last, {run.id}"
                if run.kind == "train"
                else f"{run.id} was imported, and has one policy, {run.id}"
            )
        return run

    def check_policy(self, policy: str, on_log: bool = False) -> None:
        """Refuses a policy that is neither the baseline, a fixed one nor of a completed training.

        Regression weights are those of a log, and are refused where policies do not act `on_log`.
        """
        if is_trained(policy):
            self.trained(policy)
        elif policy == REGRESSION and not on_log:
            raise Refusal(
                "regression weights are fitted to the log that they are judged on, and an environment is none; "
                "train best_single_head with weights=regression, and name that training"
            )

    @property
    def live(self) -> str:
        """The policy that the ledger's last entry left live; the default baseline before any."""
        ledger = self.registry.decisions()
        return ledger[-1].live if ledger else BASELINE

    def policy(self, name: str) -> str:
        """Returns the policy behind an alias, `live` or `candidate`, or a run of rounds; any other name as it is."""
        if name == LIVE:
            return self.live
        if name.startswith(f"{ROUNDS}-"):
            return self._promoted(name)
        return self._candidate() if name == CANDIDATE else name

    def _promoted(self, run_id: str) -> str:
        """Returns the policy that a run of rounds promoted last; a Refusal where it promoted none."""
        result = self.registry.run(run_id).result or {"rounds": ()}
        promoted = [str(one["candidate"]) for one in result["rounds"] if one["promoted"]]
        if not promoted:
            raise Refusal(
                f"{run_id} has promoted none of its {len(result['rounds'])} rounds, so it has no policy of its own; "
                "name a training, or what the rounds began with"
            )
        return promoted[-1]

    def _candidate(self) -> str:
        """Returns the policy of the newest round that nobody has decided yet."""
        for _, _, candidate in self.undecided(self.registry.runs(kind=ROUNDS)):
            return candidate
        raise Refusal("no round waits for a decision, so there is no candidate; name a training")

    def plan(self, name: str) -> BoundsPlan:
        """Returns the bounds plan stored as `name`."""
        plans = {row.name: row.plan for row in self.registry.plans()}
        if name not in plans:
            known = ", ".join(plans) or "none is stored"
            raise Refusal(f"there is no bounds plan {name!r} ({known}), and no file of that name")
        return plans[name]

    def delete_dataset(self, name: str) -> DatasetRow:
        """Deletes a dataset, row and files, and returns its row; Refusal while something `uses` it."""
        self.ask(Action.DELETE_DATASET)
        row = self.dataset(name)
        with self._deleting(self.datasets_dir, row.id):
            self._free(row.id)
            self.registry.delete_dataset(row.id, noted=True)
        return row

    def delete_runs(self, *run_ids: str, action: Action = Action.DELETE_RUN) -> None:
        """Deletes finished runs, rows and folders: all or, where one is not finished or in use, none.

        What an `action` of another kind leaves over is no deletion that the list of them tells.
        """
        self.ask(action)
        for run_id in run_ids:
            run = self.registry.run(run_id)
            if not run.state.is_finished:
                raise Refusal(f"{run_id} is {run.state}; cancel it before deleting it")
        finished = [state for state in RunState if state.is_finished]
        with self._deleting(self.runs_dir, *run_ids):
            for run_id in run_ids:  # asked while nobody else adds, starts, deletes or decides
                self._free(run_id, besides=run_ids)
            if not self.registry.delete_runs(*run_ids, of=finished, noted=action is Action.DELETE_RUN):
                raise Refusal(
                    f"one of {', '.join(run_ids)} was resumed or deleted at this very moment; look again"
                )

    def add_run(self, run: RunRow, keep: Callable[[Path], None]) -> None:
        """Adds a run with its folder, which `keep` fills: both or neither, also where somebody is stopped between."""
        temp = self.runs_dir / f".{run.id}{ADDED}"
        with self.lock():
            try:
                temp.mkdir()
                keep(temp)
                settle(self.runs_dir)
                self.registry.add_run(run)
            except BaseException:
                shutil.rmtree(temp, ignore_errors=True)
                raise
            appear(temp, self.run_dir(run.id))

    @contextmanager
    def _deleting(self, folder: Path, *ids: str) -> Iterator[None]:
        """Removes the files of rows that are deleted meanwhile; marks say so to whoever comes after a stop between."""
        with self.lock():
            for held in ids:
                (folder / f".{held}{DELETED}").touch()
            settle(folder)
            try:
                yield
            finally:
                self.finish()

    def finish(self) -> None:
        """Ends what was stopped while a run was added or something deleted; whoever calls holds the `lock`.

        What the registry says was done, is done: a folder gets its name, files go; else they are as they were.
        """
        begun = [*self.runs_dir.glob(f".*{ADDED}"), *self.datasets_dir.glob(f".*{DELETED}")]
        begun += self.runs_dir.glob(f".*{DELETED}")
        if not begun:
            return
        known = {*(run.id for run in self.registry.runs()), *(row.id for row in self.registry.datasets())}
        for path in begun:
            held, folder = path.stem[1:], path.parent
            with suppress(OSError):  # what cannot be done now is for the next who comes
                if path.suffix == ADDED:
                    appear(path, folder / held) if held in known else shutil.rmtree(path)
                    continue
                for file in () if held in known else (*folder.glob(held), *folder.glob(f"{held}.*")):
                    shutil.rmtree(file) if file.is_dir() else file.unlink()
                settle(folder)
                path.unlink()

    def lock(self) -> BaseFileLock:
        """Returns the lock of all who add, start or delete, to be held with `with`."""
        return FileLock(self.path / "jobs.lock")

    def uses(self, held: str, besides: Sequence[str] = ()) -> Iterator[str]:
        """Yields what holds a dataset or a run, by id, so that it cannot be deleted, and what would free it.

        A live run holds what it reads, what it writes and its parts; a dataset the policy that it was explored
        around; the ledger what is live; a round that people are to decide its candidate. Runs `besides`, which are
        to be deleted with it, hold nothing.
        """
        runs = [run for run in self.registry.runs() if run.id not in {*besides} - {held}]
        wholes = {run.parent_id for run in runs if held in (run.id, run.dataset_id) and run.parent_id}
        for run in runs:
            named = {run.dataset_id, *run.reads_datasets, *map(run_of, run.reads_policies)}
            if not run.state.is_finished and (held in named or run.id in wholes):
                yield f"{held} is used by {run.id}, which is {run.state}; wait for that or cancel it first"
        for dataset in self.registry.datasets():
            if run_of(dataset.meta.get("baseline") or "") == held:
                yield f"{dataset.id} was explored around the policy of {held}; delete that dataset first"
        if held == run_of(self.live):
            yield f"the policy of {held} is live; make another live first (`review rollback`)"
        for run, number, candidate in self.undecided(runs):
            if run.config.get("promote") == "by-hand" and run_of(candidate) == held:
                yield (
                    f"the policy of {held} is the candidate of round {number} of {run.id}, which waits for a "
                    f"decision; decide it first (`review decide {run.id}`), or delete those rounds with it"
                )

    def _free(self, held: str, besides: Sequence[str] = ()) -> None:
        """Refuses to delete what something uses."""
        if found := [*self.uses(held, besides)]:
            raise Refusal(found[0] + f" ({len(found) - 1} more)" * (len(found) > 1))

    def undecided(self, runs: Sequence[RunRow]) -> Iterator[tuple[RunRow, int, str]]:
        """Yields the rounds that nobody has decided: run, number and candidate, those of the first run newest first."""
        decided = {(row.run_id, row.round) for row in self.registry.decisions()}
        for run in (run for run in runs if run.kind == ROUNDS):
            for one in reversed((run.result or {}).get("rounds", ())):
                if (run.id, one["number"]) not in decided:
                    yield run, one["number"], str(one["candidate"])
