"""What policies do on logged requests and how they rank, user by user: in parts that add up to the whole.

A part is of the users whose hash falls into it, and is computed for itself. So the whole has the same bits whoever
computes the parts, in one process or several, and whoever reads which rows.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments import draws
from mtf_engine.evaluation.disagreement import MAX_REQUESTS
from mtf_engine.evaluation.result import GROUPS, Group
from mtf_engine.evaluation.weighted_gauc import WeightedGAUC, weighted_gauc
from mtf_engine.fusion import log_final_score
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies.reading import LoggedActions, logged_actions, logged_states, reading

if TYPE_CHECKING:  # scores need no torch
    from mtf_engine.policies.policy import Policy

CHUNK = 500_000
"""Impressions scored at once."""
PART_ROWS = 200_000
"""Impressions of a part, at least: fewer take no time, and a log of fewer is one part."""
MOST_PARTS = 64

Gaucs = Mapping[Group, WeightedGAUC]
Before = Mapping[Group, NDArray[np.int64]]
"""How many users, and requests, the parts before each have."""


def parts_of(n_impressions: int) -> int:
    """Returns how many parts so many impressions are scored in: a power of two."""
    return min(MOST_PARTS, 1 << max(n_impressions // PART_ROWS, 1).bit_length() - 1)


@dataclass(frozen=True)
class Acted:
    """What one policy does on n requests, or impressions where it has weights for each item, and how it ranks.

    Of q of them, `asked`, it is kept what the critics see, [q, f]; `rank` [q] says which are kept of the whole.
    """

    actions: NDArray[np.float32]  # [n, d]
    gaucs: Gaucs
    differs: tuple[str, ...]
    same_dimensions: bool  # else what was logged of actions and bounds says nothing of it
    asked: NDArray[np.int64]
    rank: draws.Keys
    states: NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """The logged requests of some users, without what policies saw, and what each policy does, by run id.

    `rows` have observations and predictions of width 0; which request an impression is of is kept where a policy has
    weights for each item.
    """

    rows: EvaluationRows
    n_impressions: int
    acted: Mapping[str, Acted]


def scored(
    policies: Mapping[str, "Policy"], rows: EvaluationRows, n_parts: int, critics: Collection[str] = ()
) -> list[Scored]:
    """Returns what the policies do on the rows of whole users, for each of the `n_parts` that has any.

    For the policies named in `critics` it is kept what those are to be asked.
    """
    return [_scored(policies, part, critics) for part in _parts(rows, n_parts)]


def _parts(rows: EvaluationRows, n_parts: int) -> Iterator[EvaluationRows]:
    """Yields the rows of each part that has any; all rows, empty or not, where there is one part."""
    if n_parts == 1:
        yield rows
        return
    of_request = (rows.keys >> np.uint64(64 - (n_parts - 1).bit_length())).astype(np.int64)[rows.user]
    of_impression = of_request[rows.request]
    for part in np.unique(of_request):
        yield rows.of(np.flatnonzero(of_request == part), np.flatnonzero(of_impression == part))


def _scored(policies: Mapping[str, "Policy"], rows: EvaluationRows, critics: Collection[str]) -> Scored:
    acted = {name: _acted(policy, rows, name in critics) for name, policy in policies.items()}
    by_item = any(policy.action_level == "item" for policy in policies.values())
    n = len(rows.request)
    light = replace(
        rows,
        observations=rows.observations[:, :0],
        predictions=np.empty((n if by_item else 0, 0), np.float32),
        request=rows.request if by_item else rows.request[:0],
        reward=rows.reward[:0],
        label=rows.label[:0],
        item_features=None,
    )
    return Scored(light, n, acted)


def _acted(policy: "Policy", rows: EvaluationRows, asked: bool) -> Acted:
    read = reading(policy, rows)
    found = logged_actions(policy, read.rows)
    key = draws.child(rows.keys[:1], len(rows.keys)) if len(rows.keys) else draws.root(0)
    rank = draws.child(key, np.arange(len(found.actions) if asked else 0))
    kept = _lowest(rank)
    return Acted(
        actions=found.actions,
        gaucs=_gaucs(policy, found, read.rows),
        differs=read.differs,
        same_dimensions=policy.fusion.dimensions == rows.fusion.dimensions,
        asked=kept,
        rank=rank[kept],
        states=logged_states(policy, read.rows, kept),
    )


def _lowest(rank: draws.Keys) -> NDArray[np.int64]:
    """Returns the places of the lowest MAX_REQUESTS of `rank` [n], in order of place."""
    if len(rank) <= MAX_REQUESTS:
        return np.arange(len(rank))
    return np.sort(np.argpartition(rank, MAX_REQUESTS)[:MAX_REQUESTS])


def _gaucs(policy: "Policy", acted: LoggedActions, rows: EvaluationRows) -> Gaucs:
    """Returns the weighted GAUC of the log final scores under the actions, computed in float64."""
    scores = np.empty(len(rows.request))
    for start in range(0, len(scores), CHUNK):
        part = slice(start, start + CHUNK)
        predictions = rows.predictions[part].astype(np.float64)
        actions = acted.actions[acted.own[part]]
        scores[part] = log_final_score(policy.fusion, actions, predictions, typical=acted.typical)
    groups = {"user": rows.impression_user, "request": rows.request}
    return {group: weighted_gauc(scores, rows.label, rows.reward + 1, groups[group]) for group in GROUPS}


def together(parts: Sequence[Scored]) -> Scored:
    """Returns the whole of parts that have no user in common, in their order."""
    if len(parts) == 1:
        return parts[0]
    n_requests = [len(part.rows.request_id) for part in parts]
    n_users = [len(part.rows.keys) for part in parts]
    before: Before = {
        "user": np.cumsum([0, *n_users[:-1]]),
        "request": np.cumsum([0, *n_requests[:-1]]),
    }

    def joined(of: Callable[[Scored], NDArray]) -> NDArray:
        return np.concatenate([of(part) for part in parts])

    def numbered(of: Callable[[Scored], NDArray], group: Group) -> NDArray:
        return np.concatenate([of(part) + n for part, n in zip(parts, before[group], strict=True)])

    rows = replace(
        parts[0].rows,
        request_id=joined(lambda part: part.rows.request_id),
        user=numbered(lambda part: part.rows.user, "user"),
        user_keys=joined(lambda part: part.rows.keys),
        segment=joined(lambda part: part.rows.segment),
        observations=joined(lambda part: part.rows.observations),
        predictions=joined(lambda part: part.rows.predictions),
        request=numbered(lambda part: part.rows.request, "request"),
        baseline_actions=_known([part.rows.baseline_actions for part in parts], n_requests),
        lower=_known([part.rows.lower for part in parts], n_requests),
        upper=_known([part.rows.upper for part in parts], n_requests),
    )
    acted = {name: _joined([part.acted[name] for part in parts], before) for name in parts[0].acted}
    return Scored(rows, sum(part.n_impressions for part in parts), acted)


def _known(parts: Sequence[NDArray | None], n_requests: Sequence[int]) -> NDArray | None:
    """Returns a column of requests whose parts may not have it; NaN where one has not, None where none has."""
    width = next((part.shape[1] for part in parts if part is not None), None)
    if width is None:
        return None
    filled = [
        np.full((n, width), np.nan, np.float32) if part is None else part
        for part, n in zip(parts, n_requests, strict=True)
    ]
    return np.concatenate(filled)


def _joined(parts: Sequence[Acted], before: Before) -> Acted:
    starts = np.cumsum([0, *(len(part.actions) for part in parts[:-1])])
    asked = np.concatenate([part.asked + start for part, start in zip(parts, starts, strict=True)])
    rank = np.concatenate([part.rank for part in parts])
    kept = _lowest(rank)
    return Acted(
        actions=np.concatenate([part.actions for part in parts]),
        gaucs={group: _whole([part.gaucs[group] for part in parts], before[group]) for group in GROUPS},
        differs=parts[0].differs,
        same_dimensions=parts[0].same_dimensions,
        asked=asked[kept],
        rank=rank[kept],
        states=np.concatenate([part.states for part in parts])[kept],
    )


def _whole(parts: Sequence[WeightedGAUC], before: NDArray[np.int64]) -> WeightedGAUC:
    return WeightedGAUC.of_groups(
        np.concatenate([part.keys + n for part, n in zip(parts, before, strict=True)]),
        np.concatenate([part.aucs for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )
