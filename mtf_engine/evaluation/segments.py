"""The user segments of a log, of which an evaluation tells the largest apart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    def of(cls, rows: EvaluationRows, by_size: Sequence[str]) -> "Segments":
        """Returns the segments of `rows`, which `by_size` names; those beyond the 12 largest are put together."""
        codes, names = pd.factorize(rows.segment)
        kept, last = list(by_size), len(by_size) - 1
        if len(kept) > MAX_SEGMENTS:
            kept, last = [*kept[: MAX_SEGMENTS - 1], OTHERS], MAX_SEGMENTS - 1
        place_of = {name: min(place, last) for place, name in enumerate(by_size)}
        of_request = np.array([place_of[str(name)] for name in names], np.int64)[codes]
        of_user = np.zeros(int(rows.user.max(initial=-1)) + 1, np.int64)
        of_user[rows.user[::-1]] = of_request[::-1]
        return cls(tuple(kept), of_request, of_user)

    def among(self, requests: np.ndarray) -> "Segments":
        """Returns the segments with those of some requests, by their numbers, alone."""
        return replace(self, of_request=self.of_request[requests])

    @property
    def told_apart(self) -> tuple[str, ...]:
        """The names, or none where all requests are of one segment."""
        return self.names if len(self.names) > 1 else ()
