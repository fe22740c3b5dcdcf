"""How a policy reads a log whose features or predictions differ from those that it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments import Acting, ActingOnItems
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.observation import MISSING, item_states
from mtf_engine.spec import Refusal

if TYPE_CHECKING:  # names need no torch
    from mtf_engine.policies.policy import Policy

NAMED = 5
"""Names that a sentence lists."""


CHUNK = 500_000
"""Impressions acted on at once."""


class LoggedActions(NamedTuple):
    """What a policy does on logged rows, one action a request, or one an impression; as scores are computed of it."""

    actions: NDArray[np.float32]  # [n, d]
    own: NDArray[np.int64]  # [m], the number of each impression's
    typical: NDArray[np.float32] | None = None  # [p], where items have weights of their own


def logged_actions(policy: "Acting", rows: EvaluationRows) -> LoggedActions:
    """Returns the actions of `policy` on logged rows."""
    wanted = getattr(policy, "item_names", ())
    if not wanted:
        return LoggedActions(policy.act(rows.observations), rows.request)
    items = item_states(
        wanted, rows.item_names, rows.item_features, rows.fusion.predictions, rows.predictions
    )
    parts = [slice(start, start + CHUNK) for start in range(0, len(items), CHUNK)]
    on_items = cast("ActingOnItems", policy)
    acted = [on_items.act_on(rows.observations[rows.request[part]], items[part]) for part in parts]
    nothing = np.empty((0, rows.fusion.n_actions), np.float32)
    return LoggedActions(np.concatenate([nothing, *acted]), np.arange(len(items)), on_items.typical)


def logged_states(policy: "Policy", rows: EvaluationRows, asked: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns what the critics of `policy` see of some of its `logged_actions`: observations, items behind them."""
    if not policy.item_names:
        return rows.observations[asked]
    features = None if rows.item_features is None else rows.item_features[asked]
    items = item_states(
        policy.item_names, rows.item_names, features, rows.fusion.predictions, rows.predictions[asked]
    )
    return np.concatenate([rows.observations[rows.request[asked]], items], axis=1)


@dataclass(frozen=True)
class Reading:
    """The rows of a log as a policy reads them, and what differs between the two, as sentences."""

    rows: EvaluationRows
    differs: tuple[str, ...] = ()


def reading(policy: "Policy", rows: EvaluationRows) -> Reading:
    """Returns `rows` with the features and predictions of `policy`, by their names.

    A category that the log has not is 0 for all, and one that the policy does not know is missing. What else the
    log has beside is left out. A Refusal names the features and predictions that it lacks: without them the policy
    cannot act, and nothing could stand for them.
    """
    fusion = policy.fusion
    if (fusion, policy.feature_names) == (rows.fusion, rows.feature_names):
        return Reading(rows)
    observations, differs = _observations(policy.feature_names, rows)
    theirs = rows.fusion.predictions
    if lacking := [name for name in fusion.predictions if name not in theirs]:
        raise _lacks("predictions", lacking)
    if over := [name for name in theirs if name not in fusion.predictions]:
        differs.append(f"predictions that the policy does not fuse: {_listed(over)}")
    if fusion.predictions != theirs:
        predictions = rows.predictions[:, [theirs.index(name) for name in fusion.predictions]]
    else:
        predictions = rows.predictions
    read = replace(
        rows,
        observations=observations,
        predictions=predictions,
        feature_names=policy.feature_names,
        fusion=fusion,
    )
    if fusion.dimensions != rows.fusion.dimensions:
        read = replace(read, baseline_actions=None, lower=None, upper=None)
        differs.append(
            "the log's fusion has other dimensions or ranges: its actions and bounds say nothing here"
        )
    return Reading(read, tuple(differs))


def _observations(wanted: Sequence[str], rows: EvaluationRows) -> tuple[NDArray[np.float32], list[str]]:
    """Returns the observations [r, f] of the features `wanted`, and what differs; refused is what cannot be had."""
    theirs = {name: column for column, name in enumerate(rows.feature_names)}
    if tuple(theirs) == tuple(wanted):
        return rows.observations, []
    ending = f"={MISSING}"
    one_hot = {name.removesuffix(ending) for name in theirs if name.endswith(ending)} & {
        name.removesuffix(ending) for name in wanted if name.endswith(ending)
    }
    absent = [name for name in wanted if name not in theirs]
    if lacking := [name for name in absent if name.partition("=")[0] not in one_hot]:
        raise _lacks("features", lacking)
    over = [name for name in theirs if name not in wanted]
    unknown = [name for name in over if name.partition("=")[0] in one_hot]
    read = np.zeros((len(rows.observations), len(wanted)), np.float32)
    for column, name in enumerate(wanted):
        if name in theirs:
            read[:, column] = rows.observations[:, theirs[name]]
    for name in unknown:
        read[:, wanted.index(name.partition("=")[0] + ending)] += rows.observations[:, theirs[name]]
    beside = [name for name in over if name not in unknown]
    told = (
        (absent, "categories that the log has not, 0 for all"),
        (unknown, "categories that the policy does not know, read as missing"),
        (beside, "features that the policy does not read"),
    )
    return read, [f"{what}: {_listed(names)}" for names, what in told if names]


def _lacks(what: str, names: Sequence[str]) -> Refusal:
    return Refusal(
        f"the policy and the data differ in their {what}: the data lacks {_listed(names)}; import the log like "
        "the one that the policy was trained on (dataset import --like)"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
