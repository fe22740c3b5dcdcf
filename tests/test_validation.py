"""Validation promises: every defect by code, row and column, all at once, and none in a clean log."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.exploration.mixture import Mixture
from mtf_engine.logs.importing import read_log
from mtf_engine.logs.validation import DEFECT_CODES
from mtf_engine.spec import Refusal
from tests.fixtures import logs
from tests.searching import examples


def refusal(folder: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_log(folder, mapping=folder / "mapping.yaml")
    return caught.value


def test_every_code_has_a_log_that_shows_it():
    assert set(logs.DEFECTS) == set(DEFECT_CODES)


@pytest.mark.parametrize("code", logs.DEFECTS)
def test_a_defect_is_told_in_one_sentence_with_file_row_and_column(code, tmp_path):
    place = logs.DEFECTS[code](tmp_path)
    error = refusal(tmp_path)
    (defect,) = error.defects
    assert (defect.code, defect.file, defect.row, defect.column, defect.count) == (code, *place)
    where = [place.file, place.row and f"row {place.row}", place.column and f"column {place.column}"]
    more = f" (and {place.count - 1} more rows)" if place.count > 1 else ""
    assert str(error) == f"{', '.join(filter(None, where))}: {defect.message}{more}; {defect.remedy}"
    assert "\n" not in str(error)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_clean_log_has_no_defect(suffix, tmp_path):
    folder = logs.write(logs.clean(), tmp_path, suffix)
    assert read_log(folder, mapping=folder / "mapping.yaml").meta.source == suffix


def test_all_defects_of_both_files_are_found_at_once(tmp_path):
    log = logs.clean()
    log.requests.at[3, "action"] = [0.1, 0.1, 0.9]
    log.requests.at[10, "request_id"] = 100
    log.impressions.loc[[1, 6], "watch_time"] = -1.0
    log.impressions["click"] = log.impressions["click"].astype(object)
    log.impressions.at[20, "click"] = "often"
    found = {d.code: d for d in refusal(logs.write(log, tmp_path)).defects}
    assert {"action_outside_bounds", "duplicate_request", "negative_watch_time", "wrong_type"} <= set(found)
    assert found["negative_watch_time"].count == 2
    assert found["negative_watch_time"].row == 2


def test_a_broken_file_does_not_hide_the_defects_of_the_other(tmp_path):
    logs.DEFECTS["truncated_parquet"](tmp_path)
    requests = pd.read_parquet(tmp_path / "requests.parquet")
    requests.loc[2, "step"] = 7
    requests.to_parquet(tmp_path / "requests.parquet")
    assert {d.code for d in refusal(tmp_path).defects} == {"truncated_parquet", "session_order_broken"}


def test_an_action_outside_its_bounds_is_no_defect_of_a_gaussian_or_a_mixed_log(tmp_path):
    logs.DEFECTS["action_outside_bounds"](tmp_path)
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(f"{logs.MAPPING}exploration: gaussian\n")
    assert read_log(tmp_path, mapping=mapping).meta.exploration == "gaussian"
    mapping.write_text(f"{logs.MAPPING}exploration: mixed\nmixture: {{sigma: 0.3}}\n")
    assert read_log(tmp_path, mapping=mapping).meta.mixture == Mixture(sigma=0.3)
    for said in ("exploration: mixed", "mixture: {sigma: 0.3}", "exploration: uniform\nmixture: {}"):
        mapping.write_text(f"{logs.MAPPING}{said}\n")
        with pytest.raises(Refusal, match="exploration: mixed has a mixture"):
            read_log(tmp_path, mapping=mapping)


def test_control_users_lie_outside_bounds_that_leave_out_the_baseline(tmp_path):
    log = logs.clean()
    control = log.requests.index[log.requests["user_id"] == "u1"]
    for row in control:
        log.requests.at[row, "action"] = log.requests.at[row, "baseline_action"]
        log.requests.at[row, "lower"] = [0.05] * logs.N_ACTIONS
    log.requests.loc[control, "pscore"] = None
    folder = logs.write(log, tmp_path)
    read_log(folder, mapping=folder / "mapping.yaml")


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("step", 1.5, "wrong_type"),
        ("timestamp", "yesterday", "wrong_type"),
        ("user_id", "a\0b", "wrong_type"),
        ("terminal", "perhaps", "wrong_type"),
        ("action", "[0.1, 0.1, much]", "wrong_type"),
        ("action", "[0.1, 0.1, inf]", "nan_or_inf"),
        ("action", None, "nan_or_inf"),
        ("action", [0.1, 0.1, -1.2], "action_outside_bounds"),
        ("baseline_action", [0.1, 0.1, 1.5], "action_outside_bounds"),
        ("observation", [0.0], "wrong_length"),
        ("step", None, "null_key"),
        ("step", 5, "session_order_broken"),
        ("user_id", "u9", "session_order_broken"),
        ("terminal", True, "session_order_broken"),
        ("reward", float("inf"), "nan_or_inf"),
    ],
)
def test_values_that_do_not_fit(column, value, code, tmp_path):
    logs._set("requests", 2, column, value)(tmp_path)
    assert code in {d.code for d in refusal(tmp_path).defects if d.column == column}


@pytest.mark.parametrize("text", ["", "\n\n", "a"])
def test_files_that_hold_no_table_are_refused(text, tmp_path):
    logs.write(logs.clean(), tmp_path)
    (tmp_path / "impressions.csv").write_text(text)
    assert refusal(tmp_path).defects


@pytest.mark.parametrize("content", [b"PAR1", b"no parquet at all", b"\xff\xfe\0\0"])
def test_parquet_files_that_are_none_are_refused(content, tmp_path):
    logs.write(logs.clean(), tmp_path, "parquet")
    (tmp_path / "impressions.parquet").write_bytes(content)
    assert {d.code for d in refusal(tmp_path).defects} <= {"unreadable_file", "truncated_parquet"}


@examples(10)
@given(st.sampled_from(["requests", "impressions"]), st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_bytes_written_anywhere_are_read_or_refused(tmp_path_factory, table, at, junk):
    folder = logs.write(logs.clean(n_users=1), tmp_path_factory.mktemp("log"))
    path = folder / f"{table}.csv"
    content = bytearray(path.read_bytes())
    at %= len(content)
    content[at : at + len(junk)] = junk
    path.write_bytes(bytes(content))
    found = outcome(folder)
    assert found is None or (found.defects and str(found).isprintable())


def outcome(folder: Path) -> Refusal | None:
    try:
        read_log(folder, mapping=folder / "mapping.yaml")
    except Refusal as error:
        return error
    return None


def test_lines_that_are_not_utf8_are_named(tmp_path):
    path = logs.write(logs.clean(), tmp_path) / "requests.csv"
    lines = path.read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b"u0", b"\xff\xfe")
    path.write_bytes(b"\n".join(lines))
    (defect,) = refusal(tmp_path).defects
    assert (defect.code, defect.row) == ("unreadable_file", 3)
