"""What a day's feedback tells of the user's next day: the ground on which reward weights are suggested."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.files import quoted
from mtf_engine.reward import Correlation, suggest_weights
from mtf_engine.spec import Refusal, RewardSpec, Spec

PARTS = 64
"""Groups of users; a correlation's error is that of leaving out one group at a time."""
Z = 1.959964
FEWEST_DAYS, FEWEST_PAIRS = 7, 1_000
"""Below these a log is warned of: weekdays are not alike, and users differ."""


class NextDay(Spec):
    """Correlations of a user's daily sum of each signal with the user's watch time on the next day.

    The same day's watch time would be circular. Test rows are left out.
    """

    n_pairs: int = Field(
        description="days of a user that are followed by a day with impressions of the same user"
    )
    n_days: int = Field(description="days that begin such a pair")
    mean_watch_time: float = Field(description="of an impression, seconds")
    correlations: dict[str, Correlation] = Field(description="of signals that vary")
    collected: bool = Field(description="the log is from an environment, where returning is drawn")

    @property
    def suggested(self) -> RewardSpec | None:
        """Weights by the correlations; None where a warning says that these do not tell what they seem to."""
        return None if self.warnings else suggest_weights(self.correlations, self.mean_watch_time)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on why the correlations may not tell what they seem to."""
        if not self.n_pairs:
            return (
                "No user has impressions on two days in a row, so this log cannot tell; use a longer one.",
            )
        few_days = f"Days that another follows: {self.n_days}, less than a week."
        few_pairs = f"Days of a user that another follows: {self.n_pairs:,}, too few to tell weak signals."
        drawn = (
            "This log comes from an environment that draws when users return: it says nothing of real ones."
        )
        told = (
            (self.n_days < FEWEST_DAYS, few_days),
            (self.n_pairs < FEWEST_PAIRS, few_pairs),
            (self.collected, drawn),
        )
        return tuple(sentence for holds, sentence in told if holds)


def next_day(dataset: Dataset) -> NextDay:
    """Returns what each signal of `dataset` tells of the next day; one pass in SQL, a row a group of users."""
    signals = dataset.meta.signals
    if "watch_time" not in signals:
        raise Refusal(
            f"the dataset {dataset.meta.name} has no watch_time, so it cannot tell the next day's; use another log"
        )
    rows = dataset.query(_sql(signals))
    mean = dataset.query("SELECT avg(watch_time) AS mean FROM impressions")["mean"][0]
    y = rows[["y", "yy"]].to_numpy(float)
    found = {
        name: _correlation(np.column_stack([rows["n"], rows[f"x{i}"], rows[f"xx{i}"], y, rows[f"xy{i}"]]))
        for i, name in enumerate(signals)
    }
    return NextDay(
        n_pairs=int(rows["n"].sum()),
        n_days=int(rows["n_days"].max()) if len(rows) else 0,
        mean_watch_time=float(mean),
        correlations={name: correlation for name, correlation in found.items() if correlation},
        collected=dataset.meta.source in ("session", "replay", "gym"),
    )


def _sql(signals: tuple[str, ...]) -> str:
    """Returns SQL for the sums from which correlations are made, a row a group of users.

    Pairs have a day's sums x0, x1, ... of a user and the watch time y of the next day.
    """
    sums = ", ".join(f"sum({quoted(name)})::DOUBLE AS x{i}" for i, name in enumerate(signals))
    moments = ", ".join(
        f"sum(x{i}) AS x{i}, sum(x{i} * x{i}) AS xx{i}, sum(x{i} * y) AS xy{i}" for i in range(len(signals))
    )
    return (
        f"WITH days AS MATERIALIZED (SELECT i.user_id, r.timestamp::DATE AS day, {sums} "
        "FROM impressions i JOIN requests r USING (request_id) "
        "WHERE r.split IS DISTINCT FROM 'test' GROUP BY i.user_id, r.timestamp::DATE), "
        "pairs AS MATERIALIZED (SELECT a.*, "
        f"b.x{signals.index('watch_time')} AS y, md5_number_lower(a.user_id) % {PARTS} AS part "
        "FROM days a JOIN days b ON a.user_id = b.user_id AND b.day = a.day + 1) "
        "SELECT count(*) AS n, (SELECT count(DISTINCT day) FROM pairs) AS n_days, "
        f"sum(y) AS y, sum(y * y) AS yy, {moments} FROM pairs GROUP BY part ORDER BY part"
    )


def _correlation(sums: NDArray[np.float64]) -> Correlation | None:
    """Returns the correlation from the sums n, x, xx, y, yy, xy of groups [g, 6]; None of what does not vary."""
    total = sums.sum(axis=0)
    value = float(_pearson(total))
    others = _pearson(total - sums)
    if len(sums) < 2 or not np.isfinite([value, *others]).all():
        return None
    error = np.sqrt((len(sums) - 1) / len(sums) * ((others - others.mean()) ** 2).sum())  # jackknife
    return Correlation(value=value, low=float(value - Z * error), high=float(value + Z * error))


def _pearson(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    n, x, xx, y, yy, xy = sums.T
    spread = (n * xx - x * x) * (n * yy - y * y)
    varies = spread > 1e-9 * np.abs(n * xx * n * yy)
    return np.where(varies, (n * xy - x * y) / np.sqrt(np.where(varies, spread, 1)), np.nan)
