"""How the dashboard says things: states, numbers, times, commands, and text that users typed."""

import math
import re
import shlex
from datetime import datetime
from pathlib import Path

from mtf_engine.registry import BASELINE, RunRow, RunState, now

STATES = {
    RunState.QUEUED: "◌ queued",
    RunState.RUNNING: "▶ running",
    RunState.COMPLETED: "✔ completed",
    RunState.CANCELLED: "■ cancelled",
    RunState.INTERRUPTED: "⏸ interrupted",
    RunState.FAILED: "✖ failed",
}
"""A sign and the word, so that states are told apart without colour."""

STATE_COLOURS = {
    RunState.QUEUED: "gray",
    RunState.RUNNING: "blue",
    RunState.COMPLETED: "green",
    RunState.CANCELLED: "gray",
    RunState.INTERRUPTED: "orange",
    RunState.FAILED: "red",
}


def plain(text: object) -> str:
    """Returns `text` so that Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])", r"\\\1", " ".join(str(text).split()))


def run_title(run: RunRow) -> str:
    """Returns what a list of runs calls `run`: its name, its method unless the name says it, and its id."""
    algo = run.algo if run.algo and run.algo not in run.name else ""
    return " · ".join(part for part in (run.name, algo, run.id) if part)


def duration(seconds: float | None) -> str:
    """Returns a time span in its two largest units, `-` where there is none."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def days(span: float) -> str:
    """Returns a time span of `span` days, however long, in the unit that fits."""
    if span < 1 / 24:
        return f"{24 * 60 * span:.0f} min"
    if span < 2:
        return f"{24 * span:.1f} h"
    if span < 1_000:
        return f"{span:,.1f} d"
    years = span / 365.25
    return f"{years:,.0f} years" if years < 100_000 else f"10^{math.log10(years):.0f} years"


def ago(moment: datetime) -> str:
    """Returns how long ago `moment` was, in its largest unit."""
    seconds = (now() - moment).total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


def command(workspace: Path, *words: object) -> str:
    """Returns the command line that does what a form does, to be copied into a shell."""
    return shlex.join(["python", "-m", "mtf_engine", "--workspace", str(workspace), *map(str, words)])


def policy_title(run_id: str, runs: dict[str, RunRow]) -> str:
    """Returns what charts and tables call the policy of `run_id`: its run's name or method, and the id."""
    if run_id == BASELINE:
        return BASELINE
    run = runs.get(run_id)
    return f"{run.name or run.algo} ({run_id[-4:]})" if run else run_id
