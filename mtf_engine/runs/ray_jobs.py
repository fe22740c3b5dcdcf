"""Runs as jobs of a Ray cluster, by its Jobs API (https://docs.ray.io): the same command line, one job an attempt.

Which machine has room is Ray's affair, and so is the queue. Whether a run lives is told by the job's status and by
the sign of life that its worker gives in the registry, both by the registry's clock. Ray is the extra `ray`, loaded
when a cluster is asked.
"""

import json
import os
import shlex
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from http.client import HTTPException
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs import files
from mtf_engine.runs.fencing import next_attempt
from mtf_engine.spec import Refusal
from mtf_engine.workspace import REGISTRY_URL, Workspace

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

T = TypeVar("T")
SCHEME = "ray://"
MTF_EXECUTOR, INSECURE = "MTF_EXECUTOR", "MTF_EXECUTOR_INSECURE"
ATTEMPT = "MTF_ATTEMPT"
"""Environment variable with the number of the attempt that a worker on a cluster is."""
SECONDS = 5.0
"""Until an address that says nothing counts as silent."""
ANSWER_SECONDS = 60.0
"""For which an answer to a request is waited for, which may take long; Ray's client would wait for ever."""
FRESH_SECONDS = 2.0
"""For which an answer is not asked for again."""
LOST_SECONDS = 30.0
"""From handing a job over until one that the cluster does not know counts as never begun."""
SILENT_SECONDS = 60.0
"""From a worker's last sign of life until it is given up on."""
WAITED_TOO_LONG = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
"""What Ray calls it."""
COORDINATOR_BYTES = 300_000_000
"""Memory of a run that only waits for its parts, and asks for no core; Ray would put one that asks for nothing on the
head."""


def is_on_cluster() -> bool:
    """Returns whether this process is a worker on a cluster, whose machines start nothing that it does not place."""
    return ATTEMPT in os.environ


class RayJobsExecutor:
    """Hands runs over to the cluster whose job server is at an address: `ray://HOST:PORT`, or with its own http(s)."""

    def __init__(self, name: str) -> None:
        address = name.removeprefix(SCHEME)
        self.name, self.url = name, address if "://" in address else f"http://{address}"
        try:
            found = urlsplit(self.url)
        except ValueError:  # of a bracket that is not closed
            found = urlsplit("")
        if found.scheme not in ("http", "https") or not found.hostname:
            raise Refusal(f"the executor {name!r} has no address; write it as {SCHEME}HOST:8265")
        self._checked = self._asked = self._deaf = float("-inf")
        self._jobs: dict[str, JobDetails] | Refusal = {}

    def check(self) -> None:
        """Refuses a cluster that is not there, that anybody may use, or that runs could not be told of."""
        if not os.environ.get(REGISTRY_URL):
            raise Refusal(
                f"{self.name} works on a registry that all its machines reach; name a PostgreSQL server's in "
                f"{REGISTRY_URL}, here and on each of them"
            )
        if time.monotonic() - self._checked < FRESH_SECONDS:
            return
        if self._is_open() and os.environ.get(INSECURE) != "1":
            raise Refusal(
                f"the Ray cluster at {self.url} runs whatever anybody sends it, without a token; start it with "
                f"RAY_AUTH_MODE=token, or say --insecure ({INSECURE}=1) where nobody else reaches it"
            )
        self._ask(lambda client: client.get_version())
        self._checked = time.monotonic()

    def submit(self, workspace: Workspace, run: RunRow, environment: Mapping[str, str]) -> bool:
        """Returns whether this process handed the run's next attempt over, and no other did.

        One that waited longer than Ray lets a job wait is handed over again.
        """
        if run.submission_id is not None and not self._waited_too_long(run.submission_id):
            return False
        self.check()
        attempt = next_attempt(workspace.run_dir(run.id), run.attempt)
        submission_id = f"{run.id}-{attempt}"
        if not workspace.registry.claim(run, attempt, submission_id):
            return False
        command = ["python", "-m", "mtf_engine", "--workspace", str(workspace.path), "run-job", run.id]
        asked = dict(
            entrypoint=shlex.join(command),
            submission_id=submission_id,
            runtime_env={"env_vars": {**environment, ATTEMPT: str(attempt)}},
            entrypoint_num_cpus=0 if run.coordinates else run.config.get("n_threads", 1),
            entrypoint_memory=COORDINATOR_BYTES if run.coordinates else None,
            entrypoint_num_gpus=int(str(run.config.get("device", "")).startswith("cuda")),
        )
        try:
            self._ask(lambda client: client.submit_job(**asked))
        except Refusal:
            still = dict(of_attempt=attempt, submission_id=None)
            workspace.registry.update_run(run.id, RunState.QUEUED, **still)
            raise
        return True

    def stop(self, workspace: Workspace, run: RunRow, kill: bool) -> None:
        """Has Ray tell the job to end; it kills one that does not within seconds."""
        if (job := self._known().get(str(run.submission_id))) and not job.status.is_terminal():
            self._ask(lambda client: client.stop_job(str(run.submission_id)))

    def alive(self, workspace: Workspace, run: RunRow) -> bool:
        """Returns whether the attempt waits for its turn, or its worker gave a sign of life lately.

        Where the cluster does not answer, the sign alone counts; what waits then still waits.
        """
        silent = 0.0
        if run.heartbeat_at is not None:
            silent = (workspace.registry.clock() - run.heartbeat_at).total_seconds()
        is_queued = run.state is RunState.QUEUED
        try:
            job = self._known().get(str(run.submission_id))
        except Refusal:
            return is_queued or silent < SILENT_SECONDS
        if job is not None and job.status.is_terminal():
            return False
        if is_queued:
            return job is not None or silent < LOST_SECONDS
        return silent < SILENT_SECONDS

    def tail(self, workspace: Workspace, run: RunRow, lines: int | None = None) -> list[str]:
        """Returns lines of the log in the run's folder, and Ray's where the last attempt's worker never began."""
        told = files.log_tail(workspace.run_dir(run.id), lines)
        if run.host is None and run.submission_id is not None:
            try:
                told += self._told(run.submission_id)
            except Refusal as refusal:
                told.append(str(refusal))
        return told[-lines:] if lines else told

    def _waited_too_long(self, submission_id: str) -> bool:
        """Returns whether Ray gave a job up before it had room for it."""
        job = self._known().get(submission_id)
        return job is not None and job.status.is_terminal() and job.error_type == WAITED_TOO_LONG

    def _told(self, submission_id: str) -> list[str]:
        """Returns the lines of Ray's own log of a job, and what Ray says of how it stands."""
        job = self._known().get(submission_id)
        if job is None:
            return []
        logged = self._ask(lambda client: client.get_job_logs(submission_id))
        return [*logged.splitlines(), *filter(None, [job.message])]

    def _known(self) -> "dict[str, JobDetails]":
        """Returns the cluster's jobs by the id that they were handed over with, as they were moments ago."""
        if time.monotonic() - self._asked > FRESH_SECONDS:
            try:
                self._is_open()
                jobs = self._ask(lambda client: client.list_jobs())
                self._jobs = {job.submission_id: job for job in jobs if job.submission_id}
            except Refusal as refusal:
                self._jobs = refusal
            self._asked = time.monotonic()
        if isinstance(self._jobs, Refusal):
            raise self._jobs
        return self._jobs

    def _is_open(self) -> bool:
        """Returns whether the job server answers without a token; a Refusal where there is none."""
        try:
            with urlopen(f"{self.url}/api/version", timeout=SECONDS) as answer:
                told = json.loads(answer.read())
            if isinstance(told, dict) and "ray_version" in told:
                return True
            why = "is none"
        except HTTPError as error:
            error.close()
            if error.code in (401, 403):
                return False
            why = f"is none: it answered {error.code}"
        except ValueError:
            why = "is none"
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            why = f"does not answer ({getattr(reason, 'strerror', None) or reason})"
        raise Refusal(
            f"the Ray job server at {self.url} {why}; give the address of the head's dashboard, {SCHEME}HOST:8265"
        )

    def _ask(self, what: "Callable[[JobSubmissionClient], T]") -> T:
        """Returns what the job server answers; a Refusal where Ray is not installed here, or refuses."""
        try:
            from ray.exceptions import AuthenticationError
            from ray.job_submission import JobSubmissionClient
        except ImportError:
            raise Refusal(
                f"{self.name} needs Ray, which is not installed; pip install 'mtf_engine[ray]'"
            ) from None
        deaf = Refusal(f"the Ray job server at {self.url} does not answer; see that it is well")
        if time.monotonic() - self._deaf < ANSWER_SECONDS:
            raise deaf  # who asks for many runs is not to wait for each
        answer: Future[T] = Future()

        def ask() -> None:
            try:
                answer.set_result(what(JobSubmissionClient(self.url)))
            except BaseException as error:  # which is raised where it is waited for
                answer.set_exception(error)

        refused: tuple[Any, ...] = (AuthenticationError, RuntimeError, ConnectionError, OSError)
        Thread(target=ask, daemon=True).start()
        try:
            return answer.result(ANSWER_SECONDS)
        except TimeoutError:
            self._deaf = time.monotonic()
            raise deaf from None
        except refused as error:
            if isinstance(error, AuthenticationError):
                raise Refusal(
                    f"the Ray cluster at {self.url} wants its token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
                ) from None
            why = " ".join(str(error).split())[:300]
            raise Refusal(f"the Ray job server at {self.url} refuses: {why}") from error
