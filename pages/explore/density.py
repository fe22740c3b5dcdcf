"""Exploration density: how many Gaussian samples replace a uniform one, by every named definition."""

import numpy as np
import pandas as pd
import streamlit as st

from mtf_engine.exploration.reach import FAR, progressive_reach
from mtf_engine.spec import BoundsPlan
from pages.shared import bounds_charts, densities, loaders, words
from pages.shared.exhibit import described, exhibit

REACH = {
    "half_width": "half width",
    "log10_covered": "covered, power of 10",
    "log10_samples": "samples, power of 10",
    "pair_samples": "samples for two dimensions",
    "relative_loss": "loss of a request, times",
    "relative_sessions": "sessions for equal slopes, times",
    "beyond": f"beyond {FAR:g}",
}
NAMES = {key: definition.title for key, definition in densities.DEFINITIONS.items()}


def choose() -> tuple[float, float, int]:
    """Returns half width, sigma and the number of dimensions."""
    first, second, third = st.columns(3)
    bound = {"bind": "query-params"}
    return (
        first.slider("Half width of the box", 0.01, 1.0, 0.15, 0.01, key="half_width", **bound),
        second.slider("Sigma of the Gaussian noise", 0.05, 1.0, 0.2, 0.01, key="sigma", **bound),
        third.slider("Dimensions", 1, 30, 10, key="dims", **bound),
    )


def show_tiles(table: pd.DataFrame) -> None:
    for tile, row in zip(st.columns(len(table)), table.itertuples(), strict=True):
        title = NAMES[row.definition]
        tile.metric(title, row.samples, help=f"2^{row.log2:.2f}: {row.meaning}.", border=True)


def show_curves(half_width: float, sigma: float, dims: int) -> None:
    frames = {
        "half width": densities.efficiency_over_half_width(np.linspace(0.02, 1, densities.GRID), sigma, dims),
        "sigma": densities.efficiency_over_sigma(
            BoundsPlan.symmetric(half_width, dims), np.linspace(0.05, 1, densities.GRID)
        ),
        "dimensions": densities.efficiency_over_dims(half_width, sigma, np.arange(1, 31)),
    }
    chosen = {"half width": half_width, "sigma": sigma, "dimensions": dims}
    units = {
        "half width": "half width of the box, in units of [-1, 1]",
        "sigma": "sigma",
        "dimensions": "dimensions",
    }
    panels = [(f"Over {of}", frame, units[of], chosen[of]) for of, frame in frames.items()]
    figure = bounds_charts.efficiency(panels, NAMES)
    table = pd.concat(frame.assign(over=of) for of, frame in frames.items())
    alt = "Powers of 2 of the efficiency, by five definitions, over half width, sigma and dimensions"
    exhibit(figure, table, "exploration density", alt, **densities.MEANINGS)


def show_reach(half_width: float, dims: int) -> None:
    """Draws several small boxes beside one wide box of the same reach."""
    st.header("Several small boxes against a wide one", anchor=False)
    most = max(1, int(1 / half_width + 1e-9))
    rounds = st.number_input("Small boxes, one after the other", 1, most, min(5, most), key="reach_rounds")
    found = progressive_reach(int(rounds), half_width, dims)
    st.write(words.plain(found.sentence))
    table = pd.DataFrame(way.model_dump() for way in found.ways).rename(columns=REACH)
    described(table, "reach", "Several small boxes and a wide one")
    asked = ("--rounds", int(rounds), "--half-width", f"{half_width:g}", "--dims", dims)
    command = words.command(loaders.workspace().path, "bounds", "reach", *asked)
    st.code(command, language=None, wrap_lines=True)


def show_definitions(table: pd.DataFrame) -> None:
    st.header("What each definition says", anchor=False)
    lines = ["| definition | samples | power of 2 | says | per dimension |", "|---|---:|---:|---|---|"]
    for row in table.itertuples():
        formula = densities.DEFINITIONS[row.definition].formula
        name = f"**{NAMES[row.definition]}** `{row.definition}`"
        lines.append(f"| {name} | {row.samples} | {row.log2:.2f} | {row.meaning} | ${formula}$ |")
    st.markdown("\n".join(lines))
    st.caption(
        "“For the same density” has no single meaning, so none of these is a measurement of the others. The "
        "paper names none for its 2^10; the range gives exactly that at its settings: half width 0.15, sigma "
        "0.2, 10 dimensions. Below 1 the Gaussian noise is the denser one."
    )


def density() -> None:
    """Draws the page's closed forms, anew at each move of a slider."""
    half_width, sigma, dims = choose()
    table = densities.efficiency(BoundsPlan.symmetric(half_width, dims), sigma)
    show_tiles(table)
    show_curves(half_width, sigma, dims)
    show_definitions(table)
    st.caption("The same on the command line")
    asked = ("--half-width", f"{half_width:g}", "--sigma", f"{sigma:g}", "--dims", dims)
    st.code(words.command(loaders.workspace().path, "density", *asked), language=None, wrap_lines=True)
    show_reach(half_width, dims)


def main() -> None:
    st.title("Exploration density", anchor=False)
    st.caption(
        "Decides between uniform and Gaussian exploration: how many Gaussian samples replace a uniform one "
        "in a box around the baseline action?"
    )
    st.fragment(density)()


main()
