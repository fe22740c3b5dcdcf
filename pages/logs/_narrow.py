"""What a narrower plan would have taught, by the rows of a uniform log inside it. Decides whether to explore less."""

import streamlit as st

from mtf_engine.permissions import Action
from mtf_engine.registry import DatasetRow
from mtf_engine.spec import FusionSpec
from mtf_engine.work.narrow import submit_narrow
from pages.shared import access, follow, loaders, places, plans, words


def show(row: DatasetRow) -> None:
    """Draws the choice of a plan, what its rows tell, and the button that keeps them as a log to train on."""
    plan = plans.choose(FusionSpec.model_validate(row.meta["fusion"]).n_actions)
    with follow.refusals():
        if row.n_requests > loaders.MOST_REQUESTS:
            st.write("This log is too large to be read while you wait: the command below tells it, too.")
        else:
            found = loaders.sub_box(row, plan.plan)
            st.write(words.plain(found.sentence))
            st.caption(
                f"{found.expected:,.0f} rows are expected by the boxes' volumes. A reward that follows is still that "
                "of actions anywhere in the log's own boxes."
            )
        name = st.text_input("Name of the log", f"{row.name} inside {plan.title}", key="narrow_name")
        if access.button(Action.COLLECT, "Keep these rows as a log"):
            submit_narrow(loaders.workspace(), row.id, plan.plan, name)
        made = loaders.workspace().registry.runs(kind="narrow")
        mine = next((run for run in made if run.config["source"] == row.id), None)
        if mine and (run := follow.finished(mine.id)):
            follow.show_error(run)
            query = {"dataset": str(run.dataset_id)}
            if run.result:
                st.page_link(places.START, label=f"Train on {words.plain(run.name)} →", query_params=query)
        st.caption(f"The same on the command line{plans.where(plan)}")
        option = plan.option or ("--bounds", "plan.yaml")
        command = words.command(
            loaders.workspace().path, "dataset", "narrow", row.id, *option, "--name", name
        )
        st.code(command, language=None, wrap_lines=True)
