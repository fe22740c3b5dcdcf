"""Minari datasets (https://minari.farama.org): a folder of episodes with their spaces, read and written.

An export keeps beside each step what Minari has no place for (baseline action, bounds, density, user, split), as infos,
and in the metadata what the columns mean: an import of it has the same transitions to the bit.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pydantic import ValidationError

from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.endings import DATA, METADATA, minari_place
from mtf_engine.logs.episodes import Episode, episodes, extra, kept_of, new_place
from mtf_engine.logs.hdf5_files import UNREADABLE, check_written, opened
from mtf_engine.logs.sessions import ImportedLog
from mtf_engine.logs.steps import BOX, Kept, Steps, as_log, flags, joined, numbers, refuse_ragged
from mtf_engine.spec import FusionSpec, Refusal

OURS = "mtf_engine"
"""The key of the metadata under which an export says what its columns mean."""
TEXTS = ("user_id", "segment", "split")
INFOS = (*BOX, "pscore", "clipped", *TEXTS)
MOST_CHOICES = 1_000
"""Each is a number of an observation."""
STORAGE = "minari.dataset.minari_storage"
MAIN = "main_data.hdf5"
WRITTEN = ("observations", "actions", "rewards", "terminations", "truncations")
"""Of each episode, in the file `MAIN` of its data."""


def read_minari(folder: Path, name: str) -> ImportedLog:
    """Returns the log in the folder of one Minari dataset; a Refusal where it is none, or has no Box of actions."""
    place = minari_place(folder)
    if place is None:
        raise Refusal(f"{folder} holds no {METADATA}; name the folder of one Minari dataset, as NAME-v0")
    storage = extra(STORAGE).MinariStorage
    try:
        metadata = storage.read_raw_metadata(place)
        if not isinstance(metadata, dict) or not {"observation_space", "action_space"} <= metadata.keys():
            # else an environment would be made, and run
            raise Refusal(
                f"{folder}: its {METADATA} names no observation_space and action_space; write it anew"
            )
        for path in place.rglob("*.hdf5"):
            with opened(path):
                pass  # Minari opens it itself
        found = storage.read(place)
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as inf
            steps = _steps(found, folder.name, INFOS if OURS in metadata else ())
    except (*UNREADABLE, AssertionError) as error:
        raise Refusal(
            f"{folder} cannot be read as a Minari dataset: {str(error) or type(error).__name__}; "
            "download or write it anew"
        ) from None
    return as_log(steps, name, "minari", _kept(metadata, found.action_space, folder))


def _kept(metadata: Mapping[str, Any], space: spaces.Box, folder: Path) -> Kept:
    """Returns what the metadata say of the columns: those of an export, else the ranges of the actions."""
    if OURS in metadata:
        try:
            return Kept.model_validate(metadata[OURS])
        except ValidationError as error:
            raise Refusal.invalid(f"{OURS} in the {METADATA} of {folder}", error) from None
    names = [f"action_{i}" for i in range(int(np.prod(space.shape)))]
    return Kept(
        fusion=FusionSpec.weights(names, space.low.ravel(), space.high.ravel())
        if space.is_bounded()
        else None
    )


def _steps(storage: Any, file: str, infos: Sequence[str]) -> Steps:
    """Returns the episodes as steps, with the `infos` of an export.

    One that does not end in a terminal step keeps the observation it led to.
    """
    space = storage.action_space
    if not isinstance(space, spaces.Box) or not space.shape:
        raise Refusal(f"its actions are of {space}; only a Box of numbers can be learned from")
    parts: list[dict[str, Any]] = []
    for i, episode in enumerate(storage.get_episodes(range(storage.total_episodes))):
        n = len(episode["rewards"])
        seen = _flat(storage.observation_space, episode["observations"])
        terminal = flags(file, f"terminations of episode {i}", episode["terminations"])
        rows_of = {"observations but the last": len(seen) - 1, "actions": len(episode["actions"])}
        refuse_ragged(file, f"episode {i}", rows_of | {"rewards": n, "terminations": len(terminal)})
        if not n:
            continue
        rows = n if terminal[-1] else n + 1
        action = numbers("actions", episode["actions"]).astype(np.float64).reshape(n, -1)
        reward, cut = np.zeros(rows), np.zeros(rows, bool)
        reward[:n], cut[n - 1] = numbers("rewards", episode["rewards"]), not terminal[-1]
        parts.append(
            {
                "session": np.full(rows, i),
                "observation": seen[:rows],
                "action": np.concatenate([action, np.full_like(action[:1], np.nan)])[:rows],
                "reward": reward,
                "terminal": np.append(terminal, False)[:rows],
                "truncated": cut,
                **{
                    f"known.{name}": _info(name, episode["infos"][name], (n + 1, action.shape[1]))[:rows]
                    for name in infos
                },
            }
        )
    if not parts:
        raise Refusal("it holds no episode with a step; bring one that does")
    columns = joined(file, parts)
    known = {name.partition(".")[2]: columns.pop(name) for name in [*columns] if "." in name}
    return Steps(file, **columns, known=known)


def _info(name: str, values: Any, shape: tuple[int, int]) -> NDArray:
    """Returns what an export kept beside the steps, [n + 1] or [n + 1, d]; a ValueError where it is none."""
    found = np.asarray(values)
    texts, wanted = name in TEXTS, shape if name in BOX else shape[:1]
    if found.shape != wanted or (found.dtype.kind in "OSU") != texts or found.dtype.kind not in "OSUfiu":
        raise ValueError(
            f"infos {name} are {found.dtype} of the shape {found.shape}, which should be {wanted}"
        )
    return np.array([_text(value) for value in found], object) if texts else found


def _text(value: Any) -> str | None:
    return (value.decode() if isinstance(value, bytes) else str(value)) or None


def _flat(space: spaces.Space, values: Any) -> NDArray[np.float32]:
    """Returns the values [n, ...] of a space as [n, f], in the order in which Gymnasium flattens them."""
    match space:
        case spaces.Dict():
            return np.concatenate([_flat(inner, values[key]) for key, inner in space.spaces.items()], axis=1)
        case spaces.Tuple():
            parts = zip(space.spaces, values, strict=True)
            return np.concatenate([_flat(inner, part) for inner, part in parts], axis=1)
        case spaces.Discrete():
            if space.n > MOST_CHOICES:
                raise Refusal(
                    f"its observations are one of {space.n:,} choices; at most {MOST_CHOICES:,} are read"
                )
            chosen = np.asarray(values)[:, None] - space.start == np.arange(space.n)
            if not chosen.any(axis=1).all():
                raise ValueError(f"an observation is none of the choices of {space}")
            return chosen.astype(np.float32)
        case spaces.Box() | spaces.MultiBinary():
            return numbers("observations", values).astype(np.float32).reshape(len(values), -1)
    raise Refusal(f"its observations are of {space}; only numbers and choices can be learned from")


def write_minari(dataset: Dataset, folder: Path) -> dict[str, int]:
    """Returns how many episodes and steps were written to `folder`, a Minari dataset of its own.

    `minari.load_dataset(ID)` finds it as `$MINARI_DATASETS_PATH/ID`.
    """
    minari, storage = extra("minari"), extra(STORAGE).MinariStorage
    extra("h5py")
    meta = dataset.meta
    with new_place(folder) as temp:
        temp.mkdir()
        made = storage.new(
            temp / DATA,
            observation_space=spaces.Box(-np.inf, np.inf, (len(meta.feature_names),), np.float32),
            action_space=spaces.Box(-1, 1, (meta.fusion.n_actions,), np.float32),
        )
        made.update_episodes(map(_buffer, episodes(dataset)))
        made.update_metadata(
            {
                "dataset_id": _id(folder.name),
                "minari_version": minari.__version__,
                OURS: json.loads(kept_of(meta).model_dump_json()),
            }
        )
        check_written(temp / DATA / MAIN, folder, _written(dataset))
        return {"episodes": made.total_episodes, "steps": made.total_steps}


def _written(dataset: Dataset) -> Iterator[tuple[str, Any]]:
    """Yields what the file of a Minari dataset holds, by name."""
    for i, episode in enumerate(episodes(dataset)):
        yield f"episode_{i}@total_steps", episode.n_steps
        buffer = _buffer(episode)
        yield from ((f"episode_{i}/{name}", getattr(buffer, name)) for name in WRITTEN)
        yield from ((f"episode_{i}/infos/{name}", values) for name, values in buffer.infos.items())


def _id(name: str) -> str:
    """Returns a name as Minari takes it, with a version."""
    plain = re.sub(r"[^-\w]", "_", name)
    return plain if re.search(r"-v\d+$", plain) else f"{plain}-v0"


def _buffer(episode: Episode) -> Any:
    """Returns an episode as Minari writes it; infos have a row more than steps, as observations do."""
    of, n = extra("minari.data_collector").EpisodeBuffer, episode.n_steps
    ends = np.arange(n) == n - 1
    rows = np.minimum(np.arange(n + 1), len(episode.requests["reward"]) - 1)
    infos: dict[str, Any] = {name: episode.requests[name][rows] for name in INFOS}
    for name, values in infos.items():
        if values.dtype.kind == "O":
            infos[name] = ["" if value is None else str(value) for value in values]
    return of(
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=ends & episode.terminal,
        truncations=ends & (not episode.terminal),
        infos=infos,
    )
