"""The page of rounds, on rounds whose figures are known."""

import pytest

from mtf_engine.release import review
from mtf_engine.runs import executor
from mtf_engine.workspace import Workspace
from pages.release import _round_charts
from pages.shared import round_tables
from tests.fixtures.rounds import a_round, add_rounds
from tests.test_explore_pages import widget
from tests.test_pages import button, checked, opened, texts
from tests.test_replay import add_source

ROUNDS = (a_round(1, "baseline"), a_round(2, "train-1", promoted=False), a_round(3, "train-1"))


@pytest.fixture
def team(tmp_path, monkeypatch) -> Workspace:
    """A workspace with a finished run of three rounds, in which nothing starts."""
    monkeypatch.setattr(executor, "MAX_WORKING", 0)
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    add_rounds(workspace, *ROUNDS)
    return workspace


def test_the_page_tells_every_round_and_what_was_promoted(team):
    app = opened("rounds")
    table = app.dataframe[0].value
    assert table["round"].tolist() == [1, 2, 3]
    assert table["promoted"].tolist() == ["round 1", "the baseline stays", "round 3"]
    assert table["difference"].tolist() == [0.01, 0.02, 0.03]
    assert table["A/B session reward"].tolist() == [0.02, 0.04, 0.06]
    assert table["distance from the first baseline"].tolist() == pytest.approx([0.15, 0.3, 0.45])
    assert table["95 %"].tolist()[0] == "-0.0900 to +0.1100"
    assert table["bounds"].tolist() == ["±0.1", "±0.2", "±0.3"]


def test_two_rounds_stand_side_by_side_by_link(team):
    app = opened("rounds", one="3", other="1")
    table = next(frame.value for frame in app.dataframe if "what" in frame.value).set_index("what")
    assert list(table.columns) == ["round 3", "round 1"]
    assert table.loc["bounds"].tolist() == ["±0.3", "±0.1"]
    assert table.loc["difference", "round 3"] == "+0.0300 (-0.0700 to +0.1300)"


def test_a_prediction_stands_beside_what_control_users_did_in_the_next_rounds():
    frame = round_tables.predicted(ROUNDS, (), {})
    reward = frame[frame["figure"] == "discounted session reward"]
    assert reward["estimated in round"].tolist() == [1, 1]
    assert reward["measured in round"].tolist() == [2, 3]
    assert reward["predicted"].tolist() == [21.5, 21.5] and reward["realised"].tolist() == [22, 23]
    assert round_tables.predicted(ROUNDS[:1], (), {}).empty
    assert len(round_tables.predicted(ROUNDS[1:2], ROUNDS[:1], {})) == 2, "trained in a run before"


def test_the_next_round_starts_from_what_was_promoted_with_its_own_bounds(team):
    app = opened("rounds")
    button(app, "Fill the form for the next round").click()
    app = checked(app.run())
    app.selectbox(key="plan").set_value("*draft")
    app = checked(app.run())
    said = texts(app)
    assert "Round 4: +8.00% of session reward expected" in said.replace("\\", "") and "Go on" in said
    assert "--rounds 1 --sessions-per-round 100" in said and "--set n_steps=20" in said
    assert "--bounds plan.yaml --baseline train-3" in said and "--seed 5" in said
    button(app, "Start rounds").click()
    app = checked(app.run())
    (run,) = team.registry.queue()
    assert run.config["baseline"] == "train-3" and run.config["plan"]["upper"] == [0.15] * 10


def test_rounds_start_around_what_is_live_unless_told_otherwise(team):
    assert "--baseline" not in texts(opened("rounds"))
    review.decide(team, "progressive-1", 1, "promote", name="Ada")
    app = opened("rounds")
    assert "--baseline train-1" in texts(app)
    assert app.selectbox(key="rounds baseline").options[0] == "live: round 1"


def test_rounds_are_played_in_a_gymnasium_environment(team):
    app = opened("rounds", env="gym:", gym="Pendulum-v1")
    assert "--env gym:Pendulum-v1 --rounds 5" in texts(app)
    button(app, "Start rounds").click()
    checked(app.run())
    (run,) = team.registry.queue()
    assert run.config["env"] == "gym:Pendulum-v1" and (run.config["ab_users"], run.config["promote"]) == (
        400,
        "if-better",
    )


def test_rounds_are_played_on_a_replayed_log_without_an_ab_test(team):
    add_source(team)
    app = opened("rounds", env="replay", dataset="source")
    assert "--env replay --replay 20/3/5 --from source" in texts(app)
    assert widget(app.number_input, "A/B users a round").disabled
    button(app, "Start rounds").click()
    checked(app.run())
    (run,) = team.registry.queue()
    assert run.config["source"] == "source" and run.config["ab_users"] == 0


def test_figures_hold_what_their_tables_say():
    frame = round_tables.table(ROUNDS, {})
    panels = [("gain", "unit", "difference", "low", "high")]
    (dots,) = _round_charts.gains(frame, panels).data
    assert list(dots.y) == [0.01, 0.02, 0.03] and list(dots.error_y.array) == pytest.approx([0.1] * 3)
    lines = _round_charts.walked(round_tables.walked(ROUNDS, ["<b>x</b>", "y"])).data
    assert lines[0].name == "&lt;b&gt;x&lt;/b&gt;" and list(lines[-1].y) == pytest.approx([0.15, 0.3, 0.45])
