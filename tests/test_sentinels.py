"""Sentinels speak where something is planted, and are silent where all is well."""

import re

import numpy as np
import pytest

from mtf_engine.learning.sentinels import sentinels

STEPS = np.arange(50, 1_050, 50)


def healthy(**changes) -> list[dict[str, float]]:
    """Returns the rows of a training that went well, with some metrics (arrays or numbers) replaced."""
    way = STEPS / STEPS[-1]
    columns = {
        "step": STEPS,
        "critic_loss": 1 + 0.5 * way,
        "q_mean": 2 + way,
        "largest_return": 4.0,
        "q_std_inside": 0.05 + 0.05 * way,
        "q_std_outside": 0.1 + 0.2 * way,
        "share_outside/pow_click": 0.0,
        "share_at_wall/pow_click": 0.1,
        "distance_from_data": 1.0 + 0.5 * way,
        "cql_gap": -0.1 + 0.2 * way,
        "cql_alpha": 1.0,
        "candidate_spread": 0.1,
        "share_saturated": 0.1,
        "share_capped": 0.02,
        "effective_sample_size": 0.6,
        "validation_gauc": 0.6 + 0.05 * way,
        "steps_per_second": 60.0,
    }
    columns |= changes
    arrays = {name: np.broadcast_to(values, len(STEPS)) for name, values in columns.items()}
    rows = [{name: float(values[i]) for name, values in arrays.items()} for i in range(len(STEPS))]
    return [{"step": 0, "validation_gauc": 0.6}, *rows]


def test_a_training_that_goes_well_is_not_spoken_of():
    assert sentinels(healthy()) == []


def test_nothing_logged_says_nothing():
    assert sentinels([]) == []
    assert sentinels([{"step": 10, "fitness": 0.5}, {"step": 20, "fitness": 0.4}]) == []


RISE = np.linspace(0, 1, len(STEPS))
PLANTED = {
    "critics_diverge": ({"q_mean": 12.0}, "Q is 3.0 times the largest possible return: the critics diverge"),
    "disagreement_explodes": (
        {"q_std_inside": 0.1 * np.exp(4 * RISE), "q_std_outside": np.exp(4 * RISE)},
        r"disagree 1\d\.\d times as much as in the first half of the steps, by 4\.\d standard deviations",
    ),
    "loss_grows": ({"critic_loss": 0.2 + RISE}, r"has grown 4\.\d times, from 0\.\d+ to 1\.\d+"),
    "bounds_unseen": ({"q_std_outside": 0.05 + 0.05 * RISE}, "as little outside the bounds as inside"),
    "actor_outside": (
        {"share_outside/pow_click": 0.4},
        r"leaves the bounds in pow_click \(40% of requests\); raise eta or lower perturbation where",
    ),
    "actor_at_the_wall": ({"share_at_wall/pow_click": 0.83}, r"at the wall in pow_click \(83% of requests\)"),
    "actor_far_from_data": (
        {"distance_from_data": 4.26},
        r"is 4\.3 standard deviations of the logged actions",
    ),
    "gap_too_wide": ({"cql_gap": 2.5}, r"is 2\.5 standard deviations of the return above"),
    "alpha_out_of_range": ({"cql_alpha": 10 ** -(6 * RISE)}, "alpha has fallen to .*e-0[56],"),
    "candidates_alike": ({"candidate_spread": 0.004}, r"spread by 0\.004 half widths"),
    "perturbation_at_limit": (
        {"share_saturated": 0.75},
        "75% of the perturbations are at their limit: .*; lower actor_learning_rate.$",
    ),
    "weights_capped": ({"share_capped": 0.25}, "25% of the weights are cut at their cap"),
    "few_weights_count": ({"effective_sample_size": 0.03}, r"worth 3\.0% of a batch"),
    "weights_alike": ({"effective_sample_size": 0.99}, r"worth 99\.0% of a batch, nearly alike"),
    "search_still_rises": (
        {"fitness_best": 0.6 + 0.1 * RISE},
        r"The last 20% of the steps brought 21% of the search's gain",
    ),
    "search_has_settled": ({"sigma": 0.2 * 0.7 ** np.arange(len(STEPS))}, r"fallen to 0\.1% of the first"),
    "no_gain": (
        {"validation_gauc": 0.59},
        r"weighted GAUC 0\.5900 at best, 0\.6000 at the start",
    ),
    "past_its_best": (
        {"validation_gauc": 0.65 - 0.05 * RISE},
        r"fallen from 0\.6500 at step 50 to 0\.6000: use the best step's policy",
    ),
    "slowed_down": ({"steps_per_second": 60 - 45 * RISE}, r"A step takes 3\.\d times as long as at first"),
}


@pytest.mark.parametrize("key", PLANTED)
def test_what_is_planted_is_told_and_nothing_else(key):
    changes, sentence = PLANTED[key]
    (told,) = sentinels(healthy(**changes))
    assert told.key == key
    assert re.search(sentence, told.sentence), told.sentence


def test_a_threshold_itself_is_still_well():
    at_it = {"q_mean": 6.0, "share_at_wall/pow_click": 0.5, "share_outside/pow_click": 0.25}
    assert sentinels(healthy(**at_it)) == []


def test_the_gravest_comes_first_and_many_dimensions_are_counted():
    walls = {f"share_at_wall/pow_{i}": 0.6 + i / 100 for i in range(5)}
    told = sentinels(healthy(q_mean=-12.0, **walls))
    assert [one.key for one in told] == ["critics_diverge", "actor_at_the_wall"]
    assert (
        "pow_4 (64% of requests), pow_3 (63% of requests), pow_2 (62% of requests), 2 more"
        in told[1].sentence
    )


def test_a_trend_needs_rows():
    rows = healthy(critic_loss=0.2 + RISE, q_std_outside=0.01)
    assert {one.key for one in sentinels(rows)} == {"loss_grows", "bounds_unseen"}
    assert sentinels(rows[:8]) == []


def test_a_metric_that_is_zero_throughout_is_no_error():
    zeros = {"q_mean": 0.0, "largest_return": 0.0, "q_std_inside": 0.0, "q_std_outside": 0.0}
    assert sentinels(healthy(**zeros)) == []


def test_a_search_may_slow_down():
    slower = np.geomspace(60, 6, len(STEPS))
    assert [one.key for one in sentinels(healthy(steps_per_second=slower))] == ["slowed_down"]
    assert (
        sentinels(healthy(steps_per_second=slower, fitness_best=1 - np.geomspace(1, 0.01, len(STEPS)))) == []
    )
