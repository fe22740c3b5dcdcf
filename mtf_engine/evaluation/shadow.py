"""The shadow diff: what a candidate would rank otherwise than the live policy, on requests that were logged."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.evaluation.bootstrap import bootstrap_by_part, in_turn, interval
from mtf_engine.evaluation.segments import Segments
from mtf_engine.fusion import LogPredictions
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.policies.reading import reading
from mtf_engine.spec import Refusal, Spec

if TYPE_CHECKING:  # what is asked of a result needs no torch
    from mtf_engine.policies.policy import Policy

Source = Literal["candidates", "impressions"]
TOP_K, DECILES, MOST = 10, 10, 50
"""Places that are compared where lists are long enough, parts of a prediction's values, and requests that are told."""
SHARES = np.linspace(0, 1, DECILES + 1)


class Estimate(Spec):
    """A mean over requests, with its 95 % interval by a bootstrap over users; None where fewer than two are there."""

    value: float
    ci_low: float | None
    ci_high: float | None


class Shift(Spec):
    """What a figure is under either policy, and candidate minus live, paired by request."""

    live: float
    candidate: float
    difference: Estimate


class AttributeShift(Shift):
    """Which share of the top places goes to the items of one tenth of a prediction's values, [low, high)."""

    prediction: str
    decile: int = Field(description="1 holds the lowest values")
    low: float
    high: float


class SegmentShift(Spec):
    """The overlap and the shift of the mean log score among the users of one segment."""

    segment: str
    n_requests: int
    overlap: Estimate
    score_mean: Estimate


class MovedRequest(Spec):
    """A request that the two rank otherwise: what their top k have in common, and how far an item moves on average."""

    request_id: int
    segment: str
    n_items: int
    overlap: float
    places_moved: float


class Shadow(Spec):
    """Candidate against live on the same lists; lists of `top_k` items or fewer are left out: they have one top k."""

    source: Source = Field(description="all candidates of the requests that kept them, else what was shown")
    split: str
    top_k: int
    n_requests: int
    n_left_out: int
    n_users: int
    overlap: Estimate = Field(description="share of the live top k that the candidate's holds, too")
    in_common: tuple[float, ...] = Field(
        description="share of requests whose tops have 0, 1, ..., k in common"
    )
    same_first: Estimate = Field(description="share of requests with the same item on top")
    score_mean: Shift = Field(description="of the log final score, the mean over a request's items")
    score_spread: Shift = Field(description="its standard deviation within a request")
    segments: tuple[SegmentShift, ...]
    attributes: tuple[AttributeShift, ...]
    requests: tuple[MovedRequest, ...] = Field(description="those that differ most, at most 50")
    differs: tuple[str, ...] = Field(default=(), description="how a policy reads a log that is not its own")


def shadow(
    candidate: "Policy",
    live: "Policy",
    rows: EvaluationRows,
    *,
    source: Source = "impressions",
    top_k: int | None = None,
    seed: int = 0,
    n_bootstrap: int = 1_000,
) -> Shadow:
    """Returns how `candidate` ranks the lists in `rows` beside `live`, each by its log final score (formula 1).

    Items that tie stand in the order of the list, under both alike. Without `top_k` it is 10, or half of the middle
    list's length where that is less. Intervals are of `n_bootstrap` Poisson bootstrap draws over users.
    """
    sizes = np.bincount(rows.request, minlength=len(rows.request_id))
    k = top_k or _half_a_list(sizes)
    kept = np.flatnonzero(sizes > k)
    if not len(kept):
        raise Refusal(
            f"no request of this log has more than {k} items, so the top {k} of all policies are the same; "
            f"ask for fewer places than the {sizes.max(initial=0)} items of the longest list (--top-k)"
        )
    readings = [reading(policy, rows) for policy in (candidate, live)]
    new, old = (
        Ranking.of(policy, read.rows, sizes) for policy, read in zip((candidate, live), readings, strict=True)
    )
    segments = Segments.of(rows, rows.whole.segments)
    by_user = ByUser(rows.user[kept], segments, seed, n_bootstrap)

    def per_request(values: NDArray) -> NDArray[Any]:
        return np.bincount(rows.request, values, len(sizes))[kept]

    in_both = per_request((new.rank < k) & (old.rank < k))
    moved = per_request(np.abs(new.rank - old.rank)) / sizes[kept]
    first = per_request((new.rank == 0) & (old.rank == 0))
    overlap, overlaps = by_user.parts(in_both / k)
    score_mean, score_means = by_user.shift(old.mean[kept], new.mean[kept])
    by_segment = zip(segments.told_apart, by_user.counts, overlaps, score_means, strict=False)
    return Shadow(
        source=source,
        split=rows.split,
        top_k=k,
        n_requests=len(kept),
        n_left_out=len(sizes) - len(kept),
        n_users=len(np.unique(rows.user[kept])),
        overlap=overlap,
        in_common=tuple((np.bincount(in_both.astype(int), minlength=k + 1) / len(kept)).tolist()),
        same_first=by_user.parts(first)[0],
        score_mean=score_mean,
        score_spread=by_user.shift(old.spread[kept], new.spread[kept])[0],
        segments=tuple(
            SegmentShift(segment=name, n_requests=n, overlap=one, score_mean=another)
            for name, n, one, another in by_segment
            if n
        ),
        attributes=tuple(_attributes(rows, new, old, np.isin(rows.request, kept), k, by_user)),
        requests=tuple(_most_moved(rows, kept, sizes, in_both / k, moved)),
        differs=tuple(dict.fromkeys(sentence for read in readings for sentence in read.differs)),
    )


def _half_a_list(sizes: NDArray[np.int64]) -> int:
    """Returns half the length of the middle list, from 1 to `TOP_K`."""
    lists = sizes[sizes > 0]
    return int(np.clip(np.median(lists) // 2, 1, TOP_K)) if len(lists) else 1


def _most_moved(
    rows: EvaluationRows, kept: NDArray, sizes: NDArray, overlap: NDArray, moved: NDArray
) -> Iterator[MovedRequest]:
    """Yields the requests among `kept` that differ most: the least overlap first, then the furthest moves."""
    for i in np.lexsort((-moved, overlap))[:MOST]:
        if moved[i] > 0:
            yield MovedRequest(
                request_id=int(rows.request_id[kept[i]]),
                segment=str(rows.segment[kept[i]]),
                n_items=int(sizes[kept[i]]),
                overlap=float(overlap[i]),
                places_moved=float(moved[i]),
            )


@dataclass(frozen=True)
class Ranking:
    """How one policy ranks m items of r requests, and their log final scores within each request."""

    rank: NDArray[np.int64]  # [m], from 0, the first
    mean: NDArray[np.float64]  # [r]
    spread: NDArray[np.float64]  # [r], standard deviation

    @classmethod
    def of(cls, policy: "Policy", rows: EvaluationRows, sizes: NDArray[np.int64]) -> "Ranking":
        """Returns the ranking of `rows`, whose requests have `sizes` items; one without any has mean and spread 0."""
        predictions = LogPredictions(rows.fusion, rows.predictions)
        score = predictions.log_final_score(policy.act(rows.observations), rows.request)
        order = np.lexsort((-score, rows.request))  # stable: ties keep the order of the list
        first = np.cumsum(sizes) - sizes
        rank = np.empty(len(score), np.int64)
        rank[order] = np.arange(len(score)) - first[rows.request[order]]
        n = np.maximum(sizes, 1)
        mean = np.bincount(rows.request, score, len(n)) / n
        squares = np.bincount(rows.request, (score - mean[rows.request]) ** 2, len(n))
        return cls(rank, mean, np.sqrt(squares / n))


class ByUser:
    """Means over requests and their intervals, by a bootstrap over users: everybody's, and those of each segment."""

    def __init__(self, user: NDArray[np.int64], segments: Segments, seed: int, n_bootstrap: int) -> None:
        self.user, self.seed, self.n_bootstrap = user, seed, n_bootstrap
        self.segment, self.n_parts = segments.of_user, max(1, len(segments.names))
        self.counts = np.bincount(self.segment[user], minlength=self.n_parts).tolist()

    def parts(self, values: NDArray) -> tuple[Estimate, list[Estimate]]:
        """Returns the mean of `values`, one a request, and that among the users of each segment."""
        n_users = len(self.segment)
        sums, counts = (np.bincount(self.user, weights, n_users)[None] for weights in (values, None))
        part, n_parts = self.segment, self.n_parts
        rng = np.random.default_rng(self.seed)
        draws = bootstrap_by_part(sums, counts.astype(float), part, n_parts, self.n_bootstrap, in_turn(rng))[
            :, :, 0
        ]
        tops, bottoms = (np.bincount(part, of[0], n_parts) for of in (sums, counts))
        ratios = [sums.sum() / counts.sum(), *(tops / np.maximum(bottoms, 1))]
        everybody, *others = [_estimate(ratio, of) for ratio, of in zip(ratios, draws, strict=True)]
        return everybody, others

    def shift(self, live: NDArray, candidate: NDArray) -> tuple[Shift, list[Estimate]]:
        """Returns the shift from `live` to `candidate`, both one a request, and its difference in each segment."""
        difference, differences = self.parts(candidate - live)
        return Shift(live=live.mean(), candidate=candidate.mean(), difference=difference), differences

    def ratios(self, numerators: NDArray, n_places: NDArray) -> list[Estimate]:
        """Returns sums over users of `numerators` [k, users] over those of `n_places` [users], with intervals."""
        below = np.broadcast_to(n_places.astype(float), numerators.shape)
        everybody, rng = np.zeros(len(n_places), np.int64), np.random.default_rng(self.seed)
        draws = bootstrap_by_part(numerators, below, everybody, 1, self.n_bootstrap, in_turn(rng))[0]
        return [
            _estimate(top / n_places.sum(), of) for top, of in zip(numerators.sum(1), draws.T, strict=True)
        ]


def _estimate(value: float, draws: NDArray) -> Estimate:
    ci_low, ci_high = interval(draws)
    return Estimate(value=value, ci_low=ci_low, ci_high=ci_high)


def _attributes(
    rows: EvaluationRows, new: Ranking, old: Ranking, listed: NDArray[np.bool_], k: int, by_user: ByUser
) -> Iterator[AttributeShift]:
    """Yields the share of the top places of each tenth of each prediction's values, among the items `listed`."""
    user, predictions = rows.impression_user[listed], rows.predictions[listed]
    tops = [(ranking.rank[listed] < k).astype(float) for ranking in (old, new)]
    n_users = len(by_user.segment)
    places = k * np.bincount(by_user.user, minlength=n_users)
    for column, name in enumerate(rows.fusion.predictions):
        values = predictions[:, column]
        edges = np.unique(np.quantile(values, SHARES))
        decile = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(len(edges) - 2, 0))
        cell, n_cells = decile * n_users + user, max(len(edges) - 1, 1)
        before, after = (np.bincount(cell, top, n_cells * n_users).reshape(n_cells, n_users) for top in tops)
        changes = by_user.ratios(after - before, places)
        for i, change in enumerate(changes):
            yield AttributeShift(
                prediction=name,
                decile=i + 1,
                low=float(edges[i]),
                high=float(edges[min(i + 1, len(edges) - 1)]),
                live=before[i].sum() / places.sum(),
                candidate=after[i].sum() / places.sum(),
                difference=change,
            )
