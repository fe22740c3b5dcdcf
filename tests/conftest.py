"""Fixtures that several rooms share."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from mtf_engine.runs import executor
from mtf_engine.runs.nursery import NURSERY, Nursery
from mtf_engine.work.abtest import submit_abtest
from mtf_engine.work.collect import submit_collect
from mtf_engine.work.evaluate import submit_evaluate
from mtf_engine.work.export import submit_export
from mtf_engine.work.train import submit_train
from mtf_engine.workspace import REGISTRY_URL, Workspace
from tests import postgres
from tests.browsing import chrome, tab
from tests.searching import REPEATABLE, SEARCHING
from tests.waiting import wait_until
from tests.workspaces import has_loaded, worked_on_here

__all__ = ["chrome", "tab"]  # one browser for every file that asks for it

anytime = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""No test fails because the machine is busy."""
settings.register_profile(SEARCHING, anytime)  # `make slow` looks for new counterexamples
settings.register_profile(REPEATABLE, anytime, derandomize=True, database=None)
settings.load_profile(REPEATABLE)

ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests that need a browser last, and those that need the filled workspace before them.

    So one process fills it while the other still has tests that do without.
    """

    def needs(item: pytest.Item) -> tuple[bool, bool]:
        browser = item.get_closest_marker("browser") is not None
        return browser, "small_workspace" in getattr(item, "fixturenames", ())

    items.sort(key=needs)


@pytest.fixture(scope="session")
def kuairand() -> Path:
    """The folder of the real log: MTF_KUAIRAND, else `../shared/data/kuairand`; skips where there is none."""
    folder = Path(os.environ.get("MTF_KUAIRAND") or ROOT.parent / "shared" / "data" / "kuairand")
    if not folder.is_dir():
        pytest.skip("no KuaiRand folder: name it in MTF_KUAIRAND")
    return folder


@pytest.fixture(scope="session")
def small_workspace(tmp_path_factory, worker_id) -> Workspace:
    """A workspace with two logs, a trained policy, its comparison, its A/B test and its bundle, to be read only.

    All test processes share the one that the first of them fills.
    """
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    with FileLock(shared / "small_workspace.lock"):
        workspace = Workspace(shared / "small_workspace")
        if not workspace.registry.runs():
            with worked_on_here():
                fill(workspace)
    return workspace


@pytest.fixture(scope="session")
def nursery(tmp_path_factory) -> Iterator[str]:
    """The place of a nursery for the tests of this process, which starts when one of them first asks for it."""
    environment = os.environ | executor._environment(1)
    kept = Nursery(str(tmp_path_factory.mktemp("nursery")), environment)
    try:
        wait_until(lambda: has_loaded(kept), "the nursery has loaded")
        yield kept.place
    finally:
        kept.process.kill()
        kept.process.wait()
        kept.forget()


@pytest.fixture(scope="module")
def borne(nursery: str) -> Iterator[None]:
    """Workers are copies of a process that has loaded, as those of a dashboard are: one by itself loads for seconds.

    So are the workers that a worker starts. How one loads by itself is what tests/test_jobs.py looks at.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NURSERY, nursery)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server, which starts when a test first asks for it."""
    if postgres.programs() is None:
        pytest.skip("needs PostgreSQL's server: `apt install postgresql`")
    with postgres.served() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the registry of the test's workspace lies: in its folder, or in a database of a server, empty each."""
    if request.param == "postgresql":
        url = postgres.new_database(request.getfixturevalue("server"))
        monkeypatch.setenv(REGISTRY_URL, url)
    return request.param


@pytest.fixture
def in_process() -> Iterator[None]:
    """Runs are worked on by this process, once it waits for them."""
    with worked_on_here():
        yield


def fill(workspace: Workspace) -> None:
    """Takes the data's way once, through the engine's own jobs."""

    def done(run_id: str) -> str:
        return executor.completed(workspace, executor.wait(workspace, run_id)).dataset_id or ""

    collect = partial(submit_collect, workspace, env="session:feed", n_requests=1000)
    collected = [
        collect(explore="uniform", seed=1, name="explored"),
        collect(explore="baseline", seed=2, name="test"),
    ]
    explored, test = map(done, collected)
    settings = {"n_steps": "60", "n_critics": "4", "hidden": "16", "log_every": "10"}
    train = partial(submit_train, workspace, explored, algo="integrated_rl", preset="demo")
    run_id = train(settings=settings, name="small")
    done(run_id)
    abtest = partial(submit_abtest, workspace, [run_id], against="baseline", env="session:feed")
    compared = [
        submit_evaluate(workspace, ["baseline", run_id], test, floors=False),  # as rounds do
        abtest(n_users=50, seeds=(0, 1)),
    ]
    for compared_id in compared:
        done(compared_id)
    done(submit_export(workspace, run_id))  # its bundle tells the scores
