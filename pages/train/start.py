"""Start a training: which method learns from which log, with which settings, and how long that takes."""

from typing import NamedTuple

import streamlit as st

from mtf_engine.algos import ALGOS
from mtf_engine.commands.options import MOST_SEEDS
from mtf_engine.exploration.signal import Signal
from mtf_engine.learning.config import TrainerConfig
from mtf_engine.learning.training import closest_preset, make_config
from mtf_engine.permissions import Action
from mtf_engine.registry import DatasetRow, RunRow, RunState
from mtf_engine.runs import estimates, executor
from mtf_engine.spec import Spec
from mtf_engine.work.train import submit_seeds
from pages.shared import access, follow, links, loaders, places, words
from pages.train import _forms, _formulas, _tune

DEFAULT_PRESET = "laptop"
DRAWN_APART = ("seed",)


class Start(NamedTuple):
    """Where the form's settings start: a preset, or an earlier run and the preset nearest to it."""

    config: Spec
    preset: str
    key: str


class Order(NamedTuple):
    """Everything that the form asks for."""

    dataset: DatasetRow
    algo: str
    preset: str
    settings: dict[str, str]
    seeds: tuple[int, ...]
    name: str


def earlier_run() -> RunRow | None:
    """Returns the training that the address names as `from`, whose choices the form then starts with."""
    run = loaders.runs_by_id().get(st.query_params.get("from", ""))
    if run is None:
        return None
    if st.session_state.get("prefilled") != run.id:
        st.session_state.update(prefilled=run.id, dataset=run.dataset_id, algo=run.algo)
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f"The settings of **{words.plain(words.run_title(run))}**, to be changed.")
        st.page_link("pages/train/runs.py", label="Look at it →", query_params={"run": run.id})
    return run


def show_signal(row: DatasetRow) -> None:
    """Says what to expect of learning from the log."""
    found = loaders.signal(row)
    if isinstance(found, Signal):
        (st.warning if found.verdict == "nothing" else st.caption)(words.plain(found.sentence))
    else:
        st.caption(words.plain(found or "Whether this log can teach is not measured yet."))
    query = {places.TAB: places.TEACHING, "dataset": row.id}
    st.page_link(places.DATASETS, label="Can it teach? →", query_params=query)


def choose_start(earlier: RunRow | None) -> tuple[str, Start]:
    """Returns the method, and where its settings start."""
    left, right = st.columns(2)
    algo = links.choice("Method", {name: name for name in ALGOS}, "algo", left)
    presets = {name: f"{name}: {_forms.length(_config(algo, name))}" for name in ALGOS[algo].presets}
    again = f"as {earlier.id}" if earlier and earlier.algo == algo else None
    options = [*([again] if again else []), *presets]
    chosen = right.segmented_control(
        "Settings start from",
        options,
        default=again or (DEFAULT_PRESET if DEFAULT_PRESET in presets else options[0]),
        required=True,
        key=f"preset {algo} {again}",
        help="Presets: " + ", ".join(presets.values()) + ". Each setting can be changed below.",
    )
    if chosen != again or earlier is None:
        return algo, Start(_config(algo, chosen), chosen, f"{algo}.{chosen}")
    config = ALGOS[algo].Config.model_validate(earlier.config)
    return algo, Start(config, closest_preset(algo, config), f"{algo}.{earlier.id}")


def _config(algo: str, preset: str) -> TrainerConfig:
    return make_config(algo, preset=preset, settings={}, seed=0)


def choose_settings(algo: str, start: Start) -> dict[str, str]:
    """Returns the settings that differ from the preset."""
    preset = _config(algo, start.preset)
    names = [name for name in type(preset).model_fields if name not in DRAWN_APART]
    length = [name for name in _forms.LENGTH if name in names]
    of_the_run = [
        *length,
        *(name for name in names if name in TrainerConfig.model_fields and name not in length),
    ]
    of_the_method = [name for name in names if name not in of_the_run]
    st.header("The run", anchor=False)
    changed = _forms.config_form(start.config, preset, of_the_run, start.key)
    with st.expander(f"The method's {len(of_the_method)} settings"):
        changed |= _forms.config_form(start.config, preset, of_the_method, start.key)
    if changed:
        said = ", ".join(f"{name} {value or 'empty'}" for name, value in changed.items())
        st.caption(words.plain(f"Other than in the preset {start.preset}: {said}."))
    return changed


def choose_seeds(first: int) -> tuple[int, ...]:
    left, right = st.columns(2)
    seed = left.number_input("Seed", 0, value=first, step=1, help="Same seed, same policy.", key="seed")
    several = (
        "Trainings with this seed and those after it, under one name: compare them as mean and interval."
    )
    count = right.number_input("How many seeds", 1, MOST_SEEDS, step=1, help=several, key="n_seeds")
    return tuple(range(seed, seed + count))


def show_estimate(order: Order, config: TrainerConfig) -> None:
    """Says how long the training will take and how much memory it needs, and when it starts."""
    workspace = loaders.workspace()
    found = estimates.estimate(workspace, order.algo, config.model_dump(mode="json"), order.dataset)
    n_steps = f"{'' if config.n_steps else 'About '}{config.steps(order.dataset.n_requests):,}"
    each = f"{n_steps} steps: about {words.duration(found.seconds)} and {found.memory_mb:,.0f} MB"
    n = len(order.seeds)
    if n > 1:
        rounds = -(-n // max(1, executor.MAX_WORKING))
        each += f" each, {n} of them about {words.duration(rounds * found.seconds)}"
    st.caption(words.plain(f"{each} ({found.basis})."))
    if said := estimates.search_cost(workspace, order.algo, config.model_dump(mode="json"), order.dataset):
        st.caption(words.plain(f"It is {said}."))
    working = executor.processes(workspace.registry.runs(RunState.RUNNING))
    if working >= executor.MAX_WORKING:
        place = f"{working} runs work and {len(workspace.registry.queue())} wait: this one starts after them"
        st.caption(f"{place}, or sooner if you move it up in the queue on the page of runs.")


def show_command(order: Order) -> None:
    first, last = order.seeds[0], order.seeds[-1]
    arguments = (
        *("train", order.dataset.id, "--algo", order.algo, "--preset", order.preset),
        *(part for setting in order.settings.items() for part in ("--set", "=".join(setting))),
        *(("--seed", first) if first == last else ("--seeds", f"{first}-{last}")),
        *(("--name", order.name) if order.name else ()),
        "--background",
    )
    st.caption("The same on the command line")
    st.code(words.command(loaders.workspace().path, *arguments), language=None, wrap_lines=True)


def start(order: Order) -> None:
    """Submits the trainings and turns to the first of them."""
    run_ids = submit_seeds(
        loaders.workspace(),
        order.dataset.id,
        order.seeds,
        algo=order.algo,
        preset=order.preset,
        settings=order.settings,
        name=order.name or None,
    )
    st.switch_page("pages/train/runs.py", query_params={"run": run_ids[0]})


def train() -> None:
    """Draws the form."""
    if not (rows := _forms.logs()):
        return
    earlier = earlier_run()
    if earlier and earlier.dataset_id not in {row.id for row in rows}:
        st.warning("The log that it learned from is no longer here; choose another.")
    dataset = _forms.choose_log(rows)
    show_signal(dataset)
    algo, begin = choose_start(earlier)
    placeholder = f"{algo} on {dataset.name}"
    name = st.text_input("Name (optional)", placeholder=placeholder, key="name")
    chosen = choose_seeds((earlier.seed or 0) if earlier else 0)
    settings = choose_settings(algo, begin)
    order = Order(dataset, algo, begin.preset, settings, chosen, name)
    with follow.refusals():
        config = make_config(algo, preset=begin.preset, settings=settings, seed=chosen[0])
        show_estimate(order, config)
        label = "Start training" if len(chosen) == 1 else f"Start {len(chosen)} trainings"
        if access.button(Action.TRAIN, label, type="primary"):
            start(order)
    show_command(order)


def main() -> None:
    st.title("Start a training", anchor=False)
    st.caption(
        "Decides which method learns from which log. It works in the background; this page may be closed."
    )
    places.tabs({places.TRAIN: train, places.TUNE: _tune.show, places.PENALTY: _formulas.show})


main()
