"""Compare methods. Decides which method to train, and which part of a gain is its data's."""

from collections.abc import Sequence
from functools import partial

import pandas as pd
import streamlit as st

from mtf_engine.registry import RunRow
from mtf_engine.study.comparison import Cell, Comparison
from mtf_engine.study.factorial import GAUC, Factorial, factorial, gain_split, rank_agreement
from mtf_engine.study.paper_tables import BASE, OURS, Row, order, order_said, table_1, table_2
from pages.evaluate import _compare_form, _factorial_charts, _factorial_tables
from pages.evaluate._factorial_tables import DATASETS, HIGH, LOW, ON, TITLES
from pages.shared import follow, glossary, links, loaders, words
from pages.shared.exhibit import csv_download, exhibit, folded

REWARD = "session_reward"
EFFECTS = {
    "data": "of the data",
    "method": "of the method",
    "both": "of both, beyond their sum",
    "rounds": "of own rounds",
}
FEW_ROWS = 3
"""With fewer of the paper's policies its tables are folded, and what is there comes first."""
GAIN = "relative to the baseline, 95 % interval over seeds"


def record(run: RunRow) -> Comparison | None:
    return Comparison.model_validate(run.result) if run.result else None


def n_cells(run: RunRow) -> int:
    found = record(run)
    return len(found.cells) if found else 0


def seconds_left(run: RunRow) -> float | None:
    found = record(run)
    return found.seconds_left if found else None


def introduce(run: RunRow, found: Comparison) -> None:
    config = run.config
    if found.synthetic:
        st.warning(words.synthetic(found.env))
    tested = (
        f" A/B tests on {config['users']:,} users." if found.synthetic else " No A/B test on replayed users."
    )
    st.caption(
        f"{len(config['training'])} methods, {_seeds(config)}, {config['sessions']:,} sessions a "
        f"dataset, preset {words.plain(found.preset)}: no method is tuned beyond it."
        f"{tested} {found.seeds_said} {found.reuse_said}"
    )


def _seeds(config: dict) -> str:
    return f"{n} seeds" if (n := len(config["seeds"])) > 1 else "one seed"


def numbers(frame: pd.DataFrame, percent: bool) -> dict:
    """Returns the columns of `frame` that hold figures, as they are to be shown."""
    shown = [n for n in frame if n in ("published", "mean", LOW, HIGH) or str(n).startswith("seed ")]
    form = "%+.2f %%" if percent else "%.4f"
    return {name: st.column_config.NumberColumn(format=form) for name in shown}


def hundredfold(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the figures of `frame` in per cent, as they are shown and not as they are saved."""
    return frame.assign(**{name: 100 * frame[name] for name in numbers(frame, True)})


def show_table(frame: pd.DataFrame, name: str, alt: str, percent: bool) -> None:
    shown = hundredfold(frame) if percent else frame
    columns = glossary.columns(shown) | numbers(frame, percent)
    st.dataframe(
        shown,
        hide_index=True,
        column_config=columns,
        placeholder="",
        alt=alt,
        key=f"table {name}",
        height="content",
    )
    csv_download(frame, name)


def show_paper(cells: Sequence[Cell], single: bool, tested: bool) -> None:
    st.subheader("Table 1: weighted GAUC", anchor=False)
    show_rows(table_1(cells), single, "table 1", percent=False)
    st.caption(
        "Published: IntegratedRL-MTF, on the users of its product. Found: on the test log here, 95 % interval over "
        "seeds. Other users, other signals: compare the order, not the numbers."
    )
    if not tested:
        return
    st.subheader("Table 2: what users consume", anchor=False)
    show_rows(table_2(cells), single, "table 2", percent=True)
    st.caption("Relative to the evolution strategy, as published. What does not exist stays blank.")


def show_rows(rows: Sequence[Row], single: bool, name: str, percent: bool) -> None:
    """Draws a table of the paper in words, or as numbers with those of single seeds."""
    st.write(words.plain(order_said(rows, next(iter(rows[0].found)))))
    frame = _factorial_tables.paper_table(rows, single).drop(columns="p-value", errors="ignore")
    alt = f"{name.capitalize()} of the paper: published and found"
    if single:
        show_table(frame, name, alt, percent)
        return
    said = _factorial_tables.paper_words(frame, percent)
    st.dataframe(said, placeholder="", hide_index=True, alt=alt, key=f"table {name}", height="content")
    csv_download(frame, name)


def show_factorial(cells: Sequence[Cell], metric: str, single: bool) -> None:
    st.header("Every method on every dataset", anchor=False)
    percent, title = metric != GAUC, TITLES[metric]
    frame = _factorial_tables.factorial_table(cells, metric, single)
    over = "95 % interval over seeds" if len({cell.seed for cell in cells}) > 1 else "one seed"
    unit = f"{title}, relative to the baseline, {over}" if percent else f"{title}, {over}"
    alt = f"{title} of each method on each dataset, with 95 % intervals over seeds"
    exhibit(_factorial_charts.lines(frame, unit, percent), frame, f"factorial {metric}", alt)
    floors = _factorial_tables.floors_table(cells, single)
    if metric == GAUC and len(floors):
        show_table(floors, "floors", "Weighted GAUC of floors, which any method has to beat", percent=False)
    if any(cell.dataset == "3" for cell in cells):
        st.caption(
            "Dataset 3 brings more than rows: its rounds went around what integrated_rl had learned by then, and every "
            "method starts from the last of those policies."
        )


def show_effects(found: Factorial, cells: Sequence[Cell], metric: str, single: bool) -> None:
    percent = metric != GAUC
    if set(found.seeds) < {cell.seed for cell in cells}:
        st.caption(f"Of seed {', '.join(map(str, found.seeds))}: the others lack a cell.")
    if found.left_out:
        st.info(f"Without a value on every dataset, and so left out: {', '.join(found.left_out)}.")
    frame = _factorial_tables.effects_table(found, single)
    if frame.empty:
        st.info("No method has a value on every dataset yet.")
        return
    if found.shares:
        parts = {"data": "the data's", "method": "the method's", "both": "of both together"}
        said = ", ".join(f"{100 * found.shares[of]:.0f} % {title}" for of, title in parts.items())
        st.write(words.plain(f"Of the variance among the cells: {said}."))
    kinds = {of: EFFECTS[of] for of in dict.fromkeys(frame["effect"])}
    of = links.choice("Effect", kinds, "effect")
    alt = f"Effects {EFFECTS[of]} on {TITLES[metric]} with 95 % intervals over seeds"
    unit = f"effect on {TITLES[metric]}"
    drawn = _factorial_charts.dots(frame[frame["effect"] == of], ["method", ON], unit, percent, zero=True)
    exhibit(drawn, frame, f"effects {metric}", alt)
    st.caption(
        "Data and method: difference to the mean of all cells. Both: what a cell has beyond their sum. Rounds: a "
        "method's own five against what it makes of a dataset. Luck of single seeds is in the shares, too."
    )
    show_split(cells, metric, found)


def show_split(cells: Sequence[Cell], metric: str, found: Factorial) -> None:
    """Draws which part of a gain over another method is the data's, as the paper compares them."""
    others = [method for method in found.methods if method != OURS]
    newer = [dataset for dataset in found.datasets if dataset != BASE[1]]
    if OURS not in found.methods or BASE[1] not in found.datasets or not others or not newer:
        return
    left, right = st.columns(2)
    base = links.choice(
        f"{OURS} against", {m: f"{m} on {DATASETS[BASE[1]]}" for m in others}, "base_method", left
    )
    dataset = links.choice("itself trained on", {d: DATASETS[d] for d in newer[::-1]}, "ours", right)
    split = gain_split(cells, metric, (OURS, dataset), (base, BASE[1]))
    if split is None:
        st.info("No seed has all four cells of this comparison yet.")
        return
    show_table(_factorial_tables.split_table(split), "gain", "The parts of a gain", metric != GAUC)


def show_agreement(cells: Sequence[Cell], metric: str, single: bool) -> None:
    found = [one for m in TITLES if m != GAUC and (one := rank_agreement(cells, m))]
    if not found:
        st.info("Three policies of a seed with an A/B test are needed to tell.")
        return
    title = TITLES[metric]
    frame = _factorial_tables.ranked(cells, metric)
    alt = f"Weighted GAUC of {len(frame)} policies against their {title} in the A/B test"
    exhibit(_factorial_charts.agreement(frame, title), frame, f"agreement {metric}", alt)
    table = _factorial_tables.agreement_table(found, single)
    show_table(table, "rank agreement", "Rank agreement of weighted GAUC with the A/B test", False)
    st.caption("1: the same order; 0: none; -1: reversed. Taken within each seed.")


def show_personalisation(cells: Sequence[Cell], metric: str, single: bool) -> None:
    frame = _factorial_tables.personalisation_table(cells, metric, single)
    if frame.empty:
        st.info("No policy was tested beside its own mean action.")
        return
    to = links.choice("Under its", {to: to for to in dict.fromkeys(frame["under its"])}, "under")
    unit = f"{TITLES[metric]} relative to the policy itself"
    alt = f"What users lose in {TITLES[metric]} under the {to} of each policy"
    drawn = _factorial_charts.dots(frame[frame["under its"] == to], ["method", ON], unit, True, zero=True)
    exhibit(drawn, frame, f"personalisation {metric}", alt)
    st.caption(
        "The same users under the policy's mean action, and under its mean of each segment. Left of 0, telling "
        "users and moments apart is worth having."
    )


def show_critics(cells: Sequence[Cell], metric: str, single: bool) -> None:
    frame = _factorial_tables.critics_table(cells, metric, single)
    percent = metric != GAUC
    unit = f"{TITLES[metric]}{', ' + GAIN if percent else ''}"
    drawn = _factorial_charts.dots(frame.astype({"critics": str}), ["critics"], unit, percent)
    exhibit(drawn, frame, f"critics {metric}", f"{TITLES[metric]} by number of critics, {OURS} on dataset 2")


def show_what_if(cells: Sequence[Cell]) -> None:
    """Draws how policies of one seed rank if the reward weighed a signal otherwise."""
    seeds = {str(cell.seed): f"seed {cell.seed}" for cell in cells if cell.n_critics is None}
    left, right = st.columns(2)
    seed = int(links.choice("Policies of", seeds, "ranked_of", left))
    own = {str(cell.policy): cell for cell in cells if cell.seed == seed and cell.n_critics is None}
    logs = {row.id: row for row in loaders.datasets()}
    log = logs.get(str(next(iter(own.values())).test_dataset))
    if log is None:
        st.info("The test log is deleted, and with it the signals of its impressions.")
        return
    names = {policy: f"{cell.method} on {DATASETS[cell.dataset]}" for policy, cell in own.items()}
    signal = links.choice("Signal", {name: name for name in log.meta["reward"]["weights"]}, "signal", right)
    chosen = links.choices("Policies", names, "ranked")
    if not chosen:
        st.info("Choose policies to rank.")
        return
    found = loaders.what_if(tuple(chosen), log, signal)
    frame = _factorial_tables.what_if_table(found, names)
    alt = f"Weighted GAUC of {len(chosen)} policies over the weight of {signal}"
    exhibit(_factorial_charts.over_weights(frame, signal, found.stands), frame, f"what if {signal}", alt)
    crossed = _factorial_tables.flips_table(found, names)
    if crossed.empty:
        st.caption("Within these weights no two of them change places.")
    else:
        show_table(crossed, f"flips {signal}", "Where policies change places", False)
    st.caption(
        "The policies stay as they were trained; only what counts as good changes. At most 2,000 users."
    )


def show(run: RunRow, found: Comparison) -> None:
    introduce(run, found)
    if not any(cell.n_critics is None for cell in found.cells):
        st.info("No method is scored yet.")
        return
    cells, metrics = found.cells, _factorial_tables.metrics_of(found.cells)
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    metric = links.choice("Metric of all but the paper's two tables", metrics, "metric", left)
    single = right.toggle("Single seeds in the tables", key="single", bind="query-params")
    ranked, tested = GAUC in metrics, len(metrics) > 1
    few = len(order(table_1(cells), GAUC)) < FEW_ROWS
    show_factorial(cells, metric, single)
    if ranked:
        published = partial(show_paper, cells, single, tested)
        folded("Beside the paper's tables 1 and 2", published, opened=not few)
    parts = partial(show_effects, factorial(cells, metric), cells, metric, single)
    folded("Which part is the data's", parts, asked=("effect", "base_method", "ours"))
    if tested and ranked:
        users = REWARD if metric == GAUC else metric
        ranks = partial(show_agreement, cells, users, single)
        folded("Does weighted GAUC rank policies as users do?", ranks, opened=few)
    if tested:
        worth = partial(show_personalisation, cells, REWARD if metric == GAUC else metric, single)
        folded("What personalisation is worth", worth, asked=("under",))
    if any(cell.n_critics is not None for cell in cells):
        folded("Number of critics", partial(show_critics, cells, metric, single))
    if not ranked:
        return
    with follow.refusals():
        again = ("ranked_of", "signal", "ranked")
        folded("If the reward weighed otherwise", partial(show_what_if, cells), asked=again)


def main() -> None:
    st.title("Methods", anchor=False)
    st.caption("Decides which method to train, and which part of a gain is its data's.")
    runs = {run.id: run for run in loaders.workspace().registry.runs(kind="compare") if not run.archived}
    if not runs:
        st.info("No methods were compared yet. Start a comparison below.")
        st.header("Start a comparison", anchor=False)
        _compare_form.show()
        return
    run = runs[links.choice("Comparison", {i: words.run_title(r) for i, r in runs.items()}, "run")]
    found = record(run)
    follow.parts(run, n_cells, seconds_left)
    if found and found.cells:
        show(run, found)
    with st.expander("Start a comparison"):
        _compare_form.show()


main()
