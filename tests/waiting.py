"""Waiting for what another process does: long enough for a machine that is busy with other things."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 180.0
"""Seconds until what should happen counts as not happening."""


def wait_until(found: Callable[[], T], what: str, seconds_between: float = 0.05) -> T:
    """Returns what `found` returns as soon as that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (it := found()):
        assert time.monotonic() < deadline, f"not within {PATIENCE} seconds: {what}"
        time.sleep(seconds_between)
    return it
