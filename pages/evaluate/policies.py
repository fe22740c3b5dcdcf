"""Policies: which is better, by how much one can know it, and why. Decides which one to release."""

from collections.abc import Callable
from functools import partial

import streamlit as st

from mtf_engine.registry import BASELINE, DatasetRow
from pages.evaluate import _abtest, _critics, _deviation, _gauc, _off_policy, _request, _shadow
from pages.shared import comparison, links, places
from pages.shared.comparison import Comparison


def on_log(
    draw: Callable[[list[str], DatasetRow], None], policies: list[str], log: DatasetRow | None
) -> None:
    """Draws what a tab says of policies on a log; what to do where no log fits them."""
    if log is None:
        st.info(
            "There is no log with the features and actions of all these policies. Choose policies of one log, or "
            "import or collect one that has them."
        )
        st.page_link("pages/logs/import_logs.py", label="Import logs →")
        return
    draw(policies, log)


def compared(draw: Callable[[Comparison], None], policies: list[str], log: DatasetRow) -> None:
    """Draws what a tab says of an evaluation, once there is one."""
    if found := comparison.compared(policies, log):
        draw(found)


def explained(policies: list[str], log: DatasetRow) -> None:
    """Draws one request of the log under the baseline and `policies`."""
    _request.show(log, [BASELINE, *policies])


def shadowed(policies: list[str], log: DatasetRow) -> None:
    """Draws what a candidate among `policies` would rank otherwise."""
    _shadow.show(log, policies)


def main() -> None:
    st.title("Policies", anchor=False)
    st.caption("Decides which policy is better, by how much one can know it, and why it ranks as it does.")
    linked = links.followed("policies")
    policies = comparison.choose_policies()
    if policies is None:
        _abtest.offer_live_test()
        return
    log = comparison.choose_log(policies, linked)
    read = {
        places.GAUC: partial(compared, _gauc.show),
        places.OFF_POLICY: _off_policy.show,
        places.DEVIATION: partial(compared, _deviation.show),
        places.CRITICS: partial(compared, _critics.show),
        places.SHADOW: shadowed,
        places.REQUEST: explained,
    }
    drawn = {tab: partial(on_log, draw, policies, log) for tab, draw in read.items()}
    gauc, *others = drawn.items()
    places.tabs(dict([gauc, (places.ABTEST, partial(_abtest.show, policies)), *others]))


main()
