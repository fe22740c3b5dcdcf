"""The columns of a log's file, found by their names or by a mapping, and what impressions hold."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import duckdb

from mtf_engine.logs.files import RawTable, quoted
from mtf_engine.logs.mapping import WEIGHTS, Mapping
from mtf_engine.logs.schema import Kind
from mtf_engine.logs.typed import SQL_TYPES, Column, Need, judged, list_sources, type_columns
from mtf_engine.logs.units import TIME_UNITS, TimeUnit, WatchTimeUnit
from mtf_engine.logs.validation import (
    Check,
    DefectCode,
    cut_to_range,
    find_defects,
    leave_out,
    list_length,
    negative_watch_time,
    prediction_above_zero,
    reward_is,
    signal_in_range,
)
from mtf_engine.spec import Defect, Refusal, RewardSpec

SIGNALS = (*WEIGHTS, "click", "profile_enter")
"""Columns that are feedback signals where a mapping names none."""

PREDICTION = "prediction_"
"""A column that starts so holds the prediction of what follows."""


@dataclass
class Columns:
    """The columns of one file as the log calls them; what is missing is collected in `defects`.

    `renames` says what the file calls them, out of the mapping's `section`; None where no mapping applies.
    A column that comes from no column of the file is not there, whatever is called so. `told` are sentences
    that a user should know, `n_repeats` the rows that were dropped since they repeat another, `left_out` how many
    were left out by the code of their defect, where the file's `bad_rows` wants it.
    """

    raw: RawTable
    renames: dict[str, str | tuple[str, ...]]
    section: str | None
    time_unit: TimeUnit | None = None
    watch_time_unit: WatchTimeUnit | None = None
    found: list[Column] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    n_repeats: int = 0
    table: str = ""
    left_out: Counter[str] = field(default_factory=Counter)

    @classmethod
    def requests(cls, raw: RawTable, mapping: Mapping) -> Self:
        return cls(raw, mapping.requests, "requests", mapping.time_unit)

    @classmethod
    def impressions(cls, raw: RawTable, mapping: Mapping) -> Self:
        return cls(raw, mapping.impressions, "impressions", mapping.time_unit, mapping.watch_time_unit)

    @property
    def names(self) -> set[str]:
        return {column.name for column in self.found}

    def source(self, name: str) -> str:
        """Returns what the file calls the column `name`, which is found."""
        return next(column.sources[0] for column in self.found if column.name == name)

    def create(
        self, con: duckdb.DuckDBPyConnection, table: str, absent: dict[str, Kind] | None = None
    ) -> list[Defect]:
        """Returns what is missing, blank or of a wrong type; creates `table` of typed columns and `row`.

        Columns of `absent` (name to kind) that the file lacks are NULL. Rows that repeat another are dropped.
        """
        self.found = [judged(con, self.raw, column) for column in self.found]
        self.told += [
            f"{self.raw.file}: {c.sources[0]} is read as {TIME_UNITS[c.judged]}"
            for c in self.found
            if c.judged
        ]
        self.table = table
        self.left_out.update({"unreadable_file": self.raw.n_rejected} if self.raw.n_rejected else {})
        typed, checks = type_columns(con, self.raw, self.found, table)
        for name, kind in (absent or {}).items():
            con.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {SQL_TYPES[kind]}")
        defects = self.defects + self._judge(con, typed, checks, "typed.row")
        self._drop_repeats(con, table)
        return defects

    def _drop_repeats(self, con: duckdb.DuckDBPyConnection, table: str) -> None:
        """Drops rows of `table` that equal an earlier one in every column of the file.

        Only rows whose hash is not their own alone are compared.
        """
        everything = ", ".join(map(quoted, self.raw.types))
        alike = f"SELECT hash({everything}) AS h FROM {self.raw.table} GROUP BY h HAVING count(*) > 1"
        repeats = (
            f"SELECT rowid + 1 FROM {self.raw.table} WHERE hash({everything}) IN ({alike}) "
            f"QUALIFY row_number() OVER (PARTITION BY {everything} ORDER BY rowid) > 1"
        )
        dropped = con.execute(f"DELETE FROM {table} WHERE row IN ({repeats})").fetchall()
        self.n_repeats = dropped[0][0]
        if self.n_repeats:
            self.told.append(f"{self.raw.file}: {self.n_repeats:,} exact duplicates were dropped")

    def check(self, con: duckdb.DuckDBPyConnection, relation: str, checks: Iterable[Check]) -> list[Defect]:
        """Returns the broken checks, or leaves out the rows that break one by themselves, if that is wanted.

        Columns are named as the file names them.
        """
        return self._renamed(self._judge(con, relation, list(checks)))

    def broken(self, con: duckdb.DuckDBPyConnection, relation: str, checks: Iterable[Check]) -> list[Defect]:
        """Returns the broken checks, and leaves the rows as they are."""
        return self._renamed(self.raw.placed(find_defects(con, relation, self.raw.file, checks)))

    def _judge(
        self, con: duckdb.DuckDBPyConnection, relation: str, checks: list[Check], row: str = "row"
    ) -> list[Defect]:
        if self.raw.bad_rows == "drop":
            alone = [check for check in checks if check.of_one_row]
            checks = [check for check in checks if not check.of_one_row]
            self.leave_out(leave_out(con, self.table, relation, alone, row))
        return self.raw.placed(find_defects(con, relation, self.raw.file, checks, row))

    def leave_out(self, counts: dict[DefectCode, int]) -> None:
        """Counts rows that were left out; a Refusal where they are more than half of the file."""
        self.left_out.update(counts)
        n = self.left_out.total()
        if 2 * n > self.raw.n_rows + self.raw.n_rejected:
            raise Refusal(
                f"{self.raw.file}: {n:,} of {self.raw.n_rows + self.raw.n_rejected:,} rows have a defect "
                f"({self._counts()}), too many to leave out; without `--bad-rows drop` the import says what is wrong"
            )

    def _counts(self) -> str:
        return ", ".join(f"{n:,} {code}" for code, n in sorted(self.left_out.items()))

    def _renamed(self, defects: list[Defect]) -> list[Defect]:
        theirs = {c.name: c.sources[0] for c in self.found if len(c.sources) == 1}
        return [d.model_copy(update={"column": theirs.get(d.column or "", d.column)}) for d in defects]

    def add(self, name: str, kind: Kind, need: Need = "value") -> bool:
        """Returns whether the file has the column; if only the mapping has it, that is a defect."""
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
        units = {"timestamp": (self.time_unit, None), "watch_time": (None, self.watch_time_unit)}
        self.found.append(Column(name, kind, sources, need, *units.get(name, ())))
        return True

    def require(self, name: str, kind: Kind, need: Need = "value") -> None:
        if not self.add(name, kind, need) and not self.renames.get(name):
            self._missing(name, name)

    def _missing(self, column: str, name: str) -> None:
        elsewhere = f"add it, or name the column that holds {name} under {self.section}: in the mapping"
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
            self.require(name, "number")
        if mapping.signals:
            return tuple(s for s in mapping.signals if s in self.names)
        known = [s for s in SIGNALS if s in self.raw.types or s in self.renames]
        found = tuple(s for s in known if self.add(s, "number"))
        if not found:
            self._missing("watch_time", "watch_time (or another signal)")
        return found

    def add_profile(self, mapping: Mapping) -> None:
        for name in mapping.profile.numeric:
            self.require(name, "number", "optional")
        for name in mapping.profile.categorical:
            self.require(name, "text", "optional")

    def reports(self) -> list[str]:
        """Returns a sentence about the rows that were left out, none where there are none."""
        return [f"{self.raw.file}: rows left out: {self._counts()}"] if self.left_out else []

    def warnings(self) -> list[str]:
        """Returns what a user should know of the file, down to the columns that nothing reads."""
        used = {source for column in self.found for source in column.sources}
        names = ", ".join(name for name in self.raw.types if name not in used)
        return [
            *self.told,
            *self.reports(),
            *([f"{self.raw.file}: columns that are not used: {names}"] if names else []),
        ]


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
        predictions, signals = columns.add_predictions(mapping), columns.add_signals(mapping)
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
        length = usual_length(con, "impressions", "predictions")
        parts = (
            whole_or_text(con, "impressions", "item_id")
            if "item_id" in columns.names
            else "row_number() OVER (ORDER BY row) AS item_id",
            f"predictions::FLOAT[{length}] AS predictions",
            *map(quoted, self.signals),
            f"{self.reward_sql} AS reward",
            f"{self.label_sql(columns)} AS label",
        )
        return ", ".join(parts)

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
        if "predictions" in columns.names:
            length = len(self.predictions) or usual_length(con, "impressions", "predictions")
            checks.append(list_length("predictions", length))
            each = each_prediction(con, columns)
            below = shares(con, [value for _, value in each], "< 0")
            checks += [prediction_above_zero(*p) for p, share in zip(each, below, strict=True) if share > 0.5]
        if self.is_complete:
            checks += [
                signal_in_range(
                    s, quoted(s), "and takes the reward to -1 or below", f"{self.reward_sql} <= -1"
                )
                for s in self.weighed
            ]
        if "reward" in columns.names and self.is_complete:
            remedy = "correct it, or name the weights that made it under reward: in the mapping"
            checks.append(reward_is(self.reward_sql, "the weighted sum of the signals", remedy))
        return checks

    def named(self, n_predictions: int) -> tuple[str, ...]:
        """Returns the names of the predictions, made up where nothing tells them."""
        return self.predictions or tuple(f"{PREDICTION}{i}" for i in range(n_predictions))


def each_prediction(con: duckdb.DuckDBPyConnection, columns: Columns) -> list[tuple[str, str]]:
    """Returns the column of the file and SQL for each prediction in the table `impressions`."""
    (sources,) = (c.sources for c in columns.found if c.name == "predictions")
    length = usual_length(con, "impressions", "predictions")
    named = sources if len(sources) == length else sources[:1] * length
    return [(column, f"predictions[{i}]") for i, column in enumerate(named, start=1)]


def shares(con: duckdb.DuckDBPyConnection, values: list[str], rule: str) -> tuple[float, ...]:
    """Returns for each of `values` (SQL) the share of the impressions of which `rule` is true."""
    measured = ", ".join(f"count(*) FILTER ({value} {rule}) / count(*)" for value in values)
    return con.execute(f"SELECT {measured or 'NULL'} FROM impressions").fetchall()[0][: len(values)]


def usual_length(con: duckdb.DuckDBPyConnection, table: str, column: str) -> int:
    """Returns how many entries most rows of a list column have."""
    return int(con.execute(f"SELECT coalesce(mode(len({column})), 0) FROM {table}").fetchall()[0][0])


def whole_or_text(con: duckdb.DuckDBPyConnection, table: str, column: str) -> str:
    """Returns SQL for ids, which are texts: integers where every one is an integer's own text."""
    kept = f"bool_and(coalesce(TRY_CAST({column} AS BIGINT)::VARCHAR = {column}, false))"
    whole = con.execute(f"SELECT {kept} FROM {table}").fetchall()[0][0]
    return f"{column}::BIGINT AS {column}" if whole else f"{column} AS {column}"
