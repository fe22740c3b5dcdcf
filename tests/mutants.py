"""What comes from outside, made wrong by chance: bytes, values, names, and types of Parquet's columns."""

import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

Generator = np.random.Generator

INSERTED = (
    b"\0", b"\r", b"\n", b"\r\n", b'"', b'""', b"'", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3(", b"\x80", b"\xed\xa0\x80",
    b",", b"\t", b";", b"::", b" ", b"[", b"]", b"{", b"}", b": ", b"- ", b"&a ", b"*a", b"!!int ", b"#", b"|", b"%",
    b"x" * 100_000, b"9" * 400, b"[" * 2_000, b"PAR1", b"\x1f\x8b", "\u202e\u2028".encode(),
)  # fmt: skip
VALUES = (
    "NaN", "inf", "-inf", "1e308", "-1e308", "1e400", "1e-320", "", " ", "-1", "-0", "0", "1", "2", "1.5", "-3.5", "99",
    "58309-03-01", "0001-01-01", "9999-12-31 23:59:59", "294247-01-10", "-290307-12-22", "2026-02-30", "epoch", "20268",
    "infinity", "2026-03-01T00:00:00+14:00", "2026-03-01 00:00:00 Mars/Base", "1772323200000000000", "9" * 400, "true",
    "[]", "[[1]]", "[1", "[nan, inf]", "[1, 2, 3, 4, 5, 6, 7]", "['a', 'b']", "0.5 0.5", '{"a": 1}', "0x10", "1_000",
    "\u0663", "None", "null", "\\N", "=1+1", "'; DROP TABLE requests; --", '"', "a\nb", "a\rb", "a\0b", "\ufeffx",
    "9223372036854775807", "-9223372036854775808", "18446744073709551616", "train", "control", "N1-1 N2-0", "1,5",
    "x" * 70_000,
)  # fmt: skip
NAMES = (
    "", " ", "row", "rowid", "key", "nth", "place", "filename", "the file of this row", "user_id", "request_id", "step",
    "USER_ID", "label", "reward", "split", "segment", "action", "action_0", "predictions", "prediction_",
    "propensity_score", 'a"b', "a'b", "a]b", "column0", "typed", "raw", "prediction_9", "observation_1", "\u202ename",
    "select", "terminal",
    "truncated", "clipped", "position", "session_id", "timestamp", "valid", "n" * 70_000, "a\nb", "=x",
    "{value}",
)  # fmt: skip


def some(generator: Generator, among: tuple | list):
    return among[int(generator.integers(len(among)))]


def of_bytes(content: bytes, generator: Generator) -> bytes:
    """Returns the bytes with one to three flips, cuts, repeats or insertions."""
    for _ in range(int(generator.integers(1, 4))):
        at = int(generator.integers(len(content) + 1))
        end = min(len(content), at + int(generator.integers(1, 200)))
        kind = int(generator.integers(6))
        if kind == 0 and at < len(content):
            content = (
                content[:at] + bytes([content[at] ^ (1 << int(generator.integers(8)))]) + content[at + 1 :]
            )
        elif kind == 1:
            content = content[:at]
        elif kind == 2:
            content = content[:at] + content[end:]
        elif kind == 3:
            content = content[:end] + content[at:]
        elif kind == 4:
            content = content[:at] + generator.bytes(end - at) + content[end:]
        else:
            content = content[:at] + some(generator, INSERTED) + content[at:]
    return content


def of_text(content: bytes, generator: Generator) -> bytes:
    """Returns a text with one to three of its words replaced by values, or as `of_bytes`."""
    if generator.random() < 0.4:
        return of_bytes(content, generator)
    words = pd.Series([content.decode()]).str.split(r"([^\w.\- \[\]]+)", regex=True)[0]
    for _ in range(int(generator.integers(1, 3))):
        words[int(generator.integers(len(words)))] = some(generator, VALUES + NAMES)
    return "".join(words).encode()


def of_rows(frame: pd.DataFrame, generator: Generator) -> pd.DataFrame:
    """Returns the table with one to three values, rows or names of columns changed."""
    frame = frame.astype(object)
    for _ in range(int(generator.integers(1, 4))):
        row, column = int(generator.integers(len(frame))), int(generator.integers(frame.shape[1]))
        kind = generator.random()
        if kind < 0.6:
            frame.iat[row, column] = some(generator, VALUES)
        elif kind < 0.7:
            frame.isetitem(column, some(generator, VALUES))
        elif kind < 0.85:
            names = list(frame.columns)
            names[column] = some(generator, NAMES)
            frame = frame.set_axis(names, axis=1)
        elif kind < 0.95:
            frame = pd.concat([frame, frame.iloc[[row]]], ignore_index=True)
        elif frame.shape[1] > 1:
            frame = frame.iloc[:, [i for i in range(frame.shape[1]) if i != column]]
    return frame


def _scalars(generator: Generator, n: int) -> list[str]:
    return [some(generator, VALUES) for _ in range(n)]


TYPES: tuple[Callable[[Generator, int], pa.Array], ...] = (
    lambda g, n: pa.nulls(n),
    lambda g, n: pa.array(_scalars(g, n)),
    lambda g, n: pa.array(_scalars(g, n)).dictionary_encode(),
    lambda g, n: pa.array([g.bytes(5) for _ in range(n)], pa.binary()),
    lambda g, n: pa.array([{"a": 1}] * n),
    lambda g, n: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
    lambda g, n: pa.array([[[1.0], []]] * n),
    lambda g, n: pa.array([["a", None]] * n),
    lambda g, n: pa.array([[float("nan"), 1e308]] * n),
    lambda g, n: pa.array([[]] * n, pa.list_(pa.float32())),
    lambda g, n: pa.array([[True, False]] * n),
    lambda g, n: pa.array(g.integers(0, 2**63, n).astype("uint64") * 2),
    lambda g, n: pa.array(g.integers(-(2**63), 2**63 - 1, n)),
    lambda g, n: pa.array(g.integers(-(2**63), 2**63 - 1, n), pa.timestamp("us")),
    lambda g, n: pa.array(g.integers(-(2**62), 2**62, n), pa.timestamp("ns", "Asia/Tokyo")),
    lambda g, n: pa.array(g.integers(-(2**52), 2**52, n), pa.timestamp("s")),
    lambda g, n: pa.array(g.integers(-(2**31), 2**31, n).astype("int32"), pa.date32()),
    lambda g, n: pa.array(g.integers(0, 86_400, n).astype("int32"), pa.time32("s")),
    lambda g, n: pa.array(g.integers(0, 2**40, n), pa.duration("us")),
    lambda g, n: pa.array(g.normal(size=n).astype("float16")),
    lambda g, n: pa.array(some(g, [np.nan, np.inf, -np.inf, 1e308, -1.0, 0.0, 2.0]) * np.ones(n)),
    lambda g, n: pa.array([None if g.random() < 0.5 else 1 for _ in range(n)], pa.decimal128(38, 9)),
    lambda g, n: pa.array(g.random(n) < 0.5),
)
"""Columns of n values of another type than a log would have."""


def of_parquet(content: bytes, generator: Generator) -> bytes:
    """Returns a Parquet file with another column, name or order of rows, or as `of_bytes`."""
    if generator.random() < 0.3:
        return of_bytes(content, generator)
    table = pq.read_table(io.BytesIO(content))
    for _ in range(int(generator.integers(1, 3))):
        at, kind = int(generator.integers(table.num_columns)), generator.random()
        if kind < 0.6:
            column = some(generator, TYPES)(generator, len(table))
            table = table.set_column(at, table.column_names[at], column)
        elif kind < 0.75:
            names = list(table.column_names)
            names[at] = some(generator, NAMES)
            table = table.rename_columns(names)
        elif kind < 0.9:
            table = table.take(generator.integers(0, len(table), int(generator.integers(0, 80))))
        else:
            table = table.remove_column(at)
        if not table.num_columns:
            break
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), buffer)
    return buffer.getvalue()
