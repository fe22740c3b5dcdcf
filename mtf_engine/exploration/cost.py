"""What exploring would cost, told before collecting: how far it moves logged rankings and actions."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.exploration.coverage_counts import Arrays
from mtf_engine.exploration.deviation import (
    Within,
    expected_largest,
    within_gaussian,
    within_mixture,
    within_uniform,
)
from mtf_engine.exploration.mixture import Mixture
from mtf_engine.exploration.policies import Kind, explore
from mtf_engine.fusion import log_final_score
from mtf_engine.spec import BoundsPlan, FusionSpec, Refusal, Spec

MAX_REQUESTS = 10_000
BATCH = 2_000_000
"""Candidates scored at a time."""

Source = Literal["candidates", "impressions"]


@dataclass(frozen=True)
class CandidateLists:
    """What logged requests had to choose from; rows first[r]:first[r + 1] are request r's."""

    source: Source
    baseline_actions: NDArray[np.float32]  # [r, d]
    segments: NDArray[Any]  # [r]
    first: NDArray[np.int64]  # [r + 1]
    predictions: NDArray[np.float32]  # [m, p]


class Estimate(Spec):
    """A mean over requests and its 95 % interval."""

    value: float
    low: float
    high: float


class NoiseCost(Spec):
    """What one kind of exploration does to rankings and actions."""

    top_changed: Estimate = Field(description="share of the top k that the noise replaces")
    rank_correlation: Estimate = Field(description="Spearman's, of all candidates before and after")
    beyond: float = Field(description="chance that some component moves further than `far`, by integration")
    largest: float = Field(description="expected largest deviation of a component, by integration")


class ExplorationCost(Spec):
    """The plan's uniform exploration beside Gaussian noise of `sigma` and its mixture with random draws, same luck."""

    source: Source
    n_requests: int
    n_left_out: int = Field(description="requests with k candidates or fewer, whose top k cannot change")
    k: int
    sigma: float
    far: float
    uniform: NoiseCost
    gaussian: NoiseCost
    mixed: NoiseCost = Field(description="half of the requests Gaussian of that sigma, half at random")


def read_candidate_lists(arrays: Arrays, n_requests: int = MAX_REQUESTS) -> CandidateLists:
    """Returns the candidate lists of a dataset, or its shown impressions where it keeps no candidates.

    Of more than `n_requests` requests a sample by hash is taken. A request without a baseline action stands
    at action 0.
    """
    tables = arrays(
        "SELECT table_name FROM information_schema.tables WHERE table_catalog = current_database()", []
    )
    source: Source = "candidates" if "candidates" in tables["table_name"] else "impressions"
    listed = "SEMI JOIN candidates USING (request_id)" if source == "candidates" else ""
    sample = f"SELECT request_id FROM requests {listed} ORDER BY hash(request_id) LIMIT ?"
    items = arrays(
        f"SELECT request_id, predictions FROM {source} SEMI JOIN ({sample}) USING (request_id) "
        "ORDER BY request_id",
        [n_requests],
    )
    requests = arrays(
        f"SELECT request_id, baseline_action, segment FROM requests SEMI JOIN ({sample}) USING (request_id) "
        "ORDER BY request_id",
        [n_requests],
    )
    return CandidateLists(
        source=source,
        baseline_actions=np.nan_to_num(requests["baseline_action"]),
        segments=requests["segment"],
        first=np.append(
            np.searchsorted(items["request_id"], requests["request_id"]), len(items["request_id"])
        ),
        predictions=items["predictions"],
    )


def exploration_cost(
    fusion: FusionSpec,
    lists: CandidateLists,
    plan: BoundsPlan,
    generator: np.random.Generator,
    *,
    sigma: float = 0.2,
    k: int = 3,
    far: float = 0.4,
    n_draws: int = 4,
) -> ExplorationCost:
    """Returns what `plan`, Gaussian noise of `sigma` and a mixture of it would do to the logged requests.

    Each request is ranked by formula 1 at its baseline action and again at `n_draws` explored ones; all
    kinds of noise share their uniform draws. Estimates are means over requests, and so are their intervals.
    `beyond` and `largest` need no draws: they are integrals over each request's own box or normal, which is
    cut or clipped at [-1, 1] as an explored action is.
    """
    sizes = np.diff(lists.first)
    kept = np.flatnonzero(sizes > k)
    if not len(kept):
        raise Refusal(f"cost: no request has more than {k} candidates to choose from; choose a smaller k")
    luck = generator.random((n_draws, *lists.baseline_actions.shape))

    part = generator.random(luck.shape[:2])
    mixture, here = Mixture(sigma=sigma), (plan, lists.baseline_actions, lists.segments)

    def cost(kind: Kind, within: Within) -> NoiseCost:
        explored = _explored(kind, lists, plan, luck, mixture, part)
        changed, correlation = _replay(fusion, lists, explored, kept, k)
        return NoiseCost(
            top_changed=_estimate(changed, 0),
            rank_correlation=_estimate(correlation, -1),
            beyond=float(1 - within(far).mean()),
            largest=expected_largest(within, plan),
        )

    return ExplorationCost(
        source=lists.source,
        n_requests=len(kept),
        n_left_out=len(sizes) - len(kept),
        k=k,
        sigma=sigma,
        far=far,
        uniform=cost("uniform", within_uniform(*here)),
        gaussian=cost("gaussian", within_gaussian(sigma, *here)),
        mixed=cost("mixed", within_mixture(mixture, *here)),
    )


def top_changed(
    fusion: FusionSpec,
    lists: CandidateLists,
    plan: BoundsPlan,
    generator: np.random.Generator,
    *,
    k: int,
    n_draws: int = 2,
) -> float:
    """Returns the share of the top k that uniform noise in `plan` replaces, of requests with more to choose from.

    0 where there are none.
    """
    kept = np.flatnonzero(np.diff(lists.first) > k)
    if not len(kept):
        return 0.0
    luck = generator.random((n_draws, *lists.baseline_actions.shape))
    changed, _ = _replay(fusion, lists, _explored("uniform", lists, plan, luck), kept, k)
    return float(changed.mean())


def _explored(
    kind: Kind,
    lists: CandidateLists,
    plan: BoundsPlan,
    luck: NDArray,
    mixture: Mixture | None = None,
    part: NDArray | None = None,
) -> NDArray[np.float32]:
    """Returns explored actions [draws, r, d], drawn as a collection draws them; noise has the mixture's sigma."""
    sigma = mixture.sigma if mixture else np.nan
    nobody, actions = np.zeros(len(lists.segments), bool), []
    for i, lucky in enumerate(luck):
        drawn = {"luck": lucky, "mixture": mixture, "part": None if part is None else part[i]}
        here = (lists.baseline_actions, plan, lists.segments)
        actions.append(explore(kind, *here, sigma=sigma, control=nobody, **drawn).actions)
    return np.stack(actions)


def _replay(
    fusion: FusionSpec, lists: CandidateLists, explored: NDArray, kept: NDArray, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns, for each kept request, the share of its top k that changes and the rank correlation."""
    changed, correlation = np.empty((2, len(kept)))
    for places, rows in equally_long(lists, kept):
        requests, n = kept[places], rows.shape[1]
        predictions = lists.predictions[rows]  # [g, n, p]
        before = _ranks(log_final_score(fusion, lists.baseline_actions[requests], predictions))
        after = np.stack([_ranks(log_final_score(fusion, a[requests], predictions)) for a in explored])
        stayed = ((before < k) & (after < k)).sum(axis=2)
        squared = ((after - before) ** 2).sum(axis=2)
        changed[places] = 1 - stayed.mean(axis=0) / k
        correlation[places] = 1 - 6 * squared.mean(axis=0) / (n * (n**2 - 1))
    return changed, correlation


def equally_long(lists: CandidateLists, kept: NDArray) -> Iterator[tuple[NDArray, NDArray]]:
    """Yields places in `kept` [g] and candidate rows [g, n] of requests with equally many candidates."""
    sizes = np.diff(lists.first)[kept]
    for n in np.unique(sizes):
        places = np.flatnonzero(sizes == n)
        for part in np.array_split(places, math.ceil(len(places) * n / BATCH)):
            yield part, lists.first[kept[part], None] + np.arange(n)


def _ranks(scores: NDArray) -> NDArray[np.int64]:
    """Returns ranks from 0, the best, of each row [g, n]; ties go in candidate order."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(scores.shape[1])[None], axis=1)
    return ranks


def _estimate(values: NDArray[np.float64], least: float) -> Estimate:
    """Returns the mean of `values` in [`least`, 1] and its normal 95 % interval."""
    mean, error = values.mean(), 1.96 * values.std() / math.sqrt(len(values))
    return Estimate(value=mean, low=max(mean - error, least), high=min(mean + error, 1))
