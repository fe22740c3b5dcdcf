"""Stored plans: name the visitor's, go on from another, compare two, delete one, bring one in as YAML."""

import pandas as pd
import streamlit as st

from mtf_engine.permissions import Action
from mtf_engine.questions import dependents
from mtf_engine.questions.exploring import plan_changes
from mtf_engine.registry import PlanRow
from mtf_engine.spec import BoundsPlan, Refusal
from pages.shared import access, follow, loaders, needed, plans, words
from pages.shared.exhibit import csv_download

STORE_REFUSAL = "store refusal"


def store_form(draft: plans.Draft, rows: list[PlanRow]) -> None:
    """Draws what stores the visitor's plan under a name."""
    left, middle, right = st.columns([2, 3, 1], vertical_alignment="bottom")
    name = left.text_input("Name", key="plan name", placeholder="what commands call it").strip()
    note = middle.text_input("Note (optional)", key="plan note", placeholder=draft.origin)
    there = next((row.created_at for row in rows if row.name == name), None)
    access.button(
        Action.SAVE_PLAN,
        "Replace" if there else "Store",
        type="primary",
        disabled=not name,
        width="stretch",
        place=right,
        on_click=follow.told,
        args=(
            STORE_REFUSAL,
            loaders.workspace().registry.save_plan,
            name,
            draft.plan,
            " · ".join(part for part in (draft.origin, note) if part),
            there,
        ),
    )
    follow.tell(STORE_REFUSAL)
    stored = next((row.name for row in rows if row.plan == draft.plan), None)
    from_where = f"This plan: {draft.origin}."
    st.caption(words.plain(f"{from_where} It is stored as {stored}." if stored else from_where))


def yaml_form(draft: plans.Draft, n_actions: int) -> None:
    """Draws the plan's way out and in as YAML."""
    refusal = st.session_state.get("plan refusal")
    section = st.expander("As a file: YAML", expanded=bool(refusal))
    left, right = section.columns([1, 2], vertical_alignment="bottom")
    access.download_button(
        "Download YAML", draft.plan.to_yaml, "plan.yaml", "application/yaml", place=left, on_click="ignore"
    )
    right.file_uploader("Upload YAML", ["yaml", "yml"], key="plan yaml", on_change=_upload, args=(n_actions,))
    if refusal:
        section.error(words.plain(refusal))


def _upload(n_actions: int) -> None:
    """Makes the uploaded plan the visitor's, or remembers why not."""
    st.session_state["plan refusal"] = None
    file = st.session_state["plan yaml"]
    if file is None:
        return
    try:
        plan = BoundsPlan.from_yaml(file.getvalue())
        if plan.n_actions != n_actions:
            raise Refusal(
                f"{file.name} has {plan.n_actions} dimensions, this log's actions {n_actions}; "
                "choose the log it was drawn for"
            )
    except Refusal as refusal:
        st.session_state["plan refusal"] = refusal
    else:
        plans.draw(plan, f"from {file.name}")


def plan_table(rows: list[PlanRow]) -> pd.DataFrame:
    """Returns one row a stored plan."""
    return pd.DataFrame(
        {
            "Name": row.name,
            "Where from, and note": row.note,
            "Default box": _summary(row.plan),
            "Segments": len(row.plan.segments),
            "Stored": row.created_at,
        }
        for row in rows
    )


def _summary(plan: BoundsPlan) -> str:
    edges = set(zip(plan.lower, plan.upper, strict=True))
    if len(edges) == 1:
        low, high = edges.pop()
        return f"±{high:g}" if low == -high else f"{low:g} to {high:g}"
    return f"{min(plan.lower):g} to {max(plan.upper):g}, differs by dimension"


def stored_list(rows: list[PlanRow], draft: plans.Draft, names: tuple[str, ...]) -> None:
    """Draws the stored plans and what can be done with them."""
    if not rows:
        st.caption(
            "No plan is stored yet. Give the one above a name; commands and forms then find it by that."
        )
        return
    with st.expander(f"{len(rows)} stored", key="stored plans"):
        _stored(rows, draft, names)


def _stored(rows: list[PlanRow], draft: plans.Draft, names: tuple[str, ...]) -> None:
    columns = {"Stored": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm")}
    table = plan_table(rows)
    st.dataframe(table, placeholder="", hide_index=True, column_config=columns, alt="Stored bounds plans")
    csv_download(table, "plans")
    by_name = {row.name: row for row in rows}
    left, middle, right = st.columns([3, 1, 1], vertical_alignment="bottom")
    name = left.selectbox("Stored plan", by_name, key="stored plan")
    row = by_name[name]
    fits = row.plan.n_actions == len(names)
    access.button(
        Action.LOOK,
        "Go on from it",
        on_click=plans.draw,
        args=(row.plan, f"from the stored plan {name}"),
        disabled=not fits,
        place=middle,
        width="stretch",
    )
    with right.popover("Delete…", width="stretch"):
        st.write(f"Datasets that were collected with {words.plain(name)} keep their own copy of it.")
        needed.show(dependents.of_plan(loaders.workspace(), row.plan))
        access.button(
            Action.SAVE_PLAN,
            "Delete for good",
            on_click=loaders.workspace().registry.delete_plan,
            args=(name,),
        )
    show_changes(row, rows, draft, names)


def show_changes(row: PlanRow, rows: list[PlanRow], draft: plans.Draft, names: tuple[str, ...]) -> None:
    """Draws in which dimensions `row` and another plan differ, once another is chosen."""
    others: dict[str, BoundsPlan] = {plans.DRAFT: draft.plan}
    others |= {other.name: other.plan for other in rows if other.name != row.name}
    chosen = st.selectbox(
        "Compare it with",
        others,
        index=None,
        format_func=lambda name: "the plan above" if name == plans.DRAFT else name,
        placeholder="another plan",
        key="other plan",
    )
    if chosen is None:
        return
    with follow.refusals():
        changes = plan_changes(row.plan, others[chosen], names if row.plan.n_actions == len(names) else ())
        if not changes:
            st.caption("The two plans are the same.")
            return
        table = pd.DataFrame(change.model_dump() for change in changes)
        table["segment"] = table["segment"].fillna("(default box)")
        edges = [f"{edge}, {which}" for which in ("stored", "other") for edge in ("lower", "upper")]
        table.columns = ["segment", "dimension", *edges]
        st.dataframe(table, placeholder="", hide_index=True, alt="Dimensions in which the two plans differ")
        csv_download(table, "plan differences")
