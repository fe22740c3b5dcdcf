"""Whatever a log's files are called, packed or cut into: the same rows make the same dataset, or a true reason."""

import gzip
import io
import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.preview import preview
from mtf_engine.spec import BoundsPlan, Refusal
from tests.fixtures import logs
from tests.searching import examples


def shown(n: int = 6) -> pd.DataFrame:
    """Returns a log of impressions alone."""
    users = np.arange(n) // 2
    return pd.DataFrame(
        {
            "user_id": [f"u{user}" for user in users],
            "timestamp": [f"2026-05-04 10:{i:02d}:00" for i in range(n)],
            "prediction_click": np.linspace(0.1, 0.7, n).round(3),
            "watch_time": np.linspace(2, 40, n).round(1),
        }
    )


def imported(source: Path, to: Path, **options: Any) -> Dataset:
    log = read_log(source, **options)
    to.mkdir(exist_ok=True)
    write_dataset(to, "log", log.meta, log.batches)
    return Dataset.open(to / "log.duckdb")


def zstd(text: bytes) -> bytes:
    return pa.compress(text, "zstd", asbytes=True)


def csv(frame: pd.DataFrame, **options: Any) -> bytes:
    return frame.to_csv(index=False, **options).encode()


def jsonl(frame: pd.DataFrame) -> bytes:
    return frame.to_json(orient="records", lines=True).encode()


def parquet(frame: pd.DataFrame) -> bytes:
    return frame.to_parquet(index=False)


WRITERS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    "shown.csv": csv,
    "SHOWN.CSV": csv,
    "shown.tsv": lambda f: csv(f, sep="\t"),
    "shown.csv.gz": lambda f: gzip.compress(csv(f)),
    "shown.csv.zst": lambda f: zstd(csv(f)),
    "shown*[1].csv": csv,
    "bom.csv": lambda f: b"\xef\xbb\xbf" + csv(f),
    "windows.csv": lambda f: csv(f, lineterminator="\r\n"),
    "old mac.csv": lambda f: csv(f, lineterminator="\r"),
    "shown.jsonl": jsonl,
    "shown.ndjson.gz": lambda f: gzip.compress(jsonl(f)),
    "shown.PARQUET": parquet,
    "shown.pq": parquet,
}


@pytest.fixture(scope="module")
def as_csv(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("csv")
    (folder / "shown.csv").write_bytes(csv(shown()))
    return imported(folder / "shown.csv", folder).content_hash


@pytest.mark.parametrize("name", WRITERS)
def test_a_log_is_read_whatever_its_file_is_called(name: str, as_csv: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(WRITERS[name](shown()))
    assert imported(path, tmp_path).content_hash == as_csv


@pytest.mark.parametrize("name", WRITERS)
def test_the_first_rows_of_every_file_that_is_read_can_be_looked_at(name: str) -> None:
    found = preview(name, io.BytesIO(WRITERS[name](shown())))
    assert found.columns == tuple(shown().columns)
    assert [row[:2] for row in found.rows] == shown()[["user_id", "timestamp"]].head(5).to_records(
        False
    ).tolist()


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl.gz"])
def test_parts_in_a_folder_are_one_table(ending: str, as_csv: str, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    write = {".csv": csv, ".parquet": parquet, ".jsonl.gz": lambda f: gzip.compress(jsonl(f))}[ending]
    for i, part in enumerate((shown()[:3], shown()[3:])):
        (folder / f"part-{i:05d}{ending}").write_bytes(write(part))
    assert imported(folder, tmp_path).content_hash == as_csv


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_folders_that_name_a_value_are_a_column(ending: str, tmp_path: Path) -> None:
    frame = shown().assign(segment=["new"] * 4 + ["old user"] * 2, filename=7)  # DuckDB's own name for one
    (tmp_path / "whole.csv").write_bytes(csv(frame))
    for segment, part in frame.groupby("segment"):
        folder = tmp_path / "log" / f"segment={segment.replace(' ', '%20')}"
        folder.mkdir(parents=True)
        rows = part.drop(columns="segment")
        (folder / f"part-0.{ending}").write_bytes(csv(rows) if ending == "csv" else parquet(rows))
    whole = imported(tmp_path / "whole.csv", tmp_path)
    assert imported(tmp_path / "log", tmp_path / "parts").content_hash == whole.content_hash


@pytest.mark.parametrize("name", ["shown.xlsx", "shown", "shown.parquet.gz", "shown.csv.bz2"])
def test_another_ending_is_told_as_what_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(csv(shown()))
    with pytest.raises(
        Refusal, match=r"ending|ends in .*which is not read; a log is read from \.csv, .*\.parquet"
    ):
        read_log(tmp_path / name)
    with pytest.raises(Refusal, match=r"is not read"):
        preview(name, io.BytesIO(csv(shown())))


DAMAGED = {
    "utf16.csv": (shown().to_csv(index=False).encode("utf-16"), "is UTF-16; export the log as UTF-8"),
    "latin.csv": ("user_id,größe\n1,2\n".encode("latin-1"), "has a header that is not UTF-8"),
    "no.csv.gz": (csv(shown()), "is no gzip file, or a damaged one"),
    "cut.csv.gz": (gzip.compress(csv(shown()))[:-20], "cannot be read|damaged"),
    "cut.jsonl": (jsonl(shown())[:-9], "cannot be read: .*Malformed JSON"),
    "zero.jsonl": (b"", "holds no bytes"),
    "mixed.csv": (csv(shown()).replace(b"\n", b"\r\n", 3), "its lines end in different ways"),
    "packed.csv": (gzip.compress(csv(shown())), "is packed by gzip; name it with .gz behind its ending"),
    "zstd.jsonl": (zstd(jsonl(shown())), "is packed by zstd"),
    "columns.csv": (parquet(shown()), "is a Parquet file; name it with .parquet"),
    "unmarked.csv": (shown().to_csv(index=False).encode("utf-16-le"), "is UTF-16 or no text"),
    "blank.csv": (b"\n" + csv(shown()), "has a blank first line"),
    "bom.jsonl": (b"\xef\xbb\xbf" + jsonl(shown()), "starts with a byte order mark"),
    "list.jsonl": (b"[1, 2]\n", "cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_told_in_a_sentence(name: str, tmp_path: Path) -> None:
    content, reason = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refusal, match=reason) as told:
        read_log(tmp_path / name)
    assert "\n" not in str(told.value)
    assert str(tmp_path) not in str(told.value)


@pytest.mark.parametrize("mapping", ["", "fill: {watch_time: 0}"])
def test_a_damaged_page_is_told_in_a_sentence(mapping: str, tmp_path: Path) -> None:
    """A Parquet file is sound at both ends, and in the middle it is not."""
    (source := tmp_path / "log").mkdir()
    (tmp_path / "mapping.yaml").write_text(mapping)
    for i in range(2):
        (source / f"part-{i}.parquet").write_bytes(parquet(shown()))
    at = pq.read_metadata(source / "part-1.parquet").row_group(0).column(3).data_page_offset
    content = bytearray((source / "part-1.parquet").read_bytes())
    content[at : at + 8] = b"\xff" * 8
    (source / "part-1.parquet").write_bytes(bytes(content))
    with pytest.raises(Refusal, match=r"log: cannot be read: .*; write the file again") as told:
        read_log(source, mapping=tmp_path / "mapping.yaml")
    assert "\n" not in str(told.value)
    assert str(tmp_path) not in str(told.value)


@pytest.mark.parametrize("write", [csv, parquet])
def test_a_defect_of_a_part_names_the_part_and_the_row_in_it(write: Callable, tmp_path: Path) -> None:
    for i, part in enumerate((shown()[:2], shown()[2:].assign(watch_time=[1.0, -3.0, 1.0, 1.0]))):
        (tmp_path / f"part-{i}.{write.__name__}").write_bytes(write(part))
    with pytest.raises(Refusal, match=rf"part-1\.{write.__name__}, row 2, column watch_time: is -3"):
        read_log(tmp_path)


@pytest.mark.parametrize("kind", ["int64", "int16", "uint64"])
def test_ids_that_are_numbers_are_as_their_texts(kind: str, tmp_path: Path) -> None:
    """Requests of a user at one time are sorted by their ids as texts: 10 comes before 9."""
    frame = shown(12).assign(
        user_id=["a"] * 8 + ["b"] * 4,
        timestamp="2026-05-04 10:00:00",
        session_id=np.array([9, 9, 10, 10, 9, 9, 10, 10, 7, 7, 7, 7], kind),
        request_id=np.array([2, 2, 10, 10, 11, 11, 9, 9, 2, 3, 2, 3], kind),
        item_id=np.arange(100, 112).astype(kind),
    )
    texts = {name: frame[name].astype(str) for name in ("session_id", "request_id", "item_id")}
    found = {}
    for name, rows in {"texts": frame.assign(**texts), "numbers": frame}.items():
        (tmp_path / f"{name}.parquet").write_bytes(parquet(rows))
        found[name] = imported(tmp_path / f"{name}.parquet", tmp_path / name, name="same")
    assert found["numbers"].content_hash == found["texts"].content_hash
    first = "SELECT first(item_id ORDER BY position) AS item FROM impressions GROUP BY request_id ORDER BY request_id"
    assert found["numbers"].query(first)["item"].tolist() == [102, 106, 104, 100, 108, 109]


@pytest.mark.parametrize("kind", ["int64", "str"])
@pytest.mark.parametrize("name", ["session_id", "request_id", "item_id"])
def test_an_id_may_be_a_feature_too(name: str, kind: str, tmp_path: Path) -> None:
    frame = shown(12)
    frame = frame.assign(user_id="a", session_id=1, request_id=frame.index // 2, item_id=range(100, 112))
    frame[name] = frame[name].astype(kind)
    (tmp_path / "log.parquet").write_bytes(parquet(frame))
    (tmp_path / "mapping.yaml").write_text(f"profile: {{categorical: [{name}]}}")
    found = read_log(tmp_path / "log.parquet", mapping=tmp_path / "mapping.yaml")
    assert any(feature.startswith(f"{name}=") for feature in found.meta.feature_names)
    (tmp_path / "mapping.yaml").write_text(f"profile: {{numeric: [{name}]}}")
    if kind == "int64":
        assert (
            name in read_log(tmp_path / "log.parquet", mapping=tmp_path / "mapping.yaml").meta.feature_names
        )
        return
    with pytest.raises(Refusal, match=f"{name} is to be both a text and a number; name a copy"):
        read_log(tmp_path / "log.parquet", mapping=tmp_path / "mapping.yaml")


@pytest.mark.parametrize("folder", ["", "file_row_number=1", "rowid=3"])
@pytest.mark.parametrize("column", ["note", "File_row_number"])
@pytest.mark.parametrize("most", [32, 1])
def test_columns_and_folders_may_be_called_as_rows_are_numbered(
    folder: str, column: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many files it is the same: their rows are numbered on, so the defect of one has its place in its file."""
    monkeypatch.setattr("mtf_engine.logs.files.MOST_IN_VIEW", most)
    (parts := tmp_path / "log" / folder).mkdir(parents=True)
    frame = shown(12).assign(user_id="a", **{column: range(12)})
    for i in range(2):
        (parts / f"part-{i}.parquet").write_bytes(parquet(frame[i * 6 : i * 6 + 6]))
    if folder == "rowid=3":
        with pytest.raises(Refusal, match="column rowid: is what an import calls the numbers of rows"):
            read_log(tmp_path / "log")
        return
    assert imported(tmp_path / "log", tmp_path / "to").n_impressions == 12
    (parts / "part-1.parquet").write_bytes(parquet(frame[6:].assign(watch_time=[1, 1, -3, 1, 1, 1])))
    with pytest.raises(Refusal, match=r"part-1\.parquet, row 3, column watch_time: is -3"):
        read_log(tmp_path / "log")


@pytest.mark.parametrize(("positions", "repeats"), [((3, 35, 31, -29), False), ((3, 35, 67, 35), True)])
def test_a_position_may_be_any_number_once_in_a_request(
    positions: tuple[int, ...], repeats: bool, tmp_path: Path
) -> None:
    frame = shown(4).assign(user_id="a", request_id=1, position=positions)
    (tmp_path / "log.parquet").write_bytes(parquet(frame))
    if not repeats:
        assert imported(tmp_path / "log.parquet", tmp_path / "to").n_impressions == 4
        return
    with pytest.raises(Refusal, match="row 4, column position: repeats within its request the position 35"):
        read_log(tmp_path / "log.parquet")


def test_parts_with_other_columns_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv(shown()))
    (tmp_path / "b.csv").write_bytes(csv(shown().drop(columns="watch_time")))
    with pytest.raises(Refusal, match=r"b\.csv: has other columns than a\.csv"):
        read_log(tmp_path)


@pytest.mark.parametrize("how", ["{}.csv.gz", "{}.parquet/part-0.parquet", "{}/part-0.csv", "{}.ndjson"])
def test_tables_of_requests_and_impressions_are_read_so_too(how: str, tmp_path: Path) -> None:
    plain = logs.write(logs.clean(), tmp_path / "plain")
    log = tmp_path / "log"
    for name, frame in logs.clean()._asdict().items():
        path = log / how.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if "parquet" in how:
            frame.to_parquet(path, index=False)
        elif "json" in how:
            frame.assign(**{c: frame[c].astype(str) for c in frame if c == "timestamp"}).to_json(
                path, orient="records", lines=True, double_precision=15
            )
        else:
            frame.to_csv(path, index=False)
    shutil.copy(plain / "mapping.yaml", log)
    for folder in (plain, log):
        imported(folder, folder / "dataset", mapping=folder / "mapping.yaml", name="one")
    hashes = {Dataset.open(f / "dataset" / "log.duckdb").content_hash for f in (plain, log)}
    assert len(hashes) == 1


@examples(4)
@given(
    length=st.integers(1, 12),
    n=st.integers(1, 4),
    seed=st.integers(0, 1_000),
    how=st.sampled_from(("list", "numbered", "named")),
)
def test_lists_of_any_length_are_the_same_in_every_kind_of_file(
    length: int, n: int, seed: int, how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = np.random.default_rng(seed).uniform(0, 1, (n, length))
    frame = shown(n).drop(columns="prediction_click")
    if how == "list":
        frame["predictions"] = values.tolist()
    for i in range(length if how != "list" else 0):
        frame[f"predictions_{i}" if how == "numbered" else f"prediction_p{i}x"] = values[:, i]
    folder = tmp_path_factory.mktemp("kinds")
    hashes = set()
    for name, write in {"a.csv": csv, "b.parquet": parquet, "c.jsonl": _exact_json}.items():
        (folder / name).write_bytes(write(frame))
        hashes.add(imported(folder / name, folder / name[0], name="same").content_hash)
    assert len(hashes) == 1


def _exact_json(frame: pd.DataFrame) -> bytes:
    """Returns JSON lines with every digit, which pandas' own writer rounds."""
    return "".join(json.dumps(row) + "\n" for row in frame.to_dict("records")).encode()


@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_packed_file_that_was_cut_off_is_refused_wherever_it_ends(
    ending: str, kept: float, tmp_path: Path
) -> None:
    text = csv(pd.concat([shown(600)] * 4).assign(item_id=range(2400)))
    packed = gzip.compress(text) if ending == "gz" else zstd(text)
    path = tmp_path / f"cut.csv.{ending}"
    path.write_bytes(packed[: int(kept * len(packed))])
    with pytest.raises(Refusal, match="or a damaged one; write or copy the file again"):
        read_log(path)


@pytest.mark.parametrize("entries", [[True, False], [0.5, 2.0]], ids=["booleans", "decimals"])
def test_entries_of_any_type_are_numbers(entries: list, tmp_path: Path) -> None:
    values = entries if entries[0] is True else [Decimal(str(e)) for e in entries]
    lists = pa.array([values] * 6, pa.list_(pa.bool_() if entries[0] is True else pa.decimal128(4, 1)))
    frame = shown().drop(columns="prediction_click")
    table = pa.Table.from_pandas(frame, preserve_index=False).append_column("predictions", lists)
    pq.write_table(table, tmp_path / "shown.parquet")
    predictions = read_log(tmp_path / "shown.parquet").batches
    assert next(iter(predictions)).impressions["predictions"][0].tolist() == [float(e) for e in entries]


@pytest.mark.parametrize(
    "text", [b"requests: {a: 2026-13-45}", b"a: !!int ''", b"[" * 2000, b"\xff\xfe\x00", b"- 1"]
)
def test_a_mapping_that_is_none_is_told_in_a_sentence(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "shown.csv").write_bytes(csv(shown()))
    (tmp_path / "mapping.yaml").write_bytes(text)
    with pytest.raises(Refusal, match=r"mapping\.yaml: .*; correct the mapping file"):
        read_log(tmp_path / "shown.csv", mapping=tmp_path / "mapping.yaml")
    with pytest.raises(Refusal, match="bounds plan"):
        BoundsPlan.from_yaml(text)


def test_an_empty_text_is_a_blank_in_every_kind_of_file(tmp_path: Path) -> None:
    frame = shown().assign(segment=["new", "", "", "old", "", "new"])
    hashes = set()
    for name, write in {"a.csv": csv, "b.parquet": parquet, "c.jsonl": jsonl}.items():
        (tmp_path / name).write_bytes(write(frame))
        hashes.add(imported(tmp_path / name, tmp_path / name[0], name="same").content_hash)
    assert len(hashes) == 1
    (tmp_path / "key.parquet").write_bytes(parquet(frame.assign(user_id=["a", "", "b", "b", "c", "c"])))
    with pytest.raises(Refusal, match="row 2, column user_id: is blank"):
        read_log(tmp_path / "key.parquet")


@pytest.mark.parametrize("write", [csv, parquet])
def test_a_column_that_is_there_twice_is_refused(write: Callable, tmp_path: Path) -> None:
    path = tmp_path / ("log.csv" if write is csv else "log.parquet")
    path.write_bytes(write(shown().assign(USER_ID="x")))
    with pytest.raises(Refusal, match="column USER_ID: is in the header twice"):
        read_log(path)


@pytest.mark.parametrize("write", [csv, parquet, jsonl])
def test_a_column_that_would_stand_for_the_number_of_a_row_is_refused(
    write: Callable, tmp_path: Path
) -> None:
    path = tmp_path / f"log.{write.__name__}"
    path.write_bytes(write(shown().assign(rowId=range(5, 11))))
    with pytest.raises(Refusal, match="column rowId: is what an import calls the numbers of rows; rename"):
        read_log(path)
