"""The columns of a log's file, found by their names or by a mapping, and what impressions hold."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import duckdb

from mtf_engine.logs.files import PLACE, SLATE, RawTable, alike, literal, quoted, repeats
from mtf_engine.logs.mapping import WEIGHTS, Mapping, Renames, bad_mapping
from mtf_engine.logs.schema import IMPRESSION_COLUMNS, Kind
from mtf_engine.logs.typed import SQL_TYPES, WHOLE, Column, Need, judged, list_sources, type_columns
from mtf_engine.logs.units import TIME_UNITS
from mtf_engine.logs.validation import (
    Check,
    cut_to_range,
    find_defects,
    leave_out,
    list_length,
    negative_watch_time,
    numbered,
    prediction_above_zero,
    probability,
    refuse_too_many,
    reward_is,
    signal_in_range,
    told,
)
from mtf_engine.spec import Defect, RewardSpec

SIGNALS = (*WEIGHTS, "click", "profile_enter")
"""Columns that are feedback signals where a mapping names none."""

COLUMNS = {*IMPRESSION_COLUMNS, "session_id"}
"""What no signal can be called."""
ROW = "row"
OTHER = "other"
"""The category of values that `categories` in a mapping does not name."""
RULES: dict[str, Kind] = {"counts": "number", "thresholds": "number", "categories": "text"}
"""What of the mapping changes values, and of which kind of column."""
OVER_ITEMS = (
    "propensity_score and position are kept, but what is learned here are fusion weights: a policy over items, "
    "which the propensities of items are for, is out of scope"
)
PREDICT = (
    "add what a ranking model predicts of each impression, a column a behaviour such as prediction_click"
)
PREDICTION = "prediction_"
"""A column that starts so holds the prediction of what follows."""


@dataclass
class Columns:
    """The columns of one file as the log calls them; what is missing is collected in `defects`.

    `renames` says what the file calls them, out of the `section` of the `mapping`; None where none applies.
    A column that comes from no column of the file is not there, whatever is called so. `told` are sentences
    that a user should know, `n_repeats` the rows that were dropped since they repeat another, `left_out` how many
    were left out by the code of their defect, where the file's `bad_rows` wants it.
    """

    raw: RawTable
    renames: Renames
    section: str | None
    mapping: Mapping = field(default_factory=Mapping)
    found: list[Column] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    n_repeats: int = 0
    table: str = ""
    left_out: Counter[str] = field(default_factory=Counter)
    has_own_keys: bool = False

    @classmethod
    def requests(cls, raw: RawTable, mapping: Mapping) -> Self:
        return cls(raw, mapping.requests, "requests", mapping)

    @classmethod
    def impressions(cls, raw: RawTable, mapping: Mapping) -> Self:
        made: Renames = {"item_id": mapping.slate.items, "position": PLACE} if mapping.slate else {}
        return cls(raw, made | mapping.impressions, "impressions", mapping)

    @property
    def names(self) -> set[str]:
        return {column.name for column in self.found}

    def length(self, con: duckdb.DuckDBPyConnection, name: str) -> int:
        """Returns how many entries most rows of the list column `name`, which is found, have."""
        (sources,) = (column.sources for column in self.found if column.name == name)
        return len(sources) if len(sources) > 1 else usual_length(con, self.table, name)

    def source(self, name: str) -> str:
        """Returns what the file calls the column `name`, which is found."""
        return next(column.sources[0] for column in self.found if column.name == name)

    def create(
        self,
        con: duckdb.DuckDBPyConnection,
        table: str,
        absent: dict[str, Kind] | None = None,
        keys: Sequence[str] = (),
    ) -> list[Defect]:
        """Returns what is missing, blank or of a wrong type; creates `table` of typed columns and `row`.

        Columns of `absent` (name to kind) that the file lacks are NULL. Rows that repeat another are dropped; where no
        two have the same `keys`, none can, and `has_own_keys` says so.
        """
        with self.raw.reading():
            return self._create(con, table, absent or {}, keys)

    def _create(
        self, con: duckdb.DuckDBPyConnection, table: str, absent: dict[str, Kind], keys: Sequence[str]
    ) -> list[Defect]:
        self._fill(con)
        self.found = [judged(con, self.raw, column) for column in self.found]
        self.told += [
            f"{self.raw.file}: {c.sources[0]} is read as {TIME_UNITS[c.judged]}"
            for c in self.found
            if c.judged
        ]
        self.table = table
        self.left_out.update({"unreadable_file": self.raw.n_rejected} if self.raw.n_rejected else {})
        self.left_out.update(self.raw.left_out)
        typed, checks = type_columns(con, self.raw, self.found, table)
        for name, kind in absent.items():
            con.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {SQL_TYPES[kind]}")
        defects = self.defects + self._judge(con, typed, checks)
        place = "position" if "position" in keys else None
        self.has_own_keys = bool(keys) and not alike(con, table, keys, place)
        self._drop_repeats(con, table)
        self.has_own_keys &= not set(keys) & set(self.mapping.categories)  # which make several texts one
        for column in self.found:
            if changed := value_sql(column, self.mapping):
                con.execute(f"UPDATE {table} SET {quoted(column.name)} = {changed}")
        return defects

    def _fill(self, con: duckdb.DuckDBPyConnection) -> None:
        """Puts what the mapping says into blank values of the file."""
        if self.mapping.fill:
            self.raw = self.raw.as_table(con)
        for column in (c for c in self.found if c.name in self.mapping.fill):
            value = self.mapping.fill[column.name]
            for other in self.found:
                if {*other.sources} & {*column.sources} and self.mapping.fill.get(other.name) != value:
                    raise bad_mapping(
                        f"fill: {column.name} and {other.name} are read from one column; fill both alike"
                    )
            for source in column.sources:
                kind = self.raw.types[source]
                try:
                    (found,) = con.execute(f"SELECT CAST(? AS {kind})", [value]).fetchall()[0]
                    if isinstance(found, int) and found != value:
                        raise bad_mapping(f"fill: {value} would be {found} in {source}, a column of {kind}")
                    con.execute(
                        f"UPDATE {self.raw.table} SET {quoted(source)} = ? WHERE {quoted(source)} IS NULL",
                        [value],
                    )
                except duckdb.ConversionException:
                    raise bad_mapping(
                        f"fill: {value} does not go into {source}, a column of {kind}"
                    ) from None

    def _drop_repeats(self, con: duckdb.DuckDBPyConnection, table: str) -> None:
        """Drops rows of `table` that equal an earlier one in every column of the file.

        Of slates whole rows were dropped before they were taken apart.
        """
        self.n_repeats = self.raw.n_repeats
        if self.raw.ends is None and not self.has_own_keys:
            again = repeats(self.raw.table, self.raw.types)
            self.n_repeats = con.execute(f"DELETE FROM {table} WHERE row IN ({again})").fetchall()[0][0]
        if self.n_repeats:
            self.told.append(f"{self.raw.file}: {self.n_repeats:,} exact duplicates were dropped")

    def check_keys(self, con: duckdb.DuckDBPyConnection, keys: Sequence[str], again: Check) -> list[Defect]:
        """Returns the check of rows that have the same `keys`, the ones named to `create`, if it is broken."""
        return [] if self.has_own_keys else self.check(con, numbered(self.table, *keys), [again])

    def check(self, con: duckdb.DuckDBPyConnection, relation: str, checks: Iterable[Check]) -> list[Defect]:
        """Returns the broken checks, or leaves out the rows that break one by themselves, if that is wanted.

        Columns are named as the file names them.
        """
        return self._renamed(self._judge(con, relation, list(checks)))

    def broken(self, con: duckdb.DuckDBPyConnection, relation: str, checks: Iterable[Check]) -> list[Defect]:
        """Returns the broken checks, and leaves the rows as they are."""
        return self._renamed(self.raw.placed(find_defects(con, relation, self.raw.file, checks)))

    def _judge(self, con: duckdb.DuckDBPyConnection, relation: str, checks: list[Check]) -> list[Defect]:
        if self.raw.bad_rows == "drop":
            alone = [check for check in checks if check.of_one_row]
            checks = [check for check in checks if not check.of_one_row]
            self.leave_out(leave_out(con, self.table, relation, alone))
        return self.raw.placed(find_defects(con, relation, self.raw.file, checks))

    def leave_out(self, counts: dict[str, int]) -> None:
        """Counts rows that were left out; a Refusal where they are more than half of the file."""
        self.left_out.update(counts)
        own = self.left_out - Counter(self.raw.left_out)  # slates that were left out are judged among slates
        refuse_too_many(self.raw.file, own, self.raw.n_rows + self.raw.n_rejected)

    def _renamed(self, defects: list[Defect]) -> list[Defect]:
        theirs = {c.name: c.sources[0] for c in self.found if len(c.sources) == 1}
        if self.mapping.slate:  # a place is none of the file's columns
            theirs = {name: self.mapping.slate.items if s == PLACE else s for name, s in theirs.items()}
        return [d.model_copy(update={"column": theirs.get(d.column or "", d.column)}) for d in defects]

    def add(self, name: str, kind: Kind, need: Need = "value") -> bool:
        """Returns whether the file has the column; if only the mapping has it, that is a defect."""
        if name.lower() == ROW:
            raise bad_mapping(
                "no column of a log can be called row, which counts its lines; give it another name"
            )
        renamed = self.renames.get(name)
        if renamed is None:
            sources = list_sources(self.raw.types, name) if kind == "list" else (name,)
        else:
            sources = (renamed,) if isinstance(renamed, str) else renamed
        lacking = [s for s in sources if s not in self.raw.types]
        if renamed is not None and lacking:
            self._missing(", ".join(lacking), name)
        if lacking or not sources:
            return False
        if len(sources) > 1 and kind not in ("list", "text"):
            raise bad_mapping(
                f"{self.section}: {name} is one {kind} and named as {len(sources)} columns; name one"
            )
        read_as = {column.kind for column in self.found if column.name == name} | {kind}
        if "number" in read_as and (other := read_as & {"text", "time"}):
            raise bad_mapping(
                f"{name} is to be both a {min(other)} and a number; name a copy of the column for one of them"
            )
        self.found.append(Column(name, kind, sources, need, **self._units(name)))
        return True

    def add_id(self, name: str) -> bool:
        """Returns whether the file has the column of ids, which stay whole numbers where the file's type is one.

        They are the same as their texts, and cost less; but what the mapping makes of texts is a text.
        """
        source = self.renames.get(name) or name
        whole = isinstance(source, str) and self.raw.types.get(source) in WHOLE
        is_text = name in self.mapping.categories or name in self._categorical()
        return self.add(name, "long" if whole and not is_text else "text", "key")

    def require_id(self, name: str) -> None:
        """Adds the column of ids, see `add_id`; that the file lacks it is a defect."""
        if not self.add_id(name) and not self.renames.get(name):
            self._missing(name, name)

    def _categorical(self) -> tuple[str, ...]:
        """Returns the features, of users and for predictions, that are texts."""
        predict = self.mapping.predict
        return (*self.mapping.profile.categorical, *(predict.categorical if predict else ()))

    def _units(self, name: str) -> dict[str, Any]:
        """Returns the units of a column's values that the mapping states."""
        if name == "timestamp":
            return {"time_unit": self.mapping.time_unit, "time_format": self.mapping.time_format}
        return {"watch_unit": self.mapping.watch_time_unit} if name == "watch_time" else {}

    def require(self, name: str, kind: Kind, need: Need = "value") -> None:
        if not self.add(name, kind, need) and not self.renames.get(name):
            self._missing(name, name)

    def _missing(self, column: str, name: str) -> None:
        what = PREDICT if name == "predictions" else "add it"
        elsewhere = f"{what}, or name the column that holds {name} under {self.section}: in the mapping"
        self.defects.append(
            Defect(
                code="missing_column",
                file=self.raw.file,
                column=column,
                message="is missing",
                remedy=elsewhere if self.section else "import the file as it was published",
            )
        )

    def add_predictions(self, mapping: Mapping) -> tuple[str, ...]:
        """Returns the names of the predictions, if columns such as `prediction_click` or the mapping tell."""
        named = tuple(
            c for c in self.raw.types if c.startswith(PREDICTION) and not c[len(PREDICTION) :].isdigit()
        )
        if named and "predictions" not in self.renames and "predictions" not in self.raw.types:
            self.found.append(Column("predictions", "list", named))
            return mapping.predictions or tuple(c.removeprefix(PREDICTION) for c in named)
        self.require("predictions", "list")
        renamed = self.renames.get("predictions")
        return mapping.predictions or (renamed if isinstance(renamed, tuple) else ())

    def add_signals(self, mapping: Mapping) -> tuple[str, ...]:
        """Returns the feedback signals: those of the mapping, else all known ones that the file has."""
        for name in mapping.signals:
            if name in COLUMNS:
                raise bad_mapping(f"signals: {name} is a column of every log; give the signal another name")
            self.require(name, "number")
        if mapping.signals:
            return tuple(s for s in mapping.signals if s in self.names)
        known = [s for s in SIGNALS if s in self.raw.types or s in self.renames]
        found = tuple(s for s in known if self.add(s, "number"))
        if not found:
            self._missing("watch_time", "watch_time (or another signal)")
        return found

    def add_profile(self, mapping: Mapping) -> None:
        take = self.add if mapping.profile.may_lack else self.require
        for name in mapping.profile.numeric:
            take(name, "number", "optional")
        for name in mapping.profile.categorical:
            take(name, "text", "optional")

    def add_features(self, mapping: Mapping) -> None:
        """Adds the features that predictions are to be made from."""
        if mapping.predict:
            take = self.add if mapping.predict.may_lack else self.require
            for name in mapping.predict.names:
                if name not in self.names:
                    take(name, "number" if name in mapping.predict.numeric else "text", "optional")

    def reports(self) -> list[str]:
        """Returns a sentence about the rows that were left out, none where there are none."""
        return [f"{self.raw.file}: rows left out: {told(self.left_out)}"] if self.left_out else []

    def warnings(self) -> list[str]:
        """Returns what a user should know of the file, down to the columns that nothing reads."""
        used = {source for column in self.found for source in column.sources}
        names = ", ".join(
            name for name in (*self.raw.types, *self.raw.unread) if name not in {*used, SLATE, PLACE}
        )
        return [
            *self.told,
            *self.reports(),
            *([f"{self.raw.file}: columns that are not used: {names}"] if names else []),
        ]


def value_sql(column: Column, mapping: Mapping) -> str | None:
    """Returns SQL for what the mapping makes of a value of a typed column, None where it is as it is."""
    value, name = quoted(column.name), column.name
    for rule, kind in RULES.items():
        if name in getattr(mapping, rule) and column.kind != kind:
            found = "n id" if column.kind == "long" else f" {column.kind}"
            raise bad_mapping(f"{rule}: names {name}, which is a{found} and no {kind}")
    if name in mapping.counts:
        most = mapping.counts[name]
        return f"CASE WHEN isfinite({value}) THEN least({value}, {most!r}) / {most!r} ELSE {value} END"
    if name in mapping.thresholds:
        above = f"({value} > {mapping.thresholds[name]!r})::INTEGER"
        return f"CASE WHEN isfinite({value}) THEN {above} ELSE {value} END"
    if name in mapping.categories:
        names = " ".join(f"WHEN {literal(a)} THEN {literal(b)}" for a, b in mapping.categories[name].items())
        return f"CASE WHEN {value} IS NOT NULL THEN CASE {value} {names} ELSE '{OTHER}' END END"
    return None


def refuse_unread(mapping: Mapping, *tables: Columns) -> None:
    """Raises a Refusal where the mapping changes values of a column that the log lacks."""
    names = [column.name for table in tables for column in table.found]
    for rule in ("fill", *RULES):
        for name in set(getattr(mapping, rule)) - set(names):
            raise bad_mapping(f"{rule}: names {name}, which the log lacks; it has {', '.join(names)}")


def left_out(*tables: Columns) -> dict[str, dict[str, dict[str, int]]]:
    """Returns what a dataset's details say of rows that were left out: how many by file and code of defect."""
    counts = {table.raw.file: dict(table.left_out) for table in tables if table.left_out}
    return {"left_out": counts} if counts else {}


@dataclass(frozen=True)
class Feedback:
    """What the impressions of a log hold: names of predictions, signals, and the reward made of them."""

    predictions: tuple[str, ...]
    signals: tuple[str, ...]
    reward: RewardSpec

    @classmethod
    def find(cls, columns: Columns, mapping: Mapping) -> Self:
        """Returns what the file holds; what is missing is added to `columns.defects`."""
        predictions = mapping.predict.signals if mapping.predict else columns.add_predictions(mapping)
        signals = columns.add_signals(mapping)
        if columns.add("propensity_score", "real", "optional"):
            columns.told.append(f"{columns.raw.file}: {OVER_ITEMS}")
        if unknown := sorted(set(predictions) - (set(signals) - {"watch_time"})) if mapping.predict else []:
            raise bad_mapping(f"predict: names what is no signal of 0 or 1 of the log: {', '.join(unknown)}")
        feedback = cls(predictions, signals, mapping.reward_of(mapping.signals or signals or SIGNALS))
        if not columns.add("label", "flag") and not {"watch_time", "valid"} & set(signals):
            columns.require("watch_time", "number")
        return feedback

    @property
    def reward_sql(self) -> str:
        """The reward of an impression; NULL where a signal is no number or the watch time is negative."""
        total = " + ".join(f"{w!r}::DOUBLE * {quoted(s)}" for s, w in self.reward.weights.items())
        sound = " AND ".join(f"isfinite({quoted(s)})" for s in self.reward.weights)
        watched = " AND watch_time >= 0" if "watch_time" in self.signals else ""
        return f"CASE WHEN {sound}{watched} THEN {total} END"

    @property
    def is_complete(self) -> bool:
        """Whether all signals are there that the reward weighs."""
        return set(self.reward.weights) <= set(self.signals)

    def select(self, con: duckdb.DuckDBPyConnection, columns: Columns) -> str:
        """Returns SQL for the impression columns of a dataset, out of the table `impressions`."""
        known = "predictions" in columns.names
        length = columns.length(con, "predictions") if known else 0
        parts = (
            whole_or_text(con, "impressions", "item_id")
            if "item_id" in columns.names
            else "row_number() OVER (ORDER BY row) AS item_id",
            *self._places(con, columns),
            *([f"predictions::FLOAT[{length}] AS predictions"] if known else []),
            *map(quoted, self.signals),
            f"{self.reward_sql} AS reward",
            f"{self.label_sql(columns)} AS label",
        )
        return ", ".join(parts)

    def _places(self, con: duckdb.DuckDBPyConnection, columns: Columns) -> list[str]:
        """Returns SQL for the positions that the log has, counted from 0, and for how likely items were shown there."""
        kept = ["propensity_score"] if "propensity_score" in columns.names else []
        if "position" not in columns.names:
            return kept
        first = con.execute("SELECT min(position) = 1 FROM impressions").fetchall()[0][0]
        return [f"(position - {first or 0:d})::INTEGER AS position", *kept]

    def label_sql(self, columns: Columns) -> str:
        if "label" in columns.names:
            return "label"
        return f"watch_time > {self.reward.valid_seconds}" if "watch_time" in columns.names else "valid > 0"

    @property
    def weighed(self) -> list[str]:
        """The signals in the reward that lie in [0, 1], which is all but watch_time."""
        return [s for s in self.reward.weights if s in self.signals and s != "watch_time"]

    def checks(self, con: duckdb.DuckDBPyConnection, columns: Columns) -> list[Check]:
        """Returns what must hold of each impression in the table `impressions`, cut to its ranges first."""
        for signal in self.weighed:
            con.execute(cut_to_range("impressions", quoted(signal), 0, 1))
        checks = []
        if "watch_time" in columns.names:
            con.execute(cut_to_range("impressions", "watch_time", 0, math.inf))
            checks.append(negative_watch_time("watch_time"))
        if "propensity_score" in columns.names:
            checks.append(probability("propensity_score"))
        if "predictions" in columns.names:
            length = len(self.predictions) or columns.length(con, "predictions")
            checks.append(list_length("predictions", length))
            each = each_prediction(con, columns)
            below = shares(con, [f"{value} < 0" for _, value in each])
            checks += [prediction_above_zero(*p) for p, share in zip(each, below, strict=True) if share > 0.5]
        where, capped = (
            "where a signal of the reward lies",
            ", or cap a count in the mapping: counts: {{{}: 3}}",
        )
        checks += [signal_in_range(s, quoted(s), where, capped.format(s)) for s in self.weighed]
        if "reward" in columns.names and self.is_complete:
            remedy = "correct it, or name the weights that made it under reward: in the mapping"
            checks.append(reward_is(self.reward_sql, "the weighted sum of the signals", remedy))
        return checks

    def named(self, n_predictions: int) -> tuple[str, ...]:
        """Returns the names of the predictions, made up where nothing tells them."""
        return self.predictions or tuple(f"{PREDICTION}{i}" for i in range(n_predictions))


def each_prediction(con: duckdb.DuckDBPyConnection, columns: Columns) -> list[tuple[str, str]]:
    """Returns the column of the file and SQL for each prediction in the table `impressions`."""
    if "predictions" not in columns.names:
        return []
    (sources,) = (c.sources for c in columns.found if c.name == "predictions")
    length = columns.length(con, "predictions")
    named = sources if len(sources) == length else sources[:1] * length
    return [(column, f"predictions[{i}]") for i, column in enumerate(named, start=1)]


def shares(con: duckdb.DuckDBPyConnection, rules: list[str]) -> tuple[float, ...]:
    """Returns for each of the `rules` (SQL) the share of the impressions of which it is true."""
    measured = ", ".join(f"count(*) FILTER ({rule}) / count(*)" for rule in rules)
    return con.execute(f"SELECT {measured or 'NULL'} FROM impressions").fetchall()[0][: len(rules)]


def usual_length(con: duckdb.DuckDBPyConnection, table: str, column: str) -> int:
    """Returns how many entries most rows of a list column have."""
    return int(con.execute(f"SELECT coalesce(mode(len({column})), 0) FROM {table}").fetchall()[0][0])


def whole_or_text(con: duckdb.DuckDBPyConnection, table: str, column: str) -> str:
    """Returns SQL for ids: integers where every one is an integer, or an integer's own text."""
    if con.execute(f"DESCRIBE SELECT {column} FROM {table}").fetchall()[0][1] == SQL_TYPES["long"]:
        return column
    kept = f"bool_and(coalesce(TRY_CAST({column} AS BIGINT)::VARCHAR = {column}, false))"
    whole = con.execute(f"SELECT {kept} FROM {table}").fetchall()[0][0]
    return f"{column}::BIGINT AS {column}" if whole else f"{column} AS {column}"
