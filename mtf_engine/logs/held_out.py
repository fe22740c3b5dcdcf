"""Held-out sessions of an explored log: those of users that no training saw, whole, with the density of each action."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.narrowing import refuse_narrowed
from mtf_engine.logs.splits import TEST, TRAIN, VALIDATION
from mtf_engine.spec import FusionSpec, Refusal

ROWS = (
    "FROM requests WHERE split = ? "
    "AND session_id NOT IN (SELECT session_id FROM requests WHERE isnan(action[1])) "
    "AND user_id NOT IN (SELECT user_id FROM requests WHERE split = ? AND user_id IS NOT NULL)"
)


@dataclass(frozen=True)
class LoggedSessions:
    """The n requests of s sessions, by session and step. `lower` and `upper` are offsets from the baseline action."""

    split: str
    observations: NDArray[np.float32]  # [n, f]
    actions: NDArray[np.float32]  # [n, d]
    baseline_actions: NDArray[np.float32]  # [n, d]
    lower: NDArray[np.float32]  # [n, d]
    upper: NDArray[np.float32]  # [n, d]
    pscore: NDArray[np.float64]  # [n], density of the action; NaN where there was none, as of control users
    clipped: NDArray[np.int32]  # [n], dimensions that were cut at the edge of [-1, 1]
    rewards: NDArray[np.float64]  # [n], unscaled
    ended: NDArray[np.bool_]  # [s], the log saw the session's end
    starts: NDArray[np.int64]  # [s], its first request
    users: NDArray[np.int64]  # [s], numbered from 0
    fusion: FusionSpec
    feature_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def n_users(self) -> int:
        return int(self.users.max(initial=-1)) + 1

    @cached_property
    def place(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The session and the step of each request, [n] each."""
        lengths = np.diff(np.append(self.starts, len(self.rewards)))
        session = np.repeat(np.arange(len(self)), lengths)
        return session, np.arange(len(session)) - self.starts[session]

    @cached_property
    def explored(self) -> NDArray[np.bool_]:
        """Whether every action of a session has a density, [s]: control users' have none."""
        return ~np.logical_or.reduceat(np.isnan(self.pscore), self.starts)

    def by_step(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Returns `values` [n] of the requests as [s, longest session], 0 after a session's end."""
        session, step = self.place
        padded = np.zeros((len(self), step.max() + 1))
        padded[session, step] = values
        return padded


def held_out_sessions(dataset: Dataset) -> LoggedSessions:
    """Returns the sessions of a log's test users, else of its validation users; none who has a training row.

    A session in which a request has no action is left out: what it brought was not by any action alone. A Refusal
    where none is left, and of a log that was narrowed.
    """
    refuse_narrowed(dataset.meta, "evaluate off-policy on")
    split = next((split for split in (TEST, VALIDATION) if split in dataset.splits), None)
    rows = dataset.arrays(
        "SELECT session_id, user_id, observation, action, baseline_action, lower, upper, pscore, clipped, reward, "
        f"terminal {ROWS} ORDER BY session_id, step",
        [split, TRAIN],
    )
    if not len(rows["reward"]):
        raise Refusal(
            f"the dataset {dataset.meta.name} has no actions of test or validation users who are in no training row, "
            "on whom alone policies are estimated off-policy; collect one with --explore uniform, or import the "
            "log with --split-by user"
        )
    session = rows["session_id"]
    starts = np.flatnonzero(np.append(True, session[1:] != session[:-1]))
    return LoggedSessions(
        split=str(split),
        observations=rows["observation"],
        actions=rows["action"],
        baseline_actions=rows["baseline_action"],
        lower=rows["lower"],
        upper=rows["upper"],
        pscore=rows["pscore"].astype(np.float64),
        clipped=rows["clipped"],
        rewards=rows["reward"],
        ended=np.logical_or.reduceat(rows["terminal"].astype(bool), starts),
        starts=starts,
        users=np.unique(rows["user_id"][starts], return_inverse=True)[1],
        fusion=dataset.meta.fusion,
        feature_names=dataset.meta.feature_names,
    )
