"""Review: three rounds of a team, its ledger and its memos."""

import re
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa

from mtf_engine.registry import BASELINE, RunState
from mtf_engine.release import memo, review
from mtf_engine.release.criteria import Criteria, Guardrail, parse_criteria, parse_guardrail
from mtf_engine.release.review import decided_case
from mtf_engine.release.rounds import Estimate
from mtf_engine.runs import executor
from mtf_engine.spec import Refusal
from mtf_engine.work.export import submit_export
from mtf_engine.work.progressive import decide, submit_progressive
from mtf_engine.workspace import Workspace
from tests.fixtures.rounds import a_round, add_rounds, effect

RUN = "progressive-1"


@pytest.fixture
def team(tmp_path: Path, database: str) -> Workspace:
    """A workspace with three rounds: one that gains, one that is worse, one after it."""
    workspace = Workspace(tmp_path / "workspace")
    rounds = (
        a_round(1, BASELINE, gain=0.05),
        a_round(2, "train-1", gain=-0.008),
        a_round(3, "train-2", gain=0.03),
    )
    add_rounds(workspace, *rounds)
    return workspace


def test_rounds_as_a_policy_are_what_they_promoted_last(team: Workspace) -> None:
    add_rounds(team, a_round(4, BASELINE), a_round(5, "train-4", promoted=False), run_id="progressive-2")
    add_rounds(team, a_round(6, BASELINE, promoted=False), run_id="progressive-3")
    assert (team.policy(RUN), team.policy("progressive-2")) == ("train-3", "train-4")
    with pytest.raises(Refusal, match="progressive-3 has promoted none of its 1 rounds"):
        team.policy("progressive-3")
    with pytest.raises(Refusal, match="no run 'progressive-4'"):
        team.policy("progressive-4")


def stored(workspace: Workspace) -> list[tuple]:
    with workspace.registry._engine.connect() as connection:
        return [*connection.execute(sa.text("SELECT * FROM decisions ORDER BY id"))]


def test_a_team_promotes_overrules_and_goes_back(team: Workspace) -> None:
    assert team.live == BASELINE and team.policy("candidate") == "train-3"
    first = review.decide(team, RUN, 1, "promote", name="Ada")
    assert (first.recommendation, first.reason, first.live) == ("promote", "", "train-1")
    kept = stored(team)

    found, _ = decided_case(team, RUN, 2)
    assert found.recommendation == "discuss" and "holds 0" in found.because
    with pytest.raises(Refusal, match=r"the rule recommends: discuss .*give a --reason"):
        review.decide(team, RUN, 2, "promote", name="Grace")
    second = review.decide(team, RUN, 2, "promote", name="Grace", reason="likes rise, which the metric omits")
    assert team.policy("live") == "train-2" and second.incumbent == "train-1"
    assert stored(team)[:1] == kept
    kept = stored(team)

    back = review.rollback(team, name="Ada", reason="complaints about repeats")
    assert (back.live, back.incumbent, back.decision) == ("train-1", "train-2", "rollback")
    third, _ = decided_case(team, RUN, 3)
    assert "over another policy than the live one" in third.because, "train-2 is no longer live"
    review.decide(team, RUN, 3, "reject", name="Grace", reason="test it against the live one first")
    assert stored(team)[:2] == kept and len(stored(team)) == 4

    ledger = team.registry.decisions()
    assert [(row.name, row.decision, row.live) for row in ledger] == [
        ("Ada", "promote", "train-1"),
        ("Grace", "promote", "train-2"),
        ("Ada", "rollback", "train-1"),
        ("Grace", "reject", "train-1"),
    ]
    assert [entry["policy"] for entry in review.history(team)] == [BASELINE, "train-1", "train-2", "train-1"]
    with pytest.raises(Refusal, match="no round waits for a decision"):
        team.policy("candidate")


@pytest.mark.parametrize("write", [memo.markdown, memo.html])
def test_a_memo_says_it_all_and_needs_nothing(team: Workspace, write) -> None:
    row = review.decide(team, RUN, 2, "promote", name="Grace <g@x>", reason="likes | rise")
    text = write(*decided_case(team, RUN, 2))
    for said in ("Round 2 of team", "Grace &lt;g@x&gt;", "rise", "not as the rule recommends", "discuss"):
        assert said in text
    for said in (
        "800 requests",
        "synthetic",
        "dataset-2",
        "around train-1",
        "42.00 (41.90 to 42.10)",
        "-0.80%",
        "25.0%",
        "This log holds 1.4 times the signal of none: expect nothing; 10 times as many sessions would do (chi2 2.8",
    ):
        assert said in text
    for said in (
        "--rounds 3",
        "--set hidden=8",
        f"review show {RUN} --round 2",
        "--seed 4",
        "edge: truncate",
    ):
        assert said in text
    assert not re.search(r"https?:|src=|href=|<script", text)
    assert str(team.path) not in text
    review.rollback(team, name="Ada", reason="a doubt")
    team.delete_runs("train-3")
    again = Workspace(team.path)
    assert write(*decided_case(again, RUN, 2)) == text, "what was known then is told, whatever came later"
    assert row.case == again.registry.decisions()[0].case


def test_a_memo_shows_what_stands_in_its_tables_and_obeys_none_of_it() -> None:
    table = (("<i>",), [("<script>",)])
    assert memo._html(table) == "<table><tr><th>&lt;i&gt;</th></tr><tr><td>&lt;script&gt;</td></tr></table>"


def test_a_memo_of_an_open_round_tells_what_is_recommended(team: Workspace) -> None:
    assert "Nobody has decided yet. The rule recommends: promote" in memo.markdown(
        *decided_case(team, RUN, 1)
    )


def test_the_database_itself_takes_one_entry_a_round(team: Workspace) -> None:
    row = review.decide(team, RUN, 1, "promote", name="Ada")
    again = row.model_copy(update={"follows": row.id, "name": "Eve"})
    assert team.registry.add_decision(again) is None, "whatever it follows"


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda w: review.decide(w, RUN, 1, "promote", name=" "), "needs the name"),
        (lambda w: review.decide(w, RUN, 1, "reject", name="Ada"), "recommends: promote"),
        (lambda w: review.decide(w, RUN, 9, "promote", name="Ada"), "no round 9"),
        (lambda w: review.decide(w, "train-1", None, "promote", name="Ada"), "kind train"),
        (lambda w: review.rollback(w, name="Ada", reason="why not"), "nothing to go back to"),
        (lambda w: review.rollback(w, name="Ada", reason="why not", to="train-3"), "was never live"),
    ],
)
def test_what_cannot_be_decided_is_refused_and_leaves_no_entry(team: Workspace, act, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        act(team)
    assert stored(team) == []


def test_a_round_is_decided_once(team: Workspace) -> None:
    review.decide(team, RUN, 1, "promote", name="Ada")
    with pytest.raises(Refusal, match=r"Ada has decided round 1 .* already"):
        review.decide(team, RUN, 1, "reject", name="Grace", reason="second thoughts")


def a_gain(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, ci_low=low, ci_high=high, n_users=9)


@pytest.mark.parametrize(
    ("gain", "holds", "against_live", "recommended"),
    [
        (a_gain(0.01, 0.03), True, True, "promote"),
        (a_gain(0.01, 0.03), True, False, "discuss"),
        (a_gain(0.01, 0.03), None, True, "discuss"),
        (a_gain(0.01, 0.03), False, True, "do not"),
        (a_gain(-0.01, 0.03), True, True, "discuss"),
        (a_gain(-0.03, -0.01), True, True, "do not"),
    ],
)
def test_the_rule(gain: Estimate, holds: bool | None, against_live: bool, recommended: str) -> None:
    guardrail = Guardrail(metric="share_at_wall", side="at most", limit=0.5)
    findings = (review.Finding(guardrail=guardrail, value=None, holds=holds),)
    assert review.recommend(gain, findings, against_live)[0] == recommended


def test_guardrails_are_written_as_they_are_read() -> None:
    found = parse_guardrail("valid_consumption >= -0.01")
    assert (
        str(found) == "valid_consumption at least -1 %"
        and found in Criteria.default("session", tested=True).guardrails
    )
    for text in ("valid_consumption", "mood>=1", "path<=far"):
        with pytest.raises(Refusal, match="cannot be read"):
            parse_guardrail(text)


def test_criteria_are_the_houses_unless_others_are_given() -> None:
    assert parse_criteria(None, None, "session", tested=True) == Criteria.default("session", tested=True)
    assert Criteria.default("session", tested=False).metric == "weighted_gauc"
    assert [str(one) for one in Criteria.default("gym:Pendulum-v1", tested=True).guardrails] == [
        "share_at_wall at most 50 %"
    ]
    own = parse_criteria("duration_time", ["path<=0.3"], "session", tested=True)
    assert own.metric == "duration_time" and [str(one) for one in own.guardrails] == ["path at most 0.3"]
    with pytest.raises(Refusal, match="--metric"):
        parse_criteria("mood", None, "session", tested=True)


def test_a_bundle_is_approved_where_its_policy_is_live(team: Workspace) -> None:
    assert review.approval(team, "train-1") is None
    review.decide(team, RUN, 1, "promote", name="Ada")
    assert review.approval(team, "train-1")["name"] == "Ada"
    assert review.approval(team, "train-2") is None and review.approval(team, BASELINE) is None


def test_the_figure_of_a_metric_that_was_not_measured_is_not_known() -> None:
    one = a_round(1, BASELINE).model_copy(update={"effects": (effect("train-1", "session_reward", 0.1),)})
    assert review.figure(one, "duration_time").value is None
    assert review.figure(one, "session_reward").value == 0.1
    assert review.figure(one, "weighted_gauc") == one.policy.difference
    pendulum = one.model_copy(update={"effects": (effect("train-1", "return", 0.2),)})
    assert review.figure(pendulum, "session_reward").value == 0.2


@pytest.mark.slow
def test_rounds_by_hand_wait_for_people_and_go_on_as_they_decide(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    settings = {"n_steps": "40", "n_critics": "3", "hidden": "8", "batch_size": "16"}
    run_id = submit_progressive(
        workspace, env="session:feed", rounds=2, sessions_per_round=60, algo="integrated_rl", preset="demo",
        settings=settings, promote="by-hand", ab_users=0,
    )  # fmt: skip
    for number, choice in ((1, "reject"), (2, "promote")):
        run = executor.wait(workspace, run_id)
        assert run.state is RunState.WAITING and f"round {number} waits for a decision" in str(run.error)
        assert workspace.policy("candidate") == run.result["rounds"][-1]["candidate"]
        decide(workspace, run_id, None, choice, name="Ada", reason=f"reason {number}")
    run = executor.completed(workspace, executor.wait(workspace, run_id))
    first, second = run.result["rounds"]
    assert (first["promoted"], second["promoted"]) == (False, True)
    assert second["baseline"] == BASELINE and run.result["promoted"] == second["candidate"] == workspace.live
    assert second["why"] == "decided by Ada: reason 2"
    exported = submit_export(workspace, "live")
    manifest = executor.completed(workspace, executor.wait(workspace, exported)).result["manifest"]
    assert manifest["approved"] and manifest["approval"]["name"] == "Ada"


def test_of_two_who_decide_at_once_the_second_is_told_who_was_first(team: Workspace, monkeypatch) -> None:
    asked = review.decision_of
    first: list = []

    def somebody_is_faster(workspace, run_id, number):
        """Lets another person decide between the check and the entry of this one."""
        found = asked(workspace, run_id, number)
        if not first:
            first.append(None)
            first.append(review.decide(Workspace(team.path), RUN, 1, "promote", name="Ada"))
        return found

    monkeypatch.setattr(review, "decision_of", somebody_is_faster)
    with pytest.raises(Refusal, match="Ada has decided round 1"):
        review.decide(team, RUN, 1, "reject", name="Grace", reason="no")
    assert first[1].id == 1 and [row.name for row in team.registry.decisions()] == ["Ada"]
    assert review.rollback(team, name="Grace", reason="a doubt").id == 2, "rolling back is of no round"
    assert review.rollback(team, name="Grace", reason="and again").id == 3


def test_of_several_who_decide_at_once_each_has_read_the_entry_before(team: Workspace) -> None:
    def enter(who: str) -> str | None:
        workspace = Workspace(team.path)
        try:
            if who == "Ada":
                review.decide(workspace, RUN, 1, "promote", name=who, reason="it gains")
            elif who == "Bob":
                review.decide(workspace, RUN, 3, "promote", name=who, reason="likes rise")
            else:
                review.rollback(workspace, name=who, reason="a doubt")
        except Refusal as refusal:
            return str(refusal)
        return None

    review.decide(team, RUN, 2, "promote", name="Eve", reason="to begin with")
    with ThreadPoolExecutor(4) as pool:
        refused = [*filter(None, pool.map(enter, ["Ada", "Bob", "Cleo", "Dan"] * 2))]
    ledger = team.registry.decisions()
    assert len(ledger) == 1 + 8 - len(refused)
    for before, row in pairwise(ledger):
        assert (row.follows, row.incumbent) == (before.id, before.live)
    assert all(
        "at this very moment" in one or "has decided round" in one or "is live" in one for one in refused
    )


def test_what_goes_live_at_that_moment_is_not_deleted(team: Workspace, monkeypatch) -> None:
    asked, decided = Workspace._free, []

    def promoted_meanwhile(workspace: Workspace, held: str, besides=()) -> None:
        """Lets another person decide as late as they can."""
        decided.append(pool.submit(review.decide, Workspace(team.path), RUN, 1, "promote", name="Ada"))
        wait(decided, timeout=0.5)
        asked(workspace, held, besides)

    monkeypatch.setattr(Workspace, "_free", promoted_meanwhile)
    with ThreadPoolExecutor(1) as pool:
        team.delete_runs("train-1")
        with pytest.raises(Refusal, match="no run 'train-1'"):
            decided[0].result()
    assert team.live == BASELINE and team.registry.decisions() == []
    assert [row.deleted for row in team.registry.deletions()] == ["train-1"]


def test_whoever_saw_another_policy_live_is_told_who_changed_it(team: Workspace) -> None:
    seen = review.last_entry(team)
    review.decide(team, RUN, 1, "promote", name="Ada")
    for late in (
        partial(review.decide, team, RUN, 3, "promote", name="Bob", reason="likes rise", seen=seen),
        partial(review.rollback, team, name="Bob", reason="a doubt", seen=seen),
    ):
        with pytest.raises(Refusal, match=r"Ada has made train-1 live at 20.* look again"):
            late()
    kept = review.decide(team, RUN, 2, "reject", name="Bob", reason="no gain")
    late = review.decide(team, RUN, 3, "promote", name="Bob", reason="likes rise", seen=kept.follows)
    assert late.follows == kept.id, "what changes nothing live is in nobody's way"


def test_a_ledger_in_which_a_round_was_decided_twice_still_opens(team: Workspace) -> None:
    row = review.decide(team, RUN, 1, "promote", name="Ada")
    with team.registry._engine.begin() as old:
        old.execute(sa.text("DROP INDEX one_decision_a_round"))
        old.execute(sa.text("DROP TABLE alembic_version"))
    team.registry.add_decision(row.model_copy(update={"follows": None}))
    assert len(Workspace(team.path).registry.decisions()) == 2
