"""The scripts of Tables 1 and 2, on a comparison whose figures are known."""

import sys

import numpy as np

from benchmarks import compared, table1, table2
from mtf_engine.algos import ALGOS
from mtf_engine.registry import BASELINE
from mtf_engine.runs.storage import open_dataset, open_policy
from mtf_engine.study.comparison import FLOORS, Cell, marked
from mtf_engine.study.paper_tables import table_1, table_2
from mtf_engine.workspace import Workspace
from pages.evaluate._factorial_tables import factorial_table
from tests.fixtures.comparison import a_comparison, add_comparison

FOUND = a_comparison()


def rows_of(text: str) -> dict[str, list[str]]:
    """Returns the cells of a markdown table by the first cell of each row."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells for cells in lines}


def test_table_1_is_printed_beside_the_published_numbers_in_the_order_found(tmp_path) -> None:
    first, order, *_ = parts = list(table1.sections(FOUND, Workspace(tmp_path)))
    rows = rows_of(first)
    assert rows["IntegratedRL-MTF without PTM"][3] == "0.7941" and rows["grid search"][3] == ""
    assert rows["ES"][4].startswith("0.65") and " to " in rows["ES"][4]
    assert order.startswith("Order found, by the mean: IntegratedRL-MTF, bayesian optimization")
    assert "The baseline: 0.6500" in order
    assert rows_of(parts[-1])["`grid_search`"][1:] == ["weighted_gauc", "140 evaluations, 5,000 users"]


def test_table_2_tells_the_factorial_the_ranking_personalisation_and_critics(tmp_path) -> None:
    sections = table2.sections(FOUND, Workspace(tmp_path))
    consumed, _, reward, effects, splits, ranking, lost, critics = sections
    assert rows_of(consumed)["DDPG"][3] == "+1.39%" and "IntegratedRL-MTF without PTM" not in consumed
    assert rows_of(reward)["`grid_search`"][-1] == "", "a search has no rounds of its own"
    assert "Of the variance among the cells: data" in effects and "| rounds | `iql` | 3 |" in effects
    assert rows_of(splits)["`evolution_strategy`"][1] == "3"
    assert rows_of(ranking)["session reward"][2].startswith("+1.00")
    assert "| `iql` | rounds | -" in lost
    assert list(rows_of(critics)) == ["critics", "---", "2", "4", "8", "24"]


def test_the_reach_of_a_policy_is_that_of_its_actions_on_the_test_log(small_workspace) -> None:
    (training,) = small_workspace.registry.runs(kind="train")
    dataset_id = small_workspace.dataset("test").id
    dataset = open_dataset(small_workspace, dataset_id)
    seen = dataset.evaluation_rows().observations
    policy, baseline = (open_policy(small_workspace, name, dataset.meta) for name in (training.id, BASELINE))
    far = np.abs(policy.act(seen) - baseline.act(seen))
    cell = Cell(method="integrated_rl", dataset="2", seed=0, policy=training.id, test_dataset=dataset_id)
    told = rows_of(compared.reach([cell], small_workspace))["`integrated_rl`"]
    assert told[2:] == [f"{far.mean(dtype=np.float64):.4f}", f"{(far >= 0.15).mean():.0%}"]


def test_a_section_says_by_which_command_and_how_long(tmp_path, monkeypatch) -> None:
    workspace = Workspace(tmp_path)
    run = add_comparison(workspace, FOUND)
    monkeypatch.setattr(sys, "argv", ["benchmarks/table1.py", "--seeds", "3", "--workspace", "x", "--write"])
    said = compared.introduced(workspace, run, FOUND)
    assert said.startswith("`python benchmarks/table1.py --seeds 3`. Synthetic users")
    assert "8 methods, 3 seeds, 20,000 sessions a dataset, each method as in its preset `laptop`" in said
    assert "the longest training on one dataset took 30 s" in said


def test_a_section_of_the_results_takes_the_place_of_its_like(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(compared, "RESULTS", tmp_path / "results.md")
    for section in ("## One\n\nfirst", "## Two\n\nkept", "## One\n\nsecond"):
        compared.put(section)
    assert compared.RESULTS.read_text() == "# Results\n\n## One\n\nsecond\n\n## Two\n\nkept\n"


def test_floors_are_methods_and_marked_in_every_table() -> None:
    assert set(FLOORS) < set(ALGOS)
    assert marked("iql") == "iql" and marked("best_single_head") == "best_single_head (floor)"
    cells = [
        Cell(method=method, dataset="1", seed=seed, gauc=0.5 + seed / 10)
        for seed in (0, 1)
        for method in ("iql", *FLOORS)
    ]
    names = {row.method: row.name for row in table_1(cells)}
    assert names["linear_one_step"] == "linear one step (floor)" and names["iql"] == "IQL"
    assert [row.name for row in table_2(cells)][-2:] == [
        "linear one step (floor)", "best single head (floor)",
    ]  # fmt: skip
    grid = compared.grid(cells, "weighted_gauc", compared.plain)
    assert "| `best_single_head` (floor) |" in grid and "| `iql` |" in grid
    kinds = factorial_table(cells, "weighted_gauc", False).set_index("method")["kind"]
    assert kinds.dropna().to_dict() == dict.fromkeys(FLOORS, "floor")
    assert "kind" not in factorial_table(cells[:1], "weighted_gauc", False)
