"""A comparison of methods: what was found in each cell of method, dataset and seed, and what it comes to.

Seeds are the outer level: a seed has its own datasets and trainings, the same for all methods. So every figure is
taken within a seed first, and its 95 % interval is Student's t over seeds. In the session environment the users of
a seed are new ones, which puts what users differ by into that interval too; a replayed log has the same users for all
seeds, and `gauc_difference` has the interval over them. One seed alone has no interval over seeds.
"""

from pydantic import Field

from mtf_engine.evaluation.abtest import Effect, Flattened
from mtf_engine.spec import Spec

ROUNDS = "rounds"
"""The dataset of a method that collected its own five rounds."""
FLOORS = ("linear_one_step", "best_single_head")
"""Methods without a network that every other has to beat; tables mark them."""
BY_ITEM = ":item"
"""Ends the name of a method that gives every item weights of its own (action_level=item)."""
SCORE = "weighted_gauc"
LEVEL = 0.95


def algo_of(method: str) -> str:
    """Returns the name in ALGOS of a compared method."""
    return method.removesuffix(BY_ITEM)


def marked(method: str, name: str | None = None) -> str:
    """Returns the name of a method as a table says it (its own), marked where it is a floor."""
    return f"{name or method} (floor)" if method in FLOORS else name or method


class Difference(Spec):
    """A difference with its 95 % interval over users."""

    value: float | None
    ci_low: float | None
    ci_high: float | None


class Cell(Spec):
    """One method, trained on one dataset with one seed; its figures are None until they are known.

    `n_critics` is None where the method's own number is used. `gauc_difference` is against the baseline on the
    test log; `floors` has the weighted GAUC on it of the best single head and of regression weights, both
    chosen on the training rows of what the method learned from (replayed: of the log that is replayed). `effects`
    are of an A/B test against the baseline. `steps` are gradient steps, generations or trials. A search method says
    its `fitness`, and what its `search` consumed: evaluations, users or sessions.
    """

    method: str
    dataset: str
    seed: int
    n_critics: int | None = None
    policy: str | None = None
    test_dataset: str | None = None
    gauc: float | None = None
    baseline_gauc: float | None = None
    gauc_difference: Difference | None = None
    floors: dict[str, float | None] = Field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    personalisation: tuple[Flattened, ...] = ()
    steps: int = 0
    seconds: float | None = None
    fitness: str | None = None
    search: dict[str, int] | None = None

    def value(self, metric: str) -> float | None:
        """Returns weighted GAUC, or the relative difference to the baseline of a metric of the A/B test."""
        if metric == SCORE:
            return self.gauc
        return next((effect.relative for effect in self.effects if effect.metric == metric), None)


class Comparison(Spec):
    """The cells that are known, and how long the others will take; `reuse` says of which code they may be."""

    env: str
    synthetic: bool
    preset: str
    reuse: str = "any"
    cells: tuple[Cell, ...] = ()
    seconds_left: float = Field(default=0.0, ge=0)

    @property
    def reuse_said(self) -> str:
        """Returns in a sentence whether results of other code may be among the cells."""
        return "Results of other versions of the code were taken where there were any. " * (
            self.reuse == "any"
        )

    @property
    def seeds_said(self) -> str:
        """Returns in a sentence what seeds differ by, and so what intervals over them hold."""
        if self.synthetic:
            return "A seed has data, trainings and users of its own, the same for all methods; intervals are over them."
        return (
            "A seed has data and trainings of its own, the same for all methods; intervals are over seeds. All seeds "
            "replay the same users and score on the same ones, so what users differ by is not in them."
        )
