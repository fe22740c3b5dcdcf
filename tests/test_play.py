"""Play promises: what a bare log of the same sessions adds up to, the same for any batch and any other policy."""

import numpy as np
import pytest
import torch

from mtf_engine.environments.collect import Collection, collect
from mtf_engine.environments.play import play
from mtf_engine.environments.replay import ReplayEnvironment
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.policies.networks import Actor, Standardise
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import BoundsPlan

N_SESSIONS = 300
SUMS = """
    SELECT user_id, sum(reward) AS rewards, sum(valid)::BIGINT AS valid, sum(seconds) AS seconds, count(*) AS requests
    FROM requests JOIN (SELECT request_id, count(*) FILTER (label) AS valid, sum(watch_time::DOUBLE) AS seconds
                        FROM impressions GROUP BY ALL) USING (request_id)
    GROUP BY session_id, user_id ORDER BY session_id
"""


@pytest.fixture(scope="module")
def env():
    return SessionEnvironment()


@pytest.fixture(scope="module")
def baseline(env):
    return Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)


@pytest.fixture(scope="module")
def actor(env):
    """Returns a policy whose actions differ between observations."""
    n = len(env.feature_names)
    network = Actor(n, env.fusion.n_actions, (64, 64))
    network.initialise(Standardise(torch.zeros(n), torch.ones(n)), torch.Generator().manual_seed(0))
    return Policy(network, env.fusion, env.feature_names, env.numeric_mask)


@pytest.fixture(scope="module")
def bare(env, baseline, tmp_path_factory):
    """Returns a log of the first sessions of seed 5 under the baseline alone."""
    folder = tmp_path_factory.mktemp("logs")
    collection = Collection(
        explore="baseline", plan=BoundsPlan.symmetric(0.15, 10), n_requests=3 * N_SESSIONS, seed=5
    )
    meta = collection.meta(env, "bare", "session")
    ledger = write_dataset(folder, "bare", meta, collect(env, baseline, collection))
    return Dataset.open(folder / "bare.duckdb", ledger)


def assert_same_sums(outcome, log):
    """Fails unless the outcome of the log's first sessions is what their rows add up to."""
    sums = log.arrays(SUMS)
    n = min(len(outcome), len(sums["requests"]))
    assert n > 50
    for name in ("valid", "requests"):
        assert (getattr(outcome, name)[:n] == sums[name][:n]).all()
    for name in ("rewards", "seconds"):
        np.testing.assert_allclose(getattr(outcome, name)[:n], sums[name][:n], rtol=1e-9)


def test_outcomes_are_the_sums_of_a_bare_log_with_the_same_users(env, baseline, bare):
    outcome = play(env, baseline, *env.visits(0, N_SESSIONS, 5))
    assert_same_sums(outcome, bare)
    users = bare.arrays(SUMS)["user_id"]
    assert [f"u{code}" for code in outcome.users[: len(users)]] == users[:N_SESSIONS].tolist()
    assert outcome.rewards.std() > 0 and outcome.valid.max() > 10 and outcome.requests.max() > 5


def test_replayed_sessions_add_up_too(bare, tmp_path):
    env = ReplayEnvironment(bare)
    baseline = Policy.baseline(env.fusion, env.feature_names, env.numeric_mask)
    collection = Collection(explore="baseline", plan=BoundsPlan.symmetric(0.15, 10), n_requests=300, seed=2)
    meta = collection.meta(env, "replayed", "replay")
    ledger = write_dataset(tmp_path, "replayed", meta, collect(env, baseline, collection))
    outcome = play(env, baseline, *env.visits(0, 400, 2))
    assert_same_sums(outcome, Dataset.open(tmp_path / "replayed.duckdb", ledger))


def test_batch_size_changes_nothing(env, actor):
    visits = env.visits(0, N_SESSIONS, 5)
    whole, parts = play(env, actor, *visits), play(env, actor, *visits, batch=37)
    for name, values in vars(whole).items():
        assert (values == vars(parts)[name]).all(), name


def test_two_policies_meet_the_same_users_in_the_same_world(env, actor, baseline):
    visits = env.visits(0, 2_000, 5)
    one, other = play(env, actor, *visits), play(env, baseline, *visits)
    assert (one.users == other.users).all() and (one.rewards != other.rewards).any()
    paired, unpaired = (one.rewards - other.rewards).var(), one.rewards.var() + other.rewards.var()
    assert paired < 0.7 * unpaired
