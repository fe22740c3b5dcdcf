"""The page of A/B tests shows what was measured, and its form is its command line."""

import numpy as np
import pandas as pd
import pytest

from mtf_engine.evaluation import ABTest
from mtf_engine.registry import RunState
from mtf_engine.runs import executor
from pages.evaluate import _abtest_results
from tests.test_evaluate_pages import table
from tests.test_pages import button, checked, empty, filled, opened, texts
from tests.workspaces import copy_workspace

__all__ = ["empty", "filled"]


@pytest.fixture
def result(filled) -> ABTest:
    (run,) = filled.registry.runs(kind="abtest")
    return ABTest.model_validate(run.result)


def test_the_page_shows_what_was_measured(filled, result):
    app = opened("abtest")
    assert "Synthetic" in app.warning[0].value
    shown = table(app, "relative difference", "interval from")
    assert list(shown["relative difference"]) == [effect.relative for effect in result.effects]
    assert list(shown["p-value"]) == [effect.p_value for effect in result.effects]
    two = table(app, "policy", "valid consumption", "duration time", "session reward")
    assert f"{result.effects[0].relative:+.2%}" in two["valid consumption"].iloc[0]
    samples = table(app, "seed 0", "seed 1")
    assert list(samples["seed 1"]) == [effect.by_seed[1] for effect in result.effects]
    assert f"{result.n_users} users of each of 2 samples" in texts(app)


def test_the_form_is_its_command_line(filled):
    (training,) = filled.registry.runs(kind="train")
    app = opened("abtest", users="20000", samples="5")
    command = (
        f"abtest {training.id} --against baseline --env session --world feed --users 20000 --seed 0 --seeds 5"
    )
    assert command in texts(app)
    app.selectbox(key="against").set_value(training.id)
    assert "Choose a policy" in texts(checked(app.run()))
    assert not [b for b in app.button if b.label == "Start the test"]


def test_a_test_is_started_followed_and_found_again(small_workspace, tmp_path, monkeypatch, in_process):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    app = opened("abtest", users="100000000")
    checked(button(app, "Start the test").click().run())
    run = copy.registry.runs(kind="abtest")[0]
    assert run.config["n_users"] == 100_000_000 and app.selectbox(key="test").value == run.id
    assert not [w for w in app.warning if "Synthetic" in w.value]
    executor.cancel(copy, run.id)
    assert executor.wait(copy, run.id).state is RunState.CANCELLED
    assert "was cancelled" in checked(app.run()).error[0].value
    assert "Synthetic" in opened("abtest", test=copy.registry.runs(kind="abtest")[1].id).warning[0].value


def links(app):
    return {link.label for link in app.get("page_link")}


def test_other_pages_lead_here(filled):
    (training,), (test,) = (filled.registry.runs(kind=kind) for kind in ("train", "abtest"))
    assert "A/B test it →" in links(opened("runs", run=training.id))
    assert "Read it →" in links(opened("runs", run=test.id))
    assert "The A/B test →" in links(opened("compare"))
    assert "Compare them on a log →" in links(opened("abtest", test=test.id))


def effects(n_policies=2):
    rows = [
        {
            "policy": f"<policy {i}>",
            "algo": "integrated_rl",
            "run_id": str(i),
            "metric": metric,
            "relative difference": 0.01 * (i + 1),
            "low": 0.005,
            "high": 0.05,
            "p-value": 0.0123,
            "users live": 1_000,
        }
        for i in range(n_policies)
        for metric in ("valid consumption", "duration time")
    ]
    return pd.DataFrame(rows)


def test_the_picture_has_a_panel_a_metric_and_a_dot_with_its_interval_a_policy():
    figure = _abtest_results.figure(effects())
    assert [a.text for a in figure.layout.annotations] == ["<b>valid consumption</b>", "<b>duration time</b>"]
    for dots in figure.data:
        assert list(dots.y) == ["&lt;policy 1&gt;", "&lt;policy 0&gt;"]
        assert list(dots.x) == pytest.approx([0.02, 0.01])
        assert list(dots.error_x.array) == pytest.approx([0.03, 0.04])
    assert len(set(figure.data[0].marker.symbol)) == 2


def test_beside_a_test_stands_whether_weighted_gauc_orders_policies_alike(filled):
    assert "Weighted GAUC and the A/B test order" in texts(opened("abtest"))


def test_table_2_is_said_in_words():
    said = _abtest_results.table_2(effects())
    assert list(said.columns) == ["policy", "valid consumption", "duration time"]
    assert said.iloc[0, 1] == "+1.00% [+0.50%, +5.00%], p = 0.012 *"
    nothing = effects().assign(**{"relative difference": np.nan})
    assert _abtest_results.table_2(nothing).iloc[0, 1] == "cannot be told"
