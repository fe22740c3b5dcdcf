"""The form that starts a search over settings, and the command line that does the same."""

from typing import NamedTuple

import streamlit as st

from mtf_engine.algos import ALGOS
from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.training import make_config
from mtf_engine.permissions import Action
from mtf_engine.registry import DatasetRow
from mtf_engine.runs import estimates
from mtf_engine.study.space import suggested, tunable
from mtf_engine.study.tuning import N_RANDOM
from mtf_engine.work.tune import MOST_AT_ONCE, MOST_TRIALS, asked_for, submit_tune
from pages.shared import access, follow, links, loaders, words
from pages.train import _forms

COLUMNS = 3
N_TRIALS = 20
FIRST = 2
"""Settings that are offered at first."""
AT_ONCE = (
    "Trainings at a time, each a run of its own. More end sooner where there is room for them, and each is proposed "
    "knowing less: not the scores of those beside it."
)


class Order(NamedTuple):
    """Everything that the form asks for."""

    dataset: DatasetRow
    algo: str
    preset: str
    search: dict[str, str]
    settings: dict[str, str]
    trials: int
    at_once: int
    seed: int
    name: str

    def asked(self) -> dict:
        """Returns what the engine is asked for beside the dataset."""
        return self._asdict() | {"dataset": self.dataset.id, "name": self.name or None}


def show() -> str | None:
    """Draws the form; returns the id of the search where one was just started."""
    st.header("Search for settings", anchor=False)
    if not (rows := _forms.logs()):
        return None
    st.caption(
        "Trains a method again and again with other settings, and tells those that score highest on validation users. "
        "Each trial is a run of its own."
    )
    order = choose(_forms.choose_log(rows))
    with follow.refusals():
        show_estimate(order)
        if access.button(Action.TUNE, "Start the search", type="primary"):
            return submit_tune(loaders.workspace(), **order.asked())
    show_command(order)
    return None


def choose(dataset: DatasetRow) -> Order:
    left, right = st.columns(2)
    algo = links.choice("Method", {name: name for name in ALGOS}, "algo", left)
    presets = {
        name: f"{name}: {_forms.length(make_config(algo, name, {}, seed=0))}" for name in ALGOS[algo].presets
    }
    preset = right.segmented_control(
        "Settings start from",
        list(presets),
        default=next(iter(presets)),
        required=True,
        key=f"tune preset {algo}",
        help="Presets: " + ", ".join(presets.values()) + ". Each setting can be changed below.",
    )
    config = make_config(algo, preset, {}, seed=0)
    search = choose_search(algo, preset, config)
    settings = choose_fixed(algo, preset, config, search)
    first, second, third, fourth = st.columns(4)
    trials = first.number_input(
        "Trials", 2, MOST_TRIALS, N_TRIALS, key="tune trials", help="The first has the default settings."
    )
    at_once = second.number_input("At once", 1, MOST_AT_ONCE, key="tune at once", help=AT_ONCE)
    seed = third.number_input(
        "Seed", 0, step=1, key="tune seed", help="Same seed and as many at once, same trials."
    )
    name = fourth.text_input("Name (optional)", placeholder=f"{algo} on {dataset.name}", key="tune name")
    return Order(dataset, algo, preset, search, settings, trials, at_once, seed, name)


def choose_search(algo: str, preset: str, config: TrainerConfig) -> dict[str, str]:
    """Returns what to try of each setting chosen, as `--search` takes it; ranges around the defaults are offered."""
    fields, names = type(config).model_fields, tunable(type(config))
    offered = {name: suggested(fields[name], getattr(config, name)) for name in names}
    rates = [name for name in names if name.endswith("learning_rate")]
    own = [name for name in names if offered[name] and name not in TrainerConfig.model_fields]
    chosen = st.multiselect(
        "Settings to search",
        names,
        (rates or own)[:FIRST],
        key=f"tune settings {algo}",
        help="The more, the more trials it takes.",
    )
    columns = st.columns(COLUMNS)
    return {
        name: columns[i % COLUMNS].text_input(
            name,
            offered[name],
            help=f"{fields[name].description}. LOW..HIGH, with log behind it by its logarithm, or choices: A,B,C.",
            placeholder="LOW..HIGH, LOW..HIGH log or A,B,C",
            key=f"tune {algo}.{preset}.{name}",
        )
        for i, name in enumerate(chosen)
    }


def choose_fixed(algo: str, preset: str, config: TrainerConfig, search: dict[str, str]) -> dict[str, str]:
    """Returns the settings of every trial that differ from the preset."""
    names = [name for name in type(config).model_fields if name != "seed" and name not in search]
    length = [name for name in _forms.LENGTH if name in names]
    key = f"tune fixed {algo}.{preset}"
    changed = _forms.config_form(config, config, length, key)
    rest = [name for name in names if name not in length]
    with st.expander(f"The {len(rest)} other settings of every trial"):
        return changed | _forms.config_form(config, config, rest, key)


def show_estimate(order: Order) -> None:
    """Says how long the search will take; refuses what cannot be searched."""
    workspace = loaders.workspace()
    asked_for(workspace, **{name: value for name, value in order.asked().items() if name != "name"})
    config = make_config(order.algo, order.preset, order.settings, order.seed)
    took = estimates.search(
        workspace, order.algo, config.model_dump(mode="json"), order.dataset, order.trials, order.at_once
    )
    n_random = N_RANDOM + order.at_once - 1
    said = f"{order.trials} trials, {at_a_time(order.at_once)}: about {words.duration(took.seconds)} ({took.basis})."
    drawn = f"The first {n_random} are drawn at random, the others where scores were high."
    if n_random >= order.trials:
        drawn = "All are drawn at random: too few have ended when the last one begins."
    st.caption(words.plain(f"{said} {drawn}"))


def at_a_time(at_once: int) -> str:
    """Returns in words how many trials work at a time."""
    working = estimates.at_work(at_once)
    if working < at_once:
        return f"{at_once} at once, of which this machine works on {working} at a time"
    return "one after the other" if at_once == 1 else f"{at_once} at once"


def show_command(order: Order) -> None:
    arguments = (
        *("tune", order.dataset.id, "--algo", order.algo, "--preset", order.preset),
        *(part for one in order.search.items() for part in ("--search", "=".join(one))),
        *(part for one in order.settings.items() for part in ("--set", "=".join(one))),
        *("--trials", order.trials, "--at-once", order.at_once, "--seed", order.seed),
        *(("--name", order.name) if order.name else ()),
        "--background",
    )
    st.caption("The same on the command line")
    st.code(words.command(loaders.workspace().path, *arguments), language=None, wrap_lines=True)
