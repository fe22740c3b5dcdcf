"""What the test users of a log can tell, before there is any policy: differences that would show in weighted GAUC."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mtf_engine.evaluation.bootstrap import poisson_bootstrap, resolvable_gap, user_sums
from mtf_engine.evaluation.weighted_gauc import WeightedGAUC, weighted_gauc
from mtf_engine.fusion import log_final_score
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.logs.splits import TEST
from mtf_engine.spec import Spec

MOST_USERS = 2_000
"""Test users that are looked at; what more of them would show follows from these."""
HALF_WIDTH, CORNERS, DRAWS = 0.15, 8, 200
"""Of the box whose corners stand for policies in bounds, how many of those, and bootstrap draws."""
TELLING = 0.01
"""A larger gap than policies in bounds are usually apart."""
ROUNDING = 1e-9
"""A gap below this is one of 0, of a policy that ranks as the default does."""


class Resolvable(Spec):
    """The smallest true differences from the default fusion that test users show with 80 % power at 5 %."""

    test_users: int
    with_both_classes: int = Field(
        description="test users who tell anything: some impressions valid, some not"
    )
    in_bounds: float | None = Field(description="of a policy within 0.15 of the default, the usual one")
    single_prediction: float | None = Field(
        description="of a single prediction, the one that is hardest to tell"
    )
    ranks_alike: bool = Field(
        default=False,
        description="whatever the fusion weights, the default's ranking stays, so nothing can be told",
    )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences where too little can be told."""
        if self.ranks_alike:
            return (
                "all fusion weights rank the impressions of the test users alike, as they must with one prediction, so "
                "no policy can be told from another by weighted GAUC; bring another prediction for every impression",
            )
        who = f"test users with both valid and other impressions: {self.with_both_classes:,} of {self.test_users:,}"
        if self.in_bounds is None:
            return (f"{who}; too few to tell policies apart: bring more, or hold out more (--hold-out)",)
        if self.in_bounds <= TELLING:
            return ()
        return (
            f"{who}; a policy within {HALF_WIDTH} of the default fusion must differ from it by {self.in_bounds:.3f} of "
            f"weighted GAUC to be told from it (80 % power at 5 %); few do, so bring more users or hold out more",
        )


def resolvable(dataset: Dataset, seed: int = 0, users: int | None = None) -> Resolvable | None:
    """Returns what the test users of a log can tell; None where it has none, or where no weighted GAUC is defined.

    With `users`, what so many users like them would tell: gaps shrink with the root of their number.
    """
    if TEST not in dataset.splits or not dataset.n_impressions:
        return None
    n_users = dataset.query("SELECT count(DISTINCT user_id) AS n FROM requests WHERE split = ?", [TEST])["n"][
        0
    ]
    n_users = users or n_users
    rows = dataset.evaluation_rows(TEST, MOST_USERS)
    if (rows.reward <= -1).any():
        return None
    generator = np.random.default_rng(seed)
    corners = generator.choice([-HALF_WIDTH, HALF_WIDTH], (CORNERS, rows.fusion.n_actions))
    default, *moved = (_gauc(rows, action) for action in [np.zeros(rows.fusion.n_actions), *corners])
    alone = [_of_scores(rows, scores) for scores in rows.predictions.T.astype(np.float64)]
    gaps = _gaps(rows, default, [*moved, *alone], generator)
    in_bounds, single = ([gap for gap in of if gap > ROUNDING] for of in (gaps[:CORNERS], gaps[CORNERS:]))
    looked_at = len(np.unique(rows.user))
    shrunk = np.sqrt(looked_at / n_users)
    return Resolvable(
        test_users=int(n_users),
        with_both_classes=round(default.users_used * n_users / looked_at),
        in_bounds=float(np.median(in_bounds) * shrunk) if in_bounds else None,
        single_prediction=float(max(single) * shrunk) if single else None,
        ranks_alike=not in_bounds and not single and (len(alone) < 2 or bool(gaps)),
    )


def _gauc(rows: EvaluationRows, action: NDArray) -> WeightedGAUC:
    return _of_scores(rows, log_final_score(rows.fusion, action, rows.predictions.astype(np.float64)))


def _of_scores(rows: EvaluationRows, scores: NDArray) -> WeightedGAUC:
    return weighted_gauc(scores, rows.label, rows.reward + 1, rows.impression_user)


def _gaps(
    rows: EvaluationRows, default: WeightedGAUC, others: list[WeightedGAUC], generator: np.random.Generator
) -> list[float]:
    """Returns the gap of each of `others` to the default; none where fewer than two users tell."""
    n_users = int(rows.user.max()) + 1
    sums = [user_sums(one, np.arange(n_users), n_users) for one in (default, *others)]
    numerators, denominators = (np.stack(of) for of in zip(*sums, strict=True))
    draws = poisson_bootstrap(numerators, denominators, DRAWS, generator)
    gaps = [resolvable_gap(draws[:, i] - draws[:, 0]) for i in range(1, len(sums))]
    return [gap for gap in gaps if gap is not None]
