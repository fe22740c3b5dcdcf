"""The user segments of a log, of which an evaluation tells the largest apart."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mtf_engine.logs.schema import EvaluationRows

MAX_SEGMENTS = 12
OTHERS = "other segments"


@dataclass(frozen=True)
class Segments:
    """Names of the segments, and which one each request and each user is of, as an index into them.

    A user is of the segment of its first request, so that users are not torn apart when they are resampled.
    """

    names: tuple[str, ...]
    of_request: np.ndarray  # [r]
    of_user: np.ndarray  # [n_users], by user code

    @classmethod
    def of(cls, rows: EvaluationRows) -> "Segments":
        """Returns the segments of `rows` by size; those beyond the 12 largest are put together."""
        codes, names = pd.factorize(rows.segment)
        order = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")
        place = np.empty(len(names), np.int64)
        place[order] = np.arange(len(names))
        kept = [str(name) for name in np.asarray(names)[order]]
        if len(kept) > MAX_SEGMENTS:
            kept = [*kept[: MAX_SEGMENTS - 1], OTHERS]
            place = np.minimum(place, MAX_SEGMENTS - 1)
        of_request = place[codes]
        of_user = np.zeros(int(rows.user.max(initial=-1)) + 1, np.int64)
        of_user[rows.user[::-1]] = of_request[::-1]
        return cls(tuple(kept), of_request, of_user)

    @property
    def told_apart(self) -> tuple[str, ...]:
        """The names, or none where all requests are of one segment."""
        return self.names if len(self.names) > 1 else ()
