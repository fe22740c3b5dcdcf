"""A uniform log as a narrower plan would have left it: rows inside its boxes keep their actions, others their place.

A request outside stays, without its action: it is no step to learn from, and what the step before it leads to.
"""

from collections.abc import Iterator

import numpy as np

from mtf_engine.exploration.sub_box import density, inside, narrower
from mtf_engine.logs.datasets import TABLES, Dataset
from mtf_engine.logs.joining import CHUNK, table_rows
from mtf_engine.logs.schema import Columns, DatasetMeta, Tables
from mtf_engine.spec import BoundsPlan, Refusal

NARROWED = "narrowed_from"
"""Where the details of a narrowed log name the one that it is of."""


def narrowed_meta(meta: DatasetMeta, dataset_id: str, name: str, plan: BoundsPlan) -> DatasetMeta:
    """Returns the meta data of the narrowed log; refused where the log's actions were not drawn evenly in its boxes."""
    if meta.exploration != "uniform":
        raise Refusal(
            f"{meta.name} was not explored uniformly ({meta.exploration}), so what a narrower plan would have drawn is "
            "not in it; name a log of --explore uniform"
        )
    if meta.plan is not None and meta.plan.edge == "clip":
        raise Refusal(
            f"{meta.name} clips its actions, which pile up at the ends; name a log whose boxes are cut"
        )
    if plan.n_actions != meta.fusion.n_actions:
        raise Refusal(
            f"the plan has {plan.n_actions} dimensions, the actions of {meta.name} {meta.fusion.n_actions}"
        )
    held = plan if meta.plan is None else narrower(plan, meta.plan)
    details = {**meta.details, NARROWED: dataset_id}
    return meta.model_copy(update={"name": name, "plan": held, "details": details})


def refuse_narrowed(meta: DatasetMeta, what: str) -> None:
    """Refuses what needs whole sessions of a log whose sessions were played in wider boxes than it says."""
    if source := meta.details.get(NARROWED):
        raise Refusal(
            f"{meta.name} is {source} narrowed, so its sessions lack actions; {what} {source} itself"
        )


def narrowed(log: Dataset, plan: BoundsPlan) -> Iterator[Tables]:
    """Yields the rows of a uniform log with the bounds of `plan`, and without the actions that lie outside."""
    last = int(log.arrays("SELECT max(request_id) AS request FROM requests")["request"][0])
    for start in range(0, last + 1, CHUNK):
        requests, impressions, candidates = (table_rows(log, table, start) for table in TABLES)
        if requests and impressions:
            yield Tables(_narrowed(requests, plan), impressions, candidates)


def _narrowed(requests: Columns, plan: BoundsPlan) -> Columns:
    explored = ~np.isnan(requests["pscore"])
    offsets = requests["action"] - requests["baseline_action"]
    kept, lower, upper = inside(offsets, requests["lower"], requests["upper"], requests["segment"], plan)
    out = explored & ~kept
    apart = ((upper <= lower) & (requests["upper"] > requests["lower"])).any(axis=1)
    lower[apart], upper[apart] = requests["lower"][apart], requests["upper"][apart]
    action, pscore = requests["action"].copy(), requests["pscore"].copy()
    action[out], pscore[out] = np.nan, np.nan
    pscore[explored & kept] = density(lower, upper)[explored & kept]
    return {**requests, "action": action, "pscore": pscore, "lower": lower, "upper": upper}
