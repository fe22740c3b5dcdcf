"""Runs side by side: in which settings they differ, and which are one training with several seeds."""

import json
from collections.abc import Sequence
from typing import Any

from mtf_engine.registry import RunRow

FEWEST, MOST = 2, 10
SHOWN = 12
"""Digits of a hash that tell two apart."""


def settings(run: RunRow) -> dict[str, Any]:
    """Returns everything that decides a run's outcome, by name: method, dataset, code and configuration."""
    origin = run.provenance or {}
    return {
        "method": run.algo,
        "dataset": run.dataset_id,
        **run.config,
        "code": (origin.get("code") or {}).get("commit", "")[:SHOWN] or None,
        "dataset hash": (origin.get("dataset_hash") or "")[:SHOWN] or None,
    }


def compared(runs: Sequence[RunRow]) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    """Returns the settings that differ, one value a run (None where it has none such), and the others."""
    each = [settings(run) for run in runs]
    names = dict.fromkeys(name for values in each for name in values)
    table = {name: tuple(values.get(name) for values in each) for name in names}
    differing = {name: values for name, values in table.items() if len(set(map(_key, values))) > 1}
    return differing, {name: values[0] for name, values in table.items() if name not in differing}


def seed_groups(runs: Sequence[RunRow]) -> dict[str, list[RunRow]]:
    """Returns the runs, together those that differ in their seed alone, by a title of their own.

    Those that were submitted together stay together where the code changed while they waited.
    """
    groups: dict[str, list[RunRow]] = {}
    for run in runs:
        free = ("seed", "code") if run.seed_group else ("seed",)
        same = {name: value for name, value in settings(run).items() if name not in free}
        groups.setdefault(_key((run.seed_group, same)), []).append(run)
    return {_title(group): group for group in groups.values()}


def _title(group: list[RunRow]) -> str:
    """Returns the group's or the run's name with the id of its first run, which makes it the only one."""
    first = group[0]
    seeds = f" · {len(group)} seeds" if len(group) > 1 else ""
    return f"{first.seed_group or first.name}{seeds} · {first.id}"


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
