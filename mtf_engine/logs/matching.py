"""Which column of a file is likely to be which of the log's, and the mapping that says so."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import yaml

from mtf_engine.logs import mapping as mapping_file
from mtf_engine.logs.columns import PREDICTION, SIGNALS
from mtf_engine.logs.endings import ending_of
from mtf_engine.logs.importing import KUAIRAND_COLUMNS
from mtf_engine.logs.preview import Preview
from mtf_engine.logs.schema import IMPRESSION_FILE, REQUEST_FILE
from mtf_engine.logs.transition_files import are_transitions
from mtf_engine.logs.typed import list_sources
from mtf_engine.logs.units import TimeUnit, WatchTimeUnit
from mtf_engine.spec import NotYaml, Refusal, from_yaml

Chosen = Mapping[str, tuple[str, ...]]
"""Columns of a file by the log's name; several make a list."""


class Need(NamedTuple):
    """A column of the log: whether it must be there, and whether it may be a list made of several."""

    name: str
    required: bool = False
    many: bool = False


REQUESTS, IMPRESSIONS = (
    tuple(Need(c.name, c.need == "needed", c.kind == "list" or c.name == "signals") for c in columns)
    for columns in (REQUEST_FILE, IMPRESSION_FILE)
)
NEEDED_ALONE, USED_ALONE = {"user_id", "timestamp"}, {"session_id", "segment", "split"}
ALONE = (
    *(need for need in REQUESTS if need.name in NEEDED_ALONE),
    *(need._replace(required=need.name == "predictions") for need in IMPRESSIONS),
    *(Need(need.name) for need in REQUESTS if need.name in USED_ALONE),
)
"""Columns of a log of impressions alone."""

ALIASES = {
    "user_id": {"user", "userid", "uid"},
    "request_id": {"request", "requestid", "rid", "reqid"},
    "session_id": {"session", "sessionid", "sid"},
    "item_id": {"item", "itemid", "video", "videoid", "photoid", "docid"},
    "timestamp": {"time", "ts", "timems", "datetime", "eventtime", "requesttime"},
    "step": {"requestindex", "stepindex", "turn"},
    "position": {"pos", "rank", "slot"},
    "watch_time": {"watchtime", "playtime", "watchseconds", "dwelltime"},
    "segment": {"usersegment", "usergroup"},
}
"""What others call a column, in small letters and without signs."""
PREFIXES = (PREDICTION, "pred_", "p_")


def needs(previews: Sequence[Preview], format: str) -> dict[str, tuple[Need, ...]]:
    """Returns what is needed of each file by its name; nothing where names are fixed (KuaiRand) or found (steps)."""
    if format in ("kuairand", "transitions", "minari", "d3rlpy") or any(
        set(p.columns) >= KUAIRAND_COLUMNS or are_transitions(p.columns) for p in previews
    ):
        return {}
    tables = {ending.stem: p.file for p in previews if (ending := ending_of(PurePath(p.file)))}
    if format != "impressions" and "requests" in tables:
        both = {"requests": REQUESTS, "impressions": IMPRESSIONS}
        return {tables[table]: of for table, of in both.items() if table in tables}
    return {p.file: ALONE for p in previews[:1]}


def guess(need: Need, columns: Sequence[str]) -> tuple[str, ...]:
    """Returns the columns that are likely to be `need`, by their names."""
    match need.name:
        case "predictions":
            named = (tuple(c for c in columns if c.startswith(prefix)) for prefix in PREFIXES)
            return list_sources(columns, "predictions") or next(filter(None, named), ())
        case "signals":
            return tuple(s for s in SIGNALS if s in columns and s != "watch_time")
    if need.many:
        return list_sources(columns, need.name)
    known = {need.name.replace("_", ""), *ALIASES.get(need.name, ())}
    alike = [c for c in columns if re.sub(r"[^a-z0-9]", "", c.lower()) in known]
    return (need.name,) if need.name in columns else tuple(alike[:1])


def mapping_of(
    requests: Chosen,
    impressions: Chosen,
    columns: Collection[str],
    asked: Collection[str] = (),
    time_unit: TimeUnit | None = None,
    watch_time_unit: WatchTimeUnit | None = None,
    rules: Mapping[str, Any] | None = None,
) -> mapping_file.Mapping:
    """Returns the mapping that reads `columns` (of the impressions) and `asked` (of the requests) as chosen.

    It is empty where names tell all. What is chosen to be no column, though one is called so, is ignored. `rules`
    are further parts of it, as they stand in a mapping file; a Refusal says which is none.
    """
    renamed = _renamed(impressions, columns)
    signals = (*(("watch_time",) if impressions.get("watch_time") else ()), *impressions.get("signals", ()))
    found = {s for s in SIGNALS if renamed.get(s, s in columns)}
    parts = {
        "requests": _renamed(requests, asked),
        "impressions": renamed,
        "signals": () if set(signals) == found else signals,
        "time_unit": time_unit,
        "watch_time_unit": watch_time_unit,
    }
    return mapping_file.Mapping.asked("the mapping", {**parts, **(rules or {})})


def exploded(columns: Sequence[str], slate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Returns the columns there are once the slates of a file with `columns` are taken apart."""
    if not slate:
        return tuple(columns)
    made = [*slate["chosen"], *([slate["marks"]] if slate["marks"] else [])]
    return tuple(dict.fromkeys([*(c for c in columns if c not in slate["chosen"].values()), *made]))


def table_of(text: str, what: str) -> dict[str, Any]:
    """Returns the table that `text` writes as YAML in one line, `like: 3, share: 5`; a Refusal if it is none."""
    try:
        found = from_yaml(f"{{{text}}}")
    except NotYaml:
        found = None
    if not isinstance(found, dict) or None in found.values():
        raise Refusal(f"{what}: {text} is no table; write it as in like: 3, share: 5")
    return found


def is_requests(name: str) -> bool:
    """Returns whether a file is the table of requests by its name."""
    ending = ending_of(PurePath(name))
    return ending is not None and ending.stem == "requests"


def _renamed(chosen: Chosen, columns: Collection[str]) -> dict[str, str | tuple[str, ...]]:
    """Returns the columns whose names do not tell what they hold, and as none those that are ignored."""
    told = {name: sources for name, sources in chosen.items() if name != "signals"}
    return {
        name: sources[0] if len(sources) == 1 else sources
        for name, sources in told.items()
        if sources not in _by_name(name, sources, columns)
    }


def _by_name(name: str, sources: tuple[str, ...], columns: Collection[str]) -> list[tuple[str, ...]]:
    """Returns the columns that are taken for `name` where nothing is said of it."""
    if not sources:
        return [] if _is_called(name, columns) else [()]
    listed = [list_sources(sources, name), (name,)]
    return (
        [tuple(c for c in columns if c.startswith(PREDICTION)), *listed] if name == "predictions" else listed
    )


def _is_called(name: str, columns: Collection[str]) -> bool:
    """Returns whether the columns' own names tell which is `name`."""
    predicted = name == "predictions" and any(c.startswith(PREDICTION) for c in columns)
    return predicted or bool(list_sources(columns, name))


def to_yaml(mapping: mapping_file.Mapping) -> str:
    """Returns the mapping as the file that an import takes; empty where names tell all."""
    document = mapping.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(document, sort_keys=False) if document else ""
