"""The table of runs: its columns, filters and order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from mtf_engine.registry import RunRow, RunState
from mtf_engine.runs.finding import METRICS, PARAMS, Facts
from pages.shared import words

BEST_SCORE = (
    "Highest weighted GAUC of validation users during the training; RUN@best names the policy of that step. "
    "It looks at one request at a time: where later requests matter, an A/B test in an environment may prefer "
    "the last step."
)
Column = st.column_config.Column
COLUMNS: dict[str, Any] = {
    "State": Column(help="Finished, failed and cancelled runs have a sign of their own."),
    "Kind": Column(),
    "Name": Column(),
    "Tags": st.column_config.ListColumn(),
    "Note": Column(),
    "Dataset": Column(help="The log it reads, or the one it wrote."),
    "Method": Column(width=140),
    "Seed": st.column_config.NumberColumn(
        format="%d", help="Blank where another run drew it: its configuration has it."
    ),
    "Group": Column(help="Trainings that were started together and differ in their seed alone."),
    "Best score": st.column_config.NumberColumn(format="%.4f", help=BEST_SCORE),
    "Best step": st.column_config.NumberColumn(format="localized", help="Where the best score was reached."),
    "Created": Column(),
    "Took": Column(help="Working time, since it was last resumed."),
    "Memory": st.column_config.NumberColumn(format="%.0f MB", help="The most that its process held at once."),
    "Executor": Column(help="Who starts its worker: this machine, or a cluster."),
    "Host": Column(help="The machine that its worker works on, or worked on last."),
    "Code": Column(help="Git commit of the code; + where files differed from it."),
    "Run": Column(),
}
DRAWN_SEED = 1_000_000
"""People choose smaller ones."""
SHOWN_FIRST = ("State", "Name", "Tags", "Note", "Dataset", "Method", "Seed", "Best score", "Took", "Run")

ORDERS = {
    "Created": lambda run: run.created_at,
    "Name": lambda run: run.name,
    "State": lambda run: list(RunState).index(run.state),
    "Method": lambda run: run.algo,
    "Seed": lambda run: run.seed,
    "Best score": lambda run: run.best_score,
    "Took": lambda run: run.seconds,
}
"""What the rows can be sorted by, beside settings and metrics; a run that has no such value comes last."""


class Filters(NamedTuple):
    """Which runs are shown; an empty choice is any. Parts of others are found by text, or where they are asked for."""

    kind: str = ""
    text: str = ""
    states: Sequence[str] = ()
    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    tags: Sequence[str] = ()
    archived: bool = False
    parts: bool = False

    @property
    def n_set(self) -> int:
        """How many of the filters beyond kind and text narrow the table."""
        return sum(map(bool, self[2:]))

    def shows(self, run: RunRow) -> bool:
        """Returns whether a run passes every filter; the words of `text` are looked for in all it is called."""
        called = " ".join((run.id, run.name, run.note, run.seed_group, *run.tags)).lower()
        return (
            self.kind in ("", run.kind)
            and all(word in called for word in self.text.lower().split())
            and (not self.states or run.state in self.states)
            and (not self.methods or run.algo in self.methods)
            and (not self.datasets or run.dataset_id in self.datasets)
            and (not self.tags or not set(self.tags).isdisjoint(run.tags))
            and (self.archived or not run.archived)
            and (self.parts or run.parent_id is None or bool(self.text))
        )


def measured(facts: Mapping[str, Facts]) -> list[str]:
    """Returns the settings and metrics that any run has, as `params.NAME` and `metrics.NAME`: more columns."""
    names = dict.fromkeys(name for known in facts.values() for name in known)
    return sorted((name for name in names if name.startswith((PARAMS, METRICS))), key=_place)


def _place(name: str) -> tuple[bool, bool, str]:
    """Returns where a column stands in the list: settings first, and those of one dimension of the action last."""
    return name.startswith(METRICS), name.count(".") > 1, name


def column_config(names: Iterable[str]) -> dict[str, Any]:
    """Returns how the columns are drawn; that of a setting or a metric is headed by what follows its prefix."""
    return {name: COLUMNS.get(name) or Column(name.partition(".")[2], help=name) for name in names}


def ordered(
    runs: Iterable[RunRow], by: str, descending: bool, facts: Mapping[str, Facts] | None = None
) -> list[RunRow]:
    """Returns the runs sorted by one of `ORDERS`, or by a setting or metric of `facts`, which are by run.

    Newest first among equals; those without a value last; numbers before texts.
    """

    def value(run: RunRow) -> Any:
        if by in ORDERS:
            return ORDERS[by](run)
        found = (facts or {}).get(run.id, {}).get(by)
        return None if found is None else (not isinstance(found, int | float), str(type(found)), found)

    newest = sorted(runs, key=lambda run: run.created_at, reverse=True)
    known = sorted((run for run in newest if value(run) is not None), key=value, reverse=descending)
    return known + [run for run in newest if value(run) is None]


def table(
    runs: Sequence[RunRow],
    datasets: dict[str, str],
    facts: Mapping[str, Facts] | None = None,
    more: Sequence[str] = (),
) -> pd.DataFrame:
    """Returns one row a run with every column, and with the settings and metrics in `more`.

    `datasets` gives the names of logs by id, `facts` what is known of each run by its id.
    """
    rows = [
        _row(run, datasets) | {name: _shown((facts or {})[run.id].get(name)) for name in more} for run in runs
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, *more])


def _shown(value: Any) -> Any:
    """Returns a setting or a metric as its cell shows it: four digits of a number that is no count."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _state(run: RunRow) -> str:
    """Returns a run's state with its sign, how far it is while it works, and whether it is archived."""
    share = f" {run.step / run.n_steps:.0%}" if run.state is RunState.RUNNING and run.n_steps else ""
    return words.STATES[run.state] + share + (" · archived" if run.archived else "")


def _row(run: RunRow, datasets: dict[str, str]) -> dict[str, Any]:
    origin = run.provenance or {}
    code = origin.get("code") or {}
    return {
        "State": _state(run),
        "Kind": run.kind,
        "Name": run.name,
        "Tags": run.tags,
        "Note": run.note,
        "Dataset": datasets.get(run.dataset_id or "", run.dataset_id),
        "Method": run.algo,
        "Seed": None if run.parent_id and (run.seed or 0) >= DRAWN_SEED else run.seed,
        "Group": run.seed_group,
        "Best score": run.best_score,
        "Best step": run.best_step,
        "Created": words.ago(run.created_at),
        "Took": words.duration(run.seconds),
        "Memory": origin.get("peak_memory_mb"),
        "Executor": run.executor,
        "Host": run.host,
        "Code": (code.get("commit") or "")[:8] + ("+" if code.get("changed") else ""),
        "Run": run.id,
    }
