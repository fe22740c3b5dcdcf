"""Measures `mtf serve` under load on loopback: requests a second, and how long each call took.

A policy of the session environment is trained for a few steps and exported, then served by a process of its own, with
exploration and a log. Callers, each with a connection that stays open, send calls one after the other for so many
seconds, at most so many; the processor's time a call, the server's alone, hangs less on what else the machine does.
Beside it, in this process, the graph alone: `scores.onnx` of one request, one thread.

    python benchmarks/serve.py [--bundle policy.zip] [--seconds 10] [--callers 1 4] [--candidates 60 1000]
"""

import argparse
import http.client
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.policies.bundle_reading import read
from tests.browsing import MTF, free_port
from tests.serving import AS_JSON
from tests.waiting import wait_until

TARGET_MS = 0.5
"""Of one request with 1,000 candidates by the graph alone, 99th percentile."""


def mtf(workspace: Path, *words: object) -> Any:
    """Returns what a command prints as JSON, of one that must not be refused."""
    command = [*MTF, "--workspace", workspace, "--json", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def some_bundle(folder: Path) -> Path:
    """Returns a bundle of a policy of the session environment, of two layers of 64, that learned from `explored`."""
    workspace, bundle = folder / "workspace", folder / "policy.zip"
    how = ("--env", "session", "--explore", "uniform", "--requests", 3_000, "--name", "explored")
    mtf(workspace, "dataset", "collect", *how)
    trained = mtf(workspace, "train", "explored", "--preset", "laptop", "--set", "n_steps=50")
    mtf(workspace, "export", trained["run_id"], "--to", bundle)
    return bundle


class Server:
    """`mtf serve` as a process of its own on loopback."""

    def __init__(self, bundle: Path, *options: str | Path) -> None:
        self.port = free_port()
        command = [
            *MTF,
            "--workspace",
            bundle.parent / "workspace",
            "serve",
            bundle,
            "--port",
            str(self.port),
            *options,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self.is_there, "the server answers")

    def is_there(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        try:
            return Caller(self.port).get("/health")["status"] == "ok"
        except ConnectionError:
            return False

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


class Caller:
    """A connection that stays open."""

    def __init__(self, port: int) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, what: str) -> dict:
        self.http.request("GET", what)
        return json.loads(self.http.getresponse().read())

    def post(self, to: str, body: dict | bytes) -> dict:
        """Returns the answer; an AssertionError where the call was refused."""
        self.http.request("POST", to, body if isinstance(body, bytes) else json.dumps(body), AS_JSON)
        answer = self.http.getresponse()
        content = json.loads(answer.read())
        assert answer.status == 200, content
        return content


def load(port: int, n_callers: int, n_candidates: int, seconds: float, most: int) -> dict[str, float]:
    """Returns requests a second and percentiles of milliseconds of a call with one request."""
    told = Caller(port).get("/health")
    f, p = len(told["features"]), len(told["predictions"])
    took: list[list[float]] = [[] for _ in range(n_callers)]
    until = time.monotonic() + seconds

    def call(number: int) -> None:
        caller, g = Caller(port), np.random.default_rng(number)
        observation, predictions = (
            g.normal(size=f).round(4).tolist(),
            g.uniform(size=(n_candidates, p)).round(4),
        )
        one = {"observation": observation, "predictions": predictions.tolist(), "user_id": number, "step": 0}
        text = json.dumps({"requests": [one | {"session_id": "SESSION"}]})
        while time.monotonic() < until and len(took[number]) < most // n_callers:
            session = f"{n_candidates}/{n_callers}/{number}/{len(took[number])}"
            body = text.replace("SESSION", session).encode()
            began = time.perf_counter()
            caller.post("/score", body)
            took[number].append(time.perf_counter() - began)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(n_callers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = sum(map(len, took)) / (time.perf_counter() - began)
    p50, p95, p99 = np.percentile(np.concatenate(took), (50, 95, 99)) * 1000
    return {"calls": sum(map(len, took)), "rate": rate, "p50": p50, "p95": p95, "p99": p99}


def graph_alone(bundle: Path, n_candidates: int, n: int = 5_000) -> dict[str, float]:
    """Returns percentiles of milliseconds of one request by `scores.onnx`, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(read(bundle, bundle.name)["scores.onnx"], options)
    f, p = (one.shape[-1] for one in session.get_inputs())
    g = np.random.default_rng(0)
    asked = {
        "observations": g.normal(size=(1, f)).astype(np.float32),
        "predictions": g.uniform(size=(1, n_candidates, p)).astype(np.float32),
    }
    took, busy = np.empty(n), time.process_time()
    for i in range(-100, n):
        began = time.perf_counter()
        session.run(None, asked)
        took[i] = time.perf_counter() - began
    p50, p95, p99 = np.percentile(took, (50, 95, 99)) * 1000
    cpu = 1000 * (time.process_time() - busy) / (n + 100)
    return {"calls": n, "rate": n / took.sum(), "p50": p50, "p95": p95, "p99": p99, "cpu": cpu}


def main() -> None:
    """Prints the table; exits with 1 where the graph alone misses its target at 1,000 candidates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--calls", type=int, default=20_000, help="at most, a line")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--candidates", type=int, nargs="+", default=[60, 1_000])
    told = parser.parse_args()
    memory = psutil.virtual_memory().total / 2**30
    print(f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}")
    print(
        "| what | candidates | callers | calls | requests a second | p50, ms | p95, ms | p99, ms | processor, ms |"
    )
    print("| --- | --: | --: | --: | --: | --: | --: | --: | --: |")

    def line(what: str, n_candidates: int, n_callers: int, of: dict[str, float]) -> None:
        figures = " | ".join(f"{of[name]:.3f}" for name in ("p50", "p95", "p99", "cpu"))
        counts = f"{n_candidates:,} | {n_callers} | {of['calls']:,} | {of['rate']:,.0f}"
        print(f"| {what} | {counts} | {figures} |", flush=True)

    slowest = 0.0
    with tempfile.TemporaryDirectory() as temp:
        bundle = told.bundle or some_bundle(Path(temp))
        for n_candidates in told.candidates:
            alone = graph_alone(bundle, n_candidates)
            slowest = max(slowest, alone["p99"]) if n_candidates <= 1_000 else slowest
            line("`scores.onnx` alone", n_candidates, 1, alone)
        for kind, options in (
            ("`mtf serve`", ()),
            ("the same, exploring and logging", ("--explore", "uniform", "--log", Path(temp) / "log")),
        ):
            server = Server(bundle, *options)
            try:
                for n_candidates in told.candidates:
                    for n_callers in told.callers:
                        before = server.cpu_seconds()
                        of = load(server.port, n_callers, n_candidates, told.seconds, told.calls)
                        of["cpu"] = 1000 * (server.cpu_seconds() - before) / of["calls"]
                        line(kind, n_candidates, n_callers, of)
                peak = psutil.Process(server.process.pid).memory_info().rss / 2**20
            finally:
                server.stop()
            print(f"memory of {kind}: {peak:.0f} MiB", file=sys.stderr)
    if slowest > TARGET_MS:
        sys.exit(f"p99 of the graph alone is {slowest:.2f} ms, above {TARGET_MS} ms")


if __name__ == "__main__":
    main()
