"""Closes the loop: a policy is served, explored around and logged; the log is imported, certified and trained on.

Sessions of the synthetic world `feed` are served by a process of `mtf serve` over loopback: each request is scored, the
environment shows what the server put first, and what users did goes back as feedback. Then `dataset import`, `bounds
coverage` and `train`, as commands, and the new policy is compared with the one that was served.

    python benchmarks/serve_loop.py [--requests 5000] [--folder DIR]
"""

import argparse
import json
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from serve import Caller, Server, mtf, some_bundle

sys.path.insert(0, str(Path(__file__).parent.parent))

from mtf_engine.environments.session import SessionEnvironment
from tests.serving import play


def loop(folder: Path, n_requests: int) -> None:
    """Plays, imports, certifies and trains; exits with 1 where one of them does not do what it should."""
    bundle, log, workspace = some_bundle(folder), folder / "served", folder / "workspace"
    live = json.loads(zipfile.ZipFile(bundle).read("manifest.json"))["origin"]["run_id"]
    server = Server(bundle, "--explore", "uniform", "--log", log, "--seed", "7")
    try:
        began = time.perf_counter()
        asked, same = play(SessionEnvironment(), Caller(server.port).post, n_requests)
        seconds = time.perf_counter() - began
    finally:
        server.stop()
    print(f"{asked:,} requests in {seconds:.0f} s, {asked - same} shown in another order than the server's")
    how = ("--mapping", log / "mapping.yaml", "--like", "explored", "--name", "again")
    imported = mtf(workspace, "dataset", "import", log, *how)
    print(f"imported: {imported['requests']:,} requests, {imported['impressions']:,} impressions")
    certificate = mtf(workspace, "bounds", "coverage", "again")
    print(f"certificate: {certificate['reason']}; {certificate['n_control']:,} rows of control users")
    trained = mtf(workspace, "train", "again", "--preset", "laptop", "--set", "n_steps=300")
    print(f"trained: {trained['run_id']} {trained['state']}")
    for row in mtf(workspace, "evaluate", trained["run_id"], live, "--on", "again", "--no-floors"):
        print(f"  {row['run_id']}: weighted GAUC {row['weighted_gauc']:.4f} on {row['split']} rows")
    if imported["requests"] != asked or not certificate["passed"] or trained["state"] != "completed":
        sys.exit("the loop does not close")


def main() -> None:
    """Closes the loop in a folder of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, help="what is kept; default: nothing")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        folder = told.folder or Path(temp)
        folder.mkdir(parents=True, exist_ok=True)
        loop(folder, told.requests)


if __name__ == "__main__":
    main()
