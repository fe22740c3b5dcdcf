"""Figures: frame in, figure out. Few colours, each with one meaning; what users typed is escaped here."""

import html
import itertools
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

BASELINE = "#7a828c"
INSIDE, OUTSIDE = "#2f86b8", "#c56a24"
BOUND = "#ce4f66"
METHODS = {
    "baseline": BASELINE,
    "integrated_rl": "#2f86b8",
    "unified_rl": "#5f7fd4",
    "iql": "#c56a24",
    "batchrl_mtf": "#2b9264",
    "cql_sac": "#8d68c8",
    "ddpg": "#a5790a",
    "evolution_strategy": "#c2568f",
    "grid_search": "#6b8f3a",
    "bayesian_optimization": "#338f95",
    "linear_one_step": "#8a7a55",
    "best_single_head": "#c5664f",
}
"""One fixed colour a method, readable on light and dark."""
NEW_METHODS = ("#b0615f", "#5b7fc7", "#7d8560", "#b06a9a")
"""Colours of methods that have none above, which share them by their names."""
SEQUENCE = [colour for method, colour in METHODS.items() if method != "baseline"]
"""Colours of lines that are told apart by their names only."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star")
"""A kind of line and a sign of its own for each policy, so that none is told by its colour alone."""

Panel = tuple[str, str, Sequence[str]]
"""Title, unit, and the metrics it shows."""

KNOWN_METRICS = (
    ("Weighted GAUC of validation users", "weighted GAUC", r"validation_gauc"),
    ("Best fitness so far", "weighted GAUC or reward", r"fitness_best"),
    ("Fitness of each trial", "weighted GAUC or reward", r"fitness"),
    ("Mean fitness of a generation", "weighted GAUC or reward", r"fitness_mean"),
    ("Step size of the mutations", "sigma, in units of the action", r"sigma"),
    ("Critic loss", "squared reward", r"critic_loss.*"),
    ("Actor loss", "", r"actor_loss"),
    ("Conservative loss", "", r"conservative_loss"),
    ("Loss of the temperature", "", r"temperature_loss"),
    ("Loss of the autoencoder", "squared half widths", r"vae_loss"),
    ("Loss of V", "squared reward", r"value_loss"),
    ("Mean Q of the actor's actions", "scaled reward", r"q_mean"),
    ("Mean V", "scaled reward", r"v_mean"),
    ("Disagreement of the critics", "std of Q, scaled reward", r"q_std_.*"),
    ("Bounds penalty", "", r"penalty"),
    ("Distance of the actor from the data", "std of the logged actions", r"distance_from_data"),
    ("CQL gap: Q of the policy − Q of the log", "scaled reward", r"cql_gap"),
    ("CQL's alpha", "weight of the conservative loss", r"cql_alpha"),
    ("Temperature", "weight of the entropy", r"temperature"),
    ("Spread of the candidates", "half widths", r"candidate_spread"),
    ("Perturbations at their limit", "share of candidates", r"share_saturated"),
    ("Chi2 of the slopes", "about 1 a dimension: nothing", r"chi2"),
    ("Slope of the target", "reward per unit of the action", r"slope/.*"),
    ("t of the slope", "slope / standard error", r"t/.*"),
    ("Offset from the baseline", "action", r"offset/.*"),
    ("Weights at their cap", "share of requests", r"share_capped"),
    ("Effective sample size of the weights", "share of the batch", r"effective_sample_size"),
    ("Std of the policy in training", "action", r"policy_std"),
    ("Actions outside the bounds", "share of requests", r"share_outside/.*"),
    ("Actions at the wall", "share of requests", r"share_at_wall/.*"),
)
"""Panels that show several metrics or have a unit: title, unit, pattern of names."""
NOT_CURVES = ("step", "seconds", "steps_per_second", "reward_scale", "largest_return", "evaluations")
MOST_POINTS = 5_000
"""Points of one figure that go to the browser."""
FEW = 3
"""With more lines in a panel, only the one that ends highest has colour and name; all tell on hovering."""
SHARES = ("weighted GAUC", "share of ", "probability")
"""How the names of units begin whose values lie between 0 and 1."""
FEW_DAYS = 7
FAINT = "rgba(122, 130, 140, 0.45)"

PANEL_HEIGHT = 230
"""Pixels of one panel in a grid of small charts, the gap below it included."""
GAP = 70


def escape(text: object) -> str:
    """Returns `text` so that plotly, whose labels are a dialect of HTML, shows it as it is."""
    return html.escape(" ".join(str(text).split()), quote=False)


def method_colour(algo: str | None) -> str:
    """Returns the fixed colour of a method; of the baseline where there is none."""
    name = algo or "baseline"
    return METHODS.get(name) or NEW_METHODS[zlib.crc32(name.encode()) % len(NEW_METHODS)]


def policy_colours(frame: pd.DataFrame) -> dict[str, str]:
    """Returns a colour for each policy of `frame` in its order, columns policy and algo: no two alike, up to ten.

    The baseline, which has no method, has its own. What is listed in one order has one colour on all charts.
    """
    methods = dict(zip(frame["policy"], frame["algo"], strict=True))
    trained = [policy for policy, algo in methods.items() if isinstance(algo, str) and algo != "baseline"]
    colours = dict(zip(trained, itertools.cycle(SEQUENCE), strict=False))
    return {policy: colours.get(policy, BASELINE) for policy in methods}


def intervals(
    frame: pd.DataFrame,
    value: str,
    unit: str,
    zero: str | None = None,
    colours: dict[str, str] | None = None,
) -> go.Figure:
    """Returns one dot with its interval per row of `frame`: policy, algo, `value`, low, high.

    `colours` are those of a chart beside it, by default those of the frame itself. `zero` names the line at 0, for
    differences. Rows without a value are listed and have no dot.
    """
    rows, form = frame.iloc[::-1], "+.4f" if zero else ".4f"
    figure = go.Figure(
        go.Scatter(
            x=rows[value],
            y=rows["policy"].map(escape),
            mode="markers+text",
            text=[f"{value:{form}}" if pd.notna(value) else "no valid group" for value in rows[value]],
            textposition="top center",
            cliponaxis=False,
            marker={"size": 10, "color": rows["policy"].map(colours or policy_colours(frame))},
            error_x=interval(rows, value),
            customdata=rows[["low", "high"]],
            hovertemplate=f"%{{y}}<br>%{{x:{form}}} [%{{customdata[0]:{form}}}, %{{customdata[1]:{form}}}]"
            "<extra></extra>",
        )
    )
    figure.update_yaxes(automargin=True, range=[-0.5, len(rows) - 0.3])
    figure.update_xaxes(title=unit, zeroline=False, **limits(unit))
    if zero:
        figure.add_vline(x=0, line={"color": BOUND, "dash": "dash"}, annotation_text=escape(zero))
    return sized(figure, 110 + 56 * len(rows))


def curves(frame: pd.DataFrame, panels: Sequence[Panel], columns: int = 2) -> go.Figure:
    """Returns small charts of metrics over `frame["step"]`, one a panel, thinned to what may be sent."""
    points = MOST_POINTS // max(1, sum(len(names) for _, _, names in panels))
    figure = grid([title for title, _, _ in panels], columns)
    for i, (_, unit, names) in enumerate(panels):
        place = cell(i, columns)
        told_apart = _told_apart(frame, names)
        for name in names:
            figure.add_trace(_line(frame, name, told_apart.get(name, FAINT), points), **place)
        for name, colour in told_apart.items() if len(names) > 1 else ():
            _label_end(figure, frame, name, colour, place)
        figure.update_xaxes(title="step" if i + columns >= len(panels) else None, **place)
        figure.update_yaxes(title=unit, exponentformat="power", **limits(unit), **place)
    return figure


def metric_panels(names: Iterable[str]) -> list[Panel]:
    """Returns the panels that show the metrics `names`: known ones together, each other one on its own."""
    left = [name for name in names if name not in NOT_CURVES]
    panels: list[Panel] = []
    for title, unit, pattern in KNOWN_METRICS:
        if found := [name for name in left if re.fullmatch(pattern, name)]:
            panels.append((title, unit, found))
            left = [name for name in left if name not in found]
    return [*panels, *((name.replace("_", " "), "", [name]) for name in left)]


def metric_title(name: str) -> tuple[str, str]:
    """Returns the title and the unit of one metric by itself."""
    for title, unit, pattern in KNOWN_METRICS:
        if re.fullmatch(pattern, name):
            own = "" if pattern == name else f": {name.rpartition('/')[2]}"
            return title + own, unit
    return name.replace("_", " "), ""


def interval(rows: pd.DataFrame, value: str) -> dict[str, Any]:
    """Returns the error bars of `value` from low to high."""
    return {
        "type": "data",
        "symmetric": False,
        "array": rows["high"] - rows[value],
        "arrayminus": rows[value] - rows["low"],
        "thickness": 2,
        "width": 5,
        "color": BASELINE,
    }


def limits(unit: str) -> dict[str, float]:
    """Returns the ends, as an axis takes them, that what is counted in `unit` cannot pass: 0 and 1 of a share."""
    return {"minallowed": 0, "maxallowed": 1} if unit.startswith(SHARES) and " or " not in unit else {}


def wholes(values: pd.Series) -> dict[str, Any]:
    """Returns an axis of whole numbers, ticked at those that there are and at no others, twelve at most."""
    there = np.unique(values.dropna())
    return {"tickvals": there[:: -(-len(there) // 12) or 1], "range": [min(there) - 0.5, max(there) + 0.5]}


def dates(values: pd.Series) -> dict[str, Any]:
    """Returns an axis of days, one tick a day where they are few; hours stand nowhere."""
    days = pd.to_datetime(values)
    few = len(days) and (days.max() - days.min()).days < FEW_DAYS
    return {"type": "date", "tickformat": "%Y-%m-%d"} | ({"dtick": 86_400_000} if few else {})


def legend_above(figure: go.Figure) -> go.Figure:
    """Returns the figure with its legend in a line above it; without one where a single thing is drawn."""
    names = {trace.name for trace in figure.data if trace.name and trace.showlegend is not False}
    if len(names) < 2:
        return figure.update_layout(showlegend=False)
    legend = {"orientation": "h", "y": 1, "yanchor": "bottom", "yref": "paper"}
    return figure.update_layout(showlegend=True, margin_t=60, legend=legend)


def cell(i: int, columns: int) -> dict[str, int]:
    """Returns where panel `i` of a grid is, as plotly's row and col."""
    row, column = divmod(i, columns)
    return {"row": row + 1, "col": column + 1}


def grid(titles: Sequence[str], columns: int) -> go.Figure:
    """Returns an empty figure of small panels, filled row by row."""
    rows = -(-len(titles) // columns)
    height = 70 + PANEL_HEIGHT * rows
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[f"<b>{title}</b>" for title in titles],
        vertical_spacing=GAP / height,
        horizontal_spacing=0.24 / columns,
    )
    figure.update_annotations(font_size=13 if columns < 4 else 11)
    return sized(figure, height)


def sized(figure: go.Figure, height: int) -> go.Figure:
    """Returns `figure` in the house's frame, `height` pixels high."""
    return figure.update_layout(
        height=height, showlegend=False, margin={"l": 10, "r": 24, "t": 40, "b": 10}, bargap=0
    )


def thinned(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Returns at most so many rows of `frame`, evenly spaced, the last one among them."""
    every = -(-len(frame) // max(rows, 1)) or 1
    return frame.iloc[::-1][::every][::-1]


def _line(frame: pd.DataFrame, name: str, colour: str, points: int) -> go.Scatter:
    rows = thinned(frame[["step", name]].dropna(), points)
    return go.Scatter(
        x=rows["step"],
        y=rows[name],
        name=escape(name),
        mode="lines",
        line={"color": colour, "width": 1.8},
        hovertemplate=f"{escape(name)} %{{y:.4g}}, step %{{x:,}}<extra></extra>",
    )


def _told_apart(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """Returns the lines of a panel with a colour of their own: all of few, else the one that ends highest."""
    if len(names) > FEW:
        names = [frame[list(names)].iloc[-1].fillna(-np.inf).idxmax()]
    return dict(zip(names, SEQUENCE, strict=False))


def _label_end(figure: go.Figure, frame: pd.DataFrame, name: str, colour: str, place: dict[str, int]) -> None:
    """Writes a line's name, without the part that its panel's title says, at its last point."""
    rows = frame[["step", name]].dropna()
    figure.add_annotation(
        x=rows["step"].iloc[-1],
        y=rows[name].iloc[-1],
        text=escape(name.rpartition("/")[2]),
        showarrow=False,
        xanchor="right",
        yanchor="bottom",
        font={"color": colour, "size": 12},
        **place,
    )
