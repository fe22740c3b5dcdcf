"""Wall pressure: where learned actions lean on their bounds. Decides which walls to move, and how far."""

import pandas as pd
import streamlit as st

from mtf_engine.exploration.wall_pressure import RULE, WallPressure, wall_pressure
from mtf_engine.exploration.walls import AT_WALL
from mtf_engine.permissions import Action
from mtf_engine.questions.exploring import logged_plan
from pages.shared import access, acting, links, loaders, log_charts, places, plans, words
from pages.shared.exhibit import csv_download, exhibit

PROPOSALS = {
    "widen": "↔ widen",
    "shift": "→ shift",
    "narrow": "⇥ narrow",
    "range": "■ range ends",
    "keep": "keep",
}


def wall_table(found: WallPressure) -> pd.DataFrame:
    """Returns one row a wall pair: the shares at and beyond each wall, and what is proposed."""
    table = pd.DataFrame(row.model_dump() for row in found.rows)
    table.columns = [name.replace("_", " ") for name in table.columns]
    table["segment"] = table["segment"].fillna("everybody else" if found.plan.segments else "everybody")
    table["inside"] = 1 - table[["below", "at lower", "at upper", "above"]].sum(axis=1)
    table["proposal"] = table["proposal"].map(PROPOSALS)
    table["reason"] = [
        reason.removeprefix(f"{name}: ")
        for reason, name in zip(table["reason"], table["dimension"], strict=True)
    ]
    return table.rename(columns={"lower": "lower wall", "upper": "upper wall"})


def show_proposals(table: pd.DataFrame) -> None:
    moved = table[table["proposal"] != PROPOSALS["keep"]]
    st.header("Proposals", anchor=False, help=RULE)
    if moved.empty:
        st.success("No wall is pressed, and no box is half empty: the plan can stay as it is.")
        return
    shown = pd.DataFrame(
        {
            "segment": moved["segment"],
            "dimension": moved["dimension"],
            "proposal": moved["proposal"],
            "now": _interval(moved["lower wall"], moved["upper wall"]),
            "proposed": _interval(moved["new lower"], moved["new upper"]),
            "because": moved["reason"].str.replace(r"; \w+ to \[.*", "", regex=True),
        }
    )
    alone = ["segment"] if moved["segment"].nunique() == 1 else []
    columns = {"because": st.column_config.TextColumn(width="large")}
    st.dataframe(
        shown.drop(columns=alone),
        placeholder="",
        hide_index=True,
        column_config=columns,
        alt="Walls to move, and why",
    )
    csv_download(shown, "proposals")


def _interval(lower: pd.Series, upper: pd.Series) -> list[str]:
    return [f"{low:g} to {high:g}" for low, high in zip(lower, upper, strict=True)]


def show_plan(chosen: acting.Acting, against: plans.Chosen, found: WallPressure, by_segment: bool) -> None:
    """Draws the way from the proposed walls to the planner."""
    if access.button(
        Action.LOOK, "Take it to the planner", type="primary", disabled=found.plan == against.plan
    ):
        plans.draw(found.plan, f"from wall pressure of {chosen.text} on {against.title}")
        st.switch_page(places.BOUNDS, query_params={places.TAB: places.BY_HAND, "dataset": chosen.dataset.id})
    st.caption(f"The same on the command line{plans.where(against)}")
    options = [*against.option, *(["--by-segment"] if by_segment else [])]
    asked = ("--on", chosen.dataset.id, *options, "--save", "NAME")
    command = words.command(loaders.workspace().path, "bounds", "walls", chosen.run.id, *asked)
    st.code(command, language=None, wrap_lines=True)


def show() -> None:
    """Draws the tab."""
    st.caption("Decides which walls to move: where a learned policy would go on if its bounds let it.")
    chosen = acting.choose()
    if chosen is None:
        return
    acted = loaders.policy_actions(chosen.run.id, chosen.dataset)
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    logged = logged_plan(loaders.workspace(), chosen.run.id)
    against = plans.choose(len(acted.names), left, plans.logged(logged))
    by_segment = right.toggle("Judge each segment", key="segments", bind="query-params")
    actions = (acted.new_actions, acted.baseline_actions, acted.segments, acted.names)
    found = wall_pressure(against.plan, *actions, by_segment=by_segment)
    table = wall_table(found)
    segments = {segment: segment for segment in dict.fromkeys(table["segment"])}
    segment = (
        links.choice("Pressure of", segments, "pressure_of") if len(segments) > 1 else next(iter(segments))
    )
    shown = table[table["segment"] == segment]
    alt = f"Share of requests of {segment} at, beyond and inside the walls by dimension"
    exhibit(log_charts.walls(shown), shown, f"walls {segment}", alt)
    n, total = len(acted.new_actions), chosen.dataset.n_requests
    st.caption(
        f"Judged on {n:,} of {total:,} requests. At a wall: within {100 * AT_WALL:g} % of the width of its bounds, on "
        "the inner side; what lies beyond is drawn apart."
    )
    show_proposals(table)
    show_plan(chosen, against, found, by_segment)
