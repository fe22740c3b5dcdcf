"""Fixtures that several rooms share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def kuairand() -> Path:
    """The folder of the real log: MTF_KUAIRAND, else `../shared/data/kuairand`; skips where there is none."""
    folder = Path(os.environ.get("MTF_KUAIRAND") or ROOT.parent / "shared" / "data" / "kuairand")
    if not folder.is_dir():
        pytest.skip("no KuaiRand folder: name it in MTF_KUAIRAND")
    return folder
