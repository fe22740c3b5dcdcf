"""Runs on two nodes of a real Ray cluster, with a registry on a server: killed again and again, the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs import executor, files, metrics, ray_jobs
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import Refusal
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.evaluate import WORTH_SPREADING, submit_evaluate
from mtf_engine.work.import_log import submit_import
from mtf_engine.work.shard import submit_shard
from mtf_engine.work.study import submit_compare
from mtf_engine.work.train import submit_train
from mtf_engine.work.tune import submit_tune
from mtf_engine.workspace import REGISTRY_URL, Workspace
from tests import postgres
from tests.cluster import Nodes, bystander, gate, open_cluster, two_nodes
from tests.fixtures import logs
from tests.kills import SETTINGS, differences, outcome
from tests.test_fencing import bytes_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]  # Ray has warnings of its own

ROOT = Path(__file__).parent.parent
KILLS = int(os.environ.get("MTF_CLUSTER_KILLS", "20"))
AT_ONCE = 3
"""Trainings that work or wait: one more than there are cores."""
HOW = ("worker", "node", "worker again", "raylet", "worker a third time")
STEPS = {name: value for name, value in SETTINGS.items() if name != "population"} | {"n_steps": "1200"}
STEPS |= {"validate_every": "100", "checkpoint_every": "20"}
SPREAD_SESSIONS = 36_000
"""Of a log that is worth playing and scoring by several."""
ENDLESS = STEPS | {"n_steps": "10000000"}


def import_log(workspace: Workspace) -> None:
    log = logs.write(logs.clean(n_users=24), workspace.path.parent / "log")
    run_id = submit_import(workspace, log, mapping=log / "mapping.yaml", name="explored")
    executor.completed(workspace, executor.wait(workspace, run_id))


def train(workspace: Workspace, seed: int, settings: dict[str, str] = STEPS) -> str:
    how = dict(algo="integrated_rl", preset="demo", settings=settings, seed=seed, name=f"seed {seed}")
    return submit_train(workspace, "explored", **how)


def compare(workspace: Workspace, seed: int = 4) -> str:
    how = dict(methods=("linear_one_step",), preset="demo", settings={}, datasets=("2",), seeds=(seed,))
    return submit_compare(workspace, **how, env="session:feed", sessions=20, users=10)


def search(workspace: Workspace, seed: int = 1) -> str:
    """Searches with two trials at once."""
    space = {"ridge": "0.1..1000 log", "target": "td_residual,return"}
    how = dict(algo="linear_one_step", preset="laptop", settings={"n_steps": "2"}, search=space)
    return submit_tune(workspace, "explored", **how, trials=4, at_once=2, seed=seed)


def locally(folder: Path, n_trainings: int) -> dict[str, Any]:
    """Returns what the same runs come to on this machine, without a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (REGISTRY_URL, "MTF_EXECUTOR"):
            patch.delenv(name)
        workspace = Workspace(folder / "workspace")
        import_log(workspace)
        run_ids = [train(workspace, seed) for seed in range(n_trainings)]
        run_ids += [compare(workspace), search(workspace)]
        for run_id in run_ids:
            executor.completed(workspace, executor.wait(workspace, run_id))
        return outcome(workspace)


@pytest.fixture(scope="module")
def nodes(server: str) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(REGISTRY_URL, postgres.new_database(server))
        with two_nodes(patch) as nodes:
            patch.setenv("MTF_EXECUTOR", f"ray://{nodes.address}")
            yield nodes


@pytest.fixture(scope="module")
def workspace(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("cluster") / "workspace")
    import_log(workspace)
    return workspace


def working(workspace: Workspace) -> list[RunRow]:
    return workspace.registry.runs(RunState.RUNNING)


def go_on(workspace: Workspace, run_ids: list[str]) -> int:
    """Resumes what was interrupted, of these; returns how many are not completed."""
    executor.reconcile(workspace)
    runs = [workspace.registry.run(run_id) for run_id in run_ids]
    for run in runs:
        assert run.state is not RunState.FAILED, run.error
        if run.state.can_resume:
            executor.resume(workspace, run.id)
    return sum(run.state is not RunState.COMPLETED for run in runs)


def test_killed_on_two_nodes_the_runs_end_as_on_one_machine(
    workspace: Workspace, nodes: Nodes, tmp_path: Path
) -> None:
    began, generator, kills = time.monotonic(), random.Random(0), dict.fromkeys(HOW, 0)
    run_ids: list[str] = []
    with bystander():
        while sum(kills.values()) < KILLS:
            if go_on(workspace, run_ids) < AT_ONCE:
                run_ids.append(train(workspace, seed=len(run_ids)))
                continue
            wait_until(lambda: go_on(workspace, run_ids) < AT_ONCE or working(workspace), "a run works", 0.2)
            time.sleep(generator.uniform(0, 8))
            how = HOW[sum(kills.values()) % len(HOW)]
            if not (runs := working(workspace)):
                continue
            if not how.startswith("worker"):
                nodes.kill_node(workers_too=how == "node")
                kills[how] += 1
                continue
            with suppress(psutil.NoSuchProcess):  # it has just ended, or went with its node
                psutil.Process(generator.choice(runs).pid).kill()
                kills[how] += 1
        wait_until(lambda: not go_on(workspace, run_ids), "all are completed", 0.5)
        killing = time.monotonic() - began
        compared, searched = compare(workspace), search(workspace)
        executor.completed(workspace, executor.wait(workspace, compared))
        executor.completed(workspace, executor.wait(workspace, searched))
    attempts = [workspace.registry.run(run_id).attempt for run_id in run_ids]
    told = {"kills": kills, "attempts": attempts, "seconds": round(killing)}
    told |= {"seconds of a comparison and a search": round(time.monotonic() - began - killing)}
    print(json.dumps(told), flush=True)
    assert {run.executor for run in workspace.registry.runs()} == {f"ray://{nodes.address}"}
    assert differences(locally(tmp_path, len(run_ids)), outcome(workspace)) == []


def test_a_search_whose_trials_die_with_their_node_goes_on_to_the_same(
    workspace: Workspace, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trials work on two nodes; then the search is done by one machine, which takes no trial from it."""
    run_id = search(workspace, seed=2)

    def both() -> bool:
        executor.reconcile(workspace)
        return len(workspace.registry.runs(RunState.RUNNING, kind="train", parent_id=run_id)) == 2

    wait_until(both, "two trials work", 0.02)
    nodes.kill_node(workers_too=True)
    while executor.wait(workspace, run_id).state is not RunState.COMPLETED:
        executor.resume(workspace, run_id)
    spread = workspace.registry.run(run_id)
    trials = workspace.registry.runs(kind="train", parent_id=run_id)
    assert sum(run.attempt for run in trials) > len(trials), "one was begun again"
    workspace.delete_runs(*(run.id for run in workspace.registry.runs(parent_id=run_id)))
    monkeypatch.setenv("MTF_EXECUTOR", "local")
    again = search(workspace, seed=2)
    alone = executor.completed(workspace, executor.wait(workspace, again))
    assert len(workspace.registry.runs(kind="train", parent_id=again)) == len(trials) == 4
    assert trials_of(spread) == trials_of(alone)


def trials_of(run: RunRow) -> list[dict[str, Any]]:
    """Returns what a search tells of its trials, but for the ids of their runs."""
    return [trial | {"run_id": None} for trial in (run.result or {})["trials"]]


def collect(workspace: Workspace, n_sessions: int, n_workers: int) -> str:
    how = dict(env="session:feed", explore="baseline", seed=7, name=f"{n_sessions} by {n_workers}")
    return submit_collect(workspace, **how, n_sessions=n_sessions, n_workers=n_workers)


def scored(workspace: Workspace, dataset_id: str, n_workers: int) -> bytes:
    """Returns the evaluation of the baseline on a log, without what says which log it was."""
    run_id = submit_evaluate(workspace, ["baseline"], dataset_id, n_workers=n_workers)
    executor.completed(workspace, executor.wait(workspace, run_id))
    found = (workspace.run_dir(run_id) / files.EVALUATION).read_bytes()
    return found.replace(dataset_id.encode(), b"LOG")


def test_a_log_is_played_and_scored_by_tasks_on_both_nodes_as_by_one_process(
    workspace: Workspace, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node is killed amid the log, with the run's own process or without."""
    collected = collect(workspace, SPREAD_SESSIONS, n_workers=2)
    wait_until(lambda: go_on(workspace, [collected]) and len(nodes.at_work()) == 2, "both nodes play", 0.02)
    nodes.kill_node(workers_too=True)
    wait_until(lambda: not go_on(workspace, [collected]), "the log is completed", 0.5)
    log = workspace.registry.run(collected)
    assert (log.result or {})["impressions"] > WORTH_SPREADING, "it is scored in parts"
    spread = Thread(target=lambda: found.append(scored(workspace, str(log.dataset_id), 2)))
    found: list[bytes] = []
    spread.start()
    wait_until(lambda: len(nodes.at_work()) == 2, "both nodes score", 0.02)
    spread.join()
    monkeypatch.setenv("MTF_EXECUTOR", "local")
    alone = executor.completed(workspace, executor.wait(workspace, collect(workspace, SPREAD_SESSIONS, 1)))
    hashes = {row.id: row.content_hash for row in workspace.registry.datasets()}
    assert hashes[str(log.dataset_id)] == hashes[str(alone.dataset_id)]
    assert found == [scored(workspace, str(alone.dataset_id), n_workers=1)]


def test_a_log_is_written_to_parquet_files_by_tasks(
    workspace: Workspace, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for where, n_workers in ((f"ray://{nodes.address}", 2), ("local", 1)):
        monkeypatch.setenv("MTF_EXECUTOR", where)
        run_id = submit_shard(workspace, "explored", name=f"by {n_workers}", n_workers=n_workers)
        run = executor.completed(workspace, executor.wait(workspace, run_id))
        dataset = open_dataset(workspace, str(run.dataset_id))
        assert dataset.changed_files() == []
        written.append((run.executor, dataset.content_hash))
    assert written == [(f"ray://{nodes.address}", written[1][1]), ("local", written[1][1])]


@pytest.mark.parametrize(
    ("how", "told"), [(signal.SIGKILL, "the worker died"), (signal.SIGTERM, "was told to end")]
)
def test_tasks_end_with_their_run(workspace: Workspace, nodes: Nodes, how: int, told: str) -> None:
    run_id = collect(workspace, 10_000_000, n_workers=2)
    wait_until(lambda: go_on(workspace, [run_id]) and len(nodes.at_work()) == 2, "both nodes play", 0.2)
    tasks = [one for processes in nodes.at_work().values() for one in processes]
    os.kill(workspace.registry.run(run_id).pid or 0, how)
    ended = executor.wait(workspace, run_id)
    assert ended.state is RunState.INTERRUPTED and told in str(ended.error)
    wait_until(lambda: not any(one.is_running() for one in tasks), "its tasks end")


def test_a_comparison_outlasts_a_cluster_that_falls_silent(
    workspace: Workspace, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does when the comparison's first logs are made: its training waits, and why is told."""
    with gate(nodes.address) as (address, is_open):
        monkeypatch.setenv("MTF_EXECUTOR", f"ray://{address}")
        run_id = compare(workspace, seed=5)

        def made() -> list[RunRow]:
            executor.reconcile(workspace)
            return workspace.registry.runs(RunState.RUNNING, kind="collect", parent_id=run_id)

        wait_until(made, "its first log is made", 0.2)
        is_open.clear()

        def told() -> list[RunRow]:
            waiting = workspace.registry.runs(RunState.QUEUED, parent_id=run_id)
            return [run for run in waiting if "does not answer" in str(run.error)]

        wait_until(told, "a part waits for the cluster", 0.2)
        assert workspace.registry.run(run_id).state is RunState.RUNNING
        is_open.set()
        ended = executor.completed(workspace, executor.wait(workspace, run_id))
    parts = workspace.registry.runs(parent_id=run_id)
    assert {(run.state, run.error) for run in parts} == {(RunState.COMPLETED, None)}
    assert ended.attempt == 1


def test_a_worker_that_wakes_after_another_has_ended_its_run_writes_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_jobs, "SILENT_SECONDS", 12.0)
    run_id = train(workspace, seed=9)
    folder = workspace.run_dir(run_id)
    wait_until(lambda: executor.reconcile(workspace) or metrics.read(folder), "it has begun", 0.02)
    sleeper = psutil.Process(workspace.registry.run(run_id).pid)
    sleeper.suspend()
    run = executor.wait(workspace, run_id)
    assert (run.state, run.attempt) == (RunState.INTERRUPTED, 1)
    executor.resume(workspace, run_id)
    ended = executor.completed(workspace, executor.wait(workspace, run_id))
    assert ended.attempt == 2
    before = bytes_of(folder)
    sleeper.resume()
    wait_until(lambda: not sleeper.is_running(), "it ends by itself")
    assert (bytes_of(folder), workspace.registry.run(run_id)) == (before, ended)
    first = ended.model_copy(update={"submission_id": f"{run_id}-1", "host": None})
    ray = executor.executor_named(ended.executor)

    def told() -> bool:
        line = f"{run_id}: this worker, attempt 1, was given up on and may write no more; it ends"
        return line in ray.tail(workspace, first)

    wait_until(told, "Ray's log of attempt 1 says why", 1)


def test_a_deaf_worker_is_stopped_by_its_cluster_and_no_process_by_its_number(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "GRACE_SECONDS", 1.0)
    run_id = train(workspace, 10, ENDLESS)
    wait_until(
        lambda: executor.reconcile(workspace) or workspace.registry.run(run_id).step > 0, "it works", 0.2
    )
    deaf = psutil.Process(workspace.registry.run(run_id).pid)
    deaf.suspend()
    with bystander() as somebody:
        workspace.registry.update_run(run_id, pid=somebody.pid)
        executor.cancel(workspace, run_id)
        assert executor.wait(workspace, run_id).state is RunState.CANCELLED
        wait_until(lambda: not deaf.is_running(), "Ray has killed it")


def test_what_the_cluster_has_no_room_for_waits_and_is_cancelled_where_it_waits(workspace: Workspace) -> None:
    one, two, three = (train(workspace, seed, ENDLESS) for seed in (20, 21, 22))
    wait_until(lambda: executor.reconcile(workspace) or len(working(workspace)) == 2, "two work", 0.2)
    (waits,) = workspace.registry.queue()
    assert waits.submission_id == f"{waits.id}-1" and waits.host is None
    with pytest.raises(Refusal, match=f"{waits.id} waits in the queue of ray://"):
        executor.move(workspace, waits.id, 1)
    for run_id in (waits.id, *({one, two, three} - {waits.id})):
        executor.cancel(workspace, run_id)
        assert executor.wait(workspace, run_id).state is RunState.CANCELLED
    ray = executor.executor_named(waits.executor)

    def ended() -> bool:
        return not ray.alive(workspace, waits)

    wait_until(ended, "Ray has stopped what waited", 1)


def test_the_command_line_follows_a_run_on_the_cluster(workspace: Workspace) -> None:
    def mtf(*arguments: str) -> str:
        command = [sys.executable, "-m", "mtf_engine", "--workspace", str(workspace.path), *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    settings = [part for name, value in STEPS.items() for part in ("--set", f"{name}={value}")]
    address = os.environ["MTF_EXECUTOR"]
    trained = json.loads(mtf("--executor", address, "--json", "train", "explored", *settings))
    shown = json.loads(mtf("runs", "show", trained["run_id"], "--json"))
    assert (shown["executor"], shown["attempt"], shown["host"]) == (address, 1, executor.HOST)
    assert address in mtf("runs", "list") and "executors" in mtf("doctor", "--json")


def test_a_request_that_is_never_answered_is_given_up(
    nodes: Nodes, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_jobs, "ANSWER_SECONDS", 5.0)
    with gate(nodes.address) as (address, is_open):
        cluster = ray_jobs.RayJobsExecutor(f"ray://{address}")
        cluster.check()
        is_open.clear()
        with pytest.raises(Refusal, match="does not answer"):  # as just after a look that found it well
            cluster._ask(lambda client: client.list_jobs())
        is_open.set()
        with pytest.raises(Refusal, match="does not answer"):  # whoever asks for many runs waits once
            cluster._ask(lambda client: client.list_jobs())
        wait_until(lambda: answers(cluster), "it is asked again", 0.2)


def answers(cluster: ray_jobs.RayJobsExecutor) -> bool:
    with suppress(Refusal):
        return isinstance(cluster._ask(lambda client: client.list_jobs()), list)
    return False


def test_no_job_is_taken_without_the_token(nodes: Nodes) -> None:
    job = json.dumps({"entrypoint": "true", "submission_id": "nobody"}).encode()
    with pytest.raises(HTTPError, match="401") as refused:
        urlopen(Request(f"http://{nodes.address}/api/jobs/", job, {"Content-Type": "application/json"}))
    refused.value.close()


def test_a_wrong_token_is_told(nodes: Nodes, workspace: Workspace) -> None:
    script = (
        "import sys; from mtf_engine.runs.executor import executor_named as e; e(sys.argv[1], takes=True)"
    )
    command = [sys.executable, "-c", script, f"ray://{nodes.address}"]
    told = subprocess.run(
        command, env=os.environ | {"RAY_AUTH_TOKEN": "f" * 64}, capture_output=True, text=True
    )
    assert "wants its token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in told.stderr


def test_a_cluster_that_wants_no_token_is_refused_unless_told(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_cluster(tmp_path_factory.mktemp("r")) as address:
        monkeypatch.setenv("MTF_EXECUTOR", f"ray://{address}")
        before = workspace.registry.runs()
        with pytest.raises(
            Refusal, match="without a token; start it with RAY_AUTH_MODE=token, or say --insecure"
        ):
            train(workspace, 30)
        assert workspace.registry.runs() == before
        monkeypatch.setenv(ray_jobs.INSECURE, "1")
        run_id = train(workspace, 30)

        def is_taken() -> bool:
            executor.reconcile(workspace)
            return workspace.registry.run(run_id).submission_id is not None

        wait_until(is_taken, "its agent is up", 1)
        executor.cancel(workspace, run_id)
