"""One request explained: what each policy makes of its items, beside what was shown and what the user did."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mtf_engine.fusion import log_parts
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.schema import DatasetMeta
from mtf_engine.observation import item_states
from mtf_engine.spec import FusionSpec, Refusal

if TYPE_CHECKING:  # reading a request needs no torch
    from mtf_engine.policies.policy import Policy

LOGGED = "logged"
"""What the log itself did, listed like a policy where the log has actions."""


@dataclass(frozen=True)
class LoggedRequest:
    """One request of a log: who asked and when, what was shown, and what came of it.

    `items` has one row an item, the shown ones by position, then the candidates that nobody saw, whose
    position, signals, reward and label are missing: item_id, position, the signals, reward, label.
    """

    facts: dict[str, Any]
    observation: np.ndarray  # [f]
    action: np.ndarray | None  # [d], None in a log without actions
    items: pd.DataFrame
    predictions: np.ndarray  # [k, p], in the order of `items`
    item_features: np.ndarray | None  # [k, item features]
    meta: DatasetMeta


@dataclass(frozen=True)
class Explanation:
    """Why items stand where they stand, by policy.

    `weights` has one row a policy and dimension, and item where the policy has weights for each item: policy, item
    (its row in the request's items, missing where the weights are all items'), dimension, kind, prediction, action (in
    [-1, 1]), weight (the real pow or bias), low, high. `ranking` has one row a policy and item: policy, item (its row
    in the request's items), item_id, score (log final score), rank (1 is first, ties share the lowest), and
    in `part <prediction>` what each prediction adds to the score.
    """

    weights: pd.DataFrame
    ranking: pd.DataFrame


def draw_request(dataset: Dataset, generator: np.random.Generator) -> int:
    """Returns the id of a request drawn at random, where possible one whose candidates were all kept."""
    if _has_candidates(dataset):
        kept = dataset.arrays("SELECT DISTINCT request_id FROM candidates ORDER BY request_id")["request_id"]
        return int(generator.choice(kept))
    place = int(generator.integers(dataset.n_requests))
    nth = "SELECT request_id FROM requests ORDER BY user_id, request_id LIMIT 1 OFFSET ?"
    return int(dataset.query(nth, [place])["request_id"][0])


def read_request(dataset: Dataset, request_id: int) -> LoggedRequest:
    """Returns a request with its impressions, and its other candidates where they were kept."""
    found = dataset.arrays(
        "SELECT request_id, user_id, session_id, step, timestamp, split, segment, reward, "
        "observation, action FROM requests WHERE request_id = ?",
        [request_id],
    )
    if not len(found["request_id"]):
        raise Refusal(f"the dataset {dataset.meta.name} has no request {request_id}; draw one to see its ids")
    facts = {name: column[0] for name, column in found.items() if column.ndim == 1}
    shown = dataset.arrays(
        "SELECT * EXCLUDE (request_id, user_id) FROM impressions WHERE user_id = ? AND request_id = ? "
        "ORDER BY position",
        [facts["user_id"], request_id],
    )
    unseen = _unseen(dataset, request_id, shown)
    columns = ("item_id", "position", *dataset.meta.signals, "reward", "label")
    items = pd.concat(
        [pd.DataFrame({name: shown[name] for name in columns}), pd.DataFrame({"item_id": unseen["item_id"]})],
        ignore_index=True,
    )
    return LoggedRequest(
        facts=facts,
        observation=found["observation"][0],
        action=None if np.isnan(found["action"]).any() else found["action"][0],
        items=items,
        predictions=np.concatenate([shown["predictions"], unseen["predictions"]]),
        item_features=np.concatenate([shown["item_features"], unseen["item_features"]])
        if dataset.meta.item_features
        else None,
        meta=dataset.meta,
    )


def explain(policies: Mapping[str, "Policy"], request: LoggedRequest) -> Explanation:
    """Returns the weights that each policy gives this request, or each item of it, and how its items rank under them.

    The log's own action is listed first, as `logged`, where it has one. A policy with other features or
    another fusion than the log is refused.
    """
    fusion = request.meta.fusion
    actions = {} if request.action is None else {LOGGED: request.action[None]}
    for name, policy in policies.items():
        policy.check(fusion, request.meta.feature_names)
        actions[name] = _actions(policy, request)
    typical = {name: policy.typical for name, policy in policies.items()}
    return Explanation(
        weights=pd.concat([_weights(name, fusion, a) for name, a in actions.items()], ignore_index=True),
        ranking=pd.concat(
            [_ranking(name, request, a, typical.get(name)) for name, a in actions.items()], ignore_index=True
        ),
    )


def _actions(policy: "Policy", request: LoggedRequest) -> np.ndarray:
    """Returns one action for all items, [1, d], or one for each, [k, d]."""
    if policy.action_level == "request":
        return policy.act(request.observation[None])
    meta = request.meta
    items = item_states(
        policy.item_names,
        meta.item_features,
        request.item_features,
        meta.fusion.predictions,
        request.predictions,
    )
    return policy.act_on(request.observation[None], items[None])[0]


def _weights(name: str, fusion: FusionSpec, actions: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "policy": name,
            "item": pd.NA if len(actions) == 1 else item,
            "dimension": dimension.name,
            "kind": dimension.kind,
            "prediction": dimension.prediction,
            "action": value,
            "weight": (dimension.high + dimension.low) / 2 + value * (dimension.high - dimension.low) / 2,
            "low": dimension.low,
            "high": dimension.high,
        }
        for item, action in enumerate(actions.astype(float))
        for dimension, value in zip(fusion.dimensions, action, strict=True)
    ).astype({"item": "Int64"})


def _ranking(
    name: str, request: LoggedRequest, actions: np.ndarray, typical: np.ndarray | None
) -> pd.DataFrame:
    fusion, predictions = request.meta.fusion, request.predictions.astype(np.float64)
    parts = log_parts(fusion, actions, predictions, typical=typical)  # [k, p]
    score = parts.sum(axis=1)
    return pd.DataFrame(
        {
            "policy": name,
            "item": np.arange(len(score)),
            "item_id": request.items["item_id"],
            "score": score,
            "rank": pd.Series(score).rank(method="min", ascending=False).astype(int),
            **{f"part {p}": parts[:, i] for i, p in enumerate(fusion.predictions)},
        }
    )


def _has_candidates(dataset: Dataset) -> bool:
    return "candidates" in dataset.tables


def _unseen(dataset: Dataset, request_id: int, shown: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns item_id and predictions of the candidates that are not `shown`; of none where none are kept."""
    names = ("item_id", "predictions", *(("item_features",) if dataset.meta.item_features else ()))
    if not _has_candidates(dataset):
        return {name: shown[name][:0] for name in names}
    sql = f"SELECT {', '.join(names)} FROM candidates WHERE request_id = ? ORDER BY item_id"
    offered = dataset.arrays(sql, [request_id])
    rest = ~np.isin(offered["item_id"], shown["item_id"])
    return {name: offered[name][rest] for name in names}
