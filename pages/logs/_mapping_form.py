"""The first rows of a log, and a choice of what its columns are: the mapping that an import takes."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import streamlit as st

from mtf_engine.logs import matching
from mtf_engine.logs.endings import HDF5, ending_of
from mtf_engine.logs.mapping import Mapping
from mtf_engine.logs.matching import Need
from mtf_engine.logs.preview import Preview, preview
from mtf_engine.logs.units import OTHER_UNITS, TIME_UNITS, TimeUnit, WatchTimeUnit
from mtf_engine.spec import Refusal
from pages.logs._shape_form import KEPT, USERS, given_columns, shape_form
from pages.shared import access, words
from pages.shared.firsts import first

NOT_THERE = NOT_STATED = ""
COLUMNS = 4
MOST_FILES = 4


def files_at(path: Path) -> list[Path]:
    """Returns the tables of a log at `path`, a file or a folder, that may be read."""
    folder = path.is_dir() and os.access(path, os.R_OK | os.X_OK)
    found = sorted(p for p in path.iterdir() if p.is_file() and ending_of(p)) if folder else [path]
    return [p for p in found[:MOST_FILES] if p.is_file() and os.access(p, os.R_OK)]


def previews_at(path: Path) -> list[Preview]:
    """Returns the first rows of the tables of a log on the server; a Refusal where the visitor may not read it."""
    path = access.server_path(path)
    with ExitStack() as opened:
        return previews({p.name: opened.enter_context(p.open("rb")) for p in files_at(path)})


def previews(files: dict[str, BinaryIO]) -> list[Preview]:
    """Returns the first rows of each file that has some; says why another has none."""
    found = []
    for name, stream in files.items():
        if name.lower().endswith(HDF5):
            continue
        try:
            found.append(preview(name, stream, () if matching.is_requests(name) else given_columns(name)))
        except Refusal as refusal:
            st.warning(words.plain(refusal))
    return found


def mapping_form(found: Sequence[Preview], log_format: str) -> str | None:
    """Draws the first rows, and what each column is; returns the mapping as YAML, empty where names tell all.

    None where what was chosen is no mapping, which is then said.
    """
    for one in found:
        st.caption(f"First rows of {words.plain(one.file)}")
        table = pd.DataFrame(one.rows, columns=list(one.columns), dtype="str")
        st.dataframe(
            table, placeholder="", hide_index=True, alt=f"First rows of {one.file}", key=f"preview {one.file}"
        )
    needed = matching.needs(found, log_format)
    if not needed:
        return ""
    try:
        text = matching.to_yaml(_mapping([one for one in found if one.file in needed], needed))
    except Refusal as refusal:
        st.error(words.plain(refusal))
        return None
    if text:
        st.caption("The mapping that this makes")
        st.code(text, language=None)
        access.download_button(
            "Download mapping", text, "mapping.yaml", "application/yaml", on_click="ignore"
        )
    return text


def _mapping(found: Sequence[Preview], needed: dict[str, tuple[Need, ...]]) -> Mapping:
    """Draws the choices for each file; returns the mapping that they make."""
    chosen: dict[str, matching.Chosen] = {"requests": {}, "impressions": {}}
    columns: dict[str, tuple[str, ...]] = {"requests": (), "impressions": ()}
    rules: dict[str, Any] = {}
    asked = next((one for one in found if needed[one.file] is matching.REQUESTS), None)
    for one in found:
        section, seen = "requests", one
        if needed[one.file] is not matching.REQUESTS:
            section, rules = "impressions", shape_form(one, asked)
            seen = one._replace(columns=matching.exploded(one.columns, rules["slate"]))
        columns[section], chosen[section] = seen.columns, _choices(seen, needed[one.file])
    if users := rules.pop(USERS, ()):
        chosen["impressions"] = {**chosen["impressions"], "user_id": users}
    return matching.mapping_of(
        chosen["requests"],
        chosen["impressions"],
        columns["impressions"],
        columns["requests"],
        *_units(),
        rules,
    )


def _units() -> tuple[TimeUnit | None, WatchTimeUnit | None]:
    """Draws in which units numbers are; a time's is judged by the values, a watch time's is seconds."""
    left, right = st.columns(2)
    times, watched = (
        {NOT_STATED: "as their values tell", **TIME_UNITS},
        {NOT_STATED: "seconds", **OTHER_UNITS},
    )
    key = first(f"{KEPT}time_unit", NOT_STATED)
    time_unit = left.selectbox("Times that are numbers", times, format_func=times.__getitem__, key=key)
    key = first(f"{KEPT}watch_time_unit", NOT_STATED)
    watch_time_unit = right.selectbox("Unit of watch_time", watched, format_func=watched.__getitem__, key=key)
    return time_unit or None, watch_time_unit or None


def _choices(one: Preview, needed: Sequence[Need]) -> matching.Chosen:
    """Draws which column of the file is each that is needed; those that must be there are open to see."""
    chosen = {need.name: matching.guess(need, one.columns) for need in needed}
    lacking = [need.name for need in needed if need.required and not chosen[need.name]]
    title = f"Which column of {one.file} is which" + (
        f": {', '.join(lacking)} not found by name" if lacking else ""
    )
    with st.expander(words.plain(title), expanded=bool(lacking)):
        places = st.columns(COLUMNS)
        for i, need in enumerate(needed):
            chosen[need.name] = _choice(one, need, chosen[need.name], places[i % COLUMNS])
    return chosen


def _choice(
    one: Preview, need: Need, guessed: tuple[str, ...], place: st.delta_generator.DeltaGenerator
) -> tuple[str, ...]:
    label = f"{need.name}, needed" if need.required else need.name
    key = f"{KEPT}column {one.file} {need.name} {hash(one.columns)}"
    if need.many:
        return tuple(place.multiselect(label, one.columns, key=first(key, list(guessed))))
    options = [NOT_THERE, *one.columns]
    key = first(key, guessed[0] if guessed else NOT_THERE)
    found = place.selectbox(label, options, format_func=lambda c: c or "not there", key=key)
    return (found,) if found else ()


def keep_choices() -> None:
    """Keeps what was chosen for an import while its form, or a part, is not drawn, so that it can be mended."""
    for key in [str(key) for key in st.session_state if str(key).startswith(KEPT)]:
        st.session_state[key] = st.session_state[key]
