"""Tables of logs: what there is, what one holds, what moved."""

from collections.abc import Mapping, Sequence

import pandas as pd

from mtf_engine.logs.quality import Quality
from mtf_engine.logs.shift import Drift
from mtf_engine.registry import DatasetRow
from pages.shared import words


def datasets(rows: Sequence[DatasetRow]) -> pd.DataFrame:
    """Returns one row a dataset."""
    return pd.DataFrame(
        {
            "Dataset": row.name,
            "Source": words.source(row),
            "Exploration": row.meta.get("exploration") or "none",
            "Requests": row.n_requests,
            "Impressions": row.n_impressions,
            "Written": row.created_at,
            "Id": row.id,
        }
        for row in rows
    )


def signals(quality: Quality, weights: Mapping[str, float]) -> pd.DataFrame:
    """Returns one row a signal; a rate is the mean of a signal from 0 to 1."""
    found = pd.DataFrame(
        {
            "signal": signal.name,
            "rate": signal.mean if (signal.largest or 0) <= 1 else None,
            "mean": signal.mean if (signal.largest or 0) > 1 else None,
            "largest": signal.largest,
            "missing values": signal.missing,
            "reward weight": weights.get(signal.name, 0.0),
            "AUC": quality.predictor_auc.get(signal.name),
        }
        for signal in quality.signals
    )
    return found if quality.predictor_auc else found.drop(columns="AUC")


def columns(quality: Quality) -> pd.DataFrame:
    """Returns one row a feature and prediction."""
    return pd.DataFrame(
        {
            "column": found.name,
            "kind": found.kind,
            "mean": found.mean,
            "standard deviation": found.std,
            "least": found.points[0],
            "largest": found.points[-1],
            "missing values": found.missing,
        }
        for found in quality.distributions
        if found.kind != "signal"
    )


def drift(found: Drift) -> pd.DataFrame:
    """Returns one row a column that both logs have, the farthest first."""
    return pd.DataFrame(
        {
            "column": shift.name,
            "kind": shift.kind,
            "verdict": shift.verdict,
            "PSI": shift.psi,
            "PSI by luck": shift.luck,
            "difference": shift.difference,
            "low": shift.ci_low,
            "high": shift.ci_high,
            "mean here": shift.mean,
            "mean there": shift.reference_mean,
        }
        for shift in found.shifts
    )
