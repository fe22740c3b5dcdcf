"""How the dashboard says things: states, numbers, times, commands, and text that users typed."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from mtf_engine.environments.names import world_of
from mtf_engine.registry import (
    BASELINE,
    BEST,
    CANDIDATE,
    LIVE,
    REGRESSION,
    DatasetRow,
    RunRow,
    RunState,
    now,
    run_of,
)

HEAD = "head:"
"""What the name of a policy that ranks by one prediction begins with."""
PROJECT = Path(__file__).parents[2]
STATES = {
    RunState.QUEUED: "◌ queued",
    RunState.RUNNING: "▶ running",
    RunState.COMPLETED: "✔ completed",
    RunState.WAITING: "◆ waits for a decision",
    RunState.CANCELLED: "■ cancelled",
    RunState.INTERRUPTED: "! interrupted",
    RunState.FAILED: "✖ failed",
}
"""A sign and the word, so that states are told apart without colour."""

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
"""Digits of an exponent."""
STATE_COLOURS = {
    RunState.QUEUED: "gray",
    RunState.RUNNING: "blue",
    RunState.COMPLETED: "green",
    RunState.WAITING: "blue",
    RunState.CANCELLED: "gray",
    RunState.INTERRUPTED: "orange",
    RunState.FAILED: "red",
}


def power_of_ten(n: int) -> str:
    """Returns 10 to the power of `n` as it is written: 10⁻¹³."""
    return f"10{str(n).translate(RAISED)}"


def plain(text: object) -> str:
    """Returns `text` so that Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])", r"\\\1", " ".join(str(text).split()))


def run_title(run: RunRow) -> str:
    """Returns what a list of runs calls `run`: its name, its method unless that says it, its seed, its id."""
    algo = run.algo if run.algo and run.algo not in run.name else ""
    seed = f"seed {run.seed}" if run.seed_group else ""
    return " · ".join(part for part in (run.name, algo, seed, run.id) if part)


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
        return f"{24 * 60 * span:.0f} min" if 24 * 60 * span >= 1 else "<1 min"
    if span < 2:
        return f"{24 * span:.1f} h"
    if span < 1_000:
        return f"{span:,.1f} d"
    years = span / 365.25
    return f"{years:,.0f} years" if years < 100_000 else f"{power_of_ten(round(math.log10(years)))} years"


def ago(moment: datetime) -> str:
    """Returns how long ago `moment` was, in its largest unit."""
    seconds = (now() - moment).total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


def share(log10: float) -> str:
    """Returns a share by its logarithm: in percent, or as a power of ten where that has no digits left."""
    return f"{10**log10:.1%}" if log10 >= -3 else power_of_ten(round(log10))


def figure(number: float) -> str:
    """Returns a number of any size in three digits, or as many as it has before the point."""
    return f"{number:,.0f}" if abs(number) >= 1_000 else f"{number:.3g}"


def p_value(p: float) -> str:
    """Returns a p-value as journals print it: three decimals, and no smaller one than 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def command(workspace: Path, *words: object) -> str:
    """Returns the command line that does what a form does, to be copied into a shell in the project's folder."""
    own = workspace.is_relative_to(PROJECT)
    place = workspace.relative_to(PROJECT) if own else workspace
    return shlex.join(["mtf", "--workspace", str(place), *map(str, words)])


def policy_title(policy: str, runs: Mapping[str, RunRow]) -> str:
    """Returns what charts and tables call a policy: its run's name or method, its seed in a group, the best step.

    The end of its id is there too where another of `runs`, which are all trainings by id, is called the same.
    """
    run = runs.get(run_of(policy))
    if run is None:
        if policy == REGRESSION:
            return "regression weights"
        return f"{policy.removeprefix(HEAD)} alone" if policy.startswith(HEAD) else policy
    return _title(policy, run, Counter(map(_called, runs.values())))


def policy_titles(runs: Iterable[RunRow], among: Mapping[str, RunRow]) -> dict[str, str]:
    """Returns the title of each training's last policy, and of its best where that is another.

    `among` are all trainings by id.
    """
    called = Counter(map(_called, among.values()))
    return {policy: _title(policy, run, called) for run in runs for policy in policies(run)}


def policies(run: RunRow) -> tuple[str, ...]:
    """Returns the policies of a training: of its last step, and of its best where that is another."""
    return (run.id,) if run.best_step in (None, run.n_steps) else (run.id, run.id + BEST)


def _title(policy: str, run: RunRow, called: Mapping[str, int]) -> str:
    alike = called.get(_called(run), 0) > 1 or _called(run) in (BASELINE, LIVE, CANDIDATE)
    step = f"best step {run.best_step:,}" if policy.endswith(BEST) else ""
    told = ", ".join(part for part in (run.id[-4:] if alike else "", step) if part)
    return f"{_called(run)} ({told})" if told else _called(run)


def _called(run: RunRow) -> str:
    name = run.name or str(run.algo)
    return f"{name}, seed {run.seed}" if run.seed_group else name


def source(row: DatasetRow) -> str:
    """Returns where a log is from: how it was made, and of which world's users where they are synthetic."""
    if not row.meta.get("synthetic"):
        return row.source
    world = world_of(row.meta.get("details", {}).get("env") or "")
    return f"{row.source}, {world} (synthetic)" if world else f"{row.source} (synthetic)"


def synthetic(env: str | None) -> str:
    """Returns the warning over figures of users who are none, with the world they are of."""
    world = world_of(env or "")
    return f"Synthetic{f', world {world}' if world else ''}: these users and their feedback are simulated."
