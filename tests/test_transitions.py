"""Transitions promise: the bits of the log, memory for what is asked for, a folder that is whole or not there."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mtf_engine.algos.integrated_rl import IntegratedRL, IntegratedRLConfig
from mtf_engine.learning.batches import Batch, Batches
from mtf_engine.learning.linear import starting_policy
from mtf_engine.learning.start import RewardScale, logged_std, mean_bounds, standardisation
from mtf_engine.logs import datasets, transitions
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.transitions import READ, Layout
from mtf_engine.policies.networks import box, relative_actions
from mtf_engine.registry import DatasetRow, now
from mtf_engine.runs import executor
from mtf_engine.runs.doctor import examine
from mtf_engine.runs.storage import open_dataset
from mtf_engine.spec import FusionSpec
from mtf_engine.workspace import Workspace
from tests import problems
from tests.test_datasets import META, tables, written
from tests.waiting import wait_until

LENGTHS = [3, 1, 4, 2, 5, 1, 2, 6]


def with_halves(batch):
    """Returns the tables with one feature of whole numbers, and bounds of few widths."""
    batch.requests["observation"][:, 1] = np.round(batch.requests["observation"][:, 1])
    batch.requests["upper"] = batch.requests["lower"] + np.float32([1, *[0.25] * 9])[: len(META.fusion.names)]
    return batch


@pytest.fixture
def log(tmp_path) -> Dataset:
    return written(tmp_path, with_halves(tables(LENGTHS, truncated=(2, 5))))


def folders(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir() if found.is_dir())


def all_at_once(dataset: Dataset, algo: IntegratedRL) -> Batch:
    """Returns all transitions as one batch, from the arrays of a query alone."""
    rows = dataset.arrays(f"SELECT {', '.join(READ)} FROM requests ORDER BY session_id, step")
    last = np.append(rows["session_id"][1:] != rows["session_id"][:-1], True)
    terminal = rows["terminal"].astype(bool)
    here = np.flatnonzero(~last | terminal)
    after = np.minimum(here + 1, len(last) - 1)

    def context(at, ends):
        columns = [rows[name][at].copy() for name in ("observation", "baseline_action", "lower", "upper")]
        for column in columns:
            column[ends] = 0
        observations, baseline, lower, upper = map(torch.as_tensor, columns)
        return torch.cat([algo.critics.standardise(observations), baseline], 1), *box(baseline, lower, upper)

    state, centre, half_width = context(here, np.zeros(len(here), bool))
    actions = torch.as_tensor(rows["action"][here])
    return Batch(
        state,
        algo.critics.action_inputs(actions, relative_actions(actions, centre, half_width)),
        actions,
        centre,
        half_width,
        torch.as_tensor(rows["reward"][here].astype(np.float32)) * algo.reward_scale.scale,
        algo.config.gamma * (~torch.as_tensor(terminal[here])).float(),
        *context(after, terminal[here]),
    )


def test_a_batch_from_the_map_is_that_of_all_arrays_in_memory_to_the_bit(log):
    steps = log.transitions()
    with pytest.warns(UserWarning, match="the actor starts"):
        algo = IntegratedRL(IntegratedRLConfig(n_critics=2, hidden=(4,)), steps)
    generator = torch.Generator().manual_seed(7)
    drawn = algo.prepare(steps).draw(64, generator)
    whole = all_at_once(log, algo)
    assert len(steps) == len(whole) == sum(LENGTHS) - 2 and steps.n_left_out == 2
    which = torch.randint(len(whole), (64,), generator=torch.Generator().manual_seed(7))
    for name, values in vars(whole).items():
        found = getattr(drawn, name)
        assert found.is_contiguous() and found.dtype == torch.float32, name
        assert torch.equal(found.view(torch.int32), values[which].contiguous().view(torch.int32)), name


@pytest.mark.parametrize("n_rewards", [2, 3, 100])
def test_a_batch_of_several_rewards_is_that_of_a_loop_over_single_steps(log, n_rewards):
    steps = log.transitions()
    with pytest.warns(UserWarning, match="the actor starts"):
        algo = IntegratedRL(
            IntegratedRLConfig(n_critics=2, hidden=(4,), n_rewards=n_rewards, gamma=0.5), steps
        )
    single = Batches(steps, algo.critics, 0.5, algo.reward_scale.scale).at(torch.arange(len(steps)))
    several = algo.prepare(steps).at(torch.arange(len(steps)))
    session_of = np.concatenate([block.sessions for block in steps.blocks()])
    lengths = set()
    for i in range(len(steps)):
        last, rewards, discount = i, float(single.rewards[i]), float(single.discounts[i])
        while discount and last - i + 1 < n_rewards and session_of[last + 1 : last + 2] == session_of[i]:
            last += 1
            rewards += discount * float(single.rewards[last])
            discount *= float(single.discounts[last])
        lengths.add(last - i + 1)
        assert float(several.rewards[i]) == pytest.approx(rewards, rel=1e-5, abs=1e-6)
        assert float(several.discounts[i]) == discount
        for name in ("next_state", "next_centre", "next_half_width"):
            assert torch.equal(getattr(several, name)[i], getattr(single, name)[last])
    assert lengths == set(range(1, min(n_rewards, 6) + 1))
    for name in ("state", "actions", "action_inputs", "centre", "half_width"):
        assert torch.equal(getattr(several, name), getattr(single, name))


def test_rewards_are_not_summed_across_a_request_without_an_action():
    rows = {
        "observation": np.zeros((5, 1)), "action": np.array([[0.1], [0.1], [np.nan], [0.1], [0.1]]),
        "baseline_action": np.zeros((5, 1)), "lower": -np.ones((5, 1)), "upper": np.ones((5, 1)),
        "reward": np.array([1, 2, 4, 8, 16]),
    }  # fmt: skip
    columns = {name: np.ascontiguousarray(values, np.float32) for name, values in rows.items()}
    columns |= {"session_id": np.ones(5, np.int64), "terminal": np.arange(5) == 4}
    held = problems.held(columns, FusionSpec.default(["watch"]), ("feature",))
    rewards, later = held.ahead(3, 0.5)
    assert rewards.tolist() == [2, 2, 16, 16] and later.tolist() == [1, 0, 1, 0]


numbers = st.floats(width=32) | st.floats(width=16) | st.sampled_from([0.0, -0.0, 256.0, 257.0, 1e-8])


@given(arrays.arrays(np.float32, (4, 11), elements=numbers))
def test_every_bit_comes_back_whatever_is_kept_in_halves(values):
    columns = dict(zip(READ[2:-1], np.split(values[:, :10], 5, axis=1), strict=True))
    columns |= {
        "reward": values[:, 10].astype(np.float64),
        "session_id": np.arange(4),
        "terminal": np.ones(4),
    }
    layout = Layout.of([{name: column[:2] for name, column in columns.items()}, columns])
    rows = layout.pack(columns)
    for name in READ[2:]:
        packed = np.float32(columns[name]).reshape(4, -1)
        found = layout.values(rows, name)
        np.testing.assert_array_equal(found.view(np.uint32), packed.view(np.uint32), err_msg=name)
    assert rows.dtype["half"].shape == (sum(layout.halves),)


def test_features_of_few_values_take_two_bytes():
    columns = {name: np.zeros((2, 2), np.float32) for name in READ[2:-1]}
    columns |= {"reward": np.float64([0.1, 1]), "session_id": np.arange(2), "terminal": np.ones(2, bool)}
    columns["observation"][:, 0] = 0.1
    assert Layout.of([columns]).halves == (False, *[True] * 9, False)


@pytest.mark.filterwarnings("ignore:the policy starts up to")
@pytest.mark.parametrize("block", [1, 4, 7])
def test_what_is_told_of_a_log_does_not_depend_on_how_much_is_read_at_once(log, monkeypatch, block):
    def told():
        steps = log.transitions()
        scale, standard = RewardScale.of(steps, 0.9), standardisation(steps)
        return (
            np.concatenate([steps.session_starts, [len(steps), steps.n_left_out]]),
            steps.returns(0.9),
            [scale.scale, scale.mean_return, scale.largest_return],
            standard.mean,
            standard.std,
            *mean_bounds(steps),
            logged_std(steps),
            *[p.detach() for p in starting_policy(steps, 30, None).parameters()],
        )

    at_once = told()
    shutil.rmtree(log.path.with_name(folders(log.path.parent)[0]))
    for module, name in ((transitions, "BLOCK"), (datasets, "BOUND_ROWS")):
        monkeypatch.setattr(module, name, block)
    in_blocks = told()
    np.testing.assert_array_equal(in_blocks[0], at_once[0])
    np.testing.assert_array_equal(in_blocks[1], at_once[1])
    for found, expected in zip(in_blocks[2:], at_once[2:], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_rows_lie_by_session_and_step_however_they_are_stored_and_whatever_the_first_suggest(
    tmp_path, monkeypatch
):
    batch = with_halves(tables(LENGTHS))
    batch.requests["session_id"] = 9 - batch.requests["session_id"]
    batch.requests["observation"][5:, 1] = 0.1  # no half, and the first are
    dataset = written(tmp_path, batch)
    monkeypatch.setattr(datasets, "BOUND_ROWS", 4)
    steps = dataset.transitions()
    expected = dataset.arrays(
        "SELECT session_id, observation, action FROM requests ORDER BY session_id, step"
    )
    stored = dataset.arrays("SELECT session_id FROM requests")["session_id"]
    assert (np.diff(stored) < 0).any() and 0 < sum(steps._layout.halves) < len(steps._layout.halves)
    np.testing.assert_array_equal(steps[:].sessions, expected["session_id"])
    np.testing.assert_array_equal(steps[:].observations, expected["observation"])
    np.testing.assert_array_equal(steps[:].actions, expected["action"])
    assert {path.name for path in next(tmp_path.glob("*.transitions")).iterdir()} == {
        "rows",
        "steps",
        "head.json",
    }


def test_a_later_reader_takes_what_an_earlier_one_wrote(log, monkeypatch):
    first = log.transitions()
    assert folders(log.path.parent) == [f"d.train.{log.content_hash[:16]}.transitions"]
    monkeypatch.setattr(transitions, "write", None)
    np.testing.assert_array_equal(Dataset.open(log.path).transitions()[:].actions, first[:].actions)


def test_a_log_of_other_rows_under_the_same_name_is_written_anew(log):
    before = log.transitions()
    kept = before[:].actions
    other = written(log.path.parent, tables([2, 2], seed=1))
    assert len(other.transitions()) == 4
    assert folders(log.path.parent) == [f"d.train.{other.content_hash[:16]}.transitions"]
    np.testing.assert_array_equal(before[:].actions, kept)  # what was mapped stays mapped


def test_where_nothing_can_be_written_the_rows_lie_elsewhere(log, monkeypatch):
    expected = log.transitions()[:].actions
    shutil.rmtree(log.path.with_name(folders(log.path.parent)[0]))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    np.testing.assert_array_equal(log.transitions()[:].actions, expected)
    assert folders(log.path.parent) == []


WRITER = """
import os, pathlib, sys, time
from mtf_engine.logs import datasets, transitions
path, how = pathlib.Path(sys.argv[1]), sys.argv[2]
write = transitions.write
def slow(folder, *rest):
    (path.parent / f"writes-{os.getpid()}").touch()
    write(folder, *rest)
    while how == "hangs": time.sleep(0.1)
    time.sleep(0.5)
transitions.write = slow
print(len(datasets.Dataset.open(path).transitions()))
"""


def writer(log: Dataset, how: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(log.path), how],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "."},
    )


def test_of_two_writers_at_once_one_writes_and_the_other_waits_for_it(log):
    both = [writer(log, "slow") for _ in range(2)]
    assert [int(one.communicate()[0]) for one in both] == [sum(LENGTHS) - 2] * 2
    assert len([*log.path.parent.glob("writes-*")]) == 1
    assert folders(log.path.parent) == [f"d.train.{log.content_hash[:16]}.transitions"]


@pytest.fixture
def workspace(log) -> Workspace:
    """A workspace with the log."""
    workspace = Workspace(log.path.parent / "workspace")
    row = DatasetRow(
        id="d",
        name="log",
        source="csv",
        created_at=now(),
        n_requests=log.n_requests,
        n_impressions=log.n_impressions,
        content_hash=log.content_hash,
        run_id=None,
        meta=META.model_dump(mode="json"),
    )
    workspace.registry.add_dataset(row)
    log.path.rename(workspace.dataset_path("d"))
    return workspace


def test_a_killed_writer_leaves_nothing_that_is_taken_for_whole(workspace):
    killed, folder = writer(open_dataset(workspace, "d"), "hangs"), workspace.datasets_dir
    wait_until(lambda: [*folder.glob(".d.tmp*/head.json")], "the writer writes")
    executor.reconcile(workspace)
    assert folders(folder) == [".d.tmp.train.transitions"], "a live writer's folder is its own"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    executor.reconcile(workspace)
    assert folders(folder) == []


def test_what_a_killed_writer_left_is_not_gone_on_with(log):
    (left := log.path.with_name(".d.tmp.train.transitions")).mkdir()
    (left / "rows").write_bytes(b"half a row")
    (left / "spill").mkdir()
    assert len(log.transitions()) == sum(LENGTHS) - 2
    (folder,) = folders(log.path.parent)
    assert {path.name for path in log.path.with_name(folder).iterdir()} == {"rows", "steps", "head.json"}


def test_a_writer_that_fails_leaves_nothing(log, monkeypatch):
    def failing(folder, layout, parts):
        (folder / "rows").touch()
        raise OSError("the disk is gone")

    monkeypatch.setattr(transitions, "write", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        log.transitions()
    assert folders(log.path.parent) == []


def test_the_rows_go_with_their_dataset(workspace):
    open_dataset(workspace, "d").transitions()
    assert folders(workspace.datasets_dir) and not examine(workspace)["orphans"]
    workspace.delete_dataset("d")
    assert not [*workspace.datasets_dir.iterdir()]


def test_the_doctor_names_rows_whose_dataset_is_gone(workspace):
    open_dataset(workspace, "d").transitions()
    workspace.registry.delete_dataset("d")
    (name,) = folders(workspace.datasets_dir)
    assert examine(workspace)["orphans"] == ["datasets/d.duckdb", f"datasets/{name}"]


def test_sessions_in_memory_are_those_of_the_problem():
    steps = problems.sessions(n=9)
    assert steps.session_starts.tolist() == [0, 3, 6] and len(steps) == 9
    after = steps.after(np.array([0, 2]))
    np.testing.assert_array_equal(after.observations[0], steps[:].observations[1])
    assert not after.observations[1].any() and not after.upper[1].any()
