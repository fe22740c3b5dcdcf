"""Loads the dashboard as a team does: sessions on real websockets, while others import, train and export.

Each session goes from page to page, in an order of its own, with choices that are its own: a rerun is timed from the
message that asks for it until the script has finished. Errors are exceptions that a page shows, connections that
end, writers that fail, and a choice of another session on a page. Memory, descriptors and threads are those of the
server's process, each a minute.

    python benchmarks/load.py --workspace DIR [--sessions 20] [--seconds 600] [--writers import train export]

DIR holds a workspace as `mtf demo` makes it; the writers write to it, so bring a copy. `--reruns` plays one session
alone so many times instead, and tells the slope of the server's memory.
"""

import argparse
import asyncio
import itertools
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.registry import RunState
from mtf_engine.workspace import Workspace
from tests.browsing import MTF, Server
from tests.fixtures.logs import clean, write

PAGES = (
    "",
    "datasets",
    "bounds",
    "density",
    "collect",
    "start",
    "runs",
    "policies",
    "methods",
    "rounds",
    "review",
    "export",
)
FIRST_SEED = 70_000
"""Of the choice that each session makes on the page of collections, where its command line tells it."""
PAUSE = 2.0
"""Seconds, on average, that a person looks at a page."""


@dataclass
class Found:
    """What the sessions met: seconds of each rerun by page, and what went wrong."""

    seconds: list[tuple[str, float]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


async def visit(socket: Any, page: str, query: str, found: Found) -> bytes:
    """Returns all that the server sent of a page until it was drawn."""
    asked = BackMsg()
    asked.rerun_script.query_string = query
    asked.rerun_script.page_name = page
    began, told = time.perf_counter(), []
    await socket.send(asked.SerializeToString())
    while True:
        raw = await asyncio.wait_for(socket.recv(), timeout=60)
        message = ForwardMsg.FromString(raw)
        if message.WhichOneof("type") == "delta":
            told.append(raw)
            if message.delta.new_element.WhichOneof("type") == "exception":
                found.errors[
                    f"exception on {page or 'home'}: {message.delta.new_element.exception.message[:80]}"
                ] += 1
        elif message.WhichOneof("type") == "page_not_found":
            found.errors[f"no page {page}"] += 1
        elif message.WhichOneof("type") == "script_finished":
            break
    found.seconds.append((page or "home", time.perf_counter() - began))
    return b"".join(told)


async def session(url: str, number: int, until: float, found: Found) -> None:
    """Goes from page to page until the time has come; what it chose must be its own wherever it is told."""
    generator = np.random.default_rng(number)
    own, anyone = f"--seed {FIRST_SEED + number}".encode(), f"--seed {FIRST_SEED // 100}".encode()
    address = url.replace("http", "ws") + "/_stcore/stream"
    try:
        async with websockets.connect(
            address, subprotocols=["streamlit"], origin=url, max_size=None
        ) as socket:
            while time.time() < until:
                page = str(generator.choice(PAGES))
                query = f"collect_seed={FIRST_SEED + number}" if page == "collect" else ""
                told = await visit(socket, page, query, found)
                if page == "collect" and (own not in told or told.count(anyone) != told.count(own)):
                    found.errors["a choice that is not its own"] += 1
                await asyncio.sleep(generator.exponential(PAUSE))
    except (OSError, TimeoutError, websockets.WebSocketException) as error:
        found.errors[f"session ended: {type(error).__name__}"] += 1


def command(workspace: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Returns how a command ended, and what it said."""
    return subprocess.run(
        [*MTF, "--workspace", workspace, *map(str, arguments)], capture_output=True, text=True, timeout=600
    )


def writer(kind: str, workspace: Path, folder: Path, until: float, found: Found) -> int:
    """Imports, trains or exports again and again, as commands; returns how often."""
    log = write(clean(), folder / "log")
    opened = Workspace(workspace)
    (trained, *_) = opened.registry.runs(RunState.COMPLETED, kind="train")
    for n in itertools.count():
        if time.time() >= until:
            return n
        done = {
            "import": lambda n=n: command(
                workspace, "dataset", "import", log, "--mapping", log / "mapping.yaml", "--name", f"log {n}"
            ),
            "train": lambda: command(
                workspace, "train", trained.dataset_id, "--preset", "demo", "--set", "n_steps=20"
            ),
            "export": lambda n=n: command(workspace, "export", trained.id, "--to", folder / f"{n}.zip"),
        }[kind]()
        if done.returncode:
            found.errors[f"{kind}: {done.stderr.strip().splitlines()[-1][:120]}"] += 1
    raise AssertionError


def footprint(process: psutil.Process) -> tuple[float, int, int]:
    """Returns memory in MiB, descriptors and threads."""
    with process.oneshot():
        return process.memory_info().rss / (1 << 20), process.num_fds(), process.num_threads()


async def watched(process: psutil.Process, until: float) -> list[tuple[float, int, int]]:
    """Returns the footprint each minute until then."""
    told = [footprint(process)]
    while time.time() < until:
        await asyncio.sleep(min(60, max(until - time.time(), 0.1)))
        told.append(footprint(process))
    return told


async def loaded(
    server: Server, workspace: Path, told: argparse.Namespace, found: Found
) -> tuple[list, list[int]]:
    """Returns the server's footprints under load, and how often each writer wrote."""
    process = psutil.Process(server.process.pid)
    for page in PAGES:  # what every page loads once is no growth
        async with websockets.connect(
            server.url.replace("http", "ws") + "/_stcore/stream",
            subprotocols=["streamlit"],
            origin=server.url,
            max_size=None,
        ) as socket:
            await visit(socket, page, "", Found())
    until = time.time() + told.seconds
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / kind for kind in told.writers]
        for place in places:
            place.mkdir()
        writing = [
            asyncio.to_thread(writer, kind, workspace, place, until, found)
            for kind, place in zip(told.writers, places, strict=True)
        ]
        sessions = [session(server.url, number, until, found) for number in range(told.sessions)]
        footprints, written, *_ = await asyncio.gather(
            watched(process, until), asyncio.gather(*writing), *sessions
        )
    return footprints, written


async def alone(server: Server, reruns: int, found: Found) -> list[tuple[float, int, int]]:
    """Returns the server's footprint before, and after every tenth of so many reruns of one session."""
    process, told = psutil.Process(server.process.pid), []
    address = server.url.replace("http", "ws") + "/_stcore/stream"
    async with websockets.connect(
        address, subprotocols=["streamlit"], origin=server.url, max_size=None
    ) as socket:
        for _ in range(3):
            for page in PAGES:
                await visit(socket, page, "", Found())
        for n, page in zip(range(reruns + 1), itertools.cycle(PAGES), strict=False):
            if n % max(reruns // 10, 1) == 0:
                told.append(footprint(process))
            await visit(socket, page, "", found)
    return told


def report(found: Found, footprints: list[tuple[float, int, int]]) -> None:
    """Prints the times by page, the footprint and the errors."""
    by_page: dict[str, list[float]] = {}
    for page, seconds in found.seconds:
        by_page.setdefault(page, []).append(seconds)
    print("\n| page | reruns | median, s | 95th percentile, s |\n|---|---|---|---|")
    for page, seconds in sorted(by_page.items()):
        print(f"| {page} | {len(seconds)} | {np.median(seconds):.2f} | {np.quantile(seconds, 0.95):.2f} |")
    every = [seconds for _, seconds in found.seconds]
    print(f"| all | {len(every)} | {np.median(every):.2f} | {np.quantile(every, 0.95):.2f} |")
    memory, descriptors, threads = (np.array(column, float) for column in zip(*footprints, strict=True))
    print(
        f"\nmemory of the server: {memory[0]:.0f} MiB at first, {memory.max():.0f} at most, {memory[-1]:.0f} at "
        f"the end; descriptors {descriptors[0]:.0f} and {descriptors[-1]:.0f}, "
        f"threads {threads[0]:.0f} and {threads[-1]:.0f}"
    )
    print(
        f"errors: {found.errors.total()}", *(f"- {n} x {what}" for what, n in found.errors.items()), sep="\n"
    )


def main() -> None:
    """Loads a server of its own, and reports; exit code 1 where there were errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--writers", nargs="*", default=["import", "train", "export"])
    parser.add_argument("--reruns", type=int, help="of one session alone, instead")
    told = parser.parse_args()
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(told.workspace, Path(folder) / "server.log")
        try:
            if told.reruns:
                footprints = asyncio.run(alone(server, told.reruns, found))
                memory = np.array([one[0] for one in footprints])
                slope = np.polyfit(np.linspace(0, told.reruns, len(memory)), memory, 1)[0]
                print(f"{told.reruns} reruns: {100 * slope:+.2f} MiB a hundred")
            else:
                footprints, written = asyncio.run(loaded(server, told.workspace, told, found))
                for kind, n in zip(told.writers, written, strict=True):
                    print(f"{kind}: {n} times")
        finally:
            server.stop()
    memory = psutil.virtual_memory().total / 2**30
    n = 1 if told.reruns else told.sessions
    print(f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB; sessions: {n}")
    report(found, footprints)
    sys.exit(bool(found.errors))


if __name__ == "__main__":
    main()
