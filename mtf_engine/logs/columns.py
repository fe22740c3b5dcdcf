"""The columns of a log's file, found by their names or by a mapping, and what impressions hold."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import duckdb

from mtf_engine.logs.files import RawTable, quoted
from mtf_engine.logs.mapping import WEIGHTS, Mapping
from mtf_engine.logs.typed import SQL_TYPES, Column, Kind, Need, list_sources, type_columns
from mtf_engine.logs.validation import Check, find_defects, list_length, negative_watch_time, reward_is
from mtf_engine.spec import Defect, RewardSpec

SIGNALS = (*WEIGHTS, "click", "profile_enter")
"""Columns that are feedback signals where a mapping names none."""

PREDICTION = "prediction_"
"""A column that starts so holds the prediction of what follows."""


@dataclass
class Columns:
    """The columns of one file as the log calls them; what is missing is collected in `defects`.

    `renames` says what the file calls them, out of the mapping's `section`; None where no mapping applies.
    A column that comes from no column of the file is not there, whatever is called so.
    """

    raw: RawTable
    renames: dict[str, str | tuple[str, ...]]
    section: str | None
    found: list[Column] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        return {column.name for column in self.found}

    def create(
        self, con: duckdb.DuckDBPyConnection, table: str, absent: dict[str, Kind] | None = None
    ) -> list[Defect]:
        """Returns what is missing, blank or of a wrong type; creates `table` of typed columns and `row`.

        Columns of `absent` (name to kind) that the file lacks are NULL.
        """
        defects = self.defects + type_columns(con, self.raw, self.found, table)
        for name, kind in (absent or {}).items():
            con.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {SQL_TYPES[kind]}")
        return defects

    def check(self, con: duckdb.DuckDBPyConnection, relation: str, checks: Iterable[Check]) -> list[Defect]:
        """Returns the broken checks; columns are named as the file names them."""
        theirs = {c.name: c.sources[0] for c in self.found if len(c.sources) == 1}
        found = find_defects(con, relation, self.raw.file, checks)
        renamed = (d.model_copy(update={"column": theirs.get(d.column or "", d.column)}) for d in found)
        return self.raw.placed(renamed)

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
        self.found.append(Column(name, kind, sources, need))
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

    def unused(self) -> list[str]:
        """Returns a sentence about the columns of the file that nothing reads, none where there are none."""
        used = {source for column in self.found for source in column.sources}
        names = ", ".join(name for name in self.raw.types if name not in used)
        return [f"{self.raw.file}: columns that are not used: {names}"] if names else []


@dataclass(frozen=True)
class Feedback:
    """What the impressions of a log hold: names of predictions, signals, and the reward made of them."""

    predictions: tuple[str, ...]
    signals: tuple[str, ...]
    reward: RewardSpec

    @classmethod
    def find(cls, columns: Columns, mapping: Mapping) -> "Feedback":
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
        watched = (
            f"watch_time > {self.reward.valid_seconds}" if "watch_time" in columns.names else "valid > 0"
        )
        length = usual_length(con, "impressions", "predictions")
        parts = (
            item_sql(con) if "item_id" in columns.names else "row AS item_id",
            f"predictions::FLOAT[{length}] AS predictions",
            *map(quoted, self.signals),
            f"{self.reward_sql} AS reward",
            "label" if "label" in columns.names else f"{watched} AS label",
        )
        return ", ".join(parts)

    def checks(self, con: duckdb.DuckDBPyConnection, columns: Columns) -> list[Check]:
        """Returns what must hold of each impression in the table `impressions`."""
        checks = [negative_watch_time("watch_time")] if "watch_time" in self.signals else []
        if "predictions" in columns.names:
            length = len(self.predictions) or usual_length(con, "impressions", "predictions")
            checks.append(list_length("predictions", length))
        if "reward" in columns.names and self.is_complete:
            remedy = "correct it, or name the weights that made it under reward: in the mapping"
            checks.append(reward_is(self.reward_sql, "the weighted sum of the signals", remedy))
        return checks

    def named(self, n_predictions: int) -> tuple[str, ...]:
        """Returns the names of the predictions, made up where nothing tells them."""
        return self.predictions or tuple(f"{PREDICTION}{i}" for i in range(n_predictions))


def usual_length(con: duckdb.DuckDBPyConnection, table: str, column: str) -> int:
    """Returns how many entries most rows of a list column have."""
    return int(con.execute(f"SELECT coalesce(mode(len({column})), 0) FROM {table}").fetchall()[0][0])


def item_sql(con: duckdb.DuckDBPyConnection) -> str:
    """Returns SQL for the item ids: integers where all are, else texts."""
    kept = "bool_and(coalesce(TRY_CAST(item_id AS BIGINT)::VARCHAR = item_id, false))"
    whole = con.execute(f"SELECT {kept} FROM impressions").fetchall()[0][0]
    return "item_id::BIGINT AS item_id" if whole else "item_id"
