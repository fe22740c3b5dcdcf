"""HDF5 files of d3rlpy (https://github.com/takuseno/d3rlpy): episodes, read and written.

Read are the files of its `ReplayBuffer.dump` (version 2.1) and flat ones, of its first version and of D4RL, with
`observations`, `actions`, `rewards`, `terminals` and `episode_terminals` or `timeouts`. d3rlpy keeps no observation
after the last step: an episode that was cut off is written with one row more, whose observation its last step led to;
d3rlpy makes no transition of that row.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.episodes import Episode, episodes, extra, new_place
from mtf_engine.logs.hdf5_files import UNREADABLE, check_written, opened
from mtf_engine.logs.sessions import ImportedLog
from mtf_engine.logs.steps import Kept, Steps, as_log, flags, joined, numbers, refuse_ragged
from mtf_engine.spec import Refusal

VERSION = "2.1"
COLUMNS = ("observations", "actions", "rewards", "terminated")
FLAT = ("observations", "actions", "rewards", "terminals")


def read_d3rlpy(path: Path, name: str) -> ImportedLog:
    """Returns the log in the file; a Refusal where it is none of d3rlpy, or its actions are no numbers."""
    try:
        with opened(path) as file, np.errstate(over="ignore"):  # what float32 cannot hold is refused as inf
            parts = [*(_dumped(file, path.name) if "columns" in file else _flat(file, path.name))]
    except UNREADABLE as error:
        raise Refusal(f"{path.name} cannot be read as a file of d3rlpy: {error}; write it anew") from None
    if not parts:
        raise Refusal(f"{path.name} holds no episode; bring one that does")
    return as_log(Steps(path.name, **joined(path.name, parts)), name, "d3rlpy", Kept())


def _dumped(file: Any, name: str) -> Iterator[dict[str, NDArray]]:
    for i in range(int(file["num_episodes"][()])):
        observations, actions, rewards, terminated = (file[f"{column}_{i}"][()] for column in COLUMNS)
        rows = {"observations": len(observations), "actions": len(actions), "rewards": len(rewards)}
        refuse_ragged(name, f"episode {i}", rows)
        if len(rewards):
            (ended,) = flags(name, f"terminated_{i}", terminated)
            yield _episode(i, observations, actions, rewards, ended)


def _flat(file: Any, name: str) -> Iterator[dict[str, NDArray]]:
    if lacking := [column for column in FLAT if column not in file]:
        raise Refusal(f"{name} lacks {', '.join(lacking)}; it needs {', '.join(FLAT)}")
    over = next((other for other in ("episode_terminals", "timeouts") if other in file), "terminals")
    columns = {column: file[column][()] for column in (*FLAT, over)}
    refuse_ragged(name, "it", {column: len(values) for column, values in columns.items()})
    observations, actions, rewards, _ = (columns[column] for column in FLAT)
    terminals, closing = (flags(name, column, columns[column]) for column in ("terminals", over))
    last = np.flatnonzero(terminals | closing) + 1
    edges = np.unique([0, *last, len(rewards)])
    for i, (low, high) in enumerate(pairwise(edges)):
        part = slice(low, high)
        yield _episode(i, observations[part], actions[part], rewards[part], bool(terminals[high - 1]))


def _episode(i: int, observations: Any, actions: Any, rewards: Any, terminated: bool) -> dict[str, NDArray]:
    """Returns the columns of `Steps` of one episode."""
    n = len(rewards)
    if actions.dtype.kind not in "fiu" or (actions.ndim < 2 and actions.dtype.kind != "f"):
        raise Refusal("its actions are choices; only numbers can be learned from")
    last = np.arange(n) == n - 1
    return {
        "session": np.full(n, i),
        "observation": numbers("observations", observations).astype(np.float32).reshape(n, -1),
        "action": np.asarray(actions, np.float64).reshape(n, -1),
        "reward": numbers("rewards", rewards).astype(np.float64).reshape(n),
        "terminal": last & terminated,
        "truncated": last & (not terminated),
    }


def write_d3rlpy(dataset: Dataset, path: Path) -> dict[str, int]:
    """Returns how many episodes and steps were written to the file, which `ReplayBuffer.load` reads."""
    h5py = extra("h5py")
    counts = {"episodes": 0, "steps": 0}
    with new_place(path) as temp:
        with h5py.File(temp, "w") as file:
            file["columns"] = list(COLUMNS)
            for episode in episodes(dataset):
                for column, values in _columns(episode).items():
                    file[f"{column}_{counts['episodes']}"] = values
                counts["episodes"] += 1
                counts["steps"] += episode.n_steps
            file["num_episodes"] = counts["episodes"]
            file["version"] = VERSION
        check_written(temp, path, _written(dataset, counts["episodes"]))
    return counts


def _written(dataset: Dataset, n_episodes: int) -> Iterator[tuple[str, Any]]:
    """Yields what a file of the dataset holds, by name."""
    yield from {"columns": list(COLUMNS), "num_episodes": n_episodes, "version": VERSION}.items()
    for i, episode in enumerate(episodes(dataset)):
        yield from ((f"{column}_{i}", values) for column, values in _columns(episode).items())


def _columns(episode: Episode) -> dict[str, Any]:
    """Returns an episode as d3rlpy holds it; where it was cut off, its last row is what the last step led to."""
    more = 0 if episode.terminal else 1
    return {
        "observations": episode.requests["observation"],
        "actions": np.concatenate([episode.actions, episode.actions[-1:][:more]]),
        "rewards": np.append(episode.rewards, np.zeros(more)).astype(np.float32)[:, None],
        "terminated": episode.terminal,
    }
