"""What a comparison comes to, against cases worked by hand."""

from collections.abc import Iterable

import pytest
from scipy import stats

from mtf_engine.evaluation.abtest import Effect
from mtf_engine.study.comparison import Cell
from mtf_engine.study.factorial import factorial, gain_split, over_seeds, rank_agreement
from mtf_engine.study.paper_tables import order, order_said, table_1, table_2


def effect(metric: str, mean: float, base: float = 100.0) -> Effect:
    return Effect(
        policy="p", metric=metric, mean=mean, base_mean=base, relative=mean / base - 1, ci_low=None, ci_high=None,
        p_value=None, by_seed=(), users_live=None,
    )  # fmt: skip


def cell(method: str, dataset: str, gauc: float | None, seed: int = 0, **means: float) -> Cell:
    effects = tuple(effect(metric, mean) for metric, mean in means.items())
    return Cell(method=method, dataset=dataset, seed=seed, gauc=gauc, effects=effects)


def worked(seeds: Iterable[int] = (0, 1)) -> list[Cell]:
    """Two methods on two datasets: mean .5, b +.1 and a -.1, 2 +.04 and 1 -.04, both .01; seed 1 has .2 more."""
    cells = []
    for seed in seeds:
        for method, of_method in (("a", -0.1), ("b", 0.1)):
            for dataset, of_data in (("1", -0.04), ("2", 0.04)):
                both = 0.01 if (method == "a") == (dataset == "1") else -0.01
                cells.append(cell(method, dataset, 0.5 + 0.2 * seed + of_method + of_data + both, seed))
    return cells


def test_a_two_by_two_factorial_is_taken_apart_as_by_hand() -> None:
    found = factorial(worked(), "weighted_gauc")
    assert found.grand_mean is not None and found.grand_mean.value == pytest.approx(0.6)
    by_what = {(e.of, e.method, e.dataset): e.found for e in found.effects}
    assert by_what["method", "b", None].value == pytest.approx(0.1)
    assert by_what["data", None, "1"].value == pytest.approx(-0.04)
    assert by_what["both", "b", "2"].value == pytest.approx(0.01)
    # squares of the effects, four cells each: .04, .0064 and .0004
    assert found.shares == pytest.approx(
        {"method": 0.04 / 0.0468, "data": 0.0064 / 0.0468, "both": 0.0004 / 0.0468}
    )


def test_effects_do_not_see_what_a_whole_seed_is_better_by() -> None:
    by_seed = factorial(worked(), "weighted_gauc").effects[0].found.by_seed
    assert by_seed[0] == pytest.approx(by_seed[1])


def test_a_method_without_a_cell_is_left_out_and_named() -> None:
    cells = [*worked(), cell("c", "1", 0.9), cell("c", "2", None)]
    found = factorial(cells, "weighted_gauc")
    assert (found.methods, found.left_out) == (("a", "b"), ("c",))
    assert found.effects == factorial(worked(), "weighted_gauc").effects


def test_a_seed_that_is_not_whole_yet_waits_and_other_numbers_of_critics_stay_out() -> None:
    begun = [cell("a", "1", 0.9, 2), cell("b", "3", 0.9, 0).model_copy(update={"n_critics": 4})]
    found = factorial([*worked(), *begun], "weighted_gauc")
    assert (found.seeds, found.datasets, found.left_out) == ((0, 1), ("1", "2"), ())
    assert found.effects == factorial(worked(), "weighted_gauc").effects


def test_an_interval_over_seeds_is_students_and_one_seed_has_none() -> None:
    found = over_seeds({0: 1.0, 1: 2.0, 2: 3.0})
    reach = stats.t.ppf(0.975, 2) / 3**0.5  # standard deviation 1
    assert found is not None and (found.ci_low, found.ci_high) == pytest.approx((2 - reach, 2 + reach))
    alone = over_seeds({4: 1.5})
    assert alone is not None and (alone.value, alone.ci_low, alone.p_value) == (1.5, None, None)
    assert over_seeds({}) is None


def test_own_rounds_are_told_beside_each_dataset() -> None:
    cells = [*worked((0,)), cell("b", "rounds", 0.8)]
    (on_1, on_2) = [e for e in factorial(cells, "weighted_gauc").effects if e.of == "rounds"]
    assert (on_1.dataset, on_2.dataset) == ("1", "2")
    assert on_1.found.value == pytest.approx(0.8 - 0.55) and on_2.found.value == pytest.approx(0.8 - 0.65)


def test_a_gain_is_split_into_the_datas_part_and_the_methods() -> None:
    split = gain_split(worked(), "weighted_gauc", ours=("b", "2"), base=("a", "1"))
    assert split is not None
    assert split.total.value == pytest.approx(0.28)
    # a gains .06 by the data, b is .18 above a on the old data, .04 more with both
    parts = (split.data.value, split.method.value, split.both.value)
    assert parts == pytest.approx((0.06, 0.18, 0.04))
    assert gain_split(worked(), "weighted_gauc", ours=("b", "3"), base=("a", "1")) is None


def test_rank_agreement_is_kendalls_and_spearmans_of_each_seed() -> None:
    order = {"a": (0.1, 101), "b": (0.2, 103), "c": (0.3, 102), "d": (0.4, 104)}
    cells = [cell(m, "1", gauc, session_reward=reward) for m, (gauc, reward) in order.items()]
    found = rank_agreement(cells, "session_reward")
    assert found is not None and found.n_policies == 4
    assert found.kendall.value == pytest.approx(4 / 6)  # 5 pairs agree, 1 does not
    assert found.spearman.value == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank_agreement(cells[:2], "session_reward") is None, "two policies cannot be ranked wrong by much"


def test_table_1_stands_beside_what_was_published_and_absent_cells_stay_blank() -> None:
    cells = [
        cell("evolution_strategy", "1", 0.6),
        cell("evolution_strategy", "1", 0.7, seed=1),
        cell("integrated_rl", "2", 0.8),
        cell("grid_search", "1", 0.5),
    ]
    rows = {row.name: row for row in table_1(cells)}
    assert list(rows) == [
        "ES", "DDPG", "CQL+SAC", "BatchRL-MTF", "IQL", "IntegratedRL-MTF without PTM", "IntegratedRL-MTF",
        "grid search",
    ]  # fmt: skip
    strategy = rows["ES"].found["weighted_gauc"]
    assert strategy is not None and strategy.value == pytest.approx(0.65)
    assert rows["ES"].published == {"weighted_gauc": 0.7836}
    assert rows["DDPG"].found == {"weighted_gauc": None}
    assert order(list(rows.values()), "weighted_gauc") == [
        "IntegratedRL-MTF without PTM", "ES", "grid search",
    ]  # fmt: skip
    assert "does not win" not in order_said(list(rows.values()), "weighted_gauc")
    beaten = table_1([*cells, cell("iql", "1", 0.9)])
    assert order_said(beaten[:1], "weighted_gauc").startswith("Too few")
    assert order_said(beaten, "weighted_gauc").endswith("grid search. IntegratedRL-MTF does not win here.")
    assert rows["grid search"].published == {"weighted_gauc": None}


def test_table_2_is_relative_to_the_evolution_strategy_user_by_user_of_a_seed() -> None:
    cells = [
        cell("evolution_strategy", "1", 0.6, valid_consumption=50, duration_time=200),
        cell("integrated_rl", "3", 0.7, valid_consumption=55, duration_time=190),
    ]
    rows = {row.name: row for row in table_2(cells)}
    assert "IntegratedRL-MTF without PTM" not in rows
    ours = rows["IntegratedRL-MTF"]
    assert ours.dataset == "3", "its own rounds were not played"
    values = {metric: found and found.value for metric, found in ours.found.items()}
    assert values == pytest.approx({"valid_consumption": 0.1, "duration_time": -0.05})
    assert ours.published == {"valid_consumption": 0.0464, "duration_time": 0.0174}
    assert rows["IQL"].found == {"valid_consumption": None, "duration_time": None}
