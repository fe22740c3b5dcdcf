"""Names of the files in a run's folder; its worker alone writes them."""

import os
from pathlib import Path

LOG, REPORT, LOCK = "run.log", "report.json", "worker.lock"
ATTEMPTS = "attempts.txt"
"""Which attempts there were at the run: `fencing.py`."""
BLOCK_BYTES = 65_536
"""Of the end of a log, read first; twice as many until there are lines enough."""
CONFIG, RESULT, METRICS = "config.json", "result.json", "metrics.jsonl"
PROVENANCE, ROW = "provenance.json", "run.json"
"""The row is what the registry knows of the run, but for its result."""
CHECKPOINT, POLICY, CRITICS = "checkpoint.pt", "policy.safetensors", "critics.safetensors"
BEST_POLICY, EXAMPLES = "policy_best.safetensors", "examples.safetensors"
MODULES = "modules.txt"
"""The folder from which the run was asked for, where modules with environments of one's own may be."""
BUNDLE, EVALUATION, LOOKS = "policy.zip", "evaluation.json", "looks.json"


def log_tail(folder: Path, lines: int | None = None) -> list[str]:
    """Returns the last lines, or all, that the workers of a run wrote to its log; none where there is no log."""
    path = folder / LOG
    if not path.exists():
        return []
    with path.open("rb") as log:
        end = log.seek(0, os.SEEK_END)
        start = log.seek(max(0, end - BLOCK_BYTES) if lines else 0)
        tail = log.read()
        while lines and start and tail.count(b"\n") <= lines:
            start = log.seek(max(0, end - 2 * (end - start)))
            tail = log.read()
    told = tail.decode(errors="replace").splitlines()
    return told[-lines:] if lines else told
