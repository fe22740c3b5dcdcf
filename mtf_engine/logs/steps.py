"""Logs of steps alone: observations, actions, rewards and ends, nothing shown; in the shape of a dataset.

A session that was cut off may end in a row that has an observation and no action: where its last step led. Trainings
bootstrap from there; the row itself is no step. What a log does not tell is taken from its actions, and said: the
range of each, their mean as the baseline action, and as bounds the box that holds them all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.logs.schema import DatasetMeta, Exploration, Source, Tables
from mtf_engine.logs.sessions import ImportedLog, changes, within
from mtf_engine.logs.splits import VALIDATION, split_by_user
from mtf_engine.logs.validation import TOLERANCE
from mtf_engine.spec import MIN_WIDTH, BoundsPlan, FusionSpec, Refusal, RewardSpec, Spec

BATCH = 65_536
"""Rows that are written at once."""
LEAST_USERS = 10
"""With fewer, none is for validation."""
BOX = ("baseline_action", "lower", "upper")
"""What is repeated on the last observation of a session, where the log does not tell it."""


@dataclass(frozen=True)
class Steps:
    """n rows by session and step; actions, and what is measured as they are, in units of the log.

    `known` are columns of the requests that the log tells: user_id, segment, split, timestamp, pscore [n];
    baseline_action, lower, upper [n, d].
    """

    session: NDArray  # [n] ids; rows of a session stand together
    observation: NDArray[np.float32]  # [n, f]
    action: NDArray[np.floating]  # [n, d], NaN in a row that is a last observation
    reward: NDArray[np.float64]  # [n]
    terminal: NDArray[np.bool_]  # [n]
    truncated: NDArray[np.bool_]  # [n]
    known: Mapping[str, NDArray] = field(default_factory=dict)

    @property
    def acted(self) -> NDArray[np.bool_]:
        """Whether a row is a step, [n]."""
        return ~np.isnan(self.action).any(axis=1)


class Kept(Spec):
    """What a log, or whoever imports it, says of its columns; None is taken from the data."""

    fusion: FusionSpec | None = None
    features: tuple[str, ...] = ()
    binary_features: tuple[str, ...] = ()
    exploration: Exploration = "unknown"
    on_unit: bool = Field(default=False, description="actions are on [-1, 1], whatever their ranges mean")


def as_log(
    steps: Steps, name: str, source: Source, kept: Kept, warnings: tuple[str, ...] = ()
) -> ImportedLog:
    """Returns the log of `steps`, ready to be written; a Refusal where there is no step."""
    acted = steps.acted
    if not acted.any():
        raise Refusal(f"{name} holds no step with an action; bring a log of actions and what followed them")
    fusion, units, told = _fusion(steps.action[acted], kept)
    warnings += told
    action = scaled(steps.action, units).clip(-1, 1)
    box, plan, told = _box(action, steps.known, units)
    warnings += (*told, *_ends(steps, acted))
    columns = {**_keys(steps), "action": action, **box, **_outcomes(steps)}
    columns["split"], told = _split(columns, steps.known)
    warnings += told
    features = kept.features or tuple(f"observation_{i}" for i in range(steps.observation.shape[1]))
    meta = DatasetMeta(
        name=name,
        source=source,
        fusion=fusion,
        reward=RewardSpec(weights={"reward": 1.0}),
        signals=(),
        feature_names=features,
        numeric_mask=tuple(feature not in kept.binary_features for feature in features),
        exploration=kept.exploration,
        plan=plan,
        baseline_action=_constant(box["baseline_action"]),
        details={"warnings": list(warnings)},
    )
    return ImportedLog(meta, _batches(columns, len(fusion.predictions)), warnings)


def scaled(values: NDArray[np.floating], fusion: FusionSpec, offsets: bool = False) -> NDArray[np.float32]:
    """Returns actions [n, d] in units of the log, or `offsets` from one, on [-1, 1]."""
    low, high = (np.array([getattr(d, end) for d in fusion.dimensions]) for end in ("low", "high"))
    middle = 0.0 if offsets else (low + high) / 2
    return ((values - middle) / ((high - low) / 2)).astype(np.float32)


def _fusion(actions: NDArray[np.floating], kept: Kept) -> tuple[FusionSpec, FusionSpec, tuple[str, ...]]:
    """Returns what each number of an action is, in which units the log has it, and what to say of it."""
    n_actions = actions.shape[1]
    names = [f"action_{i}" for i in range(n_actions)]
    unit = FusionSpec.weights(names, (-1,) * n_actions, (1,) * n_actions)
    if kept.fusion is None:
        low, high = actions.min(axis=0).astype(float), actions.max(axis=0).astype(float)
        alike = low == high
        told = f"no range of the actions is stated, so they lie in that of the data: {_spans(low, high)}"
        found = FusionSpec.weights(names, np.where(alike, low - 1, low), np.where(alike, high + 1, high))
        return found, found, (told,)
    if kept.fusion.n_actions != n_actions:
        raise Refusal(
            f"actions have {n_actions} entries and the fusion {kept.fusion.n_actions} dimensions; name as many"
        )
    units = unit if kept.on_unit else kept.fusion
    farthest = np.abs(scaled(actions, units)).max(axis=1)
    beyond = farthest > 1 + TOLERANCE
    if beyond.any():
        low, high = (np.array([getattr(d, end) for d in units.dimensions]) for end in ("low", "high"))
        raise Refusal(
            f"{beyond.sum():,} actions lie outside the stated ranges {_spans(low, high)}, the farthest is "
            f"{_numbers(actions[farthest.argmax()])}; state ranges that hold them all"
        )
    return kept.fusion, units, ()


def _box(
    action: NDArray[np.float32], known: Mapping[str, NDArray], units: FusionSpec
) -> tuple[dict[str, NDArray[np.float32]], BoundsPlan | None, tuple[str, ...]]:
    """Returns the columns baseline_action, lower and upper, all on [-1, 1]; the plan; and what to say of them."""
    told: tuple[str, ...] = ()
    found = {
        name: _forward(scaled(known[name], units, offsets=name != "baseline_action"))
        for name in BOX
        if name in known
    }
    if "baseline_action" not in found:
        mean = np.nanmean(action, axis=0, dtype=np.float64).astype(np.float32)
        found["baseline_action"] = np.tile(mean, (len(action), 1))
        told += (f"no baseline action is in the log, so the mean of its actions stands for it: {_numbers(mean)} "
                 "on [-1, 1]",)  # fmt: skip
    if not {"lower", "upper"} <= set(found):
        baseline = found["baseline_action"]
        lower, upper = np.nanmin(action, axis=0) - baseline, np.nanmax(action, axis=0) - baseline
        fixed = upper - lower < MIN_WIDTH
        found |= {"lower": np.where(fixed, 0, lower), "upper": np.where(fixed, 0, upper)}
        told += (f"no bounds are in the log, so they are the box of its actions: {_numbers(lower[0])} to "
                 f"{_numbers(upper[0])} from the baseline action",)  # fmt: skip
    corners = _constant(found["lower"]), _constant(found["upper"])
    plan = BoundsPlan(lower=corners[0], upper=corners[1]) if corners[0] and corners[1] else None
    return found, plan, told


def _forward(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns rows [n, d] with those that have a NaN replaced by the row before."""
    return pd.DataFrame(values).ffill().to_numpy(np.float32)


def _constant(values: NDArray[np.float32]) -> tuple[float, ...] | None:
    """Returns the row that all of `values` [n, d] are; None where they differ."""
    return tuple(map(float, values[0])) if (values == values[0]).all() else None


def _keys(steps: Steps) -> dict[str, NDArray]:
    """Returns the columns that say whose request a row is, when, and of which session."""
    session, ids = pd.factorize(steps.session)
    n, known = len(session), steps.known
    return {
        "request_id": np.arange(n),
        "session_id": session,
        "user_id": known.get("user_id", np.asarray(ids).astype(str)[session]).astype(object),
        "step": within(session).astype(np.int32),
        "timestamp": known.get("timestamp", np.full(n, "NaT", "datetime64[us]")),
        "segment": known.get("segment", np.full(n, "all", object)),
        "observation": steps.observation,
    }


def _outcomes(steps: Steps) -> dict[str, NDArray]:
    n = len(steps.session)
    return {
        "pscore": steps.known.get("pscore", np.full(n, np.nan)),
        "clipped": steps.known.get("clipped", np.zeros(n, np.int32)),
        "reward": np.where(steps.acted, steps.reward, 0.0),
        "terminal": steps.terminal,
        "truncated": steps.truncated,
    }


def _ends(steps: Steps, acted: NDArray[np.bool_]) -> Iterator[str]:
    """Yields what to say of sessions that were cut off."""
    last = np.append(changes(steps.session)[1:], True)
    kept, lost = int((~acted).sum()), int((last & acted & ~steps.terminal).sum())
    if kept:
        yield f"{kept:,} sessions were cut off; where each of them led is a request without an action"
    if lost:
        yield f"{lost:,} sessions were cut off and do not tell where they led: their last steps are not learned from"


def _split(columns: Mapping[str, NDArray], known: Mapping[str, NDArray]) -> tuple[NDArray, tuple[str, ...]]:
    """Returns the split of each row, and what to say of it."""
    users = columns["user_id"]
    if "split" in known and not pd.isna(known["split"]).all():
        return known["split"], ()
    split = split_by_user(users)
    if len(np.unique(users.astype(str))) < LEAST_USERS or not (split == VALIDATION).any():
        return np.full(len(users), None), ("there are too few users to keep some for validation",)
    return split, ("one user in ten is for validation, by a hash of the id",)


def _batches(columns: Mapping[str, NDArray], n_predictions: int) -> Iterator[Tables]:
    nothing = {
        "request_id": np.empty(0, np.int64),
        "user_id": np.empty(0, object),
        "item_id": np.empty(0, np.int64),
        "position": np.empty(0, np.int32),
        "predictions": np.empty((0, n_predictions), np.float32),
        "reward": np.empty(0),
        "label": np.empty(0, bool),
    }
    for first in range(0, len(columns["request_id"]), BATCH):
        part = slice(first, first + BATCH)
        yield Tables({name: values[part] for name, values in columns.items()}, nothing)


def _numbers(values: object) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in np.atleast_1d(np.asarray(values))) + "]"


def _spans(low: object, high: object) -> str:
    ends = zip(np.atleast_1d(np.asarray(low)), np.atleast_1d(np.asarray(high)), strict=True)
    return ", ".join(f"{a:.4g} to {b:.4g}" for a, b in ends)
