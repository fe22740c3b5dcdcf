"""Specs promise: what is nonsense is refused by name, and a plan resolves to boxes inside [-1, 1]."""

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pydantic import ValidationError

from mtf_engine.algos import ALGOS
from mtf_engine.spec import (
    MIN_WIDTH,
    BoundsPlan,
    Box,
    Defect,
    FusionDimension,
    FusionSpec,
    Refusal,
    RewardSpec,
)
from mtf_engine.work import kinds

OFFSETS = (
    st.tuples(st.floats(-2, 2), st.floats(-2, 2))
    .map(sorted)
    .filter(lambda edges: edges[0] == edges[1] or edges[1] - edges[0] >= MIN_WIDTH)
)


def defect(**changes) -> Defect:
    return Defect(
        **{"code": "wrong_type", "file": "a.csv", "message": "is x", "remedy": "write 1", **changes}
    )


def test_a_defect_reads_as_place_message_remedy():
    assert str(defect()) == "a.csv: is x; write 1"
    assert (
        str(defect(row=3, column="step", count=5))
        == "a.csv, row 3, column step: is x (and 4 more rows); write 1"
    )


@pytest.mark.parametrize(
    ("n", "ending"), [(1, ""), (2, " (1 more defect in the report)"), (3, " (2 more defects in the report)")]
)
def test_a_refusal_names_the_first_defect_and_counts_the_rest(n, ending):
    refusal = Refusal.of([defect(row=i + 1) for i in range(n)])
    assert str(refusal) == f"a.csv, row 1: is x; write 1{ending}"
    assert len(refusal.defects) == n


def test_a_refusal_is_one_line_whatever_a_stranger_called_things():
    refusal = Refusal.of([defect(column="a\nb\0\u202e" + "x" * 1_000, message="y " * 2_000)])
    said = str(refusal)
    assert said.startswith("a.csv, column a b<00><202e>xxx") and "xxx... y y" in said
    assert len(said) == 2_000 and said.endswith("...") and said.isprintable()


def test_the_default_fusion_has_a_pow_for_each_and_a_bias_for_some():
    spec = FusionSpec.default(("click", "hate"), negative=("hate",), bias=("click",))
    assert spec.names == ("pow_click", "pow_hate", "bias_click")
    assert [(d.low, d.high) for d in spec.dimensions] == [(0, 2), (-2, 0), (0, 0.1)]
    assert spec.n_actions == 3


@pytest.mark.parametrize(
    ("dimensions", "problem"),
    [
        ([("share", "pow", 0, 1)], "not listed: share"),
        ([("click", "pow", 0, 1), ("click", "pow", 0, 2)], "listed twice"),
        ([("click", "pow", 1, 1)], "empty"),
        ([("click", "bias", -0.1, 1)], "negative"),
        ([("click", "pow", 0, float("inf"))], "finite"),
        ([], "at least 1"),
    ],
)
def test_a_fusion_that_means_nothing_is_refused(dimensions, problem):
    with pytest.raises(ValidationError, match=problem):
        FusionSpec(
            predictions=("click",),
            dimensions=[
                FusionDimension(prediction=p, kind=k, low=lo, high=hi) for p, k, lo, hi in dimensions
            ],
        )


@pytest.mark.parametrize(
    ("weights", "problem"),
    [({"hate": -0.6, "skip": -0.4}, "-1"), ({"watch_time": -0.001}, "watch_time"), ({}, "at least 1")],
)
def test_weights_that_reach_minus_one_are_refused(weights, problem):
    with pytest.raises(ValidationError, match=problem):
        RewardSpec(weights=weights)


def test_weights_above_minus_one_are_kept():
    assert RewardSpec(weights={"watch_time": 0.01, "hate": -0.99}).valid_seconds == 10


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"lower": (0.1,), "upper": (0.0,)}, "lower <= upper"),
        ({"lower": (-3.0,), "upper": (0.0,)}, "-2"),
        ({"lower": (0.0,), "upper": (1e-9,)}, "equal bounds to fix it"),
        ({"lower": (0.0, 0.0), "upper": (1.0,)}, "2 dimensions, upper 1"),
        (
            {"lower": (0.0,), "upper": (1.0,), "segments": {"new": Box(lower=(0, 0), upper=(1, 1))}},
            "segment new",
        ),
    ],
)
def test_bounds_that_are_no_box_are_refused(fields, problem):
    with pytest.raises(ValidationError, match=problem):
        BoundsPlan(**fields)


@given(
    npst.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(2)), elements=st.floats(-1, 1, width=32)),
    st.tuples(OFFSETS, OFFSETS),
    st.tuples(OFFSETS, OFFSETS),
)
def test_a_truncated_box_is_the_segments_box_cut_at_the_walls(baseline, default, override):
    plan = BoundsPlan(
        lower=[b[0] for b in default],
        upper=[b[1] for b in default],
        segments={"new": Box(lower=[b[0] for b in override], upper=[b[1] for b in override])},
    )
    segments = np.array(["all", "new"], object)[np.arange(len(baseline)) % 2]
    lower, upper = plan.resolve(baseline, segments)
    assert (lower <= upper).all()
    for i, segment in enumerate(segments):
        for d in range(2):
            low, high = (override if segment == "new" else default)[d]
            wall = (-1 - baseline[i, d], 1 - baseline[i, d])
            assert lower[i, d] == pytest.approx(min(max(low, wall[0]), wall[1]), abs=1e-6)
            assert upper[i, d] == pytest.approx(min(max(high, wall[0]), wall[1]), abs=1e-6)


def test_a_clipping_plan_keeps_its_box():
    plan = BoundsPlan.symmetric(0.15, 2).model_copy(update={"edge": "clip"})
    lower, upper = plan.resolve(np.full((1, 2), 0.95, np.float32), np.array(["all"]))
    np.testing.assert_allclose([lower[0], upper[0]], [[-0.15, -0.15], [0.15, 0.15]])


def test_a_plan_survives_yaml():
    plan = BoundsPlan(lower=(-0.1, 0), upper=(0.2, 0), segments={"new": Box(lower=(0, 0), upper=(0.3, 0.3))})
    assert BoundsPlan.from_yaml(plan.to_yaml()) == plan


@pytest.mark.parametrize(("text", "problem"), [("lower: [", "YAML"), ("lower: [0]", "upper"), ("3", "valid")])
def test_a_plan_that_is_none_is_refused(text, problem):
    with pytest.raises(Refusal, match=problem):
        BoundsPlan.from_yaml(text)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ('[auth]\nclient_secret = "hush-hush"', "line 2, column 1"),
        ("a: [hush-hush: {", "line 1, column 17"),
        ("? {hush-hush: 1}\n: 2", "line 1, column 3"),
    ],
)
def test_what_is_no_yaml_is_told_by_its_place_and_not_quoted(text, at):
    with pytest.raises(Refusal, match=f"{at}$") as refusal:
        BoundsPlan.from_yaml(text)
    assert "hush" not in str(refusal.value)


def test_a_refused_plan_is_told_in_our_words_alone():
    with pytest.raises(Refusal) as refusal:
        BoundsPlan.from_yaml("lower: [0, 1]\nupper: [0]")
    told = str(refusal.value)
    assert told.startswith("the bounds plan is not valid: ")
    assert "Value error" not in told


@pytest.mark.parametrize(
    "config", [*filter(None, (kind.Config for kind in kinds().values())), *(a.Config for a in ALGOS.values())]
)
def test_a_field_has_one_limit_on_each_side(config):
    """Of two, pydantic takes the last: those of the type, whatever the field says."""
    for name, field in config.model_fields.items():
        for side in ((Ge, Gt), (Le, Lt)):
            assert sum(isinstance(limit, side) for limit in field.metadata) <= 1, name


def test_specs_are_frozen_and_take_no_unknown_field():
    plan = BoundsPlan.symmetric(0.15, 2)
    with pytest.raises(ValidationError):
        plan.edge = "clip"
    with pytest.raises(ValidationError, match="width"):
        BoundsPlan(lower=(0,), upper=(1,), width=2)
