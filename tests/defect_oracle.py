"""The defects of a log of two CSV files, found by reading its rule book in plain Python, slowly, a value at a time."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import mode
from typing import NamedTuple

import yaml

Row = dict[str, str | None]
BOX = ("action", "baseline_action", "lower", "upper")
NEAR, OF_REWARD = 2e-6, 1e-4
KEYS = {"request_id": "text", "session_id": "text", "user_id": "text", "step": "integer", "timestamp": "time"}
OPTIONAL = {
    "pscore": "number",
    "clipped": "integer",
    "reward": "number",
    "terminal": "flag",
    "truncated": "flag",
}


class Found(NamedTuple):
    """A defect: its code, file and column, the first row that has it, counted from 1, and how many do."""

    code: str
    file: str
    column: str | None = None
    row: int | None = None
    count: int = 1


def value(text: str | None, kind: str) -> object:
    """Returns what a text stands for; None where it is no such thing."""
    if text is None or kind == "text":
        return text
    try:
        match kind:
            case "integer":
                return (
                    int(float(text)) if float(text) == int(float(text)) and abs(float(text)) < 2**31 else None
                )
            case "time":
                return datetime.fromisoformat(text)
            case "flag":
                return {"true": True, "false": False}[text.lower()]
        return float(text)
    except (ValueError, KeyError, OverflowError):
        return None


def entries(text: str | None) -> list[float | None] | None:
    """Returns the numbers of a list, None for each that is none; None of what is no list."""
    if text is None:
        return None
    parts = [part.strip() for part in text.strip("[]").split(",")]
    return [value(part.strip("'"), "number") for part in parts]  # type: ignore[misc]


def finite(number: object) -> bool:
    return isinstance(number, float | int) and math.isfinite(number)


class Table:
    """A file: its rows by number, without those that repeat another, and what was found in it."""

    def __init__(self, path: Path) -> None:
        self.file = path.name
        self.broken: dict[tuple[str, str, str], dict[int, int]] = defaultdict(dict)
        self.whole: list[Found] = []
        self.rows: dict[int, Row] = {}
        self.is_read = False
        lines = list(csv.reader(path.read_text().splitlines()))
        self.names = lines[0]
        doubled = [name for i, name in enumerate(self.names) if name in self.names[:i]]
        self.whole += [Found("doubled_column", self.file, name) for name in doubled]
        short = [i for i, line in enumerate(lines[1:], start=1) if len(line) != len(self.names)]
        if short and not doubled:
            self.whole.append(Found("unreadable_file", self.file, None, short[0], len(short)))
        if len(lines) == 1 and not self.whole:
            self.whole.append(Found("empty_file", self.file))
        if self.whole:
            return
        self.is_read = True
        seen = set()
        self.all = {i: {n: text or None for n, text in zip(self.names, line, strict=True)}
                    for i, line in enumerate(lines[1:], start=1)}  # fmt: skip
        for i, row in self.all.items():
            if (same := tuple(row.values())) not in seen:
                self.rows[i] = row
            seen.add(same)

    def of(self, name: str, kind: str) -> dict[int, object]:
        return {i: value(row.get(name), kind) for i, row in self.rows.items()}

    def lists(self, name: str) -> dict[int, list[float | None] | None]:
        return {i: entries(row.get(name)) for i, row in self.rows.items()}

    def add(self, code: str, column: str, row: int, is_broken: int = True, rule: str = "") -> None:
        """Notes a row that breaks one of the rules that a code and a column have, or how many impressions of it."""
        if is_broken:
            self.broken[code, column, rule][row] = int(is_broken)

    def scalar(self, name: str, kind: str, need: str) -> None:
        """Notes what is missing, blank, not finite or of another type. A repeated row has a defect too."""
        if name not in self.names:
            if need == "needed":
                self.whole.append(Found("missing_column", self.file, name))
            return
        for i, row in self.all.items():
            text, found = row[name], value(row[name], kind)
            blank = {"key": "null_key", "needed": "null_key", "value": "nan_or_inf"}.get(need)
            if text is None:
                self.add(blank or "", name, i, blank is not None)
            elif found is None:
                self.add("wrong_type", name, i)
            elif kind == "number":
                self.add(
                    "nan_or_inf", name, i, math.isinf(found) if need == "optional" else not finite(found)
                )

    def list_of_numbers(self, name: str) -> None:
        for i, row in self.all.items():
            found = entries(row[name])
            self.add("wrong_type", name, i, found is not None and None in found)
            endless = found is None or any(v is not None and not finite(v) for v in found)
            self.add("nan_or_inf", name, i, endless)

    def lengths(self, name: str, length: int) -> None:
        for i, found in self.lists(name).items():
            self.add("wrong_length", name, i, found is not None and len(found) != length)

    def found(self) -> Iterator[Found]:
        yield from self.whole
        for (code, column, _), rows in self.broken.items():
            yield Found(code, self.file, column, min(rows), sum(rows.values()))


def defects(folder: Path) -> set[Found]:
    """Returns all that is wrong with the log in `folder`."""
    mapping = yaml.safe_load((folder / "mapping.yaml").read_text())
    asked, shown = Table(folder / "requests.csv"), Table(folder / "impressions.csv")
    if asked.is_read:
        _requests(asked)
    if shown.is_read and "slate" in mapping:
        _slates(shown)
        _of_slates(asked, shown)
    elif shown.is_read:
        _impressions(shown, mapping)
        if asked.is_read and "request_id" in asked.names and "request_id" in shown.names:
            _between(asked, shown, mapping["reward"]["weights"])
    return {*asked.found(), *shown.found()}


def _requests(asked: Table) -> None:
    for name, kind in KEYS.items():
        asked.scalar(name, kind, "needed")
    for name, kind in OPTIONAL.items():
        asked.scalar(name, kind, "optional")
    for i, split in asked.of("split", "text").items():
        asked.add("wrong_type", "split", i, split not in (None, "train", "validation", "test"))
    if "action" in asked.names:
        for name in (*BOX, "observation"):
            asked.list_of_numbers(name)
        _actions(asked)
    if "observation" in asked.names:
        asked.lengths("observation", mode(len(v) for v in asked.lists("observation").values() if v))
    _repeated(asked, "request_id")
    if set(KEYS) <= set(asked.names):
        _sessions(asked)


def _repeated(table: Table, *keys: str) -> None:
    if not {*keys} <= {*table.names}:
        return
    seen = set()
    kinds = [table.of(name, "integer" if name == "position" else "text") for name in keys]
    for i in table.rows:
        key = tuple(values[i] for values in kinds)
        table.add("duplicate_request", keys[-1], i, key in seen)
        seen |= {key} if None not in key else set()


def _actions(asked: Table) -> None:
    vectors = {name: asked.lists(name) for name in BOX}
    length = mode(len(v) for v in vectors["action"].values() if v)
    for name in BOX:
        asked.lengths(name, length)
    for name in BOX[:2]:
        for i, found in vectors[name].items():
            asked.add(
                "action_outside_bounds", name, i, any(finite(v) and abs(v) > 1 + NEAR for v in found or [])
            )
    for i, row in asked.rows.items():
        four = [vectors[name][i] for name in BOX]
        control = value(row.get("pscore"), "number") is None and four[0] == four[1]
        if control or (value(row.get("clipped"), "integer") or 0) or None in four:
            continue
        for a, b, low, high in zip(*four, strict=False):
            if None not in (a, b, low, high) and math.isfinite(a) and abs(a) <= 1:
                beyond = (finite(b + low) and a < b + low - NEAR) or (
                    finite(b + high) and a > b + high + NEAR
                )
                asked.add("action_outside_bounds", "action", i, beyond, "box")


def _sessions(asked: Table) -> None:
    columns = {name: asked.of(name, kind) for name, kind in {**KEYS, "terminal": "flag"}.items()}
    sessions, seen = defaultdict(list), set()
    unread = {columns["session_id"][i] for i in asked.rows if columns["step"][i] is None}
    for i in asked.rows:
        session, request = columns["session_id"][i], columns["request_id"][i]
        if session is not None and session not in unread and request not in seen:
            sessions[session].append(i)
        seen |= {request} if None not in (request, session) else set()
    for rows in sessions.values():
        rows.sort(key=lambda i: (columns["step"][i], i))
        for before, i in zip([None, *rows], rows, strict=False):
            user, step, time = (columns[name][i] for name in ("user_id", "step", "timestamp"))
            asked.add("session_order_broken", "terminal", i, bool(columns["terminal"][i]) and i != rows[-1])
            if before is None:
                asked.add("session_order_broken", "step", i, step != 0)
                continue
            earlier = {name: columns[name][before] for name in columns}
            known = user is not None and earlier["user_id"] is not None
            asked.add("session_order_broken", "user_id", i, known and user != earlier["user_id"])
            asked.add("session_order_broken", "step", i, step != earlier["step"] + 1)
            known = time is not None and earlier["timestamp"] is not None
            asked.add("session_order_broken", "timestamp", i, known and time < earlier["timestamp"])


def _impressions(shown: Table, mapping: dict) -> None:
    weights = mapping["reward"]["weights"]
    shown.scalar("request_id", "text", "needed")
    shown.scalar("item_id", "text", "key")
    shown.scalar("position", "integer", "key")
    shown.scalar("reward", "number", "value")
    if "predictions" in shown.names:
        shown.list_of_numbers("predictions")
        shown.lengths("predictions", len(mapping["predictions"]))
        _logits(shown)
    else:
        shown.whole.append(Found("missing_column", shown.file, "predictions"))
    for name in mapping["signals"]:
        if name in shown.names:
            shown.scalar(name, "number", "value")
        else:
            shown.whole.append(Found("missing_column", shown.file, name))
    for i, watched in shown.of("watch_time", "number").items():
        shown.add("negative_watch_time", "watch_time", i, watched is not None and watched < -NEAR)
    _repeated(shown, "request_id", "position")
    for name in set(weights) & set(shown.names) - {"watch_time"}:
        for i, signal in shown.of(name, "number").items():
            outside = finite(signal) and not -NEAR <= signal <= 1 + NEAR
            shown.add("signal_out_of_range", name, i, outside)
    if not set(weights) <= set(shown.names):
        return
    stated, rewards = shown.of("reward", "number"), parts(shown, weights)
    for i, reward in rewards.items():
        if finite(stated[i]) and reward is not None:
            wrong = abs(stated[i] - reward) > OF_REWARD * (1 + abs(stated[i]))
            shown.add("reward_contradicts_components", "reward", i, wrong)


def parts(shown: Table, weights: dict[str, float]) -> dict[int, float | None]:
    """Returns the reward that each impression's signals give, None where one is no number."""
    found: dict[int, float | None] = {}
    for i, row in shown.rows.items():
        signals = {name: value(row[name], "number") for name in weights}
        sound = all(map(finite, signals.values())) and signals.get("watch_time", 0) >= -NEAR
        found[i] = sum(w * signals[name] for name, w in weights.items()) if sound else None
    return found


def _logits(shown: Table) -> None:
    lists = shown.lists("predictions")
    length = mode(len(v) for v in lists.values() if v)
    for k in range(length):
        kth = {i: found[k] for i, found in lists.items() if found and k < len(found)}
        below = sum(v is not None and v < 0 for v in kth.values())
        if below > len(lists) / 2:
            for i, v in kth.items():
                shown.add("prediction_below_zero", "predictions", i, v is not None and v <= 0, str(k))


def _unknown(asked: Table, shown: Table, sizes: dict[int, int] | None = None) -> dict[int, object]:
    """Returns the requests of impressions; notes those that are not in the log."""
    known = {request for request in asked.of("request_id", "text").values() if request is not None}
    of = shown.of("request_id", "text")
    for i, request in of.items():
        if request is not None and request not in known:
            shown.add("unknown_request", "request_id", i, sizes[i] if sizes else 1)
    return of


def _between(asked: Table, shown: Table, weights: dict[str, float]) -> None:
    of = _unknown(asked, shown)
    if ("unknown_request", "request_id", "") in shown.broken or None in of.values():
        return
    if not set(weights) <= set(shown.names) & {*weights}:
        return
    stated = shown.of("reward", "number")
    either = {i: part if stated[i] is None else stated[i] for i, part in parts(shown, weights).items()}
    rewards = {i: part if finite(part) else None for i, part in either.items()}
    sums: dict[object, list] = defaultdict(list)
    for i, request in of.items():
        sums[request].append(rewards[i])
    for i, reward in asked.of("reward", "number").items():
        expected = sums[asked.rows[i]["request_id"]]
        if finite(reward) and None not in expected:
            wrong = abs(reward - sum(expected)) > OF_REWARD * (1 + abs(reward))
            asked.add("reward_contradicts_components", "reward", i, wrong)


def _slates(shown: Table) -> None:
    for i, row in shown.rows.items():
        items, clicked, scores = ((row[c] or "").split() for c in ("shown", "clicked", "prediction_click"))
        shown.add("unknown_item", "clicked", i, bool(set(clicked) - set(items)))
        shown.add("wrong_length", "prediction_click", i, len(scores) != len(items))


def _of_slates(asked: Table, shown: Table) -> None:
    """Notes slates of no request, or of one that has a slate, where all lists are sound: each item counts."""
    if shown.broken:
        return
    sizes = {i: len((row["shown"] or "").split()) for i, row in shown.rows.items()}
    longest: dict[object, int] = {}
    of = shown.of("request_id", "text")
    for i, request in of.items():
        shown.add("null_key", "request_id", i, sizes[i] if request is None else 0)
        if request is not None:
            shown.add("duplicate_request", "shown", i, min(sizes[i], longest.get(request, 0)))
            longest[request] = max(sizes[i], longest.get(request, 0))
    if asked.is_read and "request_id" in asked.names:
        _unknown(asked, shown, sizes)
