"""The page of reviews: a decision with its name and reason, and going back."""

import pytest

from mtf_engine.policies.monotony import NegativePow
from mtf_engine.registry import BASELINE, RunState
from mtf_engine.release import memo, review
from mtf_engine.workspace import Workspace
from tests.fixtures.rounds import a_round, add_rounds, estimate
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
    assert ledger["live from then on"].tolist() == ["round 1"] and ledger["name"].tolist() == ["Ada"]


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


@pytest.mark.parametrize("pressed", ["Decide", "Roll back"])
def test_whoever_presses_a_button_beside_what_is_live_no_more_is_told(team, pressed):
    review.decide(team, "progressive-1", 1, "promote", name="Ada")
    app = opened("review", round="2")
    review.rollback(team, name="Eve", reason="complaints")
    if pressed == "Decide":
        app.radio(key="choice").set_value("reject")
    for field in app.text_input:
        field.set_value("Grace")
    for field in app.text_area:
        field.set_value("likes rise")
    button(app, pressed).click()
    app = checked(app.run())
    assert "Eve has made baseline live" in app.error[0].value and len(team.registry.decisions()) == 2
    if pressed == "Decide":  # what is live now was seen
        button(app, pressed).click()
        app = checked(app.run())
        assert team.registry.decisions()[-1].name == "Grace"


@pytest.mark.parametrize("page", ["runs", "rounds"])
def test_a_round_that_waits_for_people_is_no_crash(team, page):
    said = "round 2 waits for a decision: `review show progressive-1`"
    team.registry.update_run("progressive-1", state=RunState.WAITING, error=said)
    app = opened(page, run="progressive-1")
    assert "goes on once somebody has decided" in texts(app) and not app.error
    assert not [b for b in app.button if b.label == "Resume"]
    links = {link.proto.label: link.proto.page for link in app.get("page_link")}
    assert links["**Review it →**"] == "review"


def test_a_review_shows_both_metrics_and_says_where_they_disagree(team):
    both = a_round(3, BASELINE, gain=-0.03)
    rises = both.policy.model_copy(update={"difference": estimate(0.03, 0.01)})
    both = both.model_copy(update={"policy": rises})
    add_rounds(team, both, run_id="progressive-2")
    app = opened("review", run="progressive-2", round="3")
    facts = next(t.value for t in app.dataframe if "figure" in t.value).set_index("what")["figure"]
    assert facts["gain in weighted GAUC"].startswith("+0.0300")
    assert facts["gain in session reward, A/B (decides)"].startswith("-3.00%")
    assert any("disagree on this candidate" in warning.value for warning in app.warning)
    rails = next(t.value for t in app.dataframe if "guardrail" in t.value)
    assert "valid consumption at least -1 %" in rails["guardrail"].tolist()
    assert not any("disagree" in w.value for w in opened("review", run="progressive-1", round="1").warning)


def test_a_candidate_that_ranks_against_a_good_thing_is_said_to_on_the_page_and_in_the_memo(team):
    one = a_round(4, BASELINE)
    against = NegativePow(prediction="like", low=-1, lowest=-0.4, share=0.125)
    told = one.model_copy(update={"policy": one.policy.model_copy(update={"negative_pows": (against,)})})
    add_rounds(team, told, run_id="progressive-4")
    app = opened("review", run="progressive-4")
    said = "the pow of like, a positive behaviour, is negative on 12.5% of the requests"
    assert said in texts(app).replace("\\", "")
    assert said in memo.markdown(review.case(team, "progressive-4"), None)
    assert not any("a positive behaviour" in w.value for w in opened("review", run="progressive-1").warning)
