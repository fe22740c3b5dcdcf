"""A comparison as the frames that its page shows and saves: means over seeds, single seeds on demand."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from mtf_engine.evaluation.what_if import WhatIf
from mtf_engine.registry import REGRESSION
from mtf_engine.study.comparison import FLOORS, ROUNDS, Cell
from mtf_engine.study.factorial import (
    GAUC,
    METRICS,
    Factorial,
    GainSplit,
    OverSeeds,
    RankAgreement,
    over_seeds,
)
from mtf_engine.study.paper_tables import Row

DATASETS = {
    "1": "1: Gaussian",
    "1b": "1b: Gaussian, matched",
    "2": "2: uniform",
    "3": "3: five rounds, pooled",
    ROUNDS: "own five rounds",
}
TITLES = {
    GAUC: "weighted GAUC",
    "valid_consumption": "valid consumption",
    "duration_time": "duration time",
    "session_reward": "session reward",
    "return": "return",
    "length": "length",
}
SHORT = {TITLES["valid_consumption"]: "consumption", TITLES["duration_time"]: "duration"}
"""Of the paper's Table 2, whose columns would not fit otherwise."""
ALL = "all"
ON, LOW, HIGH = "trained on", "interval from", "interval to"


def metrics_of(cells: Sequence[Cell]) -> dict[str, str]:
    """Returns the titles of the metrics that the cells have."""
    return {m: TITLES[m] for m in METRICS if any(cell.value(m) is not None for cell in cells)}


def paper_table(rows: Iterable[Row], single: bool) -> pd.DataFrame:
    """Returns the rows of a table of the paper, one a row and metric; what does not exist is NaN."""
    return _frame(
        {
            "in the paper": row.name,
            "method": row.method,
            ON: DATASETS[row.dataset],
            "metric": TITLES[metric],
            "published": row.published[metric],
            **_told(found, single),
        }
        for row in rows
        for metric, found in row.found.items()
    )


def paper_words(table: pd.DataFrame, percent: bool) -> pd.DataFrame:
    """Returns a table of the paper with a row a method, in words; what does not exist is blank."""
    metrics = list(dict.fromkeys(table["metric"]))
    rows: dict[str, dict[str, str]] = {}
    for row in table.to_dict("records"):
        said = rows.setdefault(row["in the paper"], {n: row[n] for n in ("in the paper", ON)})
        prefix = f"{SHORT[row['metric']]}, " if len(metrics) > 1 else ""
        said[f"{prefix}published"] = _said(row["published"], percent)
        ends = f" [{_said(row[LOW], percent)}, {_said(row[HIGH], percent)}]" if pd.notna(row[LOW]) else ""
        said[f"{prefix}found"] = _said(row["mean"], percent) + ends
    return pd.DataFrame(list(rows.values()))


def _said(value: float, percent: bool) -> str:
    return "" if pd.isna(value) else f"{value:+.2%}" if percent else f"{value:.4f}"


def factorial_table(cells: Sequence[Cell], metric: str, single: bool) -> pd.DataFrame:
    """Returns a row for each method and what it was trained on; where there are floors they are marked."""
    by_pair: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.n_critics is None:
            by_pair.setdefault((cell.method, cell.dataset), []).append(cell)
    return _frame(
        {
            "method": method,
            "kind": "floor" if method in FLOORS else "",
            ON: DATASETS[dataset],
            **_told(_over(own, metric), single),
            **_search(own[0]),
        }
        for (method, dataset), own in by_pair.items()
    )


def floors_table(cells: Iterable[Cell], single: bool) -> pd.DataFrame:
    """Returns the weighted GAUC of what ranks without having learned, by the data that it was chosen on."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for cell in cells:
        for floor, value in cell.floors.items():
            name = "regression weights" if floor == REGRESSION else "best single head"
            if value is not None:
                found.setdefault((f"{name} (floor)", cell.dataset), {})[cell.seed] = value
    return _frame(
        {"floor": name, "chosen on": DATASETS[dataset], **_told(over_seeds(of), single)}
        for (name, dataset), of in found.items()
    )


def effects_table(found: Factorial, single: bool) -> pd.DataFrame:
    """Returns a row an effect: of a dataset, of a method, of both, of own rounds beside a dataset."""
    return _frame(
        {
            "effect": effect.of,
            "method": effect.method or ALL,
            ON: DATASETS[effect.dataset] if effect.dataset else ALL,
            **_told(effect.found, single),
        }
        for effect in found.effects
    )


def split_table(split: GainSplit) -> pd.DataFrame:
    """Returns the total of a gain and its parts."""
    titles = {"total": "total", "data": "the data's", "method": "the method's", "both": "both together"}
    return _frame({"part": title, **_told(getattr(split, name), False)} for name, title in titles.items())


def agreement_table(found: Iterable[RankAgreement], single: bool) -> pd.DataFrame:
    """Returns Kendall's and Spearman's agreement of weighted GAUC with each metric of the A/B test."""
    return _frame(
        {
            "A/B metric": TITLES[agreement.metric],
            "agreement": name,
            "policies": agreement.n_policies,
            **_told(value, single),
        }
        for agreement in found
        for name, value in (("Kendall", agreement.kendall), ("Spearman", agreement.spearman))
    )


def ranked(cells: Iterable[Cell], metric: str) -> pd.DataFrame:
    """Returns weighted GAUC and the A/B gain of every policy, a row each."""
    return _frame(
        {
            "method": cell.method,
            ON: DATASETS[cell.dataset],
            "seed": cell.seed,
            "weighted GAUC": cell.gauc,
            "gain": cell.value(metric),
        }
        for cell in cells
        if cell.gauc is not None and cell.value(metric) is not None
    )


def critics_table(cells: Sequence[Cell], metric: str, single: bool) -> pd.DataFrame:
    """Returns a row for each number of critics that was tried."""
    by_number: dict[int, list[Cell]] = {}
    for cell in cells:
        if cell.n_critics is not None:
            by_number.setdefault(cell.n_critics, []).append(cell)
    return _frame(
        {"critics": number, **_told(_over(own, metric), single)} for number, own in sorted(by_number.items())
    )


def personalisation_table(cells: Iterable[Cell], metric: str, single: bool) -> pd.DataFrame:
    """Returns what each policy's users lose under its mean action, and under its mean of each segment."""
    lost: dict[tuple[str, str, str], dict[int, float]] = {}
    for cell in cells:
        for one in cell.personalisation if cell.n_critics is None else ():
            if one.metric == metric and one.relative is not None:
                lost.setdefault((cell.method, cell.dataset, one.to), {})[cell.seed] = one.relative
    return _frame(
        {"method": method, ON: DATASETS[dataset], "under its": to, **_told(over_seeds(by_seed), single)}
        for (method, dataset, to), by_seed in lost.items()
    )


def what_if_table(found: WhatIf, names: Mapping[str, str]) -> pd.DataFrame:
    """Returns weighted GAUC over the weight of a signal, a column for each policy by its name."""
    return pd.DataFrame({"weight": found.weights, **{names[policy]: v for policy, v in found.gaucs.items()}})


def flips_table(found: WhatIf, names: Mapping[str, str]) -> pd.DataFrame:
    """Returns the weights at which two policies change places, lowest first."""
    ordered = sorted(found.flips, key=lambda flip: flip.weight)
    return pd.DataFrame(
        {"from a weight of": flip.weight, "ahead": names[flip.ahead], "of": names[flip.behind]}
        for flip in ordered
    )


def _over(cells: Iterable[Cell], metric: str) -> OverSeeds | None:
    by_seed = {cell.seed: cell.value(metric) for cell in cells}
    return over_seeds({seed: value for seed, value in by_seed.items() if value is not None})


def _told(found: OverSeeds | None, single: bool) -> dict[str, float | None]:
    """Returns the columns of a mean over seeds, with those of each seed where `single` ones are asked for."""
    if found is None:
        return {"mean": None, LOW: None, HIGH: None, "p-value": None}
    each = {f"seed {seed}": value for seed, value in found.by_seed.items()} if single else {}
    return {"mean": found.value, LOW: found.ci_low, HIGH: found.ci_high, "p-value": found.p_value, **each}


def _search(cell: Cell) -> dict[str, str | int | None]:
    """Returns what a search method was told to look for, and what it consumed."""
    consumed = cell.search or {}
    return {
        "fitness": TITLES.get(cell.fitness or "", cell.fitness) or "",
        "evaluations": consumed.get("evaluations"),
        "sessions consumed": consumed.get("sessions_in_all", 0 if cell.search else None),
    }


def _frame(rows: Iterable[dict]) -> pd.DataFrame:
    """Returns rows as a frame in which what is not known is NaN, without columns that say nothing."""
    frame = pd.DataFrame(list(rows))
    numbers = [name for name in frame if frame[name].map(lambda v: v is None or isinstance(v, float)).all()]
    frame = frame.astype(dict.fromkeys(numbers, float)).replace("", np.nan)
    keep = ("mean", LOW, HIGH, "published")
    return frame.drop(columns=[n for n in frame if frame[n].isna().all() and n not in keep])
