"""Finding runs by expressions over what is known of them, in the engine, the command line and the page."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf_engine.runs import metrics
from mtf_engine.runs.finding import facts, matching
from mtf_engine.spec import Refusal
from tests.test_pages import button, checked, opened, texts
from tests.test_run_pages import row, still  # noqa: F401

CONFIG = {"eta": 1.2, "n_critics": 24, "hidden": [64, 64], "plan": {"edge": "clip"}, "reward_scale": None}
RESULT = {"validation": {"users": 395, "best_score": 0.71}, "rounds": [{"number": 1}]}
LAST = {"step": 30, "critic_loss": 0.1, "share_outside/pow_click": 0.25}


@pytest.fixture
def known() -> dict:
    run = row(name="laptop, seed 1", algo="iql", seed=1, tags=["keep"], config=CONFIG, result=RESULT)
    return facts(run.model_copy(update={"best_score": 0.71}), "explored", LAST)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("params.eta > 1", True),
        ("params.eta == 1.2 and params.n_critics < 24", False),
        ("params.eta == 1.2 or params.n_critics < 24", True),
        ("not params.eta > 1", False),
        ("1 < params.eta <= 1.2", True),
        ("params.plan.edge == 'clip'", True),
        ("64 in params.hidden and params.hidden == [64, 64]", True),
        ("params.reward_scale > 0", False),
        ("params.reward_scale == None", True),
        ("metrics.critic_loss < .2 and metrics.share_outside.pow_click >= .25", True),
        ("metrics.validation.users == 395", True),
        ("metrics.critic_loss > -1", True),
        ("'seed 1' in name and 'keep' in tags and 'old' not in tags", True),
        ("method in ('iql', 'ddpg') and dataset == 'explored' and state == 'completed'", True),
        ("archived or part", False),
        ("best_score >= .71 and best_step == None", True),
    ],
)
def test_an_expression_holds_as_python_would_have_it(known, expression, expected):
    assert matching(expression, known)(known) is expected


def test_what_another_run_has_and_this_one_lacks_fails_a_comparison(known):
    names = {*known, "params.beta"}
    assert not matching("params.beta > 0", names)(known)
    assert not matching("params.beta <= 0", names)(known)
    assert matching("params.beta == None", names)(known)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("params.etta > 1", "did you mean params.eta?"),
        ("eta > 1", "did you mean params.eta?"),
        ("frobnicate == 1", "params.X and metrics.X"),
        ("params.eta = 1", "cannot be read"),
        ("params.eta >", "cannot be read"),
        ("params.eta > 1 AND seed == 1", "cannot be read"),
        ("params.eta + 1", "no comparison"),
        ("params.eta is None", "no comparison"),
        ("3", "no comparison"),
        ("name", ""),
        ("params.eta > 'high'", "put texts in quotes"),
        ("__import__('os').system('true') == 0", "neither a name nor a value"),
        ("name.__class__ == 1", "no run has 'name.__class__'"),
        ("(lambda: 1)() == 1", "neither a name nor a value"),
        ("[x for x in name] == 1", "neither a name nor a value"),
        ("f'{name}' == 1", "neither a name nor a value"),
        ("name == 1j", "neither a name nor a value"),
        ("(" * 240 + "seed" + ")" * 240, "cannot be read"),
        ("seed == " + "9" * 490, ""),
        ("seed == 1 or " * 50 + "seed == 2", "500 are the most"),
        ("seed\0 == 1", "cannot be read"),
    ],
)
def test_an_expression_that_cannot_hold_of_any_run_is_refused_in_a_sentence(known, expression, said):
    if not said:
        assert isinstance(matching(expression, known)(known), bool)
        return
    with pytest.raises(Refusal) as refused:
        matching(expression, known)(known)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


WORDS = ("seed", "==", "(", ")", "not", "and", "or", "in", "<", "1", "'x'", ".", "[", "]", ",")


@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text_is_an_expression_or_refused(text):
    with contextlib.suppress(Refusal):
        assert isinstance(matching(text, {"seed"})({"seed": 1, "name": "x", "tags": []}), bool)


@pytest.mark.parametrize("length", [10, metrics.TAIL - 20, metrics.TAIL, 3 * metrics.TAIL])
def test_the_last_row_is_read_from_the_end_as_from_the_whole(tmp_path, length):
    assert metrics.last(tmp_path) == {}
    for step in range(3):
        metrics.append(tmp_path, {"step": step, "long": "x" * length})
        assert metrics.last(tmp_path) == metrics.read(tmp_path)[-1]
    with (tmp_path / "metrics.jsonl").open("ab") as rows:
        rows.write(b'{"step": 3, "lo')
    assert metrics.last(tmp_path)["step"] == 2


def test_the_table_of_runs_shows_settings_and_metrics_and_is_narrowed_and_sorted_by_them(still):  # noqa: F811
    columns = ["Run", "params.eta", "metrics.critic_loss"]
    app = opened("runs", columns=columns, where="params.eta > 1", sort="metrics.critic_loss")
    table = app.dataframe[0].value
    assert table["Run"].tolist() == ["train-1", "train-0"]
    assert table["params.eta"].tolist() == [1.2, 1.2]
    assert table["metrics.critic_loss"].tolist() == [2.0, 1.0]
    app.text_input(key="where").set_value("params.etta > 1")
    checked(app.run())
    assert "did you mean params.eta?" in app.error[0].value.replace("\\", "")
    assert len(app.dataframe[0].value) == 3


def test_a_view_is_kept_by_name_for_everybody_and_deleted(still):  # noqa: F811
    app = opened("runs", columns=["Run", "params.eta"], where="params.eta > 1")
    app.text_input(key="view name").set_value("many *critics*").run()
    button(app, "Keep").click()
    checked(app.run())
    (view,) = still.registry.views()
    assert (view.name, view.query["where"]) == ("many *critics*", ["params.eta > 1"])
    again = opened("runs", **view.query)
    assert again.dataframe[0].value["Run"].tolist() == ["train-1", "train-0"]
    button(again, "Delete").click()
    checked(again.run())
    assert not still.registry.views()
    assert "No view is kept yet" in texts(again)
