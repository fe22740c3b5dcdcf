"""Datasets promise: all of a log or nothing, the same content the same hash, and transitions as logged."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.logs import datasets
from mtf_engine.logs.datasets import STORAGE_VERSION, Dataset, write_dataset
from mtf_engine.logs.schema import DatasetMeta, Tables
from mtf_engine.spec import FusionSpec, Refusal, RewardSpec
from tests import problems
from tests.searching import examples

N_FEATURES, SHOWN = 3, 2
FUSION = FusionSpec.default(("click", "like"))
META = DatasetMeta(
    name="log",
    source="csv",
    fusion=FUSION,
    reward=RewardSpec(weights={"like": 1.0}),
    signals=("like",),
    feature_names=("a", "b", "c"),
    numeric_mask=(True, True, False),
)


def tables(lengths, truncated=(), split="train", candidates=False, seed=0) -> Tables:
    """Returns sessions of the given lengths, one user each; `truncated` ones end without a terminal step."""
    generator = np.random.default_rng(seed)
    n = sum(lengths)
    session = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    last = np.append(session[1:] != session[:-1], True)
    cut = last & np.isin(session, truncated)
    vectors = {
        name: generator.normal(size=(n, FUSION.n_actions)).astype(np.float32)
        for name in ("baseline_action", "action", "lower", "upper")
    }
    like = generator.integers(0, 2, n * SHOWN).astype(np.float32)
    requests = {
        "request_id": np.arange(n),
        "session_id": session,
        "user_id": np.array([f"u{s}" for s in session], object),
        "step": step,
        "timestamp": np.arange(n).astype("datetime64[s]").astype("datetime64[us]"),
        "split": np.full(n, split, object),
        "segment": np.full(n, "all", object),
        "observation": generator.normal(size=(n, N_FEATURES)).astype(np.float32),
        **vectors,
        "pscore": np.where(step == 0, np.nan, 2.0),
        "clipped": np.zeros(n, np.int32),
        "reward": like.reshape(n, SHOWN).sum(1).astype(np.float64),
        "terminal": last & ~cut,
        "truncated": cut,
    }
    impressions = {
        "request_id": np.repeat(np.arange(n), SHOWN),
        "user_id": np.repeat(requests["user_id"], SHOWN),
        "item_id": generator.integers(0, 9, n * SHOWN),
        "position": np.tile(np.arange(SHOWN), n),
        "predictions": generator.uniform(size=(n * SHOWN, 2)).astype(np.float32),
        "like": like,
        "reward": like.astype(np.float64),
        "label": like > 0,
    }
    offered = {k: impressions[k] for k in ("request_id", "item_id", "predictions")} if candidates else None
    return Tables(requests, impressions, offered)


def written(folder: Path, *batches: Tables, dataset_id="d", meta=META) -> Dataset:
    ledger = write_dataset(folder, dataset_id, meta, batches)
    return Dataset.open(folder / f"{dataset_id}.duckdb", ledger)


def take(batch: Tables, rows) -> Tables:
    """Returns the requests at `rows` and their impressions."""
    ids = batch.requests["request_id"][rows]
    shown = np.isin(batch.impressions["request_id"], ids)
    return Tables(
        {k: v[rows] for k, v in batch.requests.items()}, {k: v[shown] for k, v in batch.impressions.items()}
    )


def test_rows_come_back_as_they_were_written(tmp_path):
    batch = tables([3, 2], candidates=True)
    dataset = written(tmp_path, batch)
    assert dataset.meta == META
    assert (dataset.n_requests, dataset.n_impressions, dataset.n_users) == (5, 10, 2)
    for name, order in (("requests", "request_id"), ("impressions", "request_id, position")):
        found = dataset.arrays(f"SELECT * FROM {name} ORDER BY {order}")
        for column, values in getattr(batch, name).items():
            np.testing.assert_array_equal(found[column], values, err_msg=column)
    assert dataset.query("SELECT count(*) AS n FROM candidates")["n"].tolist() == [10]


def test_absent_density_is_null(tmp_path):
    dataset = written(tmp_path, tables([3]))
    assert dataset.query("SELECT count(*) - count(pscore) AS absent FROM requests")["absent"].tolist() == [1]


def test_the_content_hash_is_of_the_rows_alone(tmp_path):
    whole = tables([3, 2, 4], candidates=True)
    first = written(tmp_path, whole, dataset_id="a")
    renamed = META.model_copy(update={"name": "other"})
    assert written(tmp_path, whole, dataset_id="b", meta=renamed).content_hash == first.content_hash
    assert first.recompute_content_hash() == first.content_hash
    assert written(tmp_path, tables([3, 2, 4], seed=1), dataset_id="c").content_hash != first.content_hash


def test_rows_in_other_batches_are_the_same_dataset(tmp_path):
    whole = tables([3, 2, 4])
    backwards = Tables({k: v[::-1] for k, v in whole.requests.items()}, whole.impressions)
    parts = [take(whole, slice(5, 9)), take(whole, slice(0, 5))]
    hashes = {
        written(tmp_path, *batches, dataset_id=str(i)).content_hash
        for i, batches in enumerate(([whole], [backwards], parts))
    }
    assert len(hashes) == 1


def test_a_dataset_is_the_same_whether_its_rows_come_in_order_or_are_sorted(tmp_path, monkeypatch):
    """In groups of two rows there are several of each table, and some rows are left."""
    whole = tables([3, 2, 4])
    expected = written(tmp_path, whole, dataset_id="a").content_hash
    monkeypatch.setattr(datasets, "GROUP_ROWS", 2)
    both = whole.requests, whole.impressions
    orders = [np.argsort(of["user_id"], kind="stable") for of in both]
    clustered = Tables(*({k: v[i] for k, v in of.items()} for of, i in zip(both, orders, strict=True)))
    backwards = Tables(*({k: v[::-1] for k, v in of.items()} for of in both))
    for name, rows in (("b", clustered), ("c", backwards)):
        assert written(tmp_path, rows, dataset_id=name).content_hash == expected


def test_a_file_holds_its_rows_in_whole_groups_however_they_come(tmp_path):
    """Groups that are not full are written again at the end, and what was written first stays in the file."""
    n, at_once = 250_000, 30_000
    whole = tables([n])

    def cut(columns, first, per_request):
        rows = slice(first * per_request, (first + at_once) * per_request)
        return {name: values[rows] for name, values in columns.items()}

    parts = [
        Tables(cut(whole.requests, i, 1), cut(whole.impressions, i, SHOWN)) for i in range(0, n, at_once)
    ]
    dataset = written(tmp_path, *parts)
    for table in ("requests", "impressions"):
        sql = f"SELECT max(row_group_id) + 1 AS n FROM pragma_storage_info('{table}')"
        groups = dataset.query(sql)["n"][0]
        n_rows = dataset.query(f"SELECT count(*) AS n FROM {table}")["n"][0]
        assert groups == -(-n_rows // datasets.GROUP_ROWS)
    size = dataset.path.stat().st_size
    assert size < 1.1 * written(tmp_path, whole, dataset_id="e").path.stat().st_size


def test_columns_are_matched_by_name_whatever_their_order(tmp_path):
    whole = tables([2, 2])
    second = take(whole, slice(2, 4))
    shuffled = Tables(dict(reversed(second.requests.items())), dict(reversed(second.impressions.items())))
    dataset = written(tmp_path, take(whole, slice(0, 2)), shuffled)
    assert dataset.content_hash == written(tmp_path, whole, dataset_id="e").content_hash


def test_the_content_hash_does_not_depend_on_how_much_is_read_at_once(tmp_path, monkeypatch):
    dataset = written(tmp_path, tables([5] * 1000, candidates=True))
    monkeypatch.setattr(datasets, "HASH_ROWS", 2048)
    assert dataset.recompute_content_hash() == dataset.content_hash


@pytest.mark.parametrize(
    "strange",
    [
        {"reward": np.array([0.0, -0.0, 0.0, -0.0, 0.0])},
        {"pscore": np.array([-np.nan, 1.0, np.nan, 1.0, 1.0])},
        {"action": np.tile(np.array([[np.nan], [-np.nan]], np.float32), (5, FUSION.n_actions))[:5]},
        {"extra": np.arange(5, dtype=np.int8)},
        {"extra": np.array([1, None, 3, None, 5], object)},
        {"extra": np.full(5, None)},
        {"extra": np.array([1, 2, 3, 4, 5]).astype("datetime64[ms]")},
        {"extra": np.array(["a", None, "", "ä", "b"], object)},
    ],
)
def test_the_content_hash_is_that_of_the_rows_as_they_are_read(tmp_path, strange):
    """Rows that come in order are hashed on their way; of what is no number the file may hold other bits."""
    whole = tables([3, 2])
    dataset = written(tmp_path, Tables({**whole.requests, **strange}, whole.impressions))
    assert dataset.recompute_content_hash() == dataset.content_hash


def test_the_content_hash_is_of_columns_of_one_type(tmp_path):
    whole = tables([3, 2])
    extra = (np.arange(3), np.array([0.5, 1.5]))
    parts = [take(whole, slice(0, 3)), take(whole, slice(3, 5))]
    parts = [Tables({**p.requests, "extra": e}, p.impressions) for p, e in zip(parts, extra, strict=True)]
    dataset = written(tmp_path, *parts)
    assert dataset.recompute_content_hash() == dataset.content_hash


def test_a_log_is_written_within_the_memory_it_is_given(tmp_path, monkeypatch):
    batches = [tables([3] * 4_000, seed=seed) for seed in range(4)]
    whole = write_dataset(tmp_path, "whole", META, batches)
    monkeypatch.setattr(datasets, "WRITE_MB", 30)
    assert write_dataset(tmp_path, "bounded", META, batches).content_hash == whole.content_hash
    monkeypatch.setattr(datasets, "WRITE_MB", 1)
    with pytest.raises(duckdb.OutOfMemoryException):
        write_dataset(tmp_path, "too-little", META, batches)
    assert not list(tmp_path.glob("*too-little*"))


def test_a_log_that_fails_on_the_way_leaves_nothing(tmp_path):
    def failing():
        yield tables([3])
        raise RuntimeError("the source went away")

    with pytest.raises(RuntimeError):
        write_dataset(tmp_path, "d", META, failing())
    assert not list(tmp_path.iterdir())


def test_a_finished_log_leaves_its_file_alone(tmp_path):
    written(tmp_path, tables([3]))
    assert [p.name for p in tmp_path.iterdir()] == ["d.duckdb"]


def test_a_killed_writer_leaves_temp_files_only(tmp_path):
    code = (
        "import os, pathlib, sys; from tests.test_datasets import *\n"
        "def batches():\n"
        "    yield tables([3])\n"
        "    os.kill(os.getpid(), 9)\n"
        "    yield tables([3])\n"
        "write_dataset(pathlib.Path(sys.argv[1]), 'd', META, batches())\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, env={**os.environ, "PYTHONPATH": "."}
    )
    names = [p.name for p in tmp_path.iterdir()]
    assert names
    assert all(name.startswith(".d.tmp") for name in names)
    assert written(tmp_path, tables([2]), dataset_id="e").n_requests == 2


def test_a_file_that_is_not_what_the_ledger_says_is_refused(tmp_path):
    write_dataset(tmp_path, "d", META, [tables([3])])
    other = write_dataset(tmp_path, "e", META, [tables([3], seed=1)])
    with pytest.raises(Refusal, match=r"d\.duckdb is not the one that was written"):
        Dataset.open(tmp_path / "d.duckdb", other)
    with pytest.raises(Refusal, match=r"f\.duckdb is missing"):
        Dataset.open(tmp_path / "f.duckdb")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "d.duckdb"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(Refusal, match="cannot be read"):
        _ = Dataset.open(path).n_requests


def test_another_process_reads_at_the_same_time(tmp_path):
    dataset = written(tmp_path, tables([3]))
    code = (
        "import pathlib, sys; from mtf_engine.logs.datasets import Dataset\n"
        "print(Dataset.open(pathlib.Path(sys.argv[1])).n_requests)"
    )
    with dataset._connect() as con:
        other = subprocess.run(
            [sys.executable, "-c", code, str(dataset.path)], check=True, capture_output=True, text=True
        )
        assert other.stdout.strip() == "3"
        assert con.execute("SELECT count(*) FROM requests").fetchall() == [(3,)]


def test_readers_cannot_write(tmp_path):
    dataset = written(tmp_path, tables([3]))
    with dataset._connect() as con, pytest.raises(duckdb.Error):
        con.execute("DELETE FROM requests")


def test_files_are_of_the_storage_version_that_both_duckdb_releases_read(tmp_path):
    dataset = written(tmp_path, tables([3]))
    with dataset._connect() as con:
        (tags,) = con.execute(
            "SELECT tags FROM duckdb_databases() WHERE database_name = 'dataset'"
        ).fetchall()[0]
    assert tags["storage_version"].startswith(STORAGE_VERSION.rsplit(".", 1)[0])


def slow_transitions(batch: Tables) -> dict[str, list]:
    """Returns what `transitions` promises, by a loop over sessions."""
    rows = batch.requests
    out = {
        name: [] for name in ("observation", "action", "reward", "terminal", "next_observation", "next_upper")
    }
    for session in np.unique(rows["session_id"]):
        steps = np.flatnonzero(rows["session_id"] == session)
        for i, row in enumerate(steps):
            following = steps[i + 1] if i + 1 < len(steps) else None
            if following is None and not rows["terminal"][row]:
                continue
            for name in ("observation", "action", "reward", "terminal"):
                out[name].append(rows[name][row])
            for name in ("observation", "upper"):
                value = np.zeros_like(rows[name][row]) if following is None else rows[name][following]
                out[f"next_{name}"].append(value)
    return out


@examples(8)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_transitions_follow_their_sessions(tmp_path_factory, lengths, data):
    truncated = data.draw(st.sets(st.integers(0, len(lengths) - 1), max_size=len(lengths) - 1))
    batch = tables(lengths, truncated=tuple(truncated))
    found = written(tmp_path_factory.mktemp("data"), batch).transitions()
    expected = slow_transitions(batch)
    assert len(found) == sum(lengths) - len(truncated)
    assert found.n_left_out == len(truncated)
    here, after = found[:], found.after(slice(None))
    np.testing.assert_array_equal(here.observations, np.reshape(expected["observation"], (-1, N_FEATURES)))
    np.testing.assert_array_equal(here.actions, np.reshape(expected["action"], (-1, FUSION.n_actions)))
    np.testing.assert_array_equal(here.rewards, np.float32(expected["reward"]))
    np.testing.assert_array_equal(here.terminals, expected["terminal"])
    following = np.reshape(expected["next_observation"], (-1, N_FEATURES))
    np.testing.assert_array_equal(after.observations, following)
    np.testing.assert_array_equal(after.upper, np.reshape(expected["next_upper"], (-1, FUSION.n_actions)))


@examples(5)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.floats(0, 1))
def test_returns_are_discounted_to_the_end_of_the_session(tmp_path_factory, lengths, gamma):
    batch = tables(lengths)
    found = written(tmp_path_factory.mktemp("data"), batch).transitions().returns(gamma)
    reward, session = batch.requests["reward"], batch.requests["session_id"]
    expected = [
        sum(gamma ** (j - i) * reward[j] for j in range(i, len(reward)) if session[j] == session[i])
        for i in range(len(reward))
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("longest", [10, 3_000])
def test_returns_need_memory_for_the_rows_however_long_a_session_is(longest):
    n = longest + 20_000  # one long session before many of one request
    log = problems.transitions(
        np.zeros((n, 1)), np.zeros((n, 1)), np.ones(n), np.arange(n) >= longest - 1, half_width=1
    )
    tracemalloc.start()
    returns = log.returns(0.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(returns[[0, longest - 1, longest]], [2 - 0.5 ** (longest - 1), 1, 1])
    assert peak < 100 * len(log)  # bytes a row


def test_a_log_whose_last_steps_are_all_it_has_cannot_be_trained_on(tmp_path):
    cut_off = written(tmp_path, tables([1, 1, 1], truncated=(0, 1, 2)))
    with pytest.raises(Refusal, match="no train step whose successor or end is known"):
        cut_off.transitions()
    assert len(cut_off.known_steps("train")) == 0


def test_training_rows_are_those_of_the_split(tmp_path):
    train, test = tables([2, 2]), tables([3], split="test")
    shifted = {"request_id": 10, "session_id": 10}
    moved = Tables(
        {k: v + shifted.get(k, 0) if k in shifted else v for k, v in test.requests.items()},
        {k: v + 10 if k == "request_id" else v for k, v in test.impressions.items()},
    )
    dataset = written(tmp_path, train, moved)
    assert len(dataset.transitions()) == 4
    assert len(dataset.transitions("test")) == 3
    rows = dataset.evaluation_rows()
    assert (rows.split, len(rows.observations), len(rows.reward)) == ("test", 3, 6)
    assert len(dataset.evaluation_rows("all").observations) == 7
    validation = tables([2], split="validation", seed=3)
    further = {"request_id": 20, "session_id": 20}
    moved_on = Tables(
        {k: v + further.get(k, 0) if k in further else v for k, v in validation.requests.items()},
        {k: v + 20 if k == "request_id" else v for k, v in validation.impressions.items()},
    )
    for folder in ("all", "none"):
        (tmp_path / folder).mkdir()
    assert written(tmp_path / "all", train, moved, moved_on).evaluation_rows().split == "test"
    assert written(tmp_path / "none", train, moved_on).evaluation_rows().split == "validation"
    with pytest.raises(Refusal, match="no validation rows"):
        dataset.transitions("validation")


def test_evaluation_rows_join_impressions_to_their_requests(tmp_path):
    batch = tables([3, 2], split=None)
    rows = written(tmp_path, batch).evaluation_rows()
    assert rows.split == "all"
    np.testing.assert_array_equal(rows.request_id[rows.request], np.repeat(np.arange(5), SHOWN))
    np.testing.assert_array_equal(rows.predictions, batch.impressions["predictions"])
    np.testing.assert_array_equal(rows.user[rows.request], np.repeat([0, 0, 0, 1, 1], SHOWN))
    np.testing.assert_array_equal(rows.lower, batch.requests["lower"])


def test_evaluation_rows_of_some_users_are_whole_and_always_the_same(tmp_path):
    dataset = written(tmp_path, tables([2, 1, 3, 2], split=None))
    whole, some = dataset.evaluation_rows(), dataset.evaluation_rows(n_users=2)
    assert len(np.unique(some.user)) == 2 < len(np.unique(whole.user))
    chosen = np.isin(whole.user, whole.user[np.isin(whole.request_id, some.request_id)])
    np.testing.assert_array_equal(some.request_id, whole.request_id[chosen])
    np.testing.assert_array_equal(some.predictions, whole.predictions[chosen[whole.request]])
    np.testing.assert_array_equal(dataset.evaluation_rows(n_users=2).request_id, some.request_id)
    np.testing.assert_array_equal(dataset.evaluation_rows(n_users=99).request_id, whole.request_id)


def test_shares_of_users_are_the_parts_of_an_evaluation(tmp_path):
    dataset = written(tmp_path, tables([2, 1, 3, 2] * 5, split="test"), tables([2], split="train", seed=1))
    whole = dataset.evaluation_rows()
    users = dataset.query(
        "SELECT DISTINCT user_id, md5_number_upper(user_id) AS key FROM requests ORDER BY ALL"
    )
    assert whole.keys.tolist() == users["key"].tolist()
    assert dataset.evaluation_whole() == whole.whole and dataset.evaluation_size() == len(whole.request)
    asked = dataset.evaluation_shares(4, 8, len(whole.request))
    shares = [dataset.evaluation_rows(share=share) for share in asked]
    assert len(shares) == 4 and sum(len(share.request) for share in shares) == len(whole.request)
    of_user = np.bincount(whole.impression_user, minlength=len(whole.keys))
    part = (np.cumsum(of_user) - of_user) * 8 // len(whole.request)
    for quarter, (share, of) in enumerate(zip(shares, asked, strict=True)):
        mine = np.flatnonzero((part // 2 == quarter)[whole.user])
        cut = whole.of(mine, np.flatnonzero(np.isin(whole.request, mine)))
        assert of.before == of_user[part // 2 < quarter].sum()
        for name in ("request_id", "user", "keys", "request", "predictions", "observations", "lower"):
            np.testing.assert_array_equal(getattr(share, name), getattr(cut, name))


def test_a_log_without_actions_evaluates_but_does_not_train(tmp_path):
    batch = tables([3])
    for name in ("action", "baseline_action", "lower", "upper"):
        batch.requests[name][:] = np.nan
    dataset = written(tmp_path, batch)
    assert dataset.evaluation_rows().baseline_actions is None
    with pytest.raises(Refusal, match="explore on it first"):
        dataset.transitions()


def test_ids_may_be_texts_and_signals_may_have_any_name(tmp_path):
    batch = tables([2])
    batch.impressions["item_id"] = np.array(["a", "b", "c", "d"], object)
    batch.impressions['odd "name"'] = np.arange(4, dtype=np.float32)
    dataset = written(tmp_path, batch, meta=META.model_copy(update={"signals": ("like", 'odd "name"')}))
    found = dataset.query("SELECT item_id FROM impressions ORDER BY request_id, position")
    assert found["item_id"].tolist() == ["a", "b", "c", "d"]
