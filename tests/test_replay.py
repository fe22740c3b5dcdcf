"""Replay promises: real feedback of what is shown, in time order, and nothing of what is not."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.environments.replay import ReplayConfig, ReplayEnvironment
from mtf_engine.logs.datasets import Dataset, write_dataset
from mtf_engine.logs.schema import DatasetMeta, Ledger, Tables
from mtf_engine.observation import ObservationEncoder, log_history
from mtf_engine.runs.storage import register_dataset
from mtf_engine.spec import FusionDimension, FusionSpec, Refusal, RewardSpec
from mtf_engine.workspace import Workspace

FUSION = FusionSpec(
    predictions=("oracle", "noise"),
    dimensions=tuple(FusionDimension(prediction=p, kind="pow", low=-2, high=2) for p in ("oracle", "noise")),
)
LENGTHS = (5, 8, 30, 60, 61, 100)


def source(folder, lengths=LENGTHS, split="train", requests_left=True):
    """Writes a log of one impression a request whose prediction `oracle` grows with the reward."""
    rng = np.random.default_rng(0)
    n, user = sum(lengths), np.repeat(np.arange(len(lengths)), lengths)
    reward = rng.uniform(0, 1, n)
    encoder = ObservationEncoder(
        signals=("watch_time",), numeric=("age",), fill=(30.0,), requests_left=requests_left
    )
    meta = DatasetMeta(
        name="source", source="kuairand", fusion=FUSION, reward=RewardSpec(weights={"watch_time": 1}),
        signals=("watch_time",), encoder=encoder, feature_names=encoder.feature_names,
        numeric_mask=encoder.numeric_mask,
    )  # fmt: skip
    observations = np.zeros((n, encoder.n_features), np.float32)
    observations[:, 0] = 20 + user
    users = np.array([f"user{u}" for u in user])
    seconds = 1_650_000_000 + rng.integers(1, 5000, n).cumsum()
    none = np.full((n, 2), np.nan, np.float32)
    requests = {
        "request_id": np.arange(n), "session_id": user, "user_id": users, "step": np.zeros(n, np.int32),
        "timestamp": (seconds * 1e6).astype("datetime64[us]"), "split": np.full(n, split), "segment": users,
        "observation": observations, "baseline_action": none, "action": none, "lower": none, "upper": none,
        "pscore": np.full(n, np.nan), "clipped": np.zeros(n, np.int32), "reward": reward,
        "terminal": np.ones(n, bool), "truncated": np.zeros(n, bool),
    }  # fmt: skip
    impressions = {
        "request_id": np.arange(n), "user_id": users, "item_id": np.arange(n) + 1000,
        "position": np.zeros(n, np.int32),
        "predictions": np.stack([reward, rng.uniform(0.1, 1, n)], axis=1).astype(np.float32),
        "watch_time": reward.astype(np.float32), "reward": reward, "label": reward > 0.5,
    }  # fmt: skip
    write_dataset(folder, "source", meta, [Tables(requests, impressions)])
    return Dataset.open(folder / "source.duckdb")


def add_source(workspace: Workspace) -> None:
    """Writes the log into `workspace`, where it is the dataset "source"."""
    log = source(workspace.datasets_dir)
    counts = {"n_requests": log.n_requests, "n_impressions": log.n_impressions}
    ledger = Ledger(dataset_id="source", content_hash=log.content_hash, **counts)
    register_dataset(workspace, ledger, log.meta, "import-1")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return source(tmp_path_factory.mktemp("replay"))


@pytest.fixture(scope="module")
def env(log):
    return ReplayEnvironment(log, ReplayConfig.named("replay"))


def play(env, action, n=200, seed=0):
    env.reset(*env.visits(0, n, seed))
    records = []
    while len(active := env.active):
        observations, offered = env.observe(), env.candidates(slice(None))
        records.append(
            (active, observations, offered, env.step(np.tile(np.float32(action), (len(active), 1))))
        )
    return records


def rewards(records):
    return sum(step.rewards.sum() for *_, step in records)


def test_a_perfect_ranking_beats_a_blind_one_and_that_a_reversed_one(env):
    best, blind, worst = (rewards(play(env, action)) for action in ((1, 0), (0, 1), (-1, 0)))
    assert best > 1.2 * blind > 1.2 * 1.2 * worst


def test_a_perfect_ranking_shows_the_three_best_of_eight_in_order(env):
    for *_, offered, step in play(env, (1, 0)):
        by_reward = np.argsort(-offered.predictions[:, :, 0], axis=1)[:, :3]
        assert (step.impressions.item_id == np.take_along_axis(offered.item_id, by_reward, axis=1)).all()


def test_feedback_is_what_the_log_has_for_the_item(env):
    for *_, step in play(env, (0.3, -0.2)):
        rows = step.impressions.item_id - 1000
        assert (step.impressions.signals == env.log.signals[rows]).all()
        assert (step.impressions.reward == env.log.reward[rows]).all()
        assert (step.impressions.label == (step.impressions.reward > 0.5)).all()
        assert np.allclose(step.rewards, step.impressions.reward.sum(axis=1))


def test_requests_take_the_next_eight_impressions_of_their_user_in_time_order(env):
    records = play(env, (0, 0.5))
    for active, _, offered, _ in records:
        rows = offered.item_id - 1000
        assert (np.diff(rows, axis=1) == 1).all()
        assert (env.log.users[env.log.user[rows]] == active.users[:, None]).all()
    for (before, _, offered, _), (after, _, later, _) in itertools.pairwise(records):
        rows = np.isin(before.sessions, after.sessions)
        assert (later.item_id[:, 0] == offered.item_id[rows, -1] + 1).all()
        assert (after.seconds > before.seconds[rows]).all()


def test_the_history_is_the_users_log_before_the_start_and_then_what_was_shown(env):
    """Observations of the first and second request, rebuilt from the log."""
    (active, first, offered, step), (later, second, _, _), *_ = play(env, (0, 1))
    row = offered.item_id[:, 0] - 1000
    user = env.log.user[row]
    history, counts = log_history(env.log.signals, env.log.first[user], row)
    assert (first[:, env.feature_names.index("history_count")] == counts).all()
    mean = env.feature_names.index("watch_time_mean_5")
    known = np.minimum(counts, 5)
    assert np.allclose(first[:, mean], history[:, -5:, 0].sum(axis=1) / np.maximum(known, 1), atol=1e-6)
    assert (first[:, 0] == 20 + user).all() and counts.max() > 20 > counts.min()
    stay = np.isin(active.sessions, later.sessions)
    shown = np.concatenate([history, step.impressions.signals], axis=1)[stay]
    assert np.allclose(
        second[:, mean], shown[:, -5:, 0].sum(axis=1) / np.minimum(counts[stay] + 3, 5), atol=1e-6
    )


def test_sessions_end_after_five_requests_or_with_the_log_and_the_observation_knows(env):
    records = play(env, (1, 1))
    assert len(records) == 5
    left = env.feature_names.index("requests_left")
    for _, observations, _, step in records:
        assert (step.terminals == (observations[:, left] == 0)).all() and not step.truncated.any()
    ended = [step.terminals.mean() for *_, step in records]
    assert 0 < ended[0] < 1


def test_the_observation_of_a_newer_log_does_not_tell_how_much_of_it_is_left(env, tmp_path):
    newer = ReplayEnvironment(source(tmp_path, requests_left=False), env.config)
    *known, left = env.feature_names
    assert (tuple(known), left) == (newer.feature_names, "requests_left")
    for (_, told, _, _), (_, untold, _, _) in zip(play(env, (1, 1)), play(newer, (1, 1)), strict=True):
        assert (told[:, :-1] == untold).all()


def test_every_user_long_enough_is_dealt_once_a_pass_and_starts_vary(env):
    users, passes = env.visits(0, 12, seed=3)
    assert env.n_users_left_out == 1
    assert sorted(users[:5]) == sorted(users[5:10]) == [1, 2, 3, 4, 5] and (users[:5] != users[5:10]).any()
    assert len(np.unique(passes)) == 3
    later = env.visits(3, 6, seed=3)
    assert (later[0] == users[3:9]).all() and (later[1] == passes[3:9]).all()
    first_items = play(env, (1, 1))[0][2].item_id[:, 0]
    assert len(np.unique(first_items)) > 60


def test_passes_say_how_often_the_log_is_dealt_out(env):
    n_sessions = 5 * env.passes(100, seed=2)
    lengths = [
        sum(len(active) for active, *_ in play(env, (1, 1), n, seed=2)) for n in (n_sessions - 5, n_sessions)
    ]
    assert lengths[0] < 100 <= lengths[1]


def test_only_training_days_are_dealt(tmp_path):
    with pytest.raises(Refusal, match="no train rows"):
        ReplayEnvironment(source(tmp_path, split="test"))


def test_a_log_with_no_user_long_enough_is_refused(tmp_path):
    with pytest.raises(Refusal, match=r"no user with 20 impressions.*offer fewer candidates"):
        ReplayEnvironment(source(tmp_path, lengths=(19, 3)))


def test_more_shown_than_offered_is_refused():
    with pytest.raises(ValueError, match="shows 3 of 2"):
        ReplayConfig(n_candidates=2)


@given(st.integers(1, 1_000), st.integers(1, 1_000), st.integers(1, 1_000))
def test_a_name_holds_all_settings(candidates, shown, requests):
    config = ReplayConfig(n_candidates=max(candidates, shown), n_shown=shown, n_requests=requests)
    assert ReplayConfig.named(config.name) == config


def test_a_bare_name_means_what_it_always_has():
    assert ReplayConfig.named("replay") == ReplayConfig(n_candidates=8, n_shown=3, n_requests=5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("replay:20", "write replay:CANDIDATES/SHOWN/REQUESTS"),
        ("replay:20/3/5/1", "write replay:CANDIDATES/SHOWN/REQUESTS"),
        ("replay:20/x/5", "write replay:CANDIDATES/SHOWN/REQUESTS"),
        ("replay:20/0/5", "n_shown: Input should be greater than or equal to 1"),
        ("replay:5000/3/5", "n_candidates: Input should be less than or equal to 1000"),
        ("replay:2/3/5", "shows 3 of 2 candidates"),
    ],
)
def test_a_name_that_is_no_replay_is_refused(name, said):
    with pytest.raises(Refusal, match=said):
        ReplayConfig.named(name)


@pytest.mark.parametrize(("offered", "shown", "requests"), [(20, 3, 5), (12, 5, 2), (5, 5, 1)])
def test_so_many_are_offered_shown_and_played(log, offered, shown, requests):
    config = ReplayConfig(n_candidates=offered, n_shown=shown, n_requests=requests)
    records = play(ReplayEnvironment(log, config), (1, 0))
    assert len(records) <= requests
    for *_, candidates, step in records:
        assert candidates.item_id.shape[1] == offered and step.impressions.item_id.shape[1] == shown
        best = -np.sort(-candidates.predictions[:, :, 0], axis=1)[:, :shown]
        assert (step.impressions.predictions[:, :, 0] == best).all()
