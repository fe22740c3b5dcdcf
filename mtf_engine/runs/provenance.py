"""What a run was computed with: code, versions, threads, memory and the dataset's hash."""

import hashlib
import platform
import resource
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mtf_engine
from mtf_engine.registry import RunRow
from mtf_engine.workspace import Workspace

ROOT = Path(mtf_engine.__file__).parents[1]
PACKAGES = (
    "cma", "duckdb", "gymnasium", "numpy", "onnx", "onnxruntime", "pandas", "pyarrow", "pydantic", "safetensors",
    "scikit-learn", "scipy", "SQLAlchemy", "streamlit", "torch",
)  # fmt: skip
"""Those that compute, store or show results."""


def versions() -> dict[str, str]:
    """Returns the versions at work here, Python's first."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


@cache
def source() -> str:
    """Returns a hash of the engine's code and worlds at work here: two results of one hash are of the same code."""
    digest = hashlib.sha256()
    engine = Path(mtf_engine.__file__).parent
    for path in sorted([*engine.rglob("*.py"), *engine.rglob("*.json")]):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def is_as_loaded() -> bool:
    """Returns whether the code on the disk is still that of `source`, which a process asks for as it loads."""
    return source.__wrapped__() == source()


def of_run(workspace: Workspace, run: RunRow) -> dict[str, Any]:
    """Returns the provenance of a run that this process starts to work on, JSON-able."""
    return {
        "code": {"version": mtf_engine.__version__, "source": source(), **_commit()},
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": versions(),
        "n_threads": run.config.get("n_threads", 1),
        "dataset_hash": _dataset_hash(workspace, run),
        "peak_memory_mb": _peak_memory_mb(run),
    }


def is_of_this_code(run: RunRow) -> bool:
    """Returns whether the code at work here computed the run."""
    return ((run.provenance or {}).get("code") or {}).get("source") == source()


def at_its_end(workspace: Workspace, run: RunRow) -> dict[str, Any]:
    """Returns the run's provenance with what its end alone tells: peak memory, the hash of a new dataset."""
    known = {"dataset_hash": _dataset_hash(workspace, run), "peak_memory_mb": _peak_memory_mb(run)}
    return {**(run.provenance or {}), **known}


def _dataset_hash(workspace: Workspace, run: RunRow) -> str | None:
    hashes = {row.id: row.content_hash for row in workspace.registry.datasets()}
    return hashes.get(str(run.dataset_id))


def _peak_memory_mb(run: RunRow) -> float:
    """Returns the most memory that this process, or an earlier attempt at the run, held at once, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1 << 10
    )
    return max(round(peak, 1), (run.provenance or {}).get("peak_memory_mb", 0.0))


def _commit() -> dict[str, Any]:
    """Returns the git commit of the code and whether files differ from it; nothing outside a repository."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return {}
    commit = _output(git, "rev-parse", "HEAD")
    changed = _output(git, "status", "--porcelain", "--untracked-files=no")
    return {} if commit is None else {"commit": commit, "changed": bool(changed)}


def _output(*command: str) -> str | None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
