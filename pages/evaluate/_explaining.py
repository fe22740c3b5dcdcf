"""One explained request as the frames that its charts and tables show."""

import numpy as np
import pandas as pd

from mtf_engine.evaluation.explain import LOGGED, Explanation, LoggedRequest
from mtf_engine.registry import BASELINE
from pages.shared import results

OWN = "the log's own"
SHOWN = "as shown"
WATCHED, SHORT, UNSEEN = "watched", "shown, not watched", "not shown"


def frames(
    explanation: Explanation, request: LoggedRequest, runs: results.Runs
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns weights and ranking with the policies' names and methods, and what the user `did` with an item.

    Weights tell of which item they are where a policy has weights for each. A log without actions has no ranking of its
    own: there, the order in which items were shown comes first.
    """
    weights, ranking = (_named(frame, runs) for frame in (explanation.weights, explanation.ranking))
    if weights["item"].isna().all():
        weights = weights.drop(columns="item")
    else:
        weights["item"] = weights["item"].map(request.items["item_id"])
    if LOGGED not in set(explanation.ranking["policy"]):
        ranking = pd.concat([_as_shown(request), ranking], ignore_index=True)
    return weights, ranking.assign(did=_did(request)[ranking["item"]])


def _named(frame: pd.DataFrame, runs: results.Runs) -> pd.DataFrame:
    names = {name: results.named(name, runs) for name in frame["policy"].unique()}
    names[LOGGED] = {"policy": OWN, "algo": BASELINE}
    return frame.assign(
        policy=frame["policy"].map(lambda name: names[name]["policy"]),
        algo=frame["policy"].map(lambda name: names[name]["algo"]),
    )


def _as_shown(request: LoggedRequest) -> pd.DataFrame:
    shown = request.items[request.items["position"].notna()]
    rank = shown["position"].astype(int) + 1
    return pd.DataFrame(
        {"policy": SHOWN, "algo": BASELINE, "item": shown.index, "item_id": shown["item_id"], "rank": rank}
    )


def _did(request: LoggedRequest) -> np.ndarray:
    """Returns what became of each item of the request, in words."""
    shown, label = request.items["position"].notna(), request.items["label"].eq(True)
    return np.where(shown, np.where(label, WATCHED, SHORT), UNSEEN)


def item_table(request: LoggedRequest, ranking: pd.DataFrame) -> pd.DataFrame:
    """Returns one row an item: where it was shown, what the user did, predictions, ranks and scores."""
    position = (request.items["position"] + 1).astype("Int64")
    predictions = pd.DataFrame(request.predictions, columns=list(request.meta.fusion.predictions))
    scored = ranking[ranking["policy"] != SHOWN]
    by_policy = scored.pivot(index="item", columns="policy", values=["rank", "score"])
    by_policy.columns = [f"{what}, {policy}" for what, policy in by_policy.columns]
    items = request.items.drop(columns="label").assign(position=position, did=_did(request))
    return pd.concat([items, predictions.add_prefix("predicted "), by_policy], axis=1)


def item_titles(ranking: pd.DataFrame) -> dict[str, str]:
    """Returns what to call each item, by its row; first the one whose rank differs most between policies."""
    ranks = ranking.groupby("item")["rank"]
    moved = (ranks.max() - ranks.min()).sort_values(ascending=False, kind="stable")
    told = ranking.drop_duplicates("item").set_index("item").loc[moved.index]
    return {
        str(row): f"{item_id} · {did} · rank differs by {by}"
        for row, item_id, did, by in zip(moved.index, told["item_id"], told["did"], moved, strict=True)
    }


def contributions(ranking: pd.DataFrame, item: int) -> pd.DataFrame:
    """Returns what each prediction adds to the score of one item above the mean of its list, by policy."""
    parts = [name for name in ranking if name.startswith("part ")]
    scored = ranking.dropna(subset=parts)
    above = scored[parts] - scored.groupby("policy")[parts].transform("mean")
    one = pd.concat([scored[["policy", "algo", "item"]], above], axis=1)
    long = one[one["item"] == item].melt(["policy", "algo"], parts, var_name="prediction", value_name="above")
    return long.assign(prediction=long["prediction"].str.removeprefix("part "))
