"""Datasets in Parquet promise: the rows and figures of one file, whoever wrote which buckets, and all or nothing."""

import os
import shutil
import socket
import subprocess
from dataclasses import fields
from functools import partial
from itertools import chain
from urllib.request import urlopen

import duckdb
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mtf_engine.disk import check_guards, guarded
from mtf_engine.evaluation import evaluate
from mtf_engine.evaluation.evaluate import evaluation
from mtf_engine.evaluation.explain import draw_request
from mtf_engine.evaluation.scored import Scoring, scored
from mtf_engine.exploration.coverage_counts import count_coverage, read_logged_actions
from mtf_engine.logs import aggregates, buckets, sharding
from mtf_engine.logs.buckets import MANIFEST, N_BUCKETS
from mtf_engine.logs.datasets import TABLES, Dataset
from mtf_engine.logs.sharding import abandon, finish, place_of, shares, write_buckets
from mtf_engine.runs import executor
from mtf_engine.runs.doctor import examine
from mtf_engine.runs.executor import completed, watch
from mtf_engine.runs.fencing import Fence
from mtf_engine.runs.repair import repair
from mtf_engine.runs.storage import _written, delete_dataset, live_policy, open_dataset
from mtf_engine.sealed import HASHES
from mtf_engine.spec import Refusal
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.evaluate import _scored_share
from mtf_engine.work.import_log import submit_import
from mtf_engine.work.shard import submit_shard
from mtf_engine.workspace import Workspace
from tests.fixtures import logs
from tests.test_datasets import tables, written
from tests.waiting import wait_until
from tests.workspaces import worked_on_here


def sharded(source, folder, dataset_id="p", n_writers=1, url=""):
    place = place_of(folder, dataset_id, url)
    found = [shard for share in shares(n_writers) for shard in write_buckets(source, place, share)]
    ledger = finish(folder, dataset_id, source.meta, source, found[::-1], place)
    return Dataset.open(folder / f"{dataset_id}.parquet", ledger)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Returns a log as one file and as a folder, of 40 sessions, some test rows and some cut off."""
    folder = tmp_path_factory.mktemp("pair")
    lengths = [1 + i % 4 for i in range(40)]
    batch = tables(lengths, truncated=(1, 4), candidates=True)
    batch.requests["split"][::7] = "test"
    batch.impressions["user_id"] = np.repeat(batch.requests["user_id"], 2)
    source = written(folder, batch)
    return source, sharded(source, folder)


def test_the_folder_has_the_same_rows_and_types(pair):
    source, folder = pair
    assert folder.tables == source.tables == list(TABLES)
    for table in TABLES:
        rows = f"SELECT * FROM {table} ORDER BY ALL"
        assert folder.table(rows).equals(source.table(rows))
    assert (folder.n_requests, folder.n_impressions, folder.n_users) == (
        source.n_requests, source.n_impressions, source.n_users,
    )  # fmt: skip
    assert folder.meta == source.meta and folder.splits == source.splits


def test_the_content_hash_is_the_same_whoever_writes_which_buckets(pair, tmp_path):
    source, folder = pair
    other = sharded(source, tmp_path, n_writers=3)
    assert other.content_hash == folder.content_hash == folder.recompute_content_hash()
    batch = tables([2, 1, 3], seed=8)
    assert sharded(written(tmp_path, batch), tmp_path, "q").content_hash != folder.content_hash


def test_trainings_and_evaluations_read_the_same(pair):
    source, folder = pair
    for split in ("train", "test"):
        found, expected = (dataset.known_steps(split)[:] for dataset in (folder, source))
        assert len(expected) > 3
        for name in ("observations", "actions", "lower", "rewards", "terminals", "sessions"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    rows, like = folder.evaluation_rows(), source.evaluation_rows()
    for field in fields(rows):
        np.testing.assert_array_equal(getattr(rows, field.name), getattr(like, field.name))
    halves = folder.evaluation_shares(2, 4, len(like.request))
    assert len(halves) == 2 and halves == source.evaluation_shares(2, 4, len(like.request))
    shared = [folder.evaluation_rows(share=share) for share in halves]
    assert sum(len(some.request) for some in shared) == len(like.request)
    counts = [count_coverage(read_logged_actions(dataset.parts, 16), None) for dataset in (folder, source)]
    assert counts[0] == counts[1]
    policy = {"baseline": live_policy(source.meta)}
    assert evaluate(policy, rows) == evaluate(policy, like)
    how = Scoring(source.evaluation_whole(), n_parts=4)
    read = [[*_scored_share(dataset, policy, (), how, share)] for dataset in pair for share in halves]
    assert [len(parts) for parts in read] == [2] * 4
    at_once = evaluation(policy, scored(policy, like, how), how)
    for parts in (read[:2], read[2:]):
        assert evaluation(policy, chain(*parts), how) == at_once


def test_a_missing_a_damaged_and_a_changed_file_are_named(pair, tmp_path):
    source, _ = pair
    dataset = sharded(source, tmp_path)
    assert dataset.changed_files() == []
    path = min(dataset.path.glob("impressions-*.parquet"))
    content = path.read_bytes()
    for bad in (None, content[:-9], content[:-4] + b"1RAP"):
        path.unlink() if bad is None else path.write_bytes(bad)
        with pytest.raises(Refusal, match=rf"p.parquet.*{path.name}") as refused:
            Dataset.open(dataset.path).query("SELECT sum(reward) FROM impressions")
        assert "restore it" in str(refused.value) and "\n" not in str(refused.value)
        path.write_bytes(content)
    written = pq.read_metadata(path).row_group(0)
    at = max(written.column(i).dictionary_page_offset or 0 for i in range(written.num_columns))
    stands = bytes([2 * at & 0x7F | 0x80, 2 * at >> 7])  # as the footer has it; its lowest bit is its sign
    assert content.count(stands) == 1
    path.write_bytes(content.replace(stands, bytes([stands[0] | 1, stands[1]])))
    with pytest.raises(Refusal, match=r"p\.parquet cannot be read, restore it"):
        dataset.arrays("SELECT * FROM impressions")
    path.write_bytes(content)
    with pytest.raises(duckdb.IOException, match=r"nowhere/x\.parquet"):  # which is not one of its files
        dataset.copy_to("SELECT * FROM requests", tmp_path / "nowhere/x.parquet")
    changed = pq.read_table(path)
    pq.write_table(changed.set_column(0, "request_id", pc.add(changed["request_id"], 1)), path)
    dataset._folder._check_sizes = lambda: None  # as another file of the same size
    assert dataset.changed_files() == [f"p.parquet/{path.name}"]
    manifest = dataset.path / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b'"n_rows": 1', b'"n_rows": 2'))
    with pytest.raises(Refusal, match=r"manifest.json is damaged"):
        Dataset.open(dataset.path)


def test_a_folder_is_there_with_its_manifest_or_not_at_all(pair, tmp_path):
    source, _ = pair
    place = place_of(tmp_path, "p", "")
    found = write_buckets(source, place, (0, N_BUCKETS))
    assert [path.name for path in tmp_path.iterdir()] == [".p.tmp.parquet"]
    finish(tmp_path, "p", source.meta, source, found, place)
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_some_rows_are_the_same_ones_of_both(tmp_path, monkeypatch):
    batch = tables([2] * 30)
    n = len(batch.requests["user_id"])
    batch.requests["baseline_action"] = np.linspace(0, 1, n, dtype=np.float32)[:, None].repeat(
        batch.requests["baseline_action"].shape[1], axis=1
    )
    source = written(tmp_path, batch)
    folder = sharded(source, tmp_path)
    monkeypatch.setattr(aggregates, "BASELINE_ROWS", 9)
    assert aggregates.population(folder).baseline_action == aggregates.population(source).baseline_action
    drawn = [
        [draw_request(log, np.random.default_rng(seed)) for seed in range(9)] for log in (source, folder)
    ]
    assert drawn[0] == drawn[1]


def test_who_was_given_up_on_removes_no_files_of_a_newer_attempt(pair, tmp_path, monkeypatch):
    source, _ = pair
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nothing listens
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")

    def given_up():
        raise TimeoutError("given up on")

    here, there = (place_of(tmp_path, "p", url) for url in ("", "s3://logs/mine"))
    write_buckets(source, here, (0, 1))
    with guarded(given_up):
        for last in (
            lambda: abandon(here),
            lambda: abandon(there),
            lambda: write_buckets(source, there, (0, 9)),
        ):
            with pytest.raises(TimeoutError, match="given up on"):
                last()
    assert [*tmp_path.glob(".p.tmp.parquet/*")]
    abandon(here)
    assert not [*tmp_path.iterdir()]


def test_a_writer_that_wakes_once_the_folder_is_whole_harms_none_of_it(pair, tmp_path, monkeypatch):
    """It has written a file and not given it its name, when another has done its share again."""
    source, whole = pair
    place, share = place_of(tmp_path, "p", ""), (0, N_BUCKETS)
    fence = Fence(tmp_path / "run", 1)
    fence.folder.mkdir()
    assert fence.take_over()

    def others():
        monkeypatch.setattr(sharding, "check_guards", check_guards)
        found = _written(fence.folder, 1, source, place, share)
        ledgers.append(finish(tmp_path, "p", source.meta, source, found, place))

    def sleeps():
        next(looks)()

    ledgers, looks = [], iter([check_guards, others])  # before the file is open, and when it is written
    monkeypatch.setattr(sharding, "check_guards", sleeps)
    with pytest.raises(FileNotFoundError):
        _written(fence.folder, 1, source, place, share)
    made = Dataset.open(tmp_path / "p.parquet", ledgers[0])
    assert made.changed_files() == [] and made.content_hash == whole.content_hash
    assert {path.name for path in made.path.iterdir()} == {path.name for path in whole.path.iterdir()}
    fence.close()
    with pytest.raises(Refusal, match="attempt 1 of run was given up on"):
        _written(fence.folder, 1, source, place, share)


def test_a_workspace_shards_examines_repairs_and_deletes_a_dataset(small_workspace, tmp_path):
    shutil.copytree(small_workspace.path, tmp_path / "w")
    workspace = type(small_workspace)(tmp_path / "w")
    source = workspace.registry.datasets()[0]
    *_, (run,) = watch(workspace, submit_shard(workspace, source.id, name="in parquet"))
    run = completed(workspace, run)
    row = workspace.dataset("in parquet")
    assert run.result["files"] == open_dataset(workspace, row.id).n_files > 1
    assert examine(workspace)["ledger_mismatches"] == examine(workspace)["orphans"] == []
    path = max(workspace.dataset_path(row.id).glob("requests-*"))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    (sentence,) = examine(workspace)["ledger_mismatches"]
    assert row.id in sentence and path.name in sentence
    path.write_bytes(content)
    workspace.registry.delete_dataset(row.id)
    assert repair(workspace.path)["datasets_added"] == [row.id]
    assert workspace.dataset(row.id).content_hash == row.content_hash
    for i, (damage, why) in enumerate([(b"", "no manifest"), (None, "missing")]):
        other = row.model_copy(update={"id": f"dataset-{i}", "name": f"{i}"})
        folder = workspace.datasets_dir / f"dataset-{i}.parquet"
        shutil.copytree(workspace.dataset_path(row.id), folder)
        workspace.registry.add_dataset(other)
        (folder / HASHES).unlink()
        (folder / MANIFEST).unlink() if damage is None else (folder / MANIFEST).write_bytes(damage)
        with pytest.raises(Refusal, match=why):
            open_dataset(workspace, other.id)
        with pytest.raises(Refusal, match=f"{other.id} is deleted here; .* files on a server, if any"):
            delete_dataset(workspace, other.id)
    delete_dataset(workspace, row.id)
    assert not {"0", "1", row.name} & {one.name for one in workspace.registry.datasets()}
    assert not [path for path in workspace.datasets_dir.glob("*.parquet") if path.is_dir()]


@pytest.mark.parametrize("kind", ["collect", "import"])
def test_a_log_is_kept_as_the_parquet_files_that_one_file_of_it_would_make(kind, tmp_path):
    log = logs.write(logs.clean(n_users=12), tmp_path / "log")
    ways = {
        "collect": partial(submit_collect, env="session:feed", n_requests=40),
        "import": partial(submit_import, source=log, mapping=log / "mapping.yaml"),
    }
    workspace = Workspace(tmp_path / "w")
    with worked_on_here():
        for name, to in (("one", ""), ("many", "parquet")):
            *_, (run,) = executor.watch(workspace, ways[kind](workspace, name=name, to=to))
            completed(workspace, run)
        *_, (run,) = executor.watch(workspace, submit_shard(workspace, "one", name="later"))
    one, many, later = (open_dataset(workspace, name) for name in ("one", "many", "later"))
    assert one.n_files == 0 and many.n_files == later.n_files > 1
    assert many.content_hash == later.content_hash == many.recompute_content_hash()
    assert many.meta == one.meta.model_copy(update={"name": "many"})
    for table in one.tables:
        rows = f"SELECT * FROM {table} ORDER BY ALL"
        assert many.table(rows).equals(one.table(rows))
    names = {path.name for path in workspace.datasets_dir.iterdir() if path.suffix in (".parquet", ".duckdb")}
    assert names == {dataset.path.name for dataset in (one, many, later)}


def test_a_place_that_is_none_is_refused(small_workspace, tmp_path):
    source = small_workspace.registry.datasets()[0].id
    for place in ("/tmp/x", "s3://", "s3://a*b/c", "http://x", "Parquet"):
        for asked in (
            partial(submit_shard, dataset=source, name="x"),
            partial(submit_collect, env="session:feed", n_requests=40),
            partial(submit_import, source=tmp_path),
        ):
            with pytest.raises(Refusal, match="s3://BUCKET/PREFIX"):
                asked(small_workspace, to=place)


@pytest.fixture
def s3(monkeypatch):
    """Starts an S3 server on this machine, and lets the environment name it."""
    program = os.environ.get("MTF_MOTO_SERVER")
    if not program:
        pytest.skip(
            "needs an S3 server: pip install 'moto[server]>=5.2.5', and its moto_server in MTF_MOTO_SERVER"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        wait_until(lambda: _answers(port), "the server answers")
        yield running
    finally:
        running.kill()
        running.wait()


def _answers(port):
    try:
        with urlopen(f"http://127.0.0.1:{port}/moto-api/"):
            return True
    except OSError:
        return False


def test_files_on_a_server_are_read_like_those_here_and_deleted(s3, pair, tmp_path):
    source, folder = pair
    files = buckets.filesystem("s3://logs")
    type(files)(endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True).create_dir(
        "logs"
    )
    dataset = sharded(source, tmp_path, n_writers=2, url="s3://logs/of/mine")
    assert not [*dataset.path.glob("*-*.parquet")]
    assert dataset.place == "s3://logs/of/mine/p.parquet" and dataset.content_hash == folder.content_hash
    for table in TABLES:
        rows = f"SELECT * FROM {table} ORDER BY ALL"
        assert dataset.table(rows).equals(source.table(rows))
    assert dataset.changed_files() == []
    first = next(shard.name for shard in dataset._folder.manifest.shards if shard.table == "requests")
    files.delete_file(f"logs/of/mine/p.parquet/{first}")
    with pytest.raises(Refusal, match=first):
        dataset.query("SELECT sum(reward) FROM requests")
    workspace = Workspace(tmp_path / "w")
    collect = partial(submit_collect, workspace, env="session:feed", n_requests=40, to="s3://logs/kept/")
    with worked_on_here():
        *_, (run,) = executor.watch(workspace, collect(name="kept"))
    kept = open_dataset(workspace, str(completed(workspace, run).dataset_id))
    assert kept.place == f"s3://logs/kept/{run.dataset_id}.parquet" and kept.changed_files() == []
    assert not files.get_file_info(f"logs/kept/{run.dataset_id}.parquet/begun").size
    buckets.remove(dataset.place)
    assert not files.get_file_info("logs/of/mine/p.parquet").size
    s3.kill()
    s3.wait()
    with pytest.raises(Refusal, match="AWS_ENDPOINT_URL"):
        buckets.remove(dataset.place)
    with worked_on_here():
        *_, (run,) = executor.watch(workspace, collect(name="lost"))
    assert "AWS_ENDPOINT_URL" in str(run.error) and run.step == 0
