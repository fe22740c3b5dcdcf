"""Imports of logs of impressions: seconds, rows a second and the memory of a process of its own.

    python benchmarks/importing.py [--impressions 1000000 10000000] [--kinds parquet csv] [--against CHECKOUT]
    python benchmarks/importing.py --dataset FILE

A log has predictions, feedback and ids, ten impressions a request and five requests a session, in order of time. Each
is imported by the command `dataset import`, every check included; the peak is the largest resident memory of the
command and its worker. With `--against`, the code of another checkout imports the same files, and the content hashes
must be the same. With `--dataset`, the file of a dataset with actions is asked for its first batch of 256 transitions
instead: when their memory map is to be written, and when it is there.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.logs.datasets import Dataset

ROOT = Path(__file__).parent.parent
PER_REQUEST, PER_SESSION, AT_ONCE = 10, 5, 1_000
"""Impressions of a request, requests of a session, and sessions that go on at the same time."""
PER_USER, BATCH = 500, 256
SECONDS_BETWEEN_LOOKS = 0.02
DAYS = 14
LOG = f"""
SELECT 'u' || user_no AS user_id, session_id, q AS request_id,
    TIMESTAMP '2026-05-04' + to_microseconds((q * {DAYS} * 86400000000 / {{n_requests}})::BIGINT) AS timestamp,
    hash(i) % 100000 AS item_id, (i % {PER_REQUEST})::INTEGER AS position,
    {{predictions}},
    (40 * pow(hash(i, 'watched') / 18446744073709551615, 2))::FLOAT AS watch_time,
    {{signals}}
FROM (
    SELECT i, q, q // ({AT_ONCE} * {PER_SESSION}) * {AT_ONCE} + q % {AT_ONCE} AS session_id,
        hash(session_id, 'whose') % {{n_users}} AS user_no
    FROM (SELECT range AS i, range // {PER_REQUEST} AS q FROM range({{n}}))
)
"""
RATES = {"valid": 0.4, "finish": 0.3, "like": 0.05, "comment": 0.01, "share": 0.01, "follow": 0.02}
"""How often each behaviour happens; each is predicted."""


def write_log(path: Path, n: int) -> None:
    """Writes a log of `n` impressions to `path`, a Parquet or a CSV file by its ending."""
    drawn = "hash(i, '{}') / 18446744073709551615"
    predictions = ", ".join(
        f"(0.001 + {rate} * ({drawn.format('p' + name)}))::FLOAT AS prediction_{name}"
        for name, rate in RATES.items()
    )
    signals = ", ".join(
        f"(({drawn.format(name)}) < {rate})::INTEGER AS {name}" for name, rate in RATES.items()
    )
    sql = LOG.format(
        n=n,
        n_requests=max(n // PER_REQUEST, 1),
        n_users=max(n // PER_USER, 1),
        predictions=predictions,
        signals=signals,
    )
    with duckdb.connect() as con:
        con.execute(f"COPY ({sql}) TO '{path}'")


def imported(source: Path, checkout: Path, folder: Path) -> tuple[float, float, float, str]:
    """Returns the seconds, those of processors, the peak MiB and the content hash of an import by `checkout`'s code."""
    command = [
        sys.executable,
        "-m",
        "mtf_engine",
        "--workspace",
        str(folder),
        "dataset",
        "import",
        str(source),
    ]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    start, peak, worked = time.perf_counter(), 0, dict[int, float]()
    with tempfile.TemporaryFile() as told:
        process = psutil.Popen([*command, "--json"], cwd=checkout, env=environment, stdout=told)
        while process.poll() is None:
            for one in (process, *process.children(recursive=True)):
                peak = max(peak, most_held(one))
                with contextlib.suppress(psutil.Error):
                    worked[one.pid] = sum(one.cpu_times()[:2])
            time.sleep(SECONDS_BETWEEN_LOOKS)
        told.seek(0)
        said = told.read().decode()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"the import of {source.name} failed: {said}")
    (row,) = (
        duckdb.connect(str(next((folder / "datasets").glob("*.duckdb"))), read_only=True)
        .execute("SELECT content_hash FROM meta")
        .fetchall()
    )
    return seconds, sum(worked.values()), peak / 1024, row[0]


def most_held(process: psutil.Process) -> int:
    """Returns the largest resident memory that a process has had so far, KiB; 0 of one that is gone."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return 0


def first_batches(file: Path) -> None:
    """Prints the seconds to the first batch of a dataset whose file is in the page cache, twice."""
    with tempfile.TemporaryDirectory() as folder:
        (link := Path(folder) / file.name).symlink_to(file.absolute())  # maps lie beside a dataset
        dataset = Dataset.open(link)
        dataset.query("SELECT count(COLUMNS(*)) FROM requests")
        for written in ("to be written", "there"):
            start, worked, load = time.perf_counter(), time.process_time(), os.getloadavg()[0]
            transitions = dataset.transitions()
            at = np.random.default_rng(0).integers(0, len(transitions), BATCH)
            for rows in (transitions[at], transitions.after(at)):
                _ = rows.observations, rows.actions, rows.rewards
            seconds, worked = time.perf_counter() - start, time.process_time() - worked
            told = f"{seconds:.2f} s, {worked:.2f} of processors, load {load:.1f}"
            print(f"{dataset.n_requests:,} requests, the map is {written}: {told}", flush=True)


def main(options: argparse.Namespace) -> int:
    """Prints a row a log; returns the exit code, 1 where two checkouts wrote other datasets."""
    if options.dataset:
        first_batches(options.dataset)
        return 0
    checkouts = {"this": ROOT, **({"before": options.against} if options.against else {})}
    titles = ("impressions", "file", "code", "seconds", "of processors", "rows/s", "peak MiB", "load")
    print(f"| {' | '.join(titles)} |\n|--:|---|---{'|--:' * 5}|")
    differs = False
    for n in options.impressions:
        for kind in options.kinds:
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder) / f"log.{kind}"
                write_log(source, n)
                hashes = set()
                for name, checkout in checkouts.items():
                    load = os.getloadavg()[0]
                    seconds, worked, peak, digest = imported(source, checkout, Path(folder) / name)
                    hashes.add(digest)
                    figures = (f"{seconds:.1f}", f"{worked:.1f}", f"{n / seconds:,.0f}", f"{peak:,.0f}")
                    print(f"| {n:,} | {kind} | {name} | {' | '.join(figures)} | {load:.1f} |", flush=True)
                differs |= len(hashes) > 1
    print("the datasets differ" if differs else json.dumps({"hashes": "the same"}))
    return int(differs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--impressions", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--kinds", nargs="+", choices=["parquet", "csv"], default=["parquet", "csv"])
    parser.add_argument("--against", type=Path, help="a checkout of earlier code")
    parser.add_argument("--dataset", type=Path, help="a file of a dataset with actions")
    sys.exit(main(parser.parse_args()))
