"""A log in other people's words: its first rows are shown as text, its columns are found, its mapping imports it."""

import csv
import io

import numpy as np
import pandas as pd
import pytest

from mtf_engine.logs import matching
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.matching import ALONE, IMPRESSIONS, REQUESTS, guess, mapping_of, needs, to_yaml
from mtf_engine.logs.preview import LONGEST, ROWS, Preview, preview
from mtf_engine.spec import Refusal

COLUMNS = ("uid", "ts", "videoId", "p_click", "p_like", "clicked", "like", "play_time", "note")


def alone(tmp_path, columns=COLUMNS, n=40):
    path = tmp_path / "mine.tsv"
    rows = [[i % 4, 1_700_000_000 + 60 * i, i, 0.5, 0.2, i % 2, 0, 12.5, "<b>x</b>"] for i in range(n)]
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([columns, *rows])
    return path


def shown(path) -> Preview:
    with path.open("rb") as stream:
        return preview(path.name, stream)


def test_first_rows_are_text_whatever_they_hold(tmp_path):
    found = shown(alone(tmp_path))
    assert found.columns == COLUMNS and len(found.rows) == ROWS
    assert found.rows[0][-1] == "<b>x</b>" and {type(v) for row in found.rows for v in row} == {str}
    frame = pd.DataFrame({"a": [1.5, None], "long": ["x" * 500, "y"], "list": [[1.0, 2.0], [3.0, 4.0]]})
    frame.to_parquet(tmp_path / "t.parquet")
    found = shown(tmp_path / "t.parquet")
    assert found.rows[0] == ("1.5", "x" * LONGEST + "…", "[1.0, 2.0]") and found.rows[1][0] in ("", "nan")


def test_a_large_file_is_not_read_to_its_end():
    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None and 0 < size <= 1 << 20
            return super().read(size)

    found = preview("x.csv", Endless(b"a,b\n" + b"1,2\n" * 1_000_000))
    assert found.rows == (("1", "2"),) * ROWS


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.csv", b"\xff\xfe\x00", "has no rows to show"),
        ("x.parquet", b"no parquet", "has no rows to show"),
    ],
)
def test_what_cannot_be_shown_is_refused(name, content, told):
    with pytest.raises(Refusal, match=told):
        preview(name, io.BytesIO(content))


def test_rows_of_another_width_are_shown_in_the_columns_there_are():
    assert preview("x.csv", io.BytesIO(b"a,b\n1\n1,2,3\n")).rows == (("1", ""), ("1", "2"))
    assert preview("x.csv", io.BytesIO(b"")).columns == ()
    doubled = preview("x.csv", io.BytesIO(b"1,1 (2),1,1\n5,6,7,8\n"))
    assert doubled.columns == ("1", "1 (2)", "1 (3)", "1 (4)") and doubled.rows == (("5", "6", "7", "8"),)


def guessed(columns, of) -> dict[str, tuple[str, ...]]:
    return {need.name: guess(need, columns) for need in of}


def test_columns_are_found_by_name_and_alias():
    found = guessed(COLUMNS, ALONE)
    assert found["user_id"] == ("uid",) and found["timestamp"] == ("ts",) and found["item_id"] == ("videoId",)
    assert found["predictions"] == ("p_click", "p_like")
    assert (found["watch_time"], found["signals"]) == (("play_time",), ("like",))
    assert found["request_id"] == found["segment"] == ()
    assert guessed(("action_1", "action_0", "user_id", "UID"), REQUESTS)["action"] == ("action_0", "action_1")
    assert guessed(("user_id", "uid"), REQUESTS)["user_id"] == ("user_id",)


def test_the_mapping_of_what_was_chosen_imports_the_log(tmp_path):
    path = alone(tmp_path)
    chosen = guessed(COLUMNS, ALONE) | {"signals": ("clicked", "like")}
    text = to_yaml(mapping_of({}, chosen, COLUMNS))
    (file := tmp_path / "mapping.yaml").write_text(text)
    log = read_log(path, mapping=file)
    assert log.meta.signals == ("watch_time", "clicked", "like")
    assert log.meta.fusion.predictions == ("p_click", "p_like")
    batch = next(iter(log.batches))
    assert set(np.asarray(batch.requests["user_id"])) == {"0", "1", "2", "3"}


def test_a_log_in_our_own_words_needs_no_mapping():
    columns = ("user_id", "timestamp", "prediction_click", "prediction_like", "like", "watch_time", "x")
    assert to_yaml(mapping_of({}, guessed(columns, ALONE), columns)) == ""
    asked = ("request_id", "session_id", "user_id", "step", "timestamp", "action_0", "action_1")
    assert to_yaml(mapping_of(guessed(asked, REQUESTS), {}, ())) == ""


def test_a_column_that_only_its_name_speaks_for_can_be_ignored(tmp_path):
    columns = ("uid", "ts", "segment", "p_click", "p_like", "like", "valid", "watch_time", "note")
    path = alone(tmp_path, columns)
    chosen = guessed(columns, ALONE)
    segments = {False: {"all"}, True: {str(i) for i in range(40)}}
    for taken, expected in segments.items():
        kept = chosen if taken else chosen | {"segment": ()}
        (file := tmp_path / "mapping.yaml").write_text(to_yaml(mapping_of({}, kept, columns)))
        batch = next(iter(read_log(path, mapping=file).batches))
        assert set(np.asarray(batch.requests["segment"])) == expected
    asked = ("request_id", "session_id", "user_id", "step", "timestamp", "split", "action_0", "action_1")
    ignored = guessed(asked, REQUESTS) | {"split": (), "action": ()}
    assert mapping_of(ignored, {}, (), asked).requests == {"split": (), "action": ()}


def test_a_needed_column_that_is_ignored_is_missing(tmp_path):
    path = alone(tmp_path, ("user_id", *COLUMNS[1:]))
    (file := tmp_path / "mapping.yaml").write_text("impressions: {user_id: [], timestamp: ts}")
    with pytest.raises(Refusal, match="user_id: is missing"):
        read_log(path, mapping=file)


def test_what_is_written_is_what_a_mapping_file_says(tmp_path):
    mapping = mapping_of({"user_id": ("uid",), "action": ("w1", "w2")}, {"watch_time": ("s",)}, ("s",))
    (tmp_path / "m.yaml").write_text(to_yaml(mapping))
    assert Mapping.read(tmp_path / "m.yaml") == mapping
    assert mapping.requests == {"user_id": "uid", "action": ("w1", "w2")}


def test_each_file_is_asked_for_what_its_format_needs():
    def files(*names, columns=("a",)):
        return [Preview(name, columns, ()) for name in names]

    assert needs(files("requests.csv", "impressions.tsv"), "auto") == {
        "requests.csv": REQUESTS,
        "impressions.tsv": IMPRESSIONS,
    }
    assert needs(files("mine.parquet"), "auto") == needs(files("mine.parquet"), "impressions")
    assert needs(files("log.csv", columns=tuple(matching.KUAIRAND_COLUMNS)), "auto") == {}
    assert needs([], "auto") == {}
