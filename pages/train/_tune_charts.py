"""Figures of a search over settings, and their tables: frame in, figure out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mtf_engine.study.space import Choices, Range, Space
from mtf_engine.study.tuning import DEFAULTS, Trial
from pages.shared.charts import BASELINE, FAINT, INSIDE, OUTSIDE, escape, limits, sized

SCORE = "score"
TICKS, FEWEST_DECADES = 5, 3
UNIT = "weighted GAUC of validation users"


def trials_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """Returns a row for each trial: trial, score, best so far, each setting by its name, state, run."""
    rows = [
        {
            "trial": trial.number,
            SCORE: trial.score,
            **{name: "empty" if value is None else value for name, value in trial.settings.items()},
            "state": trial.state,
            "run": trial.run_id,
            "error": trial.error,
        }
        for trial in trials
    ]
    frame = pd.DataFrame(rows)
    frame.insert(2, "best so far", frame[SCORE].astype(float).cummax().ffill())
    return frame


def history(frame: pd.DataFrame) -> go.Figure:
    """Returns the score of each trial of `trials_table` and the best so far; the defaults' score is a line."""
    scored = frame.dropna(subset=[SCORE])
    drawn = go.Figure(
        [
            go.Scatter(
                x=scored["trial"],
                y=scored["best so far"],
                mode="lines",
                line={"color": OUTSIDE, "width": 2, "shape": "hv"},
                hovertemplate="best of trials 0 to %{x}: %{y:.4f}<extra></extra>",
            ),
            go.Scatter(
                x=scored["trial"],
                y=scored[SCORE],
                mode="markers",
                marker={
                    "size": 9,
                    "color": [BASELINE if trial == DEFAULTS else INSIDE for trial in scored["trial"]],
                },
                hovertemplate="trial %{x}: %{y:.4f}<extra></extra>",
            ),
        ]
    )
    defaults = scored.loc[scored["trial"] == DEFAULTS, SCORE]
    if len(defaults):
        line = {"color": BASELINE, "dash": "dash"}
        drawn.add_hline(
            y=defaults.iloc[0], line=line, annotation_text="defaults", annotation_position="bottom left"
        )
    drawn.update_xaxes(
        title="trial", zeroline=False, tickformat="d", range=[-0.5, frame["trial"].max() + 0.5]
    )
    drawn.update_yaxes(title=UNIT, zeroline=False, **limits(UNIT))
    return sized(drawn, 330)


def importance_bars(frame: pd.DataFrame) -> go.Figure:
    """Returns a bar for each setting of `frame`, columns setting and importance, the longest on top."""
    rows = frame.sort_values("importance")
    drawn = go.Figure(
        go.Bar(
            x=rows["importance"],
            y=rows["setting"].map(escape),
            orientation="h",
            marker_color=INSIDE,
            text=[f"{share:.0%}" for share in rows["importance"]],
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    drawn.update_xaxes(title="share of the variance of scores", tickformat=".0%", range=[0, 1])
    drawn.update_yaxes(automargin=True)
    return sized(drawn, max(200, 90 + 40 * len(rows))).update_layout(bargap=0.4)


def parallel(frame: pd.DataFrame, space: Space) -> go.Figure:
    """Returns a line for each scored trial of `frame` through its settings to its score, which is its colour.

    Ranges with a logarithm are drawn by it. A trial with an empty setting, as defaults may have, is left out.
    """
    scored = frame.dropna(subset=[SCORE])
    rows = scored[(scored[[*space]].astype(str) != "empty").all(axis=1)].sort_values(SCORE)  # the best on top
    axes = [_axis(name, span, rows[name]) for name, span in space.items()]
    scores = rows[SCORE].astype(float)
    drawn = go.Figure(
        go.Parcoords(
            dimensions=[*axes, {"label": SCORE, "values": scores, "tickformat": ".4f"}],
            line={
                "color": scores,
                "colorscale": [[0, FAINT], [1, INSIDE]],
                "showscale": True,
                "colorbar": {"title": {"text": SCORE}, "tickformat": ".4f"},
            },
            labelfont={"size": 13},
        )
    )
    return sized(drawn, 380).update_layout(margin={"l": 90, "r": 40, "t": 60, "b": 30})


def _axis(name: str, span: Range | Choices, values: pd.Series) -> dict[str, Any]:
    """Returns the axis of a setting: its range, its ticks, and where each trial crosses it."""
    if isinstance(span, Choices):
        told = list(dict.fromkeys([*span.tried, *map(str, values)]))  # the defaults need not be a choice
        places = [told.index(str(value)) for value in values]
        labels = list(map(escape, told))
        return _placed(name, places, range(len(told)), labels, (-0.2, len(told) - 0.8))
    numbers = values.astype(float).to_numpy()
    ends = np.array([span.low, span.high, *numbers])
    scale = np.log10 if span.log else np.asarray
    low, high = float(scale(ends).min()), float(scale(ends).max())
    decades = np.arange(np.ceil(low), np.floor(high) + 1)
    ticks = decades if span.log and len(decades) >= FEWEST_DECADES else np.linspace(low, high, TICKS)
    labels = [f"{10**tick if span.log else tick:.3g}" for tick in ticks]
    return _placed(name, scale(numbers), ticks, labels, (low, high))


def _placed(
    name: str, values: Any, ticks: Any, labels: Sequence[str], ends: tuple[float, float]
) -> Mapping[str, Any]:
    return {
        "label": escape(name),
        "values": list(values),
        "tickvals": list(ticks),
        "ticktext": list(labels),
        "range": list(ends),
    }
