"""Virtual environments for the libraries that benchmarks compare with; none is a dependency of the project."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def peer_python(name: str, *requirements: str) -> Path:
    """Returns the interpreter of `.venv-<name>`, made with these requirements where there is none."""
    folder = ROOT / f".venv-{name}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
    return python
