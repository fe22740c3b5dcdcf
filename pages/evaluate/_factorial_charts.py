"""Figures of a comparison of methods: frame in, figure out."""

import pandas as pd
import plotly.graph_objects as go

from mtf_engine.study.comparison import marked
from pages.evaluate._factorial_tables import ALL, HIGH, LOW, ON
from pages.shared.charts import (
    BASELINE,
    BOUND,
    DASHES,
    SEQUENCE,
    SYMBOLS,
    escape,
    legend_above,
    limits,
    method_colour,
    sized,
)

ROW = 34
"""Pixels between two dots."""
ON_TEST_LOG = "weighted GAUC on the test log"


def dots(frame: pd.DataFrame, labels: list[str], unit: str, percent: bool, zero: bool = False) -> go.Figure:
    """Returns a dot with its interval for each row, named by the columns `labels`, coloured by its method.

    What it was trained on gives the sign; `zero` draws the line of no difference.
    """
    rows = frame[frame["mean"].notna()].iloc[::-1]
    names = [
        escape(" · ".join(marked(said) for said in row if said != ALL))
        for row in rows[labels].astype(str).values
    ]
    form = "+.2%" if percent else ("+.4f" if zero else ".4f")
    drawn = go.Figure(
        go.Scatter(
            x=rows["mean"],
            y=names,
            mode="markers",
            marker={"size": 10, "color": _colours(rows), "symbol": _symbols(rows)},
            error_x=_ends(rows),
            customdata=rows[[LOW, HIGH]],
            hovertemplate=f"%{{y}}<br>%{{x:{form}}} [%{{customdata[0]:{form}}}, %{{customdata[1]:{form}}}]"
            "<extra></extra>",
        )
    )
    if zero:
        drawn.add_vline(x=0, line={"color": BOUND, "dash": "dash"})
    drawn.update_xaxes(title=unit, tickformat=form.replace("4", "3"), zeroline=False, **limits(unit))
    drawn.update_yaxes(type="category", automargin=True, range=[-0.7, len(rows) - 0.3])  # "8" is a name
    return sized(drawn, 110 + ROW * len(rows))


def lines(frame: pd.DataFrame, unit: str, percent: bool) -> go.Figure:
    """Returns the mean of each method over what it was trained on: parallel lines where both do not interact."""
    form = "+.2%" if percent else ".4f"
    drawn = go.Figure()
    for i, (method, rows) in enumerate(frame.groupby("method", sort=False)):
        drawn.add_trace(
            go.Scatter(
                x=rows[ON],
                y=rows["mean"],
                name=escape(marked(method)),
                mode="lines+markers",
                line={"color": method_colour(str(method)), "width": 2},
                marker={"size": 9, "symbol": SYMBOLS[i % len(SYMBOLS)]},
                error_y=_ends(rows),
                hovertemplate=f"{escape(method)}, %{{x}}<br>%{{y:{form}}}<extra></extra>",
            )
        )
    within = {} if percent else limits(unit)
    drawn.update_yaxes(title=unit, tickformat=form.replace("4", "3"), zeroline=False, **within)
    drawn.update_xaxes(title=ON)
    return legend_above(sized(drawn, 420))


def over_weights(frame: pd.DataFrame, signal: str, stands: float) -> go.Figure:
    """Returns a line of weighted GAUC for each policy, a column of `frame`, over the weight of a signal.

    The upright line is where the weight `stands`.
    """
    drawn = go.Figure()
    for i, name in enumerate(frame.columns[1:]):
        drawn.add_trace(
            go.Scatter(
                x=frame["weight"],
                y=frame[name],
                name=escape(name),
                mode="lines+markers",
                line={"color": SEQUENCE[i % len(SEQUENCE)], "width": 2, "dash": DASHES[i % len(DASHES)]},
                marker={"size": 6, "symbol": SYMBOLS[i % len(SYMBOLS)]},
                hovertemplate=f"{escape(name)}<br>%{{x:.3g}}: %{{y:.4f}}<extra></extra>",
            )
        )
    drawn.add_vline(x=stands, line={"color": BOUND, "dash": "dash"}, annotation_text="as it stands")
    drawn.update_xaxes(title=f"weight of {escape(signal)} in the reward", zeroline=False)
    drawn.update_yaxes(title=ON_TEST_LOG, zeroline=False, **limits(ON_TEST_LOG))
    return legend_above(sized(drawn, 420))


def agreement(frame: pd.DataFrame, metric: str) -> go.Figure:
    """Returns a dot for each policy: weighted GAUC on the test log against what users did in the A/B test."""
    drawn = go.Figure()
    for i, (method, rows) in enumerate(frame.groupby("method", sort=False)):
        drawn.add_trace(
            go.Scatter(
                x=rows["weighted GAUC"],
                y=rows["gain"],
                name=escape(marked(method)),
                mode="markers",
                marker={
                    "size": 9,
                    "color": method_colour(str(method)),
                    "symbol": SYMBOLS[i % len(SYMBOLS)],
                },
                customdata=rows[[ON, "seed"]],
                hovertemplate=f"{escape(method)}, %{{customdata[0]}}, seed %{{customdata[1]}}<br>"
                "%{x:.4f}, %{y:+.2%}<extra></extra>",
            )
        )
    drawn.add_hline(y=0, line={"color": BOUND, "dash": "dash"})
    drawn.update_xaxes(title=ON_TEST_LOG, zeroline=False, **limits(ON_TEST_LOG))
    drawn.update_yaxes(title=f"{metric}, A/B test", tickformat="+.1%", zeroline=False)
    return legend_above(sized(drawn, 420))


def _colours(rows: pd.DataFrame) -> list[str]:
    return (
        [method_colour(method) for method in rows["method"]] if "method" in rows else [BASELINE] * len(rows)
    )


def _symbols(rows: pd.DataFrame) -> list[str]:
    kinds = list(dict.fromkeys(rows[ON])) if ON in rows else []
    return [SYMBOLS[kinds.index(on) % len(SYMBOLS)] for on in rows[ON]] if kinds else ["circle"] * len(rows)


def _ends(rows: pd.DataFrame) -> dict:
    return {
        "type": "data",
        "symmetric": False,
        "array": (rows[HIGH] - rows["mean"]).fillna(0),
        "arrayminus": (rows["mean"] - rows[LOW]).fillna(0),
        "thickness": 2,
        "width": 5,
        "color": BASELINE,
    }
