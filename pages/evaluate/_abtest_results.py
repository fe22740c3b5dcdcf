"""An A/B test's result as the frames and the figure that its page shows."""

import itertools

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mtf_engine.evaluation import ABTest
from pages.evaluate._abtest_looks import metric_title
from pages.shared import results, words
from pages.shared.charts import BOUND, SYMBOLS, escape, interval, policy_colours, sized

NUMBERS = ("relative difference", "low", "high", "p-value", "users live")


def effects(test: ABTest, runs: results.Runs) -> pd.DataFrame:
    """Returns one row a policy and metric; what cannot be told is NaN."""
    frame = pd.DataFrame(
        {
            **results.named(effect.policy, runs),
            "metric": metric_title(effect.metric),
            "mean per user": effect.mean,
            "base per user": effect.base_mean,
            "relative difference": effect.relative,
            "low": effect.ci_low,
            "high": effect.ci_high,
            "p-value": effect.p_value,
            "users live": effect.users_live,
        }
        for effect in test.effects
    )
    return frame.astype(dict.fromkeys(NUMBERS, float))


def long_table(frame: pd.DataFrame, stopped: bool) -> pd.DataFrame:
    """Returns `effects` as it is shown and saved; of a test that was stopped the interval is the boundary."""
    what = "boundary" if stopped else "interval"
    return frame.drop(columns="algo").rename(columns={"low": f"{what} from", "high": f"{what} to"})


def by_sample(test: ABTest, runs: results.Runs) -> pd.DataFrame:
    """Returns the relative difference in each sample of users, one row a policy and metric."""
    return pd.DataFrame(
        {
            "policy": results.named(effect.policy, runs)["policy"],
            "metric": metric_title(effect.metric),
            **{f"seed {s}": value for s, value in zip(test.seeds, effect.by_seed, strict=False)},
        }
        for effect in test.effects
    )


def table_2(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns `effects` as the paper's Table 2: a row a policy, a column a metric, in words."""
    said = [_said(row) for row in frame.to_dict("records")]
    return _pivoted(frame.assign(said=said), "said")


def means(test: ABTest, runs: results.Runs) -> pd.DataFrame:
    """Returns what a user brings in each arm, the base first, as text with its interval; a column a metric."""
    rows = pd.DataFrame(
        {
            "policy": results.named(arm.policy, runs)["policy"],
            "metric": metric_title(arm.metric),
            "said": " ".join(
                (words.figure(arm.mean), f"[{words.figure(arm.ci_low)}, {words.figure(arm.ci_high)}]")
            ),
        }
        for arm in test.means
    )
    return _pivoted(rows, "said") if test.means else rows


def users_live(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the users per arm that a live test needs: a row a policy, a column a metric."""
    return _pivoted(frame, "users live")


def _pivoted(frame: pd.DataFrame, values: str) -> pd.DataFrame:
    wide = frame.pivot(index="policy", columns="metric", values=values)
    wide = wide.loc[list(dict.fromkeys(frame["policy"])), list(dict.fromkeys(frame["metric"]))]
    return wide.rename_axis(columns=None).reset_index()


def _said(row: dict[str, float]) -> str:
    """Returns a relative difference with its interval and p-value; `*` where p is below 0.05."""
    if pd.isna(row["relative difference"]):
        return "cannot be told"
    star = " *" if row["p-value"] < 0.05 else ""
    p = words.p_value(row["p-value"])
    return f"{row['relative difference']:+.2%} [{row['low']:+.2%}, {row['high']:+.2%}], {p}{star}"


def figure(frame: pd.DataFrame) -> go.Figure:
    """Returns a panel a metric, with a dot and its interval for each policy of `effects`."""
    metrics, policies = list(dict.fromkeys(frame["metric"])), list(dict.fromkeys(frame["policy"]))
    drawn = make_subplots(1, len(metrics), shared_yaxes=True, subplot_titles=[f"<b>{m}</b>" for m in metrics])
    for i, metric in enumerate(metrics, start=1):
        rows = frame[frame["metric"] == metric].iloc[::-1]
        drawn.add_trace(_dots(rows), row=1, col=i)
        drawn.add_vline(x=0, line={"color": BOUND, "dash": "dash"}, row=1, col=i)
        drawn.update_xaxes(title="difference to the base", tickformat="+.1%", zeroline=False, row=1, col=i)
    drawn.update_yaxes(range=[-0.5, len(policies) - 0.3])
    drawn.update_yaxes(automargin=True, row=1, col=1)
    return sized(drawn, 150 + 56 * len(policies))


def _dots(rows: pd.DataFrame) -> go.Scatter:
    symbols = dict(zip(rows["policy"].iloc[::-1], itertools.cycle(SYMBOLS), strict=False))
    return go.Scatter(
        x=rows["relative difference"],
        y=rows["policy"].map(escape),
        mode="markers+text",
        text=[f"{value:+.2%}" if pd.notna(value) else "" for value in rows["relative difference"]],
        textposition="top center",
        cliponaxis=False,
        marker={
            "size": 10,
            "symbol": [symbols[policy] for policy in rows["policy"]],
            "color": rows["policy"].map(policy_colours(rows.iloc[::-1])),
        },
        error_x=interval(rows, "relative difference"),
        customdata=rows[["low", "high"]],
        hovertemplate="%{y}<br>%{x:+.2%} [%{customdata[0]:+.2%}, %{customdata[1]:+.2%}]<extra></extra>",
    )
