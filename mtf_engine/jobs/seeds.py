"""The same training with several seeds at once, kept together by the name of their group."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from mtf_engine.jobs.submissions import submit_train
from mtf_engine.registry import Workspace
from mtf_engine.spec import Refusal

MOST_SEEDS = 100
RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_seeds(text: str, first: int = 0) -> tuple[int, ...]:
    """Returns the seeds of `text`: a count ("3", from `first` on), or ranges and lists ("1-5", "0,3,7")."""
    if text.strip().isdecimal():
        seeds = list(range(first, first + min(int(text), MOST_SEEDS + 1)))
    else:
        seeds = [seed for part in text.split(",") for seed in _range(part.strip(), text)]
    if not 0 < len(seeds) <= MOST_SEEDS:
        raise Refusal(f"--seeds {text} asks for {len(seeds)} seeds; ask for 1 to {MOST_SEEDS}")
    return tuple(dict.fromkeys(seeds))


def _range(part: str, text: str) -> Iterable[int]:
    found = RANGE.fullmatch(part)
    if not found:
        raise Refusal(f"--seeds {text} cannot be read; write a count (3), a range (1-5) or a list (0,3,7)")
    low = int(found[1])
    high = int(found[2] or low)
    return range(low, min(high, low + MOST_SEEDS) + 1)


def submit_seeds(
    workspace: Workspace,
    dataset: str,
    seeds: Sequence[int],
    *,
    algo: str,
    preset: str,
    settings: Mapping[str, str],
    name: str | None = None,
) -> list[str]:
    """Returns the ids of one training a seed, see `submit_train`; several share a group of a new name."""
    label = name or f"{algo} on {workspace.dataset(dataset).name}"
    group = _free_name(workspace, label) if len(seeds) > 1 else ""
    start = partial(
        submit_train,
        workspace,
        dataset,
        algo=algo,
        preset=preset,
        settings=settings,
        name=name,
        seed_group=group,
    )
    return [start(seed=seed) for seed in seeds]


def _free_name(workspace: Workspace, label: str) -> str:
    """Returns `label`, numbered where trainings are grouped under that name already."""
    taken = {run.seed_group for run in workspace.registry.runs(kind="train")}
    names = (f"{label} ({i})" if i > 1 else label for i in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
