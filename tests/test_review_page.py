"""The page of reviews: a decision with its name and reason, and going back."""

import pytest

from mtf_engine.registry import BASELINE, RunState
from mtf_engine.release import review
from mtf_engine.workspace import Workspace
from tests.fixtures.rounds import a_round, add_rounds
from tests.test_pages import button, checked, opened, texts


@pytest.fixture
def team(tmp_path, monkeypatch) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("MTF_WORKSPACE", str(workspace.path))
    add_rounds(workspace, a_round(1, BASELINE, gain=0.05), a_round(2, "train-1", gain=-0.008))
    return workspace


def test_a_recommended_round_is_promoted_with_a_name(team):
    app = opened("review", round="1")
    assert "every guardrail holds" in texts(app)
    app.radio(key="choice").set_value("promote")
    app.text_input(key="reviewer").set_value("Ada")
    button(app, "Decide").click()
    app = checked(app.run())
    assert team.live == "train-1" and "Ada decided to **promote**" in app.success[0].value
    ledger = app.dataframe[-1].value
    assert ledger["live from then on"].tolist() == ["round 1 (in-1)"] and ledger["name"].tolist() == ["Ada"]


def test_against_the_rule_the_page_asks_for_a_reason(team):
    app = opened("review", round="2")
    app.radio(key="choice").set_value("promote")
    app.text_input(key="reviewer").set_value("Grace")
    button(app, "Decide").click()
    app = checked(app.run())
    assert "give a" in app.error[0].value and team.registry.decisions() == []
    app.text_area(key="reason").set_value("likes rise")
    button(app, "Decide").click()
    app = checked(app.run())
    assert team.registry.decisions()[0].reason == "likes rise" and not app.error


def test_going_back_is_an_entry_of_its_own(team):
    review.decide(team, "progressive-1", 1, "promote", name="Ada")
    app = opened("review", round="1")
    app.text_input[0].set_value("Grace")
    app.text_area[0].set_value("complaints")
    button(app, "Roll back").click()
    app = checked(app.run())
    assert [row.decision for row in team.registry.decisions()] == ["promote", "rollback"]
    assert "the default baseline" in texts(app)


@pytest.mark.parametrize("page", ["runs", "rounds"])
def test_a_round_that_waits_for_people_is_no_crash(team, page):
    said = "round 2 waits for a decision: `review show progressive-1`"
    team.registry.update_run("progressive-1", state=RunState.WAITING, error=said)
    app = opened(page, run="progressive-1")
    assert "goes on once somebody has decided" in texts(app) and not app.error
    assert not [b for b in app.button if b.label == "Resume"]
    links = {link.proto.label: link.proto.page for link in app.get("page_link")}
    assert links["**Review it →**"] == "review"
