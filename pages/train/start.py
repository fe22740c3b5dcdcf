"""Start a training: which method learns from which log, with which settings, and how long that takes."""

import streamlit as st

from mtf_engine.algos import ALGOS
from mtf_engine.jobs import submissions
from mtf_engine.learning.config import TrainerConfig
from mtf_engine.registry import DatasetRow
from mtf_engine.spec import Spec
from mtf_engine.training import make_config
from pages.shared import follow, forms, links, loaders, words

DEFAULT_PRESET = "laptop"
DRAWN_APART = ("seed",)


def choose_dataset(rows: list[DatasetRow]) -> DatasetRow:
    by_id = {row.id: row for row in rows}
    titles = {row.id: f"{row.name} · {row.meta['exploration']} · {row.n_requests:,} requests" for row in rows}
    return by_id[links.choice("Learn from", titles, "dataset")]


def choose_method() -> tuple[str, str]:
    """Returns the method and its preset."""
    left, right = st.columns(2)
    algo = links.choice("Method", {name: name for name in ALGOS}, "algo", left)
    presets = list(ALGOS[algo].presets)
    default = DEFAULT_PRESET if DEFAULT_PRESET in presets else presets[0]
    preset = right.segmented_control(
        "Preset",
        presets,
        default=default,
        required=True,
        key=f"preset {algo}",
        help="Where the settings below start.",
    )
    return algo, preset


def choose_settings(algo: str, preset: str) -> dict[str, str]:
    """Returns the settings that differ from the preset."""
    config = make_config(algo, preset=preset, settings={}, seed=0)
    names = [name for name in type(config).model_fields if name not in DRAWN_APART]
    of_the_run = [name for name in names if name in TrainerConfig.model_fields]
    of_the_method = [name for name in names if name not in of_the_run]
    key = f"{algo}.{preset}"
    st.subheader("The run", anchor=False)
    changed = forms.config_form(config, of_the_run, key)
    with st.expander(f"The method's {len(of_the_method)} settings"):
        changed |= forms.config_form(config, of_the_method, key)
    return changed


def show_estimate(algo: str, config: Spec) -> None:
    """Says how long the training will take, judged by the pace of earlier ones like it."""
    steps = config.model_dump()["n_steps"]
    pace = loaders.pace(algo, config)
    if pace is None:
        st.caption(
            f"{steps:,} steps; none like these were taken here yet, so the run itself will tell the time."
        )
        return
    time = words.duration(steps / pace)
    st.caption(
        f"{steps:,} steps: about {time}, at {pace:,.0f} steps a second as in the last training like it."
    )


def main() -> None:
    st.title("Start a training", anchor=False)
    st.caption(
        "Decides which method learns from which log. It works in the background; this page may be closed."
    )
    rows = loaders.explored(loaders.datasets())
    if not rows:
        st.info("There is no log with explored actions to learn from. Import one, or collect one by replay.")
        st.page_link("pages/logs/import_logs.py", label="Import logs →")
        return
    dataset = choose_dataset(rows)
    algo, preset = choose_method()
    left, right = st.columns([1, 3])
    seed = left.number_input("Seed", 0, value=0, step=1, help="Same seed, same policy.", key="seed")
    name = right.text_input("Name (optional)", placeholder=f"{algo} on {dataset.name}", key="name")
    changed = choose_settings(algo, preset)
    with follow.refusals():
        config = make_config(algo, preset=preset, settings=changed, seed=seed)
        show_estimate(algo, config)
        if st.button("Start training", type="primary"):
            run_id = submissions.submit_train(
                loaders.workspace(),
                dataset.id,
                algo=algo,
                preset=preset,
                settings=changed,
                seed=seed,
                name=name or None,
            )
            st.switch_page("pages/train/runs.py", query_params={"run": run_id})
    settings = [part for setting in changed.items() for part in ("--set", "=".join(setting))]
    named = ["--name", name] if name else []
    arguments = (
        "train",
        dataset.id,
        "--algo",
        algo,
        "--preset",
        preset,
        *settings,
        "--seed",
        seed,
        *named,
        "--background",
    )
    st.caption("The same on the command line")
    st.code(words.command(loaders.workspace().path, *arguments), language="bash", wrap_lines=True)


main()
