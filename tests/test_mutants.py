"""What comes from outside and was made wrong by chance is refused in a sentence or stored soundly: never otherwise."""

import io
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest

from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.endings import HDF5, ending_of
from mtf_engine.logs.exporting import export_log
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.kuairand_files import find_files, read_files
from mtf_engine.logs.live_users import read_arms
from mtf_engine.logs.preview import preview
from mtf_engine.logs.validation import DEFECT_CODES
from mtf_engine.spec import LONGEST, BoundsPlan, Box, Refusal
from tests import mutants
from tests.fixtures import kuairand, logs, steps
from tests.fixtures.shapes import SHAPES

MAPPINGS = Path(__file__).parent.parent / "docs" / "mappings"
PLAN = BoundsPlan(
    lower=(-0.1, -0.2, 0), upper=(0.1, 0.2, 0), segments={"new": Box(lower=(0, 0, 0), upper=(0.1, 0.1, 0.1))}
)
MAPPING = "mapping.yaml"
USERS = "user,arm,date,watch\n" + "".join(
    f"u{i},{'ab'[i % 2]},2026-03-0{1 + i % 3},{i * 1.5}\n" for i in range(12)
)
FORMATS = ("csv", "parquet", "jsonl", *SHAPES, "steps")
EACH = {
    "log": 3_000,
    "episodes": 1_000,
    "kuairand": 1_000,
    "preview": 2_500,
    "plan": 1_500,
    "live_test": 1_000,
}
"""Mutants of `make slow`."""
SECONDS = 10
"""Longer than this nobody waits for one small file."""


@cache
def sources(form: str) -> dict[str, bytes]:
    """Returns the files of a sound log by name, `mapping.yaml` among them where it needs one."""
    with TemporaryDirectory() as temp:
        folder = Path(temp)
        if form in SHAPES:
            SHAPES[form](folder)
            (folder / "mapping.yaml").write_bytes((MAPPINGS / f"{form}.yaml").read_bytes())
        elif form == "steps":
            steps.write_csv(steps.neorl(), folder / "steps.csv")
        elif form == "minari":
            folder = steps.pendulum(folder / "log-v0")
        elif form == "d3rlpy":
            export_log(
                _imported(steps.write_csv(steps.neorl(), folder / "steps.csv")), form, folder / "log.h5"
            )
            (folder / "log.duckdb").unlink()
            (folder / "steps.csv").unlink()
        elif form == "kuairand":
            kuairand.write(folder, kuairand.impressions(n_days=4).head(200), kuairand.users().head(40))
        else:
            logs.write(logs.clean(), folder, "parquet" if form == "jsonl" else form)
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        found = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    if form == "jsonl":
        tables = (name for name in found if name.endswith(".parquet"))
        texts = {name: pd.read_parquet(io.BytesIO(found[name])) for name in tables}
        found = {"mapping.yaml": found["mapping.yaml"]} | {
            name.replace(".parquet", ".jsonl"): frame.to_json(orient="records", lines=True, date_format="iso").encode()
            for name, frame in texts.items()
        }  # fmt: skip
    return found


def _imported(path: Path) -> Dataset:
    log = read_log(path, "transitions")
    write_dataset(path.parent, "log", log.meta, log.batches)
    return Dataset.open(path.parent / "log.duckdb")


def mutated(name: str, content: bytes, generator: np.random.Generator) -> bytes:
    """Returns the content of the file `name` with something wrong, as that kind of file can be."""
    kind = (ending := ending_of(Path(name))) and ending.kind
    if name.endswith(HDF5):
        return mutants.of_bytes(content, generator)
    if kind == "parquet":
        return mutants.of_parquet(content, generator)
    if kind == "csv" and name.endswith(".csv") and generator.random() < 0.5:
        return (
            mutants.of_rows(pd.read_csv(io.BytesIO(content), dtype=str), generator)
            .to_csv(index=False)
            .encode()
        )
    return mutants.of_text(content, generator)


def a_log(folder: Path, generator: np.random.Generator) -> str:
    """Imports a log that has one file wrong."""
    form = mutants.some(generator, FORMATS)
    source, out = with_one_wrong(form, folder, generator), folder / "out"
    out.mkdir()
    files = sources(form)
    tables = [name for name in files if name != MAPPING]
    options = {
        "mapping": source / MAPPING if MAPPING in files else None,
        "bad_rows": "drop" if form != "steps" and generator.random() < 0.3 else "refuse",
        "format": "transitions" if form == "steps" else "auto",
    }
    return outcome(lambda: stored(source / tables[0] if len(tables) == 1 else source, out, options), folder)


def with_one_wrong(form: str, folder: Path, generator: np.random.Generator) -> Path:
    """Returns the folder of a log that has one file wrong."""
    files, source = dict(sources(form)), folder / "log"
    tables = [name for name in files if name != MAPPING]
    wrong = MAPPING if MAPPING in files and generator.random() < 0.15 else mutants.some(generator, tables)
    files[wrong] = mutated(wrong, files[wrong], generator)
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    return source


def an_episode_file(folder: Path, generator: np.random.Generator) -> str:
    """Imports a Minari dataset or a file of d3rlpy that is damaged."""
    form, out = mutants.some(generator, ("minari", "d3rlpy")), folder / "out"
    source = with_one_wrong(form, folder, generator)
    out.mkdir()
    return outcome(lambda: stored(source / "log.h5" if form == "d3rlpy" else source, out, {}), folder)


def a_kuairand_log(folder: Path, generator: np.random.Generator) -> str:
    """Reads the files of a KuaiRand log; the network that would predict them is none of theirs."""
    source = with_one_wrong("kuairand", folder, generator)

    def read() -> None:
        rows = read_files(find_files(source, None), mutants.some(generator, ("refuse", "drop"))).impressions
        assert len(rows) and rows["is_click"].between(0, 1).all() and (rows["play_time_ms"] >= 0).all()

    return outcome(read, folder)


def stored(source: Path, out: Path, options: dict) -> None:
    """Imports a log, and looks at what is stored of it."""
    log = read_log(source, **options)
    write_dataset(out, "log", log.meta, log.batches)
    dataset = Dataset.open(out / "log.duckdb")
    (rows,) = dataset.query(
        "SELECT count(*) AS n, bool_and(isfinite(reward)) AS sound, count(timestamp) AS timed, "
        "coalesce(bool_and(year(timestamp) BETWEEN 1900 AND 2100), true) AS possible FROM requests"
    ).to_dict("records")
    assert rows["n"] and rows["sound"] and rows["possible"], rows
    for signal in set(dataset.meta.reward.weights) & set(dataset.meta.signals) - {"watch_time"}:
        outside = dataset.query(f'SELECT count(*) AS n FROM impressions WHERE "{signal}" NOT BETWEEN 0 AND 1')
        assert not outside["n"][0], signal


def outcome(act: Callable[[], object], folder: Path) -> str:
    """Returns how it ended: a refusal is one line, names its defects, and leaves nothing behind."""
    try:
        act()
        return "accepted"
    except Refusal as refusal:
        said, defects = str(refusal), refusal.defects
    assert said.isprintable() and len(said) <= LONGEST, said
    assert all(d.code in DEFECT_CODES and d.file and d.remedy for d in defects), defects
    assert not list(folder.glob("out/*"))
    return defects[0].code if defects else "a sentence"


def a_preview(folder: Path, generator: np.random.Generator) -> str:
    files = sources(mutants.some(generator, FORMATS))
    name = mutants.some(generator, [name for name in files if name != MAPPING])
    content = mutated(name, files[name], generator)
    return outcome(lambda: preview(name, io.BytesIO(content)), folder)


def a_plan(folder: Path, generator: np.random.Generator) -> str:
    content = mutants.of_text(PLAN.to_yaml().encode(), generator)
    return outcome(lambda: BoundsPlan.from_yaml(content), folder)


def a_live_test(folder: Path, generator: np.random.Generator) -> str:
    path = folder / "users.csv"
    path.write_bytes(mutated(path.name, USERS.encode(), generator))
    return outcome(lambda: read_arms(path), folder)


WAYS = {
    "log": a_log,
    "episodes": an_episode_file,
    "kuairand": a_kuairand_log,
    "preview": a_preview,
    "plan": a_plan,
    "live test": a_live_test,
}


def tried(way: str, seed: int, folder: Path) -> str:
    """Returns how one mutant ended, or what of it is not as promised."""
    began = time.monotonic()
    try:
        ended = WAYS[way](folder, np.random.default_rng(seed))
    except Exception as error:  # whatever it is, the mutants after it are tried too
        return f"fault of {way} {seed}: {type(error).__name__}: {str(error)[:200]}"
    took = time.monotonic() - began
    return ended if took < SECONDS else f"fault of {way} {seed}: took {took:.0f} s"


def campaign(tmp_path: Path, first: int, **numbers: int) -> Counter[str]:
    """Returns how many mutants of each way ended how."""
    ended: Counter[str] = Counter()
    for form in (*FORMATS, "minari", "d3rlpy", "kuairand"):
        sources(form)  # which is no part of a mutant's time
    for name, n in numbers.items():
        for seed in range(first, first + n):
            with TemporaryDirectory(dir=tmp_path) as folder:
                ended[tried(name.replace("_", " "), seed, Path(folder))] += 1
    print(f"{ended.total():,} tried: {dict(ended.most_common())}")
    return ended


def test_200_mutants_of_what_comes_from_outside_are_refused_or_stored_soundly(tmp_path):
    ended = campaign(tmp_path, 0, log=10, episodes=4, kuairand=3, preview=91, plan=90, live_test=2)
    assert not [end for end in ended if end.startswith("fault")]
    assert ended["accepted"] and ended["a sentence"] and ended.total() == 200


@pytest.mark.slow
def test_10_000_mutants_of_what_comes_from_outside_are_refused_or_stored_soundly(tmp_path):
    ended = campaign(tmp_path, 1_000, **EACH)
    assert not [end for end in ended if end.startswith("fault")]
    assert len(ended) >= 15, "too few kinds of ends for mutants that mean something"
