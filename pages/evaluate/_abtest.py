"""A/B test policies on simulated users. Decides whether a policy is worth a live test, and how large a one."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from mtf_engine.environments.names import session_of, world_of
from mtf_engine.evaluation import ABTest
from mtf_engine.evaluation.abtest import BARE_METRICS, DECIDES, METRICS
from mtf_engine.evaluation.agreement import agreement
from mtf_engine.evaluation.result import PairedDifference
from mtf_engine.evaluation.sequential import look_at
from mtf_engine.permissions import Action
from mtf_engine.policies.fixed import fixed_fits
from mtf_engine.registry import BASELINE, RunRow, RunState, is_fixed, run_of
from mtf_engine.runs import estimates, executor
from mtf_engine.work.abtest import looks_so_far, submit_abtest
from pages.evaluate import _abtest_looks, _abtest_results, _livetest
from pages.shared import access, comparison, follow, glossary, links, loaders, places, results, words
from pages.shared.exhibit import described, exhibit, folded

TEST = "test"
"""Name of the run in the address."""
GYM = "gym:"
UNITS = {"duration_time": " s"}
BOUND: dict[str, Any] = {"bind": "query-params"}


class Order(NamedTuple):
    """Everything that the form asks for."""

    env: str
    policies: list[str]
    against: str
    n_users: int
    first_seed: int
    n_seeds: int
    stop_early: bool

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.first_seed, self.first_seed + self.n_seeds))


def testable() -> dict[str, list[RunRow]]:
    """Returns the completed trainings by the environment that their policies can be tested in."""
    found = dict[str, list[RunRow]]()
    for run in loaders.trainings(RunState.COMPLETED):
        if (takes := loaders.takes(run)) and (env := env_of(takes)):
            found.setdefault(env, []).append(run)
    return found


def env_of(takes: loaders.Takes) -> str | None:
    """Returns the environment that the log of a policy is from, where its users can be met again."""
    env = takes.env or ""
    if world := world_of(env):
        return session_of(world)
    return env if env.startswith(GYM) else None


def choose_test(tests: Mapping[str, RunRow], runs: results.Runs) -> RunRow:
    titles = {run_id: test_title(run, runs) for run_id, run in tests.items()}
    return tests[links.choice("Test", titles, TEST)]


def test_title(run: RunRow, runs: results.Runs) -> str:
    """Returns what the list of tests calls `run`: policies, base, users, id."""
    base, config = run.config["base"], run.config
    policies = [words.policy_title(name, runs) for name in config["policies"] if name != base]
    samples = f" × {len(config['seeds'])} samples" if len(config["seeds"]) > 1 else ""
    named = f"{', '.join(policies)} against {words.policy_title(base, runs)}"
    return f"{named} · {config['env']} · {config['n_users']:,} users{samples} · {run.id}"


def show_test(run: RunRow, runs: results.Runs) -> None:
    """Draws the result of a finished test, or says why there is none."""
    with follow.refusals():
        completed = executor.completed(loaders.workspace(), run)
        test = ABTest.model_validate(completed.result)
        frame = _abtest_results.effects(test, runs)
        introduce(test, runs)
        show_effects(run, test, frame, runs)
        if test.looks:
            _abtest_looks.show(test.looks, choose_metric(test.metrics), named(run, runs), run.id)
        show_beside(test)
        show_live(frame, test)
        if test.env.startswith(GYM):
            return
        policies = [policy for policy in test.policies if policy != BASELINE]
        query = {places.TAB: [places.GAUC], "policies": policies}
        st.page_link(places.POLICIES, label="Compare them on a log →", query_params=query)


def follow_looks(run: RunRow) -> None:
    """Draws what is known of a test that works, where it is looked at, and draws it anew with each look."""
    planned = look_at(run.config["n_users"])
    if planned and len(run.config["seeds"]) == 1:
        metric = choose_metric(BARE_METRICS if run.config["env"].startswith(GYM) else METRICS)
        st.fragment(show_so_far, run_every=follow.SECONDS_BETWEEN_PARTS)(run, metric, planned[0])


def show_so_far(run: RunRow, metric: str, first: int) -> None:
    if looks := looks_so_far(loaders.workspace(), run.id):
        _abtest_looks.show(looks, metric, named(run, loaders.runs_by_id()), run.id)
    else:
        st.caption(f"The first look is after {first:,} users.")


def choose_metric(metrics: Iterable[str]) -> str:
    _abtest_looks.head()
    return links.choice("Metric", {name: _abtest_looks.metric_title(name) for name in metrics}, "look_metric")


def named(run: RunRow, runs: results.Runs) -> dict[str, dict[str, str]]:
    """Returns what charts call each policy of a test, in their order."""
    return {policy: results.named(policy, runs) for policy in run.config["policies"]}


def introduce(test: ABTest, runs: results.Runs) -> None:
    base = words.plain(words.policy_title(test.base, runs))
    if test.synthetic:
        st.warning(words.synthetic(test.env))
    means = ", ".join(
        f"{_abtest_looks.metric_title(name)} {words.figure(mean)}{UNITS.get(name, '')}"
        for name, mean in test.base_means.items()
    )
    several = f" of each of {len(test.seeds)} samples" if len(test.seeds) > 1 else ""
    st.caption(f"{test.n_users:,} users{several}, a session each. Per user under {base}: {means}.")
    if test.n_planned:
        decided = next(_abtest_looks.metric_title(name) for name in test.metrics if name in DECIDES)
        st.info(
            f"The test stopped after {test.n_users:,} of {test.n_planned:,} users: by then the {decided} of every "
            "policy was told from the base's."
        )


def show_effects(run: RunRow, test: ABTest, frame: pd.DataFrame, runs: results.Runs) -> None:
    st.header("Difference to the base", anchor=False, help=glossary.TERMS["relative difference"])
    alt = f"Relative difference of {len(test.policies) - 1} policies to the base, with 95 % intervals"
    described(_abtest_results.table_2(frame), "effects", alt)
    exhibit(
        _abtest_results.figure(frame), _abtest_results.long_table(frame, bool(test.n_planned)), run.id, alt
    )
    if test.means:
        with st.expander("Per user in each arm"):
            said = f"Means per user under {len(test.policies)} policies, with 95 % intervals"
            described(_abtest_results.means(test, runs), "means", said)
    with st.container(horizontal=True):
        access.download_button(
            "Download JSON", test.model_dump_json(indent=2), f"{run.id}.json", on_click="ignore"
        )
    if test.n_planned:
        st.caption(
            "Intervals and p-values hold at every look, which those of a single look would not here. \\* p < 0.05"
        )
        return
    if len(test.seeds) == 1:
        st.caption("Intervals are over users; all policies met the same ones. \\* p < 0.05")
        return
    st.caption("Intervals are over samples of users; all policies met the same ones. \\* p < 0.05")
    with st.expander("By sample"):
        described(_abtest_results.by_sample(test, runs), "samples", "Relative difference in each sample")


def show_beside(test: ABTest) -> None:
    """Says whether weighted GAUC orders the policies alike, by the newest evaluation that knows two of them."""
    for run in loaders.workspace().registry.runs(RunState.COMPLETED, kind="evaluate"):
        differences = map(PairedDifference.model_validate, (run.result or {}).get("differences", ()))
        if beside := agreement(differences, test):
            comparison.show_agreement(beside)
            return


def show_live(frame: pd.DataFrame, test: ABTest) -> None:
    st.header("What a live test would need", anchor=False, help=glossary.TERMS["users live"])
    whole = {
        _abtest_looks.metric_title(name): st.column_config.NumberColumn(format="localized")
        for name in test.metrics
    }
    described(_abtest_results.users_live(frame), "live", "Users per arm that a live test needs", **whole)
    st.caption(
        "Users per arm to find a difference of that size with 80 % power at 5 %. Live, a user is in one arm "
        "only, so what users differ by does not drop out as it does here."
    )


def show_form(found: dict[str, list[RunRow]], policies: list[str]) -> None:
    """Draws the form for those of `policies` whose users can be met again."""
    by_env = {env: there for env, runs in found.items() if (there := _playable(policies, runs))}
    if not by_env:
        st.info("Choose a policy above that learned from synthetic users or a Gymnasium environment.")
        return
    left, right = st.columns(2)
    worlds = {
        env: f"synthetic users, {world}" if (world := world_of(env)) else env.removeprefix(GYM)
        for env in by_env
    }
    env = links.choice("In", worlds, "env", left)
    bases = {BASELINE: "baseline: the live policy"} | words.policy_titles(found[env], loaders.runs_by_id())
    against = links.choice("Against", bases, "against", right)
    first, second, third = st.columns(3)
    users = first.number_input("Users", 2, value=10_000, step=10_000, key="users", **BOUND)
    why = "With several, samples are the unit of the intervals: take 5 or more, or only one with more users."
    samples = second.number_input("Samples of users", 1, 100, 1, key="samples", help=why, **BOUND)
    seed = third.number_input("Seed", 0, value=0, help="Same seed, same users.", key="test_seed", **BOUND)
    others = [policy for policy in by_env[env] if policy != against]
    early = st.checkbox(
        "Stop early",
        help="End at the look at which every policy's session reward is told from the base's: by users of one sample.",
        disabled=samples > 1,
        key="stop_early",
        **BOUND,
    )
    order = Order(env, others, against, users, seed, samples, early and samples == 1)
    if not order.policies:
        st.info("Choose a policy other than the base.")
        return
    show_start(order)


def _playable(policies: list[str], runs: list[RunRow]) -> list[str]:
    """Returns those of `policies` that can act in the environment that the trainings `runs` learned from."""
    ids, takes = {run.id for run in runs}, loaders.takes(runs[0])
    return [
        policy
        for policy in policies
        if run_of(policy) in ids or (is_fixed(policy) and takes and fixed_fits(policy, takes.fusion))
    ]


def show_start(order: Order) -> None:
    """Draws how long the test takes, the button that starts it, and its command line."""
    workspace = loaders.workspace()
    took = estimates.ab_test(workspace, order.env, (1 + len(order.policies)) * order.n_seeds * order.n_users)
    st.caption(words.plain(f"It will take about {words.duration(took.seconds)} ({took.basis})."))
    if access.button(Action.ABTEST, "Start the test", type="primary"):
        with follow.refusals():
            st.query_params[TEST] = submit_abtest(
                workspace,
                order.policies,
                against=order.against,
                env=order.env,
                n_users=order.n_users,
                seeds=order.seeds,
                stop_early=order.stop_early,
            )
            st.rerun()
    kind, world = order.env.partition(":")[0], world_of(order.env)
    where = ("--env", kind, "--world", world) if world else ("--env", order.env)
    arguments = ("abtest", *order.policies, "--against", order.against, *where)
    drawn = (
        "--users",
        order.n_users,
        "--seed",
        order.first_seed,
        *(("--seeds", order.n_seeds) if order.n_seeds > 1 else ()),
        *(("--stop-early",) if order.stop_early else ()),
    )
    st.caption("The same on the command line")
    st.code(words.command(workspace.path, *arguments, *drawn), language=None, wrap_lines=True)


def show(policies: list[str]) -> None:
    """Draws the tab."""
    show_simulated(policies)
    offer_live_test()


def offer_live_test() -> None:
    """Draws the folded section that reads the outcome of a test on real users, which needs no policy here."""
    folded("Read a live test", _livetest.show, "The outcome of an A/B test that you ran, from a file.")


def show_simulated(policies: list[str]) -> None:
    """Draws the tests on simulated users, and the form that starts one."""
    found = testable()
    if not found:
        st.info(
            "No policy can be A/B tested: that takes users who can be met again, synthetic ones or of a Gymnasium "
            "environment. Those of an imported or replayed log cannot."
        )
        st.page_link("pages/explore/collect.py", label="Collect a log of synthetic users →")
        return
    runs = loaders.runs_by_id()
    tests = [run for run in loaders.workspace().registry.runs(kind="abtest") if not run.archived]
    if tests:
        chosen = choose_test({run.id: run for run in tests}, runs)
        if finished := follow.finished(chosen.id):
            show_test(finished, runs)
        else:
            follow_looks(chosen)
        untested = not set(policies) <= set(chosen.config["policies"])
        with st.expander("Start a test", expanded=untested):
            show_form(found, policies)
        return
    st.header("Start a test", anchor=False)
    show_form(found, policies)
