"""Bounds from drift: where the next bounds go, judged by what a policy has learned (the paper's Fig. 2)."""

import pandas as pd
import streamlit as st

from mtf_engine.exploration.drift import DriftBounds, DriftRow, HoldingBox, drift_quantiles
from mtf_engine.permissions import Action
from pages.shared import access, acting, links, loaders, log_charts, places, plans, words
from pages.shared.exhibit import exhibit

EVERYBODY = "*everybody"


def choose_box() -> tuple[float, bool, bool]:
    """Returns the share that the box holds, whether segments get their own, and whether it holds offset 0."""
    left, middle, right = st.columns([4, 3, 3], vertical_alignment="bottom")
    percent = left.slider(
        "Share of the policy's actions that the box holds, %",
        50.0,
        100.0,
        95.0,
        0.5,
        format="%.1f",
        key="share",
        bind="query-params",
        help="In all dimensions at once; each dimension by itself holds more.",
    )
    by_segment = middle.toggle(
        "Box for each segment", key="segments", bind="query-params", help="Of 100 requests or more."
    )
    baseline = right.toggle(
        "Keep baseline inside",
        key="holds_baseline",
        bind="query-params",
        help="Widens the box to hold offset 0, so that the live policy's action stays among the explored.",
    )
    return percent / 100, by_segment, baseline


def quantile_table(rows: list[DriftRow]) -> pd.DataFrame:
    """Returns one row a dimension: mean and quantiles of new minus baseline action."""
    return pd.DataFrame(
        {
            "dimension": row.dimension,
            "mean drift": row.mean,
            "mean size": row.mean_absolute,
            **{f"{100 * float(level):g} %": value for level, value in row.quantiles.items()},
        }
        for row in rows
    )


def box_table(box: HoldingBox, names: tuple[str, ...]) -> pd.DataFrame:
    """Returns one row a dimension: the box's edges and their 95 % intervals over users.

    An edge that was moved to hold the baseline is no estimate and has no interval.
    """
    table = pd.DataFrame({"dimension": names})
    for edge, intervals in (("lower", box.lower_interval), ("upper", box.upper_interval)):
        values = pd.Series(getattr(box, edge))
        known = pd.DataFrame(intervals).where(values != 0)
        table[f"{edge} edge"], table[f"{edge} from"], table[f"{edge} to"] = values, known[0], known[1]
    return table


def show_box(box: HoldingBox, rows: list[DriftRow], names: tuple[str, ...], key: str) -> None:
    """Draws the drift of one segment with the box around it."""
    table = quantile_table(rows).merge(box_table(box, names), on="dimension")
    alt = f"Drift from the baseline by dimension, with the box that holds {box.held:.1%} of the requests"
    exhibit(log_charts.drift(table), table, f"drift {key}", alt)
    st.caption(
        "Thin line: 1 to 99 % of the requests; thick: 5 to 95 %; dot: median. Upright bars: the box, with "
        f"the 95 % interval of each edge over {box.n_users:,} users. It holds {box.held:.1%} of "
        f"{box.n_rows:,} sampled requests in all dimensions at once; each by itself holds {box.level:.1%}."
    )


def show_plan(chosen: acting.Acting, found: DriftBounds, options: list[str]) -> None:
    """Draws the way from the proposed plan to the planner."""
    for segment, n in found.left_out.items():
        st.caption(f"{words.plain(segment)} has {n} requests only and keeps the default box.")
    if access.button(Action.LOOK, "Take it to the planner", type="primary"):
        plans.draw(found.plan, f"from drift of {chosen.text}, {100 * found.share:g} %")
        st.switch_page(places.BOUNDS, query_params={places.TAB: places.BY_HAND, "dataset": chosen.dataset.id})
    st.caption("The same on the command line")
    share = ("--share", f"{found.share:g}", *options, "--save", "NAME")
    command = ("bounds", "drift", chosen.run.id, "--on", chosen.dataset.id, *share)
    st.code(words.command(loaders.workspace().path, *command), language=None, wrap_lines=True)


def show() -> None:
    """Draws the tab."""
    st.caption(
        "Decides where the next bounds go: around what a policy has learned, new minus baseline action."
    )
    chosen = acting.choose()
    if chosen is None:
        return
    share, by_segment, baseline = choose_box()
    found = loaders.drift_bounds(chosen.run.id, chosen.dataset, share, by_segment, baseline)
    acted = loaders.policy_actions(chosen.run.id, chosen.dataset)
    boxes = {box.segment or EVERYBODY: box for box in found.boxes}
    titles = {key: "all requests (the default box)" if key == EVERYBODY else key for key in boxes}
    key = links.choice("Drift of", titles, "drift_of") if by_segment else EVERYBODY
    rows = drift_quantiles(acted.new_actions, acted.baseline_actions, acted.segments, acted.names)
    segment = None if key == EVERYBODY else key
    show_box(boxes[key], [row for row in rows if row.segment == segment], acted.names, key.lstrip("*"))
    options = [*(["--by-segment"] if by_segment else []), *(["--include-baseline"] if baseline else [])]
    show_plan(chosen, found, options)
