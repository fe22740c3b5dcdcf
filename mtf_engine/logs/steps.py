"""Logs of steps alone: observations, actions, rewards and ends, nothing shown; in the shape of a dataset.

A session that was cut off may end in a row that has an observation and no action: where its last step led. Trainings
bootstrap from there; the row itself is no step. What a log does not tell is taken from its actions, and said: the
range of each, their mean as the baseline action, and as bounds the box that holds them all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from mtf_engine.exploration.mixture import Mixture
from mtf_engine.logs.schema import DatasetMeta, Exploration, Source, Tables
from mtf_engine.logs.sessions import ImportedLog, changes, drawn_uniformly, said_of_drawn, within
from mtf_engine.logs.splits import TEST, TRAIN, VALIDATION, split_by_user
from mtf_engine.logs.validation import TOLERANCE, DefectCode
from mtf_engine.spec import MIN_WIDTH, BoundsPlan, Defect, FusionSpec, Refusal, RewardSpec, Spec

BATCH = 65_536
"""Rows that are written at once."""
LEAST_USERS = 10
"""With fewer, none is for validation."""
FINITE = "write finite numbers, or leave the session out"
ENDING = "a session ends with its terminal step, or with one row that has no action"
BLANK = "fill it in; where a session was cut off, the last row alone has none"
NUMBERED = "number the steps of each session 0, 1, 2, ... in time order"
SPLITS = (TRAIN, VALIDATION, TEST)
Broken = tuple[DefectCode, str, NDArray[np.bool_], str, str]
"""A rule over the rows [n]: its code, column, where it is broken, what to say, and what to do."""
BOX = ("baseline_action", "lower", "upper")
"""What is repeated on the last observation of a session, where the log does not tell it."""


@dataclass(frozen=True)
class Steps:
    """n rows by session and step; actions, and what is measured as they are, in units of the log.

    `known` are columns of the requests that the log tells: user_id, segment, split, step, timestamp, pscore, clipped
    [n]; baseline_action, lower, upper [n, d]. Refusals name a table's `row` and columns as they are `called` there.
    """

    file: str  # what they were read from, as refusals name it
    session: NDArray  # [n] ids; rows of a session stand together
    observation: NDArray[np.float32]  # [n, f]
    action: NDArray[np.floating]  # [n, d], NaN in a row that is a last observation
    reward: NDArray[np.float64]  # [n]
    terminal: NDArray[np.bool_]  # [n]
    truncated: NDArray[np.bool_]  # [n]
    known: Mapping[str, NDArray] = field(default_factory=dict)
    row: NDArray[np.int64] | None = None  # [n] from 1; none in files of episodes
    called: Mapping[str, str] = field(default_factory=dict)

    @property
    def first(self) -> NDArray[np.bool_]:
        """Whether a row opens its session, [n]."""
        return changes(self.session)

    @property
    def last(self) -> NDArray[np.bool_]:
        """Whether a row closes its session, [n]."""
        return np.append(self.first[1:], True)

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
    mixture: Mixture | None = None
    on_unit: bool = Field(default=False, description="actions are on [-1, 1], whatever their ranges mean")


def as_log(
    steps: Steps,
    name: str,
    source: Source,
    kept: Kept,
    warnings: tuple[str, ...] = (),
    believed: bool = False,
) -> ImportedLog:
    """Returns the log of `steps`, ready to be written; a Refusal where there is no step, or one is not sound.

    `believed`, its actions count as uniform in their bounds though it has no densities of them.
    """
    acted = steps.acted
    if not acted.any():
        raise Refusal(
            f"{steps.file} holds no step with an action; bring a log of actions and what followed them"
        )
    _refuse_undrawn(steps, kept.exploration)
    _refuse(steps, [*_rules(steps), *_known_rules(steps.known, acted)])
    fusion, units, told = _fusion(steps, kept)
    warnings += told
    action = scaled(steps.action, units).clip(-1, 1)
    box, plan, told = _box(action, steps, units)
    warnings += (*told, *_ends(steps, acted))
    columns = {**_keys(steps), "action": action, **box, **_outcomes(steps)}
    if kept.exploration == "uniform":
        columns["action"] = _bound(steps, columns)
    if believed:
        columns["pscore"] = drawn_uniformly(*(columns[name] for name in ("action", *BOX)))
        warnings += (said_of_drawn(int((~np.isnan(columns["pscore"])).sum()), int(acted.sum())),)
    columns["split"], told = _split(columns, steps.known)
    warnings += told
    features = _features(kept, steps.observation.shape[1])
    meta = DatasetMeta(
        name=name,
        source=source,
        fusion=fusion,
        reward=RewardSpec(weights={"reward": 1.0}),
        signals=(),
        feature_names=features,
        numeric_mask=tuple(feature not in kept.binary_features for feature in features),
        exploration=kept.exploration,
        mixture=kept.mixture,
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


def joined(file: str, parts: Sequence[Mapping[str, NDArray]]) -> dict[str, Any]:
    """Returns the columns of `parts`, one episode behind the other; a Refusal where widths differ."""
    for name in ("observation", "action"):
        widths = [part[name].shape[1] for part in parts]
        if other := next((i for i, width in enumerate(widths) if width != widths[0]), None):
            raise Refusal(
                f"{file}: an {name} of episode {parts[other]['session'][0]} has {widths[other]} numbers, and one of "
                f"episode {parts[0]['session'][0]} {widths[0]}; give every episode as many"
            )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def refuse_ragged(file: str, episode: str, rows: Mapping[str, int]) -> None:
    """Raises a Refusal where the columns of an `episode` do not have as many rows, which are told by name."""
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{n:,} {name}" for name, n in rows.items())
        raise Refusal(f"{file}: {episode} has {told}; write one of each for every step")


def numbers(column: str, values: object) -> NDArray:
    """Returns `values` as an array; a ValueError where they are no real numbers."""
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        raise ValueError(f"{column} are {found.dtype}, no numbers")
    return found


def flags(file: str, column: str, values: object) -> NDArray[np.bool_]:
    """Returns `values` [n] that tell where an episode ends as truths; a Refusal where one is neither 0 nor 1."""
    found = np.asarray(values).reshape(-1)
    if not np.isin(found, (0, 1)).all():
        raise Refusal(f"{file}: {column} are not all 0 or 1; write 1 where an episode ends, 0 elsewhere")
    return found.astype(bool)


def _rules(steps: Steps) -> Iterator[Broken]:
    """Yields what must hold of rows that reached here from any file."""
    acted, last = steps.acted, steps.last
    blank, ended = np.isnan(steps.action).all(axis=1), steps.terminal
    going_on = ~last & np.append(acted[1:], False)
    yield "nan_or_inf", "observation", ~_finite(steps.observation), "is blank or not finite", FINITE
    yield "nan_or_inf", "action", ~blank & ~_finite(steps.action), "is not finite", FINITE
    yield "nan_or_inf", "reward", acted & ~np.isfinite(steps.reward), "is blank or not finite", FINITE
    order: DefectCode = "session_order_broken"
    yield order, "action", blank & ~last, "is blank, and its session goes on", BLANK
    yield order, "action", blank & last & steps.first, "is blank, and no step led there", BLANK
    yield order, "terminal", ended & ~last, "is true, and its session goes on", ENDING
    yield order, "terminal", ended & blank & last, "is true of a row without an action", ENDING
    yield order, "truncated", steps.truncated & going_on, "is true, and its session goes on", ENDING
    for name, wrong, what in (
        ("step", lambda moved: moved != 1, "is not the next of its session"),
        ("timestamp", lambda moved: moved < np.timedelta64(0), "goes back within its session"),
    ):
        if name in steps.known:
            broken = np.append(False, wrong(steps.known[name][1:] - steps.known[name][:-1])) & ~steps.first
            yield order, name, broken, what, NUMBERED
    for name in (name for name in ("user_id", "split") if name in steps.known):
        moved = changes(pd.factorize(steps.known[name])[0]) & ~steps.first
        yield order, name, moved, "changes within its session", "write one for all of a session"


def _known_rules(known: Mapping[str, NDArray], acted: NDArray[np.bool_]) -> Iterator[Broken]:
    """Yields what must hold of the columns that not every log tells."""
    for name in (name for name in BOX if name in known):
        yield "nan_or_inf", name, acted & ~_finite(known[name]), "is blank or not finite", FINITE
    if {"lower", "upper"} <= set(known):
        crossed = acted & (known["lower"] > known["upper"]).any(axis=1)
        yield "action_outside_bounds", "lower", crossed, "is above the upper bound", "exchange the two"
    if "pscore" in known:
        strange = (known["pscore"] <= 0) | np.isinf(known["pscore"])
        remedy = "write the action's density, or leave it blank"
        yield "wrong_type", "pscore", strange, "is no density above 0", remedy
    if "user_id" in known:
        yield "null_key", "user_id", pd.isna(known["user_id"]), "is blank", "write whose session it is"
    if "split" in known:
        strange = ~(pd.isna(known["split"]) | np.isin(known["split"].astype(str), SPLITS))
        yield "wrong_type", "split", strange, "is no split", f"write one of {', '.join(SPLITS)}"


def _finite(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Returns whether all numbers of a row [n, d] are, as the float32 that they are kept in."""
    return (np.abs(values) <= np.finfo(np.float32).max).all(axis=1)


def _refuse(steps: Steps, rules: Iterable[Broken]) -> None:
    """Raises a Refusal where rows break one of the rules, with the first place of each and how many they are."""
    defects = []
    for code, column, broken, what, remedy in rules:
        if not broken.any():
            continue
        at = int(broken.argmax())
        place = f"at step {within(steps.session)[at]} of session {steps.session[at]} it "
        defects.append(
            Defect(
                code=code,
                file=steps.file,
                column=steps.called.get(column, column),
                row=None if steps.row is None else int(steps.row[broken].min()),
                count=int(broken.sum()),
                message=(place if steps.row is None else "") + what,
                remedy=remedy,
            )
        )
    if defects:
        raise Refusal.of(defects)


def _refuse_undrawn(steps: Steps, exploration: Exploration) -> None:
    """Raises a Refusal where a log has one bound without the other, or is called explored and does not say in what."""
    lacking = [name for name in BOX if name not in steps.known]
    if len(bounds := {"lower", "upper"} & set(lacking)) == 1:
        raise Refusal(f"{steps.file} has no {bounds.pop()}, but the other bound; add it, or leave out both")
    if lacking and exploration != "unknown":
        raise Refusal(
            f"exploration: {exploration} is of actions around a baseline action in bounds, and {steps.file} has no "
            f"{', '.join(lacking)}; add them, or leave exploration out"
        )


def _features(kept: Kept, width: int) -> tuple[str, ...]:
    """Returns what each number of an observation is called; a Refusal where names do not go with them."""
    features = kept.features or tuple(f"observation_{i}" for i in range(width))
    if len(features) != width:
        raise Refusal(
            f"features: names {len(features)}, and observations have {width} numbers; name each of them"
        )
    if unknown := sorted(set(kept.binary_features) - set(features)):
        raise Refusal(
            f"binary_features: {', '.join(unknown)} is none of the features; they are {', '.join(features)}"
        )
    return features


def _fusion(steps: Steps, kept: Kept) -> tuple[FusionSpec, FusionSpec, tuple[str, ...]]:
    """Returns what each number of an action is, in which units the log has it, and what to say of it."""
    actions = steps.action[steps.acted]
    if "baseline_action" in steps.known:
        actions = np.concatenate([actions, steps.known["baseline_action"][steps.acted]])
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
    action: NDArray[np.float32], steps: Steps, units: FusionSpec
) -> tuple[dict[str, NDArray[np.float32]], BoundsPlan | None, tuple[str, ...]]:
    """Returns the columns baseline_action, lower and upper, all on [-1, 1]; the plan; and what to say of them."""
    told: tuple[str, ...] = ()
    found = {
        name: _forward(scaled(steps.known[name], units, offsets=name != "baseline_action"), steps.acted)
        for name in BOX
        if name in steps.known
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
    return found, _plan(_constant(found["lower"]), _constant(found["upper"])), told


def _plan(lower: tuple[float, ...] | None, upper: tuple[float, ...] | None) -> BoundsPlan | None:
    """Returns the plan of these bounds; None where rows differ, or they are none that could be explored in."""
    if lower is None or upper is None:
        return None
    try:
        return BoundsPlan(lower=lower, upper=upper)
    except ValidationError:
        return None


def _bound(steps: Steps, columns: Mapping[str, NDArray]) -> NDArray[np.float32]:
    """Returns the actions [n, d] of a uniform log, in their bounds but for rounding; a Refusal where one is not.

    Those of control users, and clipped ones, are bound by nothing.
    """
    action, baseline, lower, upper = (columns[name] for name in ("action", *BOX))
    inside = action.clip(baseline + lower, baseline + upper)
    control = np.isnan(columns["pscore"]) & (action == baseline).all(axis=1)
    bound = steps.acted & ~control & (columns["clipped"] == 0)
    out = bound & (np.abs(action - inside) > TOLERANCE).any(axis=1)
    what = "lies outside its bounds around the baseline action"
    remedy = "correct it, or say how actions were drawn under exploration: in the mapping"
    _refuse(steps, [("action_outside_bounds", "action", out, what, remedy)])
    return np.where(bound[:, None], inside, action)


def _forward(values: NDArray[np.float32], acted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns rows [n, d] with that of a last observation, where it is blank, replaced by the step that led there."""
    blank = np.flatnonzero(~acted & np.isnan(values).any(axis=1))
    values[blank] = values[blank - 1]
    return values


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
    kept, lost = int((~acted).sum()), int((steps.last & acted & ~steps.terminal).sum())
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
