"""Two nodes of a real Ray cluster on this machine, and ways to kill them and what works on them."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from threading import Event, Thread
from typing import Any

import psutil
import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
STORE_BYTES = 80_000_000
NODE = {"num_cpus": 1, "object_store_memory": STORE_BYTES}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Nodes:
    """A head and one more node, of a core each; `address` is that of the job server."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        port = free_port()
        head = {**NODE, "include_dashboard": True, "dashboard_port": port}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = f"127.0.0.1:{port}"
        self._node = self._cluster.add_node(**NODE)

    def kill_node(self, workers_too: bool) -> None:
        """Kills the raylet of the second node, and perhaps all that it has started, and puts another in its place."""
        raylet = psutil.Process(self._node.all_processes["raylet"][0].process.pid)
        kill(*(raylet.children(recursive=True) if workers_too else ()), raylet)
        self._cluster.remove_node(self._node, allow_graceful=False)
        self._node = self._cluster.add_node(**NODE)

    def at_work(self) -> dict[int, list[psutil.Process]]:
        """Returns the processes that work on a task now, by the number of the raylet that each node is."""
        found: dict[int, list[psutil.Process]] = {}
        for node in (self._cluster.head_node, self._node):
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            with suppress(psutil.NoSuchProcess):
                tasks = [one for one in raylet.children(recursive=True) if _is_task(one)]
                found |= {raylet.pid: tasks} if tasks else {}
        return found

    def shut_down(self) -> None:
        self._cluster.shutdown()


def _is_task(process: psutil.Process) -> bool:
    """Returns whether Ray has named a process after the function of a task."""
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()[:1] == ["ray::_done"]
    return False


@contextmanager
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Yields a process that nobody has a reason to end; it lives until the end of the block, or that fails."""
    with subprocess.Popen(["sleep", "100000"]) as process:
        try:
            yield process
            assert process.poll() is None, "somebody ended a process that is not theirs"
        finally:
            process.kill()


def kill(*processes: psutil.Process) -> None:
    """Kills processes that were started by these tests."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


@contextmanager
def two_nodes(patch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """Yields a cluster that wants a token, which this process has; its workers find this checkout."""
    patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    nodes = Nodes()
    try:
        yield nodes
    finally:
        nodes.shut_down()


@contextmanager
def open_cluster(folder: Path) -> Iterator[str]:
    """Yields the address of a cluster of one node that wants no token."""
    port, gcs = free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command: list[Any] = [
        Path(sys.executable).parent / "ray",
        "start",
        "--head",
        "--block",
        "--num-cpus",
        "0",
    ]
    command += ["--port", str(gcs), "--dashboard-port", str(port), "--temp-dir", folder]
    command += ["--dashboard-agent-listen-port", str(free_port())]  # its default is the other cluster's
    command += ["--object-store-memory", str(STORE_BYTES), "--disable-usage-stats"]
    with (folder / "ray.log").open("wb") as log:
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: _answers(port), "the job server answers", 0.5)
        yield f"127.0.0.1:{port}"
    finally:
        kill(*psutil.Process(started.pid).children(recursive=True), psutil.Process(started.pid))
        started.wait()


@contextmanager
def gate(address: str) -> Iterator[tuple[str, Event]]:
    """Yields an address that leads to another while the event is set; else who comes is kept waiting."""
    host, port = address.split(":")
    is_open, ends = Event(), Event()
    is_open.set()

    def lead(caller: socket.socket) -> None:
        with caller, suppress(OSError):
            if not is_open.is_set():
                is_open.wait()
                return
            with socket.create_connection((host, int(port))) as server:
                ways = {caller: server, server: caller}
                while not ends.is_set():
                    for ready in select([*ways], [], [], 0.1)[0]:
                        if not (told := ready.recv(1 << 16)):
                            return
                        ways[ready].sendall(told)

    def receive() -> None:
        while not ends.is_set():
            if select([listening], [], [], 0.1)[0]:
                Thread(target=lead, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        receiving = Thread(target=receive, daemon=True)
        receiving.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}", is_open
        finally:
            ends.set()
            is_open.set()
            receiving.join()


def _answers(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0
