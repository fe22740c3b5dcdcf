"""Collection promises: a log that is the environment's, in whole sessions, the same for any batch size."""

import numpy as np
import pytest
from scipy.stats import norm, truncnorm

from mtf_engine.environments.collect import Collection, _split, collect, play_sessions
from mtf_engine.environments.session import SessionEnvironment
from mtf_engine.exploration.coverage import certify_coverage
from mtf_engine.logs.aggregates import coverage
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.observation import log_history
from mtf_engine.spec import BoundsPlan, Refusal

PLAN = BoundsPlan.symmetric(0.15, 10)
N_REQUESTS = 2500


class Constant:
    """A baseline policy that always serves the same action."""

    def __init__(self, action):
        self.action = np.float32(action)

    def act(self, observations):
        return np.tile(self.action, (len(observations), 1))


BASELINE = Constant(np.zeros(10))


@pytest.fixture(scope="module")
def env():
    return SessionEnvironment()


def written(env, folder, batch=2048, baseline=BASELINE, **settings):
    """Returns a collected dataset and its ledger."""
    collection = Collection(**{"plan": PLAN, "n_requests": N_REQUESTS, "seed": 5} | settings)
    name = f"{collection.explore}_{batch}"
    ledger = write_dataset(
        folder, name, collection.meta(env, name, "session"), collect(env, baseline, collection, batch)
    )
    return Dataset.open(folder / f"{name}.duckdb", ledger), ledger


@pytest.fixture(scope="module")
def log(env, tmp_path_factory):
    return written(env, tmp_path_factory.mktemp("logs"))[0]


def test_batch_size_changes_nothing_in_the_log(env, log, tmp_path):
    assert written(env, tmp_path, batch=97)[1].content_hash == log.content_hash


def test_another_seed_is_another_log_of_other_users(env, log, tmp_path):
    other = written(env, tmp_path, seed=6)[0]
    users = [set(d.query("SELECT DISTINCT user_id FROM requests")["user_id"]) for d in (log, other)]
    assert not users[0] & users[1]


def test_sessions_are_whole_and_there_are_as_many_requests_as_asked_for(log):
    requests = log.arrays("SELECT * FROM requests ORDER BY request_id")
    assert N_REQUESTS <= log.n_requests < N_REQUESTS + 20
    assert (requests["request_id"] == np.arange(log.n_requests)).all()
    new = np.diff(requests["session_id"], prepend=-1) == 1
    assert (requests["step"][new] == 0).all() and (np.diff(requests["step"])[~new[1:]] == 1).all()
    assert (requests["terminal"] == np.append(new[1:], True)).all() and not requests["truncated"].any()


def test_time_passes_within_a_user(log):
    backwards = log.query(
        "SELECT count(*) AS n FROM (SELECT timestamp <= lag(timestamp) OVER (PARTITION BY user_id "
        "ORDER BY request_id) AS backwards FROM requests) WHERE backwards"
    )
    assert backwards["n"][0] == 0


def test_observations_rebuilt_from_the_log_equal_the_environments_bit_for_bit(env, log):
    requests = log.arrays("SELECT *, epoch(timestamp) AS seconds FROM requests ORDER BY user_id, request_id")
    impressions = log.arrays("SELECT * FROM impressions ORDER BY user_id, request_id, position")
    _, user = np.unique(requests["user_id"], return_inverse=True)
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    shown = env.config.n_shown
    stop = np.arange(len(user)) * shown
    history, counts = log_history(
        np.stack([impressions[s] for s in env.signals], axis=1), first=starts[user] * shown, stop=stop
    )
    elapsed = np.diff(requests["seconds"], prepend=np.nan)
    elapsed[starts] = np.nan
    profile = requests["observation"][:, : len(env.encoder.profile_names)]
    step = requests["step"]
    rebuilt = env.encoder.observe(profile, history, counts, elapsed, step, env.config.n_requests - 1 - step)
    assert (rebuilt == requests["observation"]).all()
    assert counts.max() == 100


def test_a_mixed_log_tells_its_mixture_is_certified_by_it_and_has_the_gaussian_draws_where_it_is_noise(
    env, tmp_path
):
    mixed, ledger = written(env, tmp_path, explore="mixed", random_share=0.3, n_requests=5_000)
    other_batch = written(env, tmp_path, batch=97, explore="mixed", random_share=0.3, n_requests=5_000)[1]
    assert other_batch.content_hash == ledger.content_hash
    mixture = mixed.meta.mixture
    assert (mixture.sigma, mixture.random_share, mixture.random_sigma) == (0.2, 0.3, 0.5)
    rows = mixed.arrays("SELECT * FROM requests WHERE NOT isnan(pscore) ORDER BY session_id, step")
    offsets = rows["action"].astype(float) - rows["baseline_action"]
    noise, at_random = (
        truncnorm.pdf(x, -1 / s, 1 / s, scale=s).prod(axis=1)
        if of_random
        else norm.pdf(x, scale=s).prod(axis=1)
        for x, s, of_random in ((offsets, 0.2, False), (rows["action"].astype(float), 0.5, True))
    )
    whole = rows["clipped"] == 0
    np.testing.assert_allclose(rows["pscore"][whole], (0.7 * noise + 0.3 * at_random)[whole], rtol=1e-4)
    certificate = certify_coverage(coverage(mixed), mixed.meta.fusion.names)
    assert certificate.passed, certificate.reason
    gaussian = written(env, tmp_path, explore="gaussian", n_sessions=300, n_requests=None)[0]
    first = "SELECT session_id, action FROM requests WHERE step = 0 AND session_id < 300 ORDER BY session_id"
    same = (mixed.arrays(first)["action"] == gaussian.arrays(first)["action"]).all(axis=1)
    assert same.mean() == pytest.approx(0.9 * 0.7 + 0.1, abs=0.08), (
        "control users are at the baseline in both"
    )


def test_rewards_add_up_from_the_impressions(log):
    wrong = log.query(
        "SELECT count(*) AS n FROM requests JOIN "
        "(SELECT request_id, sum(reward) AS total FROM impressions GROUP BY ALL) USING (request_id) "
        "WHERE abs(reward - total) > 1e-9"
    )
    assert wrong["n"][0] == 0


def test_control_users_sit_at_the_baseline_and_the_rest_inside_the_bounds(env, tmp_path):
    action = np.linspace(-1, 1, 10)
    rows = written(env, tmp_path, baseline=Constant(action))[0].arrays("SELECT * FROM requests")
    control = np.isnan(rows["pscore"])
    assert 0.04 < control.mean() < 0.18
    assert (rows["action"][control] == np.float32(action)).all()
    assert (rows["action"][~control] != np.float32(action)).any(axis=1).all()
    offsets = rows["action"] - rows["baseline_action"]
    assert (offsets >= rows["lower"] - 1e-6).all() and (offsets <= rows["upper"] + 1e-6).all()
    density = 1 / np.prod(rows["upper"].astype(float) - rows["lower"], axis=1)
    assert np.allclose(rows["pscore"][~control], density[~control])
    assert density[0] == pytest.approx(0.3**-8 * 0.15**-2, rel=1e-5)


def test_a_user_is_for_validation_in_every_log_or_in_none():
    users = np.arange(5_000)
    splits = [_split(users, Collection(plan=PLAN, n_requests=1, seed=seed)) for seed in (0, 1, 77)]
    assert (splits[0] == splits[1]).all() and (splits[0] == splits[2]).all()
    assert 0.08 < (splits[0] == "validation").mean() < 0.12


def test_control_and_validation_are_shares_of_users_and_independent(log):
    users = log.query(
        "SELECT any_value(split) AS split, bool_and(pscore IS NULL) AS control FROM requests GROUP BY user_id"
    )
    shares = (users["split"] == "validation").mean(), users["control"].mean()
    assert all(0.05 < share < 0.16 for share in shares)
    both = ((users["split"] == "validation") & users["control"]).mean()
    assert both < 0.04
    assert (
        log.query("SELECT count(DISTINCT (user_id, split)) - count(DISTINCT user_id) AS n FROM requests")[
            "n"
        ][0]
        == 0
    )


def test_a_baseline_log_has_no_noise_no_density_and_no_split(env, tmp_path):
    bare = written(env, tmp_path, explore="baseline")[0]
    rows = bare.arrays("SELECT action, baseline_action, pscore, split FROM requests")
    assert (rows["action"] == rows["baseline_action"]).all() and np.isnan(rows["pscore"]).all()
    assert bare.splits == () and bare.meta.control_share == 1 and bare.meta.exploration == "baseline"


def test_all_candidates_are_kept_for_the_first_requests_only(env, log, tmp_path, monkeypatch):
    monkeypatch.setattr("mtf_engine.environments.collect.CANDIDATE_REQUESTS", 100)
    short = written(env, tmp_path, n_requests=400, batch=30)[0]
    kept = short.query(
        "SELECT request_id, count(*) AS n, count(DISTINCT item_id) AS items FROM candidates "
        "GROUP BY ALL ORDER BY request_id"
    )
    assert kept["request_id"].tolist() == list(range(100)) and set(kept["n"]) == set(kept["items"]) == {60}
    same = short.query(
        "SELECT count(*) AS n FROM impressions i JOIN candidates c USING (request_id, item_id) "
        "WHERE i.predictions = c.predictions"
    )
    assert same["n"][0] == 100 * env.config.n_shown
    assert log.query("SELECT count(*) AS n FROM candidates")["n"][0] == log.n_requests * 60


@pytest.mark.parametrize("size", [{"n_requests": N_REQUESTS}, {"n_requests": None, "n_sessions": 300}])
def test_what_is_played_elsewhere_is_the_same_log(env, log, tmp_path, monkeypatch, size):
    kept = log if "n_sessions" not in size else written(env, tmp_path, **size)[0]
    monkeypatch.setattr("mtf_engine.environments.collect.WORTH_SPREADING", 100)
    monkeypatch.setattr("mtf_engine.environments.collect.CANDIDATE_REQUESTS", 300)
    collection, other, spans = Collection(**{"plan": PLAN, "seed": 5} | size), SessionEnvironment(), []

    def elsewhere(asked):
        for span in asked:
            spans.append(span)
            yield play_sessions(other, BASELINE, collection, span)

    batches = collect(env, BASELINE, collection, 40, elsewhere)
    ledger = write_dataset(tmp_path, "spread", collection.meta(env, "spread", "session"), batches)
    spread = Dataset.open(tmp_path / "spread.duckdb", ledger)
    assert len(spans) > 3
    for table in ("requests", "impressions"):
        rows = f"SELECT * FROM {table} ORDER BY ALL"
        assert spread.table(rows).equals(kept.table(rows))
    rows = "SELECT * FROM candidates WHERE request_id < 300 ORDER BY request_id, item_id"
    assert spread.table(rows).equals(kept.table(rows))


def test_a_plan_for_other_actions_is_refused(env):
    collection = Collection(plan=BoundsPlan.symmetric(0.15, 4), n_requests=10)
    with pytest.raises(Refusal, match=r"4 dimensions .* take actions of 10"):
        next(collect(env, BASELINE, collection))
