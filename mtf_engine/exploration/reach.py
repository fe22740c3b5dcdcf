"""Progressive reach: several small boxes, each around the last one's policy, against one wide box as far as they go.

Both reach `rounds * half_width` from the first baseline in every dimension. The wide box covers everything on the way;
the small ones cover the way that the policies took.
"""

import math

from pydantic import Field

from mtf_engine.spec import MIN_WIDTH, Refusal, Spec

FAR = 0.4
MOST_DIMENSIONS, MOST_ROUNDS = 1_000, 1_000


class Way(Spec):
    """One way to get as far."""

    name: str
    rounds: int
    half_width: float
    log10_covered: float = Field(
        description="of the share of the wide box that it covers, if no two boxes overlap"
    )
    log10_samples: float = Field(
        description="for k in every cell of all dimensions crossed, cells of one size"
    )
    pair_samples: float = Field(description="the same for the grids of two dimensions")
    relative_loss: float = Field(
        description="of a request, to second order about its own baseline, in times a small box's"
    )
    relative_sessions: float = Field(
        description="for slopes told as well, in times those of one small box: variance is half_width^2 / 3"
    )
    beyond: float = Field(description="chance that some weight of a request moves farther than `far` at once")


class Reach(Spec):
    """The small boxes and the wide one side by side."""

    far: float
    dims: int
    k: int
    cells: int
    ways: tuple[Way, Way]

    @property
    def sentence(self) -> str:
        small, wide = self.ways
        samples, loss = wide.log10_samples - small.log10_samples, small.relative_loss / wide.relative_loss
        sessions = small.relative_sessions / wide.relative_sessions
        return (
            f"{small.rounds} boxes of {small.half_width:g} reach as far as one of {wide.half_width:g}, and cover "
            f"10^{small.log10_covered:.1f} of it. For the same density the wide one needs 10^{samples:.1f} times the "
            f"samples. To tell slopes as well, the small ones together take {sessions:g} times its sessions, each of "
            f"which loses {loss:.2g} times as much."
        )


def progressive_reach(
    rounds: int = 5,
    half_width: float = 0.15,
    dims: int = 10,
    *,
    k: int = 10,
    cells: int = 5,
    far: float = FAR,
) -> Reach:
    """Returns `rounds` small boxes beside one wide box of the same reach, in `dims` dimensions.

    A cell is 1 / `cells` of a small box's side in each dimension, and holds `k` samples on average.
    """
    if not (1 <= rounds <= MOST_ROUNDS and 1 <= dims <= MOST_DIMENSIONS and k >= 1 and cells >= 1):
        raise Refusal(
            f"reach: give 1 to {MOST_ROUNDS} rounds, 1 to {MOST_DIMENSIONS} dimensions, k and cells from 1 on"
        )
    if not MIN_WIDTH <= half_width <= 1 / rounds:
        raise Refusal(
            f"reach: {rounds} boxes of {half_width:g} end outside [-1, 1]; give {1 / rounds:.4g} at most"
        )
    small, wide = (rounds, half_width), (1, rounds * half_width)

    def way(name: str, boxes: int, half: float) -> Way:
        size, cells_a_side = half / half_width, round(cells * half / half_width)
        within = min(1.0, far / half)  # chance that one weight moves no farther
        return Way(
            name=name,
            rounds=boxes,
            half_width=half,
            log10_covered=min(0.0, math.log10(boxes) + dims * math.log10(half / wide[1])),
            log10_samples=math.log10(boxes * k) + dims * math.log10(cells_a_side),
            pair_samples=float(boxes * k * cells_a_side ** min(2, dims)),
            relative_loss=size**2,
            relative_sessions=boxes / size**2,
            beyond=0.0 - math.expm1(dims * math.log(within)),
        )

    ways = way("small boxes", *small), way("one wide box", *wide)
    return Reach(far=far, dims=dims, k=k, cells=cells, ways=ways)
