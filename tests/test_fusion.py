"""The final score promises the order of the paper's product, for actions and candidates of any number."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.fusion import PREDICTION_FLOOR, log_final_score
from mtf_engine.policies.monotony import negative_pows, sentences
from mtf_engine.spec import FusionDimension, FusionSpec

SPEC = FusionSpec.default(("click", "like", "hate"), negative=("hate",), bias=("like",))
ACTION = st.lists(st.floats(-1, 1), min_size=4, max_size=4)
PREDICTIONS = st.lists(st.lists(st.floats(1e-5, 1), min_size=3, max_size=3), min_size=1, max_size=5)


def product(spec: FusionSpec, action, predictions) -> float:
    """Returns the paper's formula 1 for one item, `prod_i (prediction_i + bias_i) ** pow_i`."""
    pows, biases = dict.fromkeys(spec.predictions, 0.0), dict.fromkeys(spec.predictions, 0.0)
    for dimension, a in zip(spec.dimensions, action, strict=True):
        value = dimension.low + (a + 1) / 2 * (dimension.high - dimension.low)
        (pows if dimension.kind == "pow" else biases)[dimension.prediction] = value
    factors = [
        (max(p, PREDICTION_FLOOR) + biases[name]) ** pows[name]
        for name, p in zip(spec.predictions, predictions, strict=True)
    ]
    return float(np.prod(factors))


@given(ACTION, PREDICTIONS)
def test_it_is_the_logarithm_of_the_papers_product(action, predictions):
    scores = log_final_score(SPEC, np.array([action]), np.array([predictions]))
    expected = [np.log(product(SPEC, action, item)) for item in predictions]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5, atol=1e-5)


@given(ACTION, PREDICTIONS)
def test_one_candidate_a_request_may_come_without_its_axis(action, predictions):
    items = np.array(predictions)
    actions = np.tile(action, (len(items), 1))
    np.testing.assert_allclose(
        log_final_score(SPEC, actions, items),
        log_final_score(SPEC, np.array([action]), items[None])[0],
        rtol=1e-12,
    )


@given(st.floats(0.05, 20), st.lists(st.floats(0.01, 1), min_size=3, max_size=3), PREDICTIONS)
def test_the_ranking_does_not_change_when_all_pow_are_scaled(scale, pows, predictions):
    def scores(factor: float):
        dimensions = [
            FusionDimension(prediction=p, kind="pow", low=0, high=2 * factor * w)
            for p, w in zip(SPEC.predictions, pows, strict=True)
        ]
        spec = FusionSpec(predictions=SPEC.predictions, dimensions=dimensions)
        return log_final_score(spec, np.zeros((1, 3)), np.array([predictions]))[0]

    np.testing.assert_allclose(scores(scale), scale * scores(1), rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_prediction_of_nothing_has_a_finite_score(value):
    scores = log_final_score(SPEC, np.full((1, 4), -1.0), np.full((1, 2, 3), value))
    assert np.isfinite(scores).all()


def test_torch_gives_the_same_scores_with_gradients():
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (5, 4)).astype(np.float32)
    predictions = generator.uniform(0, 1, (5, 7, 3)).astype(np.float32)
    tensor = torch.from_numpy(actions).requires_grad_()
    scores = log_final_score(SPEC, tensor, torch.from_numpy(predictions), xp=torch)
    np.testing.assert_allclose(
        scores.detach(), log_final_score(SPEC, actions, predictions), rtol=1e-4, atol=1e-5
    )
    scores.sum().backward()
    assert tensor.grad is not None
    assert (tensor.grad != 0).all()


def test_a_pow_that_ranks_against_a_good_thing_is_named_with_the_requests_it_does_so_on():
    fusion = FusionSpec(
        predictions=("click", "like", "skip", "watch"),
        dimensions=(
            FusionDimension(prediction="click", kind="pow", low=-1, high=1),  # the pow is the action
            FusionDimension(prediction="like", kind="pow", low=-2, high=0),
            FusionDimension.power("skip", negative=True),
            FusionDimension(prediction="watch", kind="pow", low=-1, high=3),
            FusionDimension.bias("click"),
        ),
    )
    actions = np.float32([[-0.5, 0, 0, 0, 0], [0.2, 0, 0, 0, 0], [-0.1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    click, watch = negative_pows(fusion, actions)
    assert (click.prediction, click.share, click.lowest) == ("click", 0.5, -0.5)
    assert (watch.prediction, watch.share, watch.low) == ("watch", 0, -1)
    is_so, may_be = sentences([click, watch])
    assert "pow of click, a positive behaviour, is negative on 50.0% of the requests, -0.5 at" in is_so
    assert may_be.endswith("may be negative, and are on none of the requests: watch")
    told = negative_pows(fusion, actions, {"like": 0.5, "skip": -0.2, "watch": -0.1, "click": 0.0})
    assert [one.prediction for one in told] == ["click", "like"], "what the reward says goes before the range"
    assert told[1].share == 1.0 and not negative_pows(FusionSpec.default(("click",)), actions[:, :1])
