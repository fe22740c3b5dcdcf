"""Exploration density: how many Gaussian or mixed samples replace a uniform one, by every named definition."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from mtf_engine.exploration.mixture import Mixture
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


class Chosen(NamedTuple):
    """The box, the Gaussian noise, and the mixture it is a part of, if any."""

    half_width: float
    sigma: float
    dims: int
    mixture: Mixture | None


def choose() -> Chosen:
    first, second, third, fourth, fifth = st.columns(5)
    bound = {"bind": "query-params"}
    share, why = "Share at random", "Of requests that mixed exploration draws around 0 over the whole range."
    half_width, sigma, dims, random_share, random_sigma = (
        first.slider("Half width of the box", 0.01, 1.0, 0.15, 0.01, key="half_width", **bound),
        second.slider("Sigma of the Gaussian noise", 0.05, 1.0, 0.2, 0.01, key="sigma", **bound),
        third.slider("Dimensions", 1, 30, 10, key="dims", **bound),
        fourth.slider(share, 0.0, 0.95, 0.0, 0.05, key="random_share", help=why, **bound),
        fifth.slider("Sigma at random", 0.05, 2.0, 0.5, 0.05, key="random_sigma", **bound),
    )
    of = {"sigma": sigma, "random_share": random_share, "random_sigma": random_sigma}
    return Chosen(half_width, sigma, dims, Mixture(**of) if random_share else None)


def show_tiles(table: pd.DataFrame) -> None:
    for tile, row in zip(st.columns(len(table)), table.itertuples(), strict=True):
        title = NAMES[row.definition]
        tile.metric(title, row.samples, help=f"2^{row.log2:.2f}: {row.meaning}.", border=True)


def show_curves(chosen: Chosen) -> None:
    half_width, sigma, dims, mixture = chosen
    frames = {
        "half width": densities.efficiency_over_half_width(
            np.linspace(0.02, 1, densities.GRID), sigma, dims, mixture
        ),
        "sigma": densities.efficiency_over_sigma(
            BoundsPlan.symmetric(half_width, dims), np.linspace(0.05, 1, densities.GRID), mixture
        ),
        "dimensions": densities.efficiency_over_dims(half_width, sigma, np.arange(1, 31), mixture),
    }
    at = {"half width": half_width, "sigma": sigma, "dimensions": dims}
    units = {
        "half width": "half width of the box, in units of [-1, 1]",
        "sigma": "sigma",
        "dimensions": "dimensions",
    }
    panels = [(f"Over {of}", frame, units[of], at[of]) for of, frame in frames.items()]
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
        "0.2, 10 dimensions. Below 1 the Gaussian noise is the denser one. With a share at random, the samples are of "
        "BatchRL-MTF's mixed exploration: formulas are of its noise and of its random draws, and the samples of both "
        "together the harmonic mean of theirs, weighed by the shares."
    )


def density() -> None:
    """Draws the page's closed forms, anew at each move of a slider."""
    chosen = choose()
    half_width, sigma, dims, mixture = chosen
    table = densities.efficiency(BoundsPlan.symmetric(half_width, dims), sigma, mixture)
    show_tiles(table)
    show_curves(chosen)
    show_definitions(table)
    st.caption("The same on the command line")
    asked = ("--half-width", f"{half_width:g}", "--sigma", f"{sigma:g}", "--dims", dims)
    if mixture is not None:
        shares = f"{mixture.random_share:g}", f"{mixture.random_sigma:g}"
        asked = (*asked, "--random-share", shares[0], "--random-sigma", shares[1])
    st.code(words.command(loaders.workspace().path, "density", *asked), language=None, wrap_lines=True)
    show_reach(half_width, dims)


def main() -> None:
    st.title("Exploration density", anchor=False)
    st.caption(
        "Decides between uniform, Gaussian and mixed exploration: how many other samples replace a uniform one "
        "in a box around the baseline action?"
    )
    st.fragment(density)()


main()
