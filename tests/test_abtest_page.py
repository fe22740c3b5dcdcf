"""The page of A/B tests shows what was measured, and its form is its command line."""

import numpy as np
import pandas as pd
import pytest

from mtf_engine.evaluation import ABTest
from mtf_engine.evaluation.livetest import live_test
from mtf_engine.evaluation.sequential import Look
from mtf_engine.logs.live_users import read_arms
from mtf_engine.registry import RunState
from mtf_engine.runs import executor, files
from mtf_engine.work.abtest import looks_so_far, submit_abtest
from pages.evaluate import _abtest_looks, _abtest_results
from tests.test_evaluate_pages import table
from tests.test_pages import button, checked, empty, filled, opened, tables, texts
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
    means = [t for t in tables(app) if list(t.get("policy", ()))[:1] == ["baseline"] and len(t) == 2]
    first = result.means[0]
    assert (
        means[0]["valid consumption"].iloc[0] == f"{first.mean:.3g} [{first.ci_low:.3g}, {first.ci_high:.3g}]"
    )
    samples = table(app, "seed 0", "seed 1")
    assert list(samples["seed 1"]) == [effect.by_seed[1] for effect in result.effects]
    assert f"{result.n_users} users of each of 2 samples" in texts(app)


def form_is_open(app) -> bool:
    return next(one for one in app.expander if one.label == "Start a test").proto.expanded


def test_the_form_is_its_command_line(filled):
    (training,) = filled.registry.runs(kind="train")
    app = opened("abtest", users="20000", samples="5")
    assert not form_is_open(app), "the test that is shown has this policy"
    assert form_is_open(opened("abtest", policies=[training.id, "head:click"]))
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
    assert "The first look is after 5,000,000 users" in texts(app)
    look = Look(
        arm=run.config["policies"][1],
        metric="valid_consumption",
        users=500,
        relative=0.1,
        low=0.05,
        high=0.15,
    )
    (copy.run_dir(run.id) / files.LOOKS).write_text(f"[{look.model_dump_json()}]")
    assert "told to be above the base after 500 users" in texts(checked(app.run())).replace("\\", "")
    executor.cancel(copy, run.id)
    assert executor.wait(copy, run.id).state is RunState.CANCELLED
    assert "was cancelled" in checked(app.run()).error[0].value
    assert "Synthetic" in opened("abtest", test=copy.registry.runs(kind="abtest")[1].id).warning[0].value


def test_what_was_known_after_how_many_users_is_drawn_and_said(
    small_workspace, tmp_path, monkeypatch, in_process
):
    copy = copy_workspace(small_workspace, tmp_path / "copy")
    monkeypatch.setenv("MTF_WORKSPACE", str(copy.path))
    (training,) = copy.registry.runs(kind="train")
    run_id = submit_abtest(copy, [training.id], against="baseline", env="session:feed", n_users=120)
    run = executor.completed(copy, executor.wait(copy, run_id))
    result = ABTest.model_validate(run.result)
    assert looks_so_far(copy, run_id) == list(result.looks)
    app = opened("abtest", test=run_id, look_metric="duration_time")
    shown = table(app, "users", "boundary from")
    assert list(shown["users"]) == [102, 108, 114, 120]
    assert list(shown["boundary to"]) == [k.high for k in result.looks if k.metric == "duration_time"]
    assert "You may look as often as you like" in texts(app) and "The test stopped" not in texts(app)
    stopped = result.model_copy(update={"n_planned": 1_000})
    copy.registry.update_run(run_id, result=stopped.model_dump(mode="json"))
    app = opened("abtest", test=run_id)
    assert "The test stopped after 120 of 1,000 users: by then the session reward" in texts(app)
    assert table(app, "relative difference", "boundary from", "p-value")["users live"].size


def looks():
    """Looks at two arms: one is told at the second, the other never."""
    seen = {"a": [(0.1, -0.1, 0.3), (0.2, 0.1, 0.3)], "b": [(-0.1, -0.4, 0.2), (-0.1, -0.3, 0.1)]}
    return [
        Look(arm=arm, metric="m", users=100 * (i + 1), relative=r, low=low, high=high)
        for i in range(2)
        for arm, (r, low, high) in ((arm, rows[i]) for arm, rows in seen.items())
    ]


NAMED = {arm: {"policy": f"<{arm}>", "algo": arm} for arm in "ab"}


def test_looks_have_a_panel_a_policy_its_boundary_and_a_line_at_zero():
    figure = _abtest_looks.figure(_abtest_looks.looks_frame(looks(), "m", NAMED))
    assert [a.text for a in figure.layout.annotations] == ["<b>&lt;a&gt;</b>", "<b>&lt;b&gt;</b>"]
    low, high, difference = figure.data[:3]
    assert list(low.x) == list(high.x) == list(difference.x) == [100, 200]
    assert (list(low.y), list(high.y), list(difference.y)) == ([-0.1, 0.1], [0.3, 0.3], [0.1, 0.2])
    assert high.fill == "tonexty" and len(figure.layout.shapes) == 2
    assert {shape.y0 for shape in figure.layout.shapes} == {0}
    assert figure.layout.xaxis.title.text == "users so far"
    one = _abtest_looks.figure(_abtest_looks.looks_frame(looks()[:1], "m", NAMED)).data[-1]
    assert [*one.error_y.array, *one.error_y.arrayminus] == pytest.approx([0.2, 0.2]), (
        "a band needs two looks"
    )
    days = [look.model_copy(update={"day": f"2026-11-0{look.users // 100}"}) for look in looks()]
    assert _abtest_looks.figure(_abtest_looks.looks_frame(days, "m", NAMED)).layout.xaxis.title.text == "day"


def test_looks_are_said_in_words():
    assert _abtest_looks.verdicts(looks(), "m", NAMED) == [
        "<a>: told to be above the base after 200 users.",
        "<b>: not told from the base in 200 users.",
    ]


def test_stopping_early_is_asked_for_by_users_of_one_sample(filled):
    app = opened("abtest", stop_early="true")
    assert "--stop-early" in texts(app)
    assert "--stop-early" not in texts(opened("abtest", stop_early="true", samples="2"))


LIVE = "user,arm,date,watch\n" + "\n".join(
    f"u{i},{'AB'[i % 2]},2026-11-0{1 + i // 100},{i % 7 + 2 * (i % 2)}" for i in range(300)
)


def uploaded(text, page="abtest"):
    app = opened(page)
    app.session_state["unfold Read a live test"] = True
    (upload,) = checked(app.run()).file_uploader
    return checked(upload.set_value(("my *test*.csv", text.encode(), "text/csv")).run())


def test_a_live_test_is_read_from_an_upload_beside_what_was_simulated(filled, result, tmp_path):
    policy = result.policies[1]
    text = LIVE.replace("watch", "session_reward").replace(",A,", ",baseline,").replace(",B,", f",{policy},")
    (tmp_path / "users.csv").write_text(text)
    expected = live_test(read_arms(tmp_path / "users.csv"), "baseline")
    app = uploaded(text)
    assert f"baseline has 150 users and {policy} 150, where equal" in app.success[0].value.replace("\\", "")
    shown = tables(app)
    (effects,) = (t for t in shown if {"arm", "interval from", "boundary from"} <= set(t))
    assert list(effects["relative difference"]) == [expected.effects[0].relative]
    assert list(effects["simulated"]) == [result.effect(policy, "session_reward").relative]
    (days,) = (t for t in shown if {"day", "boundary to"} <= set(t))
    assert list(days["boundary to"]) == [look.high for look in expected.looks]
    assert f"{policy}: told to be above the base after 300 users, on 2026-11-03" in texts(app).replace(
        "\\", ""
    )
    assert "livetest 'my *test*.csv' --base baseline" in texts(app)
    app.text_input(key="live_ratio").set_value(f"baseline=1,{policy}=3")
    assert "Find the cause before you read any figure" in checked(app.run()).error[0].value


def test_a_live_test_needs_no_policy_and_is_refused_by_its_bad_row(empty):
    app = uploaded(LIVE + "\nu1,A,2026-11-01,3", "policies")
    assert "row 301, column arm: puts u1 into a second arm" in app.error[0].value.replace("\\", "")
    (upload,) = app.file_uploader
    app = checked(upload.set_value(("users.csv", LIVE.encode(), "text/csv")).run())
    assert "A has 150 users and B 150" in app.success[0].value and not app.error


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
