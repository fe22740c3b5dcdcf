"""The planner's panel of the bounds that teach most for what they cost, by a pilot log."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from mtf_engine.exploration.pilot import Pilot
from mtf_engine.exploration.teaching import FAR, WIDEST, Teaching, origin, teach
from mtf_engine.logs import aggregates
from mtf_engine.permissions import Action
from mtf_engine.registry import DatasetRow
from mtf_engine.spec import FusionSpec, Refusal
from pages.shared import access, bounds_charts, links, loaders, plans, words
from pages.shared.counting import Aggregate, counted
from pages.shared.exhibit import described, exhibit, folded

PILOT = Aggregate(aggregates.stored_pilot, aggregates.pilot, "requests")
GIVEN = LOSS, INFORMATION = ("loss", "information")
HEADER = "What teaches most for what it costs"
CHOICES = ("pilot", "given", "wished", "accepted", "widest", "each", "log_sessions")
"""Names of what is chosen here, in the address."""
BASES = {
    "curvature": "The pilot tells what moving each dimension costs",
    "churn": "The pilot does not tell what moving each dimension costs: the loss is shared out by how much of the "
    "shown list each changes",
    "even": "The pilot does not tell what moving each dimension costs and lists no items: the loss is shared evenly",
}
MEANINGS = {
    "standard error": "Of the slope of the return, as the log to come will have it: return per unit of action.",
    "information": "Precision of the slope, 1 / standard error², in times the pilot's own.",
    "loss, %": "What users lose by exploring this dimension, in percent of a session's return.",
    "widest": "No wider one is allowed, by the limit above or by the end of the range.",
}
WAYS = {
    "information": "Precision of an average slope, 1 / mean squared standard error, in times the pilot's own.",
    "loss, %": "What users lose on average while the log is collected, in percent of a session's return.",
    "standard error": "Root mean square over dimensions, return per unit of action.",
    f"beyond {FAR:g}, %": "Chance that some weight of a request moves farther from the live one, in percent.",
}


def panel(names: tuple[str, ...], chosen: DatasetRow | None, rows: list[DatasetRow]) -> None:
    """Draws the panel for plans of the dimensions `names`; `chosen` is the log whose users are planned for."""
    about = (
        "The farther a dimension is explored, the better the log tells its slope, what the return gains with it, and "
        "the more its users lose meanwhile. From a pilot log this finds how far each is best explored."
    )
    folded(HEADER, partial(_panel, names, chosen, rows), about, CHOICES)


def _panel(names: tuple[str, ...], chosen: DatasetRow | None, rows: list[DatasetRow]) -> None:
    pilots = [
        row for row in loaders.explored(rows) if FusionSpec.model_validate(row.meta["fusion"]).names == names
    ]
    if not pilots:
        st.info("No log here has explored these dimensions yet. Collect a small one first: it is the pilot.")
        st.page_link("pages/explore/collect.py", label="Collect a pilot →")
        return
    pilots.sort(key=lambda row: chosen is None or row.id != chosen.id)
    titles = {row.id: f"{row.name} · {row.n_requests:,} requests · {row.id}" for row in pilots}
    why = (
        "An explored log: how well it tells each slope, and what its exploration cost, foretell a larger one."
    )
    id = links.choice("Pilot log", titles, "pilot", help=why)
    row = next(row for row in pilots if row.id == id)
    try:
        measured = _measured(row)
        if measured is not None:
            _found(row, measured)
    except Refusal as refusal:
        st.info(words.plain(refusal))


def _measured(row: DatasetRow) -> Pilot | None:
    """Returns what the pilot tells; measures it, once a log, when that is asked for."""
    stored = aggregates.stored_pilot(loaders.workspace().dataset_path(row.id), row.content_hash)
    if stored is not None:
        return stored
    if st.session_state.get("pilot asked") != row.id:
        st.write(
            "What this log tells of exploring was not measured yet: some 2 seconds for 100,000 requests."
        )
        access.button(Action.LOOK, "Measure the pilot", on_click=_ask, args=(row.id,))
        return None
    return counted(row, PILOT)


def _ask(dataset_id: str) -> None:
    st.session_state["pilot asked"] = dataset_id
    st.session_state["count cancelled"] = None


def _found(row: DatasetRow, pilot: Pilot) -> None:
    """Draws the choices and what follows of them."""
    wish = _wish(pilot)
    found = teach(pilot, **wish)
    (st.warning if found.at_most else st.success)(words.plain(found.sentence))
    ways = way_table(found)
    alt = words.plain(f"Information against the users' loss. {found.sentence}")
    exhibit(
        bounds_charts.teaching(frontier_table(found), ways, found.far), ways, "ways to explore", alt, **WAYS
    )
    st.caption(words.plain(rests_on(pilot)))
    _dimensions(found)
    _take(row, found)
    st.caption("The same on the command line")
    options = [
        str(word) for name, value in wish.items() if value is not None for word in _option(name, value)
    ]
    command = words.command(loaders.workspace().path, "bounds", "teach", row.id, *options, "--save", "NAME")
    st.code(command, language=None, wrap_lines=True)


def _option(name: str, value: Any) -> tuple[Any, ...]:
    """Returns the option of the command line that says the same; none for a switch that is off."""
    if isinstance(value, bool):
        return (f"--{name}",) if value else ()
    return (f"--{name}", value if isinstance(value, int) else f"{value:g}")


def _wish(pilot: Pilot) -> dict[str, Any]:
    """Draws what is asked for and returns it as `teach` takes it."""
    first, second, third, fourth, fifth = st.columns([4, 5, 4, 4, 4], vertical_alignment="bottom")
    bound = {"bind": "query-params"}
    sessions = first.number_input(
        "Sessions of the log to come",
        1,
        value=pilot.sessions,
        step=10_000,
        key="log_sessions",
        help=f"Of all users; {pilot.learned / pilot.sessions:.0%} of them explored and trained on, as in the pilot.",
        **bound,
    )
    given = second.segmented_control(
        "I state the", GIVEN, default=GIVEN[0], required=True, key="given", **bound
    )
    if given == LOSS:
        label = "Loss accepted, % of a session's return"
        percent = third.number_input(label, 0.001, 100.0, 1.0, 0.1, format="%g", key="accepted", **bound)
        asked = {"loss": round(percent / 100, 12)}
    else:
        label = "Information wished, times the pilot's"
        asked = {
            "information": third.number_input(label, 0.001, 1e6, 1.0, 0.5, format="%g", key="wished", **bound)
        }
    limit = "Of the action, which lies in [-1, 1]; no dimension is explored farther."
    widest = fourth.number_input(
        "Widest half width", 0.01, 2.0, WIDEST, 0.05, format="%g", key="widest", help=limit, **bound
    )
    text = "All slopes are told with the same standard error. Else the mean square of their errors counts, so that a "
    text += "dimension which costs little is told better than one which costs much."
    each = fifth.toggle("Equal errors", key="each", help=text, **bound)
    return {"sessions": sessions, **asked, "widest": widest, "each": each}


def way_table(found: Teaching) -> pd.DataFrame:
    """Returns one row a way to explore."""
    return pd.DataFrame(
        {
            "way": way.name,
            "noise": way.noise,
            "loss, %": 100 * way.loss,
            "information": way.information,
            "standard error": way.error,
            f"beyond {found.far:g}, %": 100 * way.beyond,
        }
        for way in found.ways
    )


def frontier_table(found: Teaching) -> pd.DataFrame:
    """Returns loss and information of the boxes that teach most, from none to the widest."""
    losses, told = zip(*found.frontier, strict=True)
    return pd.DataFrame({"loss, %": losses, "information": told}) * [100, 1]


def dimension_table(found: Teaching) -> pd.DataFrame:
    """Returns one row a dimension of the box."""
    return pd.DataFrame(
        {
            "dimension": row.dimension,
            "half width": row.half_width,
            "widest": row.at_most,
            "information": row.information,
            "standard error": row.error,
            "loss, %": 100 * row.loss,
        }
        for row in found.dimensions
    )


def rests_on(pilot: Pilot) -> str:
    """Says what the losses rest on, and what was measured."""
    control = pilot.control
    parts = [
        f"{BASES[pilot.basis]}. The pilot's own exploration took "
        f"{pilot.loss_low:.2%} to {pilot.loss_high:.2%} of a session's return, by all measurements (95 % interval)."
    ]
    if control:
        parts.append(
            f"Explored sessions brought {control.loss:.2%} (± {1.96 * control.error:.2%}) less than the "
            f"{control.sessions:,} sessions of control users."
        )
    if not pilot.loss_told:
        parts.append(
            "The loss may be none, so every one here is an upper end: the true one is smaller with 95 % confidence."
        )
    return " ".join(parts)


def _dimensions(found: Teaching) -> None:
    table = dimension_table(found)
    alt = f"Half width, information and loss of each of {len(table)} dimensions of the box that teaches most"
    explained = {name: st.column_config.Column(help=text) for name, text in MEANINGS.items()}
    described(table, "box that teaches most", alt, **explained)
    if found.fixed:
        st.caption(
            words.plain(f"Not explored by the pilot, or at the end of the range: {', '.join(found.fixed)}.")
        )


def _take(row: DatasetRow, found: Teaching) -> None:
    """Draws what makes the box the visitor's plan; the planner is then drawn anew."""
    note = origin(row.name, found)
    if access.button(
        Action.LOOK, "Make it the plan", type="primary", on_click=plans.draw, args=(found.plan, note)
    ):
        st.session_state["taught"] = True
        st.rerun()
    if st.session_state.pop("taught", False):
        st.toast("The plan above is this box now. Give it a name under Stored plans.")
