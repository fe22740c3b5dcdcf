"""What policies do on logged requests and how they rank, user by user: in parts that add up to the whole.

A part is of users who follow each other in the order of the log, and is computed for itself. So the whole has the same
bits whoever computes the parts, in one process or several, and whoever reads which rows. What is kept of a part does
not grow with its rows: sums, counts, bootstrap draws and samples.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mtf_engine.environments import draws
from mtf_engine.evaluation.bootstrap import DrawnSums, by_key, drawn_sums, user_sums
from mtf_engine.evaluation.deviation import LEAST_SAMPLED, MOST_SAMPLED, Bounds, Tally
from mtf_engine.evaluation.disagreement import MAX_REQUESTS
from mtf_engine.evaluation.result import GROUPS, Group
from mtf_engine.evaluation.sample import Sample
from mtf_engine.evaluation.segments import Segments
from mtf_engine.evaluation.weighted_gauc import GaucSums, WeightedGAUC, weighted_gauc
from mtf_engine.fusion import log_final_score
from mtf_engine.logs.schema import EvaluationRows, EvaluationWhole
from mtf_engine.policies.reading import LoggedActions, logged_actions, logged_states, reading
from mtf_engine.spec import BoundsPlan

if TYPE_CHECKING:  # scores need no torch
    from mtf_engine.policies.policy import Policy

CHUNK = 500_000
"""Impressions scored at once."""
PART_ROWS = 200_000
"""Impressions of a part, at least: fewer take no time, and a log of fewer is one part."""
MOST_PARTS = 65_536

Gaucs = Mapping[Group, WeightedGAUC]


def parts_of(n_impressions: int) -> int:
    """Returns how many parts so many impressions are scored in: a power of two."""
    return min(MOST_PARTS, 1 << max(n_impressions // PART_ROWS, 1).bit_length() - 1)


@dataclass(frozen=True)
class Scoring:
    """How the rows of an evaluation are scored, the same for all its parts."""

    whole: EvaluationWhole
    n_parts: int
    seed: int = 0
    n_bootstrap: int = 1_000

    @classmethod
    def of(cls, whole: EvaluationWhole, seed: int = 0, n_bootstrap: int = 1_000) -> "Scoring":
        """Returns how so many rows are scored."""
        return cls(whole, parts_of(whole.n_impressions), seed, n_bootstrap)


@dataclass(frozen=True)
class Acted:
    """What one policy does on requests, or impressions where it has weights for each item, and how it ranks.

    There is an entry for everyone, and behind it one for each segment where several are told apart. `deviating` samples
    `drift`, and `lower` and `upper` where the bounds are known; `asked` what critics are asked.
    """

    gaucs: Mapping[Group, tuple[GaucSums, ...]]
    tallies: tuple[Tally, ...]
    deviating: Sample
    differs: tuple[str, ...]
    asked: Sample | None


@dataclass(frozen=True)
class Scored:
    """What policies do on the logged requests of some users, by run id.

    `draws` are of the policies by user, and behind them by request.
    """

    split: str
    segments: tuple[str, ...]
    logged: tuple[str, ...]
    n_requests: int
    n_impressions: int
    n_users: int
    draws: DrawnSums
    acted: Mapping[str, Acted]


def scored(
    policies: Mapping[str, "Policy"],
    rows: EvaluationRows,
    how: Scoring,
    critics: Collection[str] = (),
    before: int = 0,
) -> Iterator[Scored]:
    """Yields what the policies do on the rows of whole parts, for each of the parts that has any.

    For the policies named in `critics` it is kept what those are to be asked. `before` is how many impressions the
    parts before these have.
    """
    for part in _parts(rows.with_logged(how.whole.logged), how, before):
        yield _scored(policies, part, how, critics)


def _parts(rows: EvaluationRows, how: Scoring, before: int) -> Iterator[EvaluationRows]:
    """Yields the rows of each part that has any; all rows, empty or not, where there is one part."""
    if how.n_parts == 1:
        yield rows
        return
    sizes = np.bincount(rows.impression_user, minlength=len(rows.keys))
    starts = before + np.cumsum(sizes) - sizes
    of_request = (starts * how.n_parts // how.whole.n_impressions)[rows.user]
    of_impression = of_request[rows.request]
    for part in np.unique(of_request):
        yield rows.of(np.flatnonzero(of_request == part), np.flatnonzero(of_impression == part))


def _scored(
    policies: Mapping[str, "Policy"], rows: EvaluationRows, how: Scoring, critics: Collection[str]
) -> Scored:
    segments = Segments.of(rows, how.whole.segments)
    found = {name: _acted(policy, rows, segments, name in critics) for name, policy in policies.items()}
    return Scored(
        split=rows.split,
        segments=segments.told_apart,
        logged=how.whole.logged,
        n_requests=len(rows.request_id),
        n_impressions=len(rows.request),
        n_users=len(np.unique(rows.user)),
        draws=_drawn([gaucs for _, gaucs in found.values()], rows, segments, how),
        acted={name: acted for name, (acted, _) in found.items()},
    )


def _drawn(found: Sequence[Gaucs], rows: EvaluationRows, segments: Segments, how: Scoring) -> DrawnSums:
    """Returns bootstrap draws of the weighted GAUCs by user, then of those by request.

    A user's counts depend on its id and the seed alone, not on who else is there nor in which order.
    """
    n_users = len(segments.of_user)
    sums = [
        user_sums(gaucs[group], user_of, n_users)
        for group, user_of in _user_of(rows, segments).items()
        for gaucs in found
    ]
    numerators, denominators = (np.stack(part) for part in zip(*sums, strict=True))
    counts, n_parts = by_key(rows.keys, how.seed), max(1, len(segments.names))
    return drawn_sums(numerators, denominators, segments.of_user, n_parts, how.n_bootstrap, counts)


def _user_of(rows: EvaluationRows, segments: Segments) -> dict[Group, NDArray[np.int64]]:
    """Returns the user of each group key."""
    return {"user": np.arange(len(segments.of_user)), "request": rows.user}


def _acted(policy: "Policy", rows: EvaluationRows, segments: Segments, is_asked: bool) -> tuple[Acted, Gaucs]:
    """Returns what a policy does on rows, and how it ranks them; `is_asked`: with what its critics are asked."""
    read = reading(policy, rows)
    found = logged_actions(policy, read.rows)
    gaucs = _gaucs(policy, found, read.rows)
    baseline_actions, bounds = _context(policy, rows)
    of_user = segments.of_user
    if policy.action_level == "item":
        baseline_actions = baseline_actions[rows.request]
        bounds = bounds and (bounds[0][rows.request], bounds[1][rows.request])
        segments = segments.among(rows.request)
    key = draws.child(rows.keys[:1], len(rows.keys)) if len(rows.keys) else draws.root(0)
    rank, drift = draws.child(key, np.arange(len(found.actions))), found.actions - baseline_actions
    known = dict(zip(("lower", "upper"), bounds, strict=True)) if bounds else {}

    def sample(columns: Mapping[str, NDArray], most: int, least: int = 0) -> Sample:
        return Sample(rank, segments.of_request, columns, most, least).kept()

    asked = None
    if is_asked and bounds:
        asked = sample(
            {"place": np.arange(len(rank)), "baseline_actions": baseline_actions, **known}, MAX_REQUESTS
        )
        place = asked.columns["place"]
        seen = {"observations": logged_states(policy, read.rows, place), "actions": found.actions[place]}
        asked = replace(asked, columns=dict(asked.columns) | seen)
    acted = Acted(
        gaucs={
            group: _by_segment(gaucs[group], of_user[user_of], segments)
            for group, user_of in _user_of(rows, segments).items()
        },
        tallies=tuple(
            Tally.of(drift[part], bounds and (bounds[0][part], bounds[1][part]))
            for part in (slice(None), *(segments.of_request == s for s in range(len(segments.told_apart))))
        ),
        deviating=sample({"drift": drift, **known}, MOST_SAMPLED, LEAST_SAMPLED),
        differs=read.differs,
        asked=asked,
    )
    return acted, gaucs


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


def _by_segment(gauc: WeightedGAUC, of_group: NDArray[np.int64], segments: Segments) -> tuple[GaucSums, ...]:
    """Returns the sums of everyone and of each segment; `of_group` [n_keys] is the segment of each group key."""
    segment = of_group[gauc.keys]
    return gauc.sums, *(gauc.among(segment == s).sums for s in range(len(segments.told_apart)))


def _context(policy: "Policy", rows: EvaluationRows) -> tuple[NDArray[np.float32], Bounds]:
    """Returns baseline actions [r, d], 0 where none are logged; bounds as logged, else by the policy's plan."""
    is_logged = (
        policy.fusion.dimensions == rows.fusion.dimensions
    )  # else the log's say nothing of this policy
    if is_logged and rows.baseline_actions is not None:
        baseline_actions = rows.baseline_actions
    else:
        baseline_actions = np.zeros((len(rows.observations), policy.fusion.n_actions), np.float32)
    if is_logged and rows.lower is not None and rows.upper is not None:
        return baseline_actions, (rows.lower, rows.upper)
    if policy.info.get("plan") is None:
        return baseline_actions, None
    plan = BoundsPlan.model_validate(policy.info["plan"])
    return baseline_actions, plan.resolve(baseline_actions, rows.segment)


def together(parts: Sequence[Scored]) -> Scored:
    """Returns the whole of parts that have no user in common, in their order."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        n_requests=sum(part.n_requests for part in parts),
        n_impressions=sum(part.n_impressions for part in parts),
        n_users=sum(part.n_users for part in parts),
        draws=reduce(add, (part.draws for part in parts)),
        acted={name: _joined([part.acted[name] for part in parts]) for name in parts[0].acted},
    )


def _joined(parts: Sequence[Acted]) -> Acted:
    asked = [part.asked for part in parts if part.asked]
    return replace(
        parts[0],
        gaucs={
            group: tuple(reduce(add, of) for of in zip(*(part.gaucs[group] for part in parts), strict=True))
            for group in GROUPS
        },
        tallies=tuple(reduce(add, of) for of in zip(*(part.tallies for part in parts), strict=True)),
        deviating=Sample.of([part.deviating for part in parts]),
        asked=Sample.of(asked) if asked else None,
    )
