"""A form made from an algorithm's config, and the settings that differ from its preset; the log to learn from."""

from typing import Any, Literal, get_args, get_origin

import streamlit as st
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mtf_engine.learning.config import TrainerConfig
from mtf_engine.registry import DatasetRow
from mtf_engine.study.space import text_of
from pages.shared import links, loaders

COLUMNS = 4
LENGTH = ("n_steps", "passes")
"""Settings that say how long a training is."""


def logs() -> list[DatasetRow]:
    """Returns the logs that can be learned from; says what to do where there is none."""
    rows = loaders.learnable(loaders.datasets())
    if not rows:
        st.info("There is no log with explored actions to learn from. Collect one, or import one.")
        st.page_link("pages/explore/collect.py", label="Collect a log →")
        st.page_link("pages/logs/import_logs.py", label="Import logs →")
    return rows


def choose_log(rows: list[DatasetRow]) -> DatasetRow:
    """Returns the log chosen."""
    titles = {row.id: f"{row.name} · {row.meta['exploration']} · {row.n_requests:,} requests" for row in rows}
    chosen = links.choice("Learn from", titles, "dataset")
    return next(row for row in rows if row.id == chosen)


def length(config: TrainerConfig) -> str:
    """Returns how long a training is, in words."""
    steps, passes = config.n_steps, getattr(config, "passes", None)
    return f"{steps:,} steps" if steps else f"{passes:g} passes over the log"


def config_form(config: BaseModel, preset: BaseModel, names: list[str], key: str) -> dict[str, str]:
    """Draws a widget for each field of `config` in `names`; returns those that then differ from `preset`.

    They are written as `--set` takes them. The field's description is the widget's help, its value in
    `config` the starting point. `key` must change where the starting point does.
    """
    columns = st.columns(COLUMNS)
    changed = {}
    for i, name in enumerate(names):
        before = getattr(config, name)
        with columns[i % COLUMNS]:
            after = _widget(name, type(config).model_fields[name], before, f"{key}.{name}")
        if after != _shown(getattr(preset, name)):
            changed[name] = text_of(after)
    return changed


def _widget(name: str, field: FieldInfo, value: Any, key: str) -> Any:
    label, text = name, field.description
    if get_origin(field.annotation) is Literal:
        options = list(get_args(field.annotation))
        return st.selectbox(label, options, options.index(value), help=text, key=key)
    if isinstance(value, bool):
        return st.toggle(label, value, help=text, key=key)
    if isinstance(value, int):
        return st.number_input(label, value=value, step=1, help=text, key=key, **_limits(field))
    if isinstance(value, float):
        limits = {end: float(limit) for end, limit in _limits(field).items()}
        return st.number_input(
            label, value=value, step=value / 10 or 0.1, format="%g", help=text, key=key, **limits
        )
    return st.text_input(label, _shown(value), help=text, key=key, placeholder=_if_empty(field))


def _if_empty(field: FieldInfo) -> str | None:
    """Returns what an empty field means, by its description."""
    _, _, means = (field.description or "").partition("empty: ")
    return means.partition(" (")[0] or None


def _limits(field: FieldInfo) -> dict[str, Any]:
    """Returns the field's limits as a number input knows them; an excluded limit is left to validation."""
    limits = {}
    for constraint in field.metadata:
        match constraint:
            case Ge(ge=low) | Gt(gt=low):
                limits["min_value"] = low
            case Le(le=high) | Lt(lt=high):
                limits["max_value"] = high
    return limits


def _shown(value: Any) -> Any:
    """Returns a value as its widget shows it: numbers, flags and choices as they are, the rest as text."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return "" if value is None else value
