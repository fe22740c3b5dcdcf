"""Penalty formulas: what leaving the bounds costs actor and critics, in every form, on a plan's own box."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from mtf_engine.environments.world import DEFAULT_WORLD, World
from mtf_engine.learning.penalties import FORMS, PenaltyForm
from mtf_engine.learning.penalty_curves import Curve, actor_curves, critic_curves
from mtf_engine.spec import FusionSpec
from pages.shared import bounds_charts, follow, links, loaders, plans, words
from pages.shared.exhibit import exhibit

EVERYBODY = "*everybody"
POINTS = 201
ACTOR_FORMS = {
    "expm1": r"$e^x - 1$: continuous at the bound and growing; the default",
    "exp": r"$e^x$: the same gradient outside, with a jump of 1 at the bound",
    "linear": r"$x$: a constant pull back",
    "printed": r"$e^{-x}$: formula 5 as printed; it falls with the distance and pushes an action farther out",
}
CRITIC_FORMS = {
    "target": r"$Q' - \delta\, d$: the bootstrap less the bounds penalty; the default",
    "decay": r"$Q' - (1 - \phi) \,|Q'|$ with $\phi = e^{-x}$: the form of the paper's v6 and of `unified_rl`, whose "
    r"`phi=product` is $\phi\, Q'$, the same for $Q' > 0$ and growing outside for $Q' < 0$",
    "printed": r"$Q'$: the second term of formula 6 has no gradient in the critic, so it has no effect",
}

UNIFIED = r"""
The paper's v6, `unified_rl`, has two groups $g$ of critics, of watch time and of all other feedback. Each critic's
target is $r_g + \gamma \,(Q'_g - (1 - \phi) \,|Q'_g|)$, `decay` above, of its group's reward; the actor's loss is
$-\sum_g w_g \,(\bar{Q}_g - \lambda \,\mathrm{std}(Q_g)) + \eta\, d$, with $d$ of formula 5.
"""


class Settings(NamedTuple):
    """What the formulas are drawn with."""

    beta: float
    eta: float
    delta: float
    q: float
    of: PenaltyForm


def choose_walls() -> tuple[str, float, float]:
    """Returns the dimension drawn and its bounds in the plan chosen."""
    rows = loaders.datasets()
    fusion = FusionSpec.model_validate(rows[0].meta["fusion"]) if rows else World.named(DEFAULT_WORLD).fusion
    if not rows:
        st.info("No log yet: these are the dimensions of the synthetic users. Import a log to see yours.")
    first, second, third = st.columns(3)
    plan = plans.choose(fusion.n_actions, first).plan
    titles = {EVERYBODY: "everybody else (the default box)", **{name: name for name in plan.segments}}
    segment = links.choice("Box of", titles, "segment", second)
    name = links.choice("Dimension", {name: name for name in fusion.names}, "x", third)
    box, i = plans.box_of(plan, None if segment == EVERYBODY else segment), fusion.names.index(name)
    return name, box.lower[i], box.upper[i]


def choose_settings() -> Settings:
    first, second, third, fourth, fifth = st.columns(5)
    bound = {"bind": "query-params"}
    return Settings(
        first.slider(
            "beta", 0.05, 2.0, 0.3, 0.05, key="beta", help="Softness, in widths of the box.", **bound
        ),
        second.slider("eta", 0.0, 5.0, 1.2, 0.1, key="eta", help="Weight in the actor's loss.", **bound),
        third.slider(
            "delta", 0.0, 5.0, 1.0, 0.1, key="delta", help="Weight in the critics' target.", **bound
        ),
        fourth.slider(
            "Q'",
            -5.0,
            5.0,
            2.0,
            0.1,
            key="q",
            help="Value of the next action before any penalty, scaled.",
            **bound,
        ),
        fifth.selectbox("penalty", FORMS, key="penalty", help="The form d that `target` subtracts.", **bound),
    )


def frame(offsets: np.ndarray, curves: dict[str, Curve]) -> pd.DataFrame:
    """Returns one row an offset: value and gradient of each form."""
    columns = {
        f"{form} {part}": getattr(curve, part) for form, curve in curves.items() for part in Curve._fields
    }
    return pd.DataFrame({"offset": offsets, **columns})


def show_penalty(
    title: str,
    forms: dict[str, str],
    table: pd.DataFrame,
    walls: tuple[float, float],
    names: tuple[str, str],
    unit: str,
) -> None:
    st.header(title, anchor=False)
    alt = f"{title}: value and gradient of {', '.join(forms)} over the offset"
    exhibit(bounds_charts.penalties(table, list(forms), walls, names, unit), table, title, alt)
    st.markdown("\n".join(f"- `{form}` {meaning}" for form, meaning in forms.items()))


def formulas(name: str, low: float, high: float) -> None:
    """Draws both penalties, anew at each move of a slider."""
    chosen = choose_settings()
    width = high - low
    offsets = np.linspace(low - 0.75 * width, high + 0.75 * width, POINTS)
    with follow.refusals():
        actor = frame(offsets, actor_curves(offsets, low, high, beta=chosen.beta, eta=chosen.eta))
        unit = f"offset of {name}"
        names = ("penalty in the actor's loss", "its gradient")
        show_penalty("Bounds penalty, formula 5", ACTOR_FORMS, actor, (low, high), names, unit)
        critic = frame(
            offsets,
            critic_curves(offsets, low, high, beta=chosen.beta, delta=chosen.delta, q=chosen.q, of=chosen.of),
        )
        names = ("value that critics learn", "its gradient")
        show_penalty("Critic penalty, formula 6", CRITIC_FORMS, critic, (low, high), names, unit)
        st.caption(
            "Shaded: the bounds. x is the distance outside them in units of beta box widths, summed over "
            "dimensions; here all others are inside. A gradient above 0 in the actor's loss pulls an action "
            "down, one below 0 up. Beyond x = 5 the exponential forms go on along their tangent."
        )
    show_command(chosen)


def show_command(chosen: Settings) -> None:
    """Draws the training that takes these settings."""
    explored = loaders.learnable(loaders.datasets())
    names = {"beta": f"{chosen.beta:g}", "eta": f"{chosen.eta:g}", "delta": f"{chosen.delta:g}"}
    settings = [part for name in names.items() for part in ("--set", "=".join(name))]
    asked = ("--algo", "integrated_rl", *settings, "--set", f"penalty={chosen.of}")
    st.caption("A training with these settings")
    dataset = explored[0].id if explored else "DATASET"
    command = words.command(loaders.workspace().path, "train", dataset, *asked)
    st.code(command, language=None, wrap_lines=True)
    st.markdown(UNIFIED)


def show() -> None:
    """Draws the tab."""
    st.caption("Decides the form of both penalties: what leaving the bounds costs, on a plan's own box.")
    st.fragment(formulas)(*choose_walls())
