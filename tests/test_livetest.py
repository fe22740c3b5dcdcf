"""A live test is read from a row a user: the split is checked, and each arm's effect holds as its interval says."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from mtf_engine.cli import app
from mtf_engine.evaluation.livetest import PLANNED, live_test, sample_ratio
from mtf_engine.evaluation.sequential import reach, tuned
from mtf_engine.logs.live_users import Arms, read_arms
from mtf_engine.spec import Refusal

DAYS = pd.date_range("2026-11-01", periods=7).strftime("%Y-%m-%d")


def users_of(n=3_000, gain=0.1, arms=("control", "treatment"), seed=0):
    """Returns a live test as a frame: watch time of a heavy tail, longer in the last arm, and a flag."""
    generator = np.random.default_rng(seed)
    arm = generator.integers(0, len(arms), n)
    return pd.DataFrame(
        {
            "user": [f"u{i}" for i in range(n)],
            "arm": np.array(arms)[arm],
            "date": generator.choice(DAYS, n),
            "watch": generator.gamma(1.5, 20, n) * np.where(arm == len(arms) - 1, 1 + gain, 1),
            "came back": generator.random(n) < 0.3,
        }
    )


@pytest.fixture(scope="module")
def frame():
    return users_of()


@pytest.fixture(scope="module")
def path(frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / "users.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def arms(path):
    return read_arms(path)


def moments(frame, metric):
    """Returns users, mean and variance of the treatment and of the control."""
    values = [frame.loc[frame["arm"] == arm, metric].astype(float) for arm in ("treatment", "control")]
    return [(len(v), v.mean(), v.var()) for v in values]


def test_arms_are_counted_and_measured_until_each_day(frame, arms):
    assert (arms.names, arms.metrics, arms.days) == (
        ("control", "treatment"),
        ("watch", "came back"),
        tuple(DAYS),
    )
    for at, day in enumerate(DAYS):
        until = frame[frame["date"] <= day]
        for i, metric in enumerate(arms.metrics):
            for row, (n, mean, variance) in zip((1, 0), moments(until, metric), strict=True):
                assert arms.users[row, at] == n
                assert arms.means[i, row, at] == pytest.approx(mean, rel=1e-6)
                assert arms.variances[i, row, at] == pytest.approx(variance, rel=1e-6)


def test_an_effect_is_the_delta_methods_and_its_boundary_is_wider(frame, arms):
    result = live_test(arms, "control")
    assert [(e.arm, e.metric) for e in result.effects] == [("treatment", "watch"), ("treatment", "came back")]
    for effect in result.effects:
        (n, mean, variance), (base_n, base, base_variance) = moments(frame, effect.metric)
        error = math.sqrt(variance / n / base**2 + mean**2 * base_variance / base_n / base**4)
        assert effect.relative == pytest.approx(mean / base - 1, rel=1e-5)
        assert (effect.ci_high - effect.ci_low) / 2 == pytest.approx(1.9608 * error, rel=1e-3)
        assert effect.p_value == pytest.approx(2 * stats.norm.sf(abs(effect.relative) / error), rel=0.05)
        wide = reach(3_000, tuned(PLANNED)) * error
        assert (effect.low, effect.high) == pytest.approx((effect.relative - wide, effect.relative + wide))


def test_looks_are_the_test_as_each_day_left_it(frame, arms, tmp_path):
    result = live_test(arms, "control", n_planned=3_000)
    assert [look.day for look in result.looks if look.metric == "watch"] == list(DAYS)
    last = [look for look in result.looks if look.day == DAYS[-1]]
    assert [(k.relative, k.low, k.high) for k in last] == [
        (e.relative, e.low, e.high) for e in result.effects
    ]
    until = frame[frame["date"] <= DAYS[2]]
    until.to_parquet(tmp_path / "until.parquet", index=False)
    earlier = live_test(read_arms(tmp_path / "until.parquet"), "control", n_planned=3_000)
    then = [look for look in result.looks if look.day == DAYS[2]]
    assert [k.relative for k in then] == pytest.approx([e.relative for e in earlier.effects])
    assert [k.low for k in then] == pytest.approx([e.low for e in earlier.effects])
    assert then[0].users == len(until)


def test_an_interval_holds_the_truth_and_leaves_out_none_without_a_difference():
    """Of tests without a difference one in twenty is told by the interval, and hardly one by the boundary."""
    found = []
    for seed in range(200):
        frame = users_of(400, 0.0, seed=seed)
        a, b = (frame.loc[frame["arm"] == arm, "watch"] for arm in ("control", "treatment"))
        found.append(_effect_of(a, b))
    outside = [e.ci_low > 0 or e.ci_high < 0 for e in found]
    assert 1 <= sum(outside) <= 22
    assert outside == [e.p_value < 0.05 for e in found]
    assert sum(e.low > 0 or e.high < 0 for e in found) <= 4


def _effect_of(base, ours):
    """Returns the effect of users in memory: their moments are all that a live test knows of them."""
    arms = (base, ours)
    users = np.array([[len(v)] for v in arms])
    means, variances = (np.array([[[f(v)] for v in arms]]) for f in (np.mean, lambda v: np.var(v, ddof=1)))
    (effect,) = live_test(Arms("f", ("base", "ours"), ("m",), (), users, means, variances), "base").effects
    return effect


def with_users(arms, *users):
    return replace(arms, users=np.array(users)[:, None])


def test_a_split_that_chance_explains_is_told_from_one_it_does_not(arms):
    fair = sample_ratio(with_users(arms, 50_210, 49_905))
    assert not fair.is_mismatch
    assert "control has 50,210 users and treatment 49,905, where equal shares were meant" in fair.sentence
    odd = sample_ratio(with_users(arms, 50_210, 48_800))
    assert odd.p_value == pytest.approx(stats.chisquare([50_210, 48_800]).pvalue)
    assert odd.is_mismatch and "p = 7e-06. Find the cause before you read any figure." in odd.sentence
    meant = sample_ratio(with_users(arms, 50_210, 99_900), "treatment=2, control=1")
    assert not meant.is_mismatch and "shares of 33.3% and 66.7%" in meant.sentence
    assert sample_ratio(with_users(arms, 10**6, 1)).p_value == 0


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        ("control=1", "does not say what share treatment was meant to have"),
        ("control=1,treatment=1,third=1", "names the arm third, of which users.csv has no user"),
        ("control=1,treatment=0", "is none; write each arm once with its share"),
        ("control=1,control=1", "is none; write each arm once with its share"),
        ("1:1", "is none; write each arm once with its share"),
    ],
)
def test_a_ratio_of_other_arms_is_refused(arms, ratio, said):
    with pytest.raises(Refusal, match=said):
        sample_ratio(arms, ratio)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("user,arm,m\na,x,1\nb,y,2\na,y,3", "row 3, column arm: puts a into a second arm"),
        ("user,arm,m\na,x,1\nb,y,2\nb,y,2", "row 3, column user: repeats the user b"),
        ("user,arm,m\na,x,1\nb,y,nan", "row 2, column m: is nan, not finite"),
        ("user,arm,m\na,x,inf\nb,y,1", "row 1, column m: is inf, not finite"),
        ("user,arm,m\na,x,1\nb,y,", "row 2, column m: is blank, not finite"),
        ("user,arm,m\na,x,DE\nb,y,1", "row 1, column m: is DE, not a number"),
        ("user,arm,date,m\na,x,soon,1\nb,y,2026-11-01,2", "row 1, column date: is soon, not a time"),
        ("user,arm,m\na,,1\nb,y,2", "row 1, column arm: is blank"),
        ("user,m\na,1", "column arm: is not in the file"),
        ("user,arm\na,x\nb,y", "has no metric"),
        ("user,arm,m\na,x,1\nb,x,2", "all users are in the arm x"),
        ("user,arm,m\na,x,1\nb,y,2", "the arm x has 1 user"),
        ("user,arm,m\n" + "\n".join(f"{i},{i},1" for i in range(21)), "has 21 arms, 20 at most"),
    ],
)
def test_a_file_that_is_no_test_is_refused_by_row_and_column(tmp_path, rows, said):
    (tmp_path / "f.csv").write_text(rows + "\n")
    with pytest.raises(Refusal) as refused:
        read_arms(tmp_path / "f.csv")
    assert said in str(refused.value)


def test_a_base_of_nothing_and_users_all_alike_have_no_spread():
    none = _effect_of(np.zeros(100), np.ones(100))
    assert none.relative is None and none.p_value is None and none.mean == 1
    alike = _effect_of(np.ones(100), np.full(100, 2.0))
    assert (alike.relative, alike.ci_low, alike.p_value, alike.low) == (1, 1, 0, 1)
    few = _effect_of(np.arange(1.0, 50.0), np.arange(1.0, 50.0))
    assert (few.relative, few.p_value, few.low) == (0, 1, None)


def called(*arguments, code=0):
    done = CliRunner().invoke(app, [*arguments])
    assert done.exit_code == code, (done.exception, done.output)
    return done


def test_the_command_tells_the_split_the_effects_and_the_looks(path, arms):
    said = json.loads(called("livetest", str(path), "--base", "control", "--json").stdout)
    result = live_test(arms, "control")
    assert said == {"sentence": result.sample_ratio.sentence, **json.loads(result.model_dump_json())}
    odd = called("livetest", str(path), "--base", "control", "--ratio", "control=1,treatment=3")
    assert "Find the cause before you read any figure" in odd.stdout and "came back" in odd.stdout
    refused = called("livetest", str(path), "--base", "nobody", code=1)
    assert refused.stderr == "users.csv has no arm nobody; its arms are control, treatment\n"
    called("livetest", str(path.with_name("gone.csv")), "--base", "control", code=1)
