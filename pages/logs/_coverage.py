"""Coverage certificate: does an explored log cover its boxes evenly? Decides whether to learn from it."""

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from mtf_engine.exploration.coverage import Certificate, certify_coverage
from mtf_engine.exploration.coverage_counts import CELLS, CoverageCounts
from mtf_engine.logs import aggregates
from mtf_engine.registry import DatasetRow
from mtf_engine.spec import FusionSpec
from pages.shared import glossary, links, loaders, log_charts, places, words
from pages.shared.counting import Aggregate, counted
from pages.shared.exhibit import csv_download, exhibit, folded


def check_table(certificate: Certificate) -> pd.DataFrame:
    """Returns one row a check, causes before effects."""
    return pd.DataFrame(
        {
            "result": "✔ passed" if check.passed else "✖ failed",
            "check": check.name,
            "what was found": check.reason,
            "figure": check.figure,
            "threshold": check.threshold,
            "dimensions": ", ".join(check.dimensions),
        }
        for check in certificate.checks
    )


def cell_table(counts: CoverageCounts, names: tuple[str, ...]) -> pd.DataFrame:
    """Returns one row a cell of each free dimension: those in the box, and those beside it that have rows."""
    edges = np.arange(-CELLS, 2 * CELLS) / CELLS
    inside = (edges >= 0) & (edges < 1)
    return pd.concat(
        pd.DataFrame(
            {
                "dimension": name,
                "left": edges,
                "right": edges + 1 / CELLS,
                "rows": rows,
                "relative": rows * CELLS / rows.sum(),
            }
        )[inside | (rows > 0)]
        for name, rows in zip(names, counts.cells, strict=True)
        if rows.any()
    )


def show_verdict(certificate: Certificate) -> None:
    reason = words.plain(certificate.reason)
    if certificate.passed:
        st.success(f"**✔ Passed:** {reason}.")
    else:
        st.warning(f"**✖ Failed:** {reason}.")
        if len(certificate.failed) > 1:
            later = ", ".join(certificate.failed[1:])
            st.caption(f"Checks that fail too, perhaps for the same reason: {later}.")
    st.caption(
        f"{certificate.n_explored:,} of {certificate.n_requests:,} requests were explored; control users are "
        f"left out. An evenly explored log fails with a probability of at most {certificate.alpha:g}."
    )


def show_checks(certificate: Certificate) -> None:
    st.header("Checks", anchor=False)
    table = check_table(certificate)
    shown = table.assign(**{name: table[name].map(words.figure) for name in ("figure", "threshold")})
    if not shown["dimensions"].any():
        shown = shown.drop(columns="dimensions")
    st.dataframe(
        shown,
        placeholder="",
        hide_index=True,
        height=38 + 35 * len(table),
        column_config=glossary.columns(shown)
        | {"what was found": st.column_config.TextColumn(width="large")},
        alt="Checks of the certificate",
    )
    csv_download(table, "coverage checks")


def show_dimensions(counts: CoverageCounts, names: tuple[str, ...]) -> None:
    st.header("Each dimension", anchor=False)
    table = cell_table(counts, names)
    alt = "Histograms of the place in the box, a dimension each, relative to an even share"
    exhibit(log_charts.coverage(table), table, "coverage by dimension", alt)
    if counts.quantiles:
        st.caption(
            "0 to 1: the share of the declared mixture's draws below the request's, given its dimensions before this "
            "one. Dashed: an even share, which draws of the mixture have."
        )
        return
    st.caption(
        "0 is the lower wall of each request's own box, 1 the upper. Dashed: an even share. The second colour: "
        "requests outside the bounds they were logged with; the outermost bars hold all beyond."
    )


def show_pair(counts: CoverageCounts, names: tuple[str, ...], free: tuple[str, ...]) -> None:
    left, right = st.columns(2)
    across = links.choice("Across", {name: name for name in free}, "x", left)
    up = links.choice("Upwards", {name: name for name in free if name != across}, "y", right)
    cells = counts.pair_cells[names.index(across), names.index(up)]
    cell = np.indices(cells.shape).reshape(2, -1) + 1
    table = pd.DataFrame({f"cell of {across}": cell[0], f"cell of {up}": cell[1], "requests": cells.ravel()})
    alt = f"Requests in each cell of {across} and {up}, from {cells.min():,} to {cells.max():,}"
    exhibit(log_charts.pair(cells, (across, up)), table, f"pair {across} {up}", alt)
    st.caption("Each box is cut into 5 by 5 cells. Requests outside count in the outermost ones.")


def show(row: DatasetRow) -> None:
    """Draws the tab."""
    if row.meta.get("exploration") == "unknown":
        st.info(
            "Nobody knows how this log's actions were drawn, so there is no box to certify; policies do learn from it."
        )
        return
    if not loaders.explored([row]):
        st.info(
            "This log was not explored, so there is no box to certify. Plan the bounds of one, and collect it."
        )
        st.page_link(places.BOUNDS, label="Plan bounds →")
        return
    counts = counted(row, Aggregate(aggregates.stored_coverage, aggregates.coverage, "requests"))
    if counts is None:
        return
    names = FusionSpec.model_validate(row.meta["fusion"]).names
    certificate = certify_coverage(counts, names)
    show_verdict(certificate)
    show_checks(certificate)
    show_dimensions(counts, names)
    free = tuple(name for name in names if name not in certificate.fixed)
    if len(free) > 1:
        folded("Two dimensions together", partial(show_pair, counts, names, free))
    st.caption("The same on the command line")
    command = words.command(loaders.workspace().path, "bounds", "coverage", row.id)
    st.code(command, language=None, wrap_lines=True)
