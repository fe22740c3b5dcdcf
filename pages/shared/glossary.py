"""What the numbers mean, each in a sentence, to be shown one hover away from them."""

import pandas as pd
import streamlit as st

TERMS = {
    "better or worse": "Better or worse where the 95 % interval of a change lies on one side of 0, by one metric "
    "or both; metrics disagree where one says better and the other worse.",
    "relative difference": "Mean per user minus the base's, over the size of the base's mean.",
    "mean per user": "Mean over users of what a user's session brought under this policy.",
    "base per user": "The same under the base, on the same users.",
    "interval from": "Lower end of the 95 % interval: Student's t over users, or over samples of users.",
    "interval to": "Upper end of the 95 % interval: Student's t over users, or over samples of users.",
    "p-value": "How often a difference this large would show if there were none: Student's t, two-sided.",
    "boundary": "Interval that holds at every look together, with 95 % probability: however often one looks, a "
    "difference is told from 0 once it leaves 0 out. The asymptotic confidence sequence of Waudby-Smith and others "
    "(Annals of Statistics 2024); about half as wide again as the interval of a single look.",
    "boundary from": "Lower end of the 95 % interval that holds at every look together.",
    "boundary to": "Upper end of the 95 % interval that holds at every look together.",
    "simulated": "Relative difference of the policy that is called as the arm, in the newest A/B test on simulated "
    "users against the same base.",
    "sample ratio mismatch": "The arms of a live test have other shares of its users than were meant, more often "
    "than chance explains (chi-square, p < 0.001): users are lost or counted wrongly in one arm, and what is "
    "measured is that. Fabijan and others, KDD 2019.",
    "users live": "Users in each arm of a live test that finds a difference of this size with 80 % power at "
    "5 %; empty where there is no difference.",
    "weighted GAUC": "AUC of the final score within each group, label: watched longer than the valid time, "
    "sample weight: reward + 1; averaged by the groups' total weight. Groups with one class are left out.",
    "low": "Lower end of the 95 % interval: bootstrap over users.",
    "high": "Upper end of the 95 % interval: bootstrap over users.",
    "probability best": "Share of the bootstrap draws in which this policy is the highest of all that were "
    "evaluated together; ties share a draw.",
    "probability better": "Share of the bootstrap draws in which this policy is above the base.",
    "difference": "Weighted GAUC minus that of the base, on the same groups and the same resampled users.",
    "resolvable gap": "Smallest true difference that these rows would show with 80 % power at 5 %: "
    "2.80 times the standard deviation of the paired difference over the bootstrap draws.",
    "fitness": "What a search method makes highest: weighted GAUC by user on training rows, or the mean reward of "
    "a request in the environment.",
    "evaluations": "How often a search asked for the fitness of a policy.",
    "impressions in all": "Impressions of training rows that all evaluations looked at; the same ones each time.",
    "sessions in all": "Sessions played by all evaluations; the same users each time.",
    "groups used": "Users or requests with both classes; the others have no AUC.",
    "groups left out": "Users or requests with one class only, which have no AUC.",
    "users used": "Users with impressions of both classes; the others have no AUC.",
    "users left out": "Users with impressions of one class only, who have no AUC.",
    "requests used": "Requests with impressions of both classes; the others have no AUC.",
    "requests left out": "Requests with impressions of one class only, which have no AUC.",
    "mean size": "Mean of |new − baseline action|, in units of the action, which lies in [−1, 1].",
    "mean drift": "Mean of new − baseline action, with its sign.",
    "lower": "Median lower bound, as offset from the baseline action.",
    "upper": "Median upper bound, as offset from the baseline action.",
    "share outside": "Share of requests whose action lies beyond a bound of this dimension.",
    "distance from the first baseline": "Mean |action − action of the first baseline| over requests and dimensions.",
    "A/B session reward": "Relative gain over the round's baseline, on the same simulated users.",
    "share at the wall": "Share of requests within 2 % of the width of a bound, or beyond it.",
    "std over critics": "Population standard deviation of Q over the critics, averaged over actions, in "
    "units of the reward.",
    "std 5 %": "5 % of the actions have less disagreement than this.",
    "std 95 %": "95 % of the actions have less disagreement than this.",
    "mean Q": "Mean over critics and actions of the discounted reward still to come, in units of the reward.",
    "off-policy evaluation": "What a session would bring under a policy, told by a log that another one made: the "
    "discounted reward from a session's start to its end, mean over sessions of users that no training saw.",
    "session value": "Discounted reward of a session from its start to its end, in units of the reward; empty where "
    "the effective sample size is below the least.",
    "smoothed policy": "A truncated Gaussian about the policy's action inside the logged box, since a policy that "
    "always acts alike has no density. Its standard deviation is in half widths of the box: the larger, the more "
    "support there is, and the nearer it comes to the exploration itself.",
    "effective sample size": "Sessions of equal weight that would tell as much as these: (sum of weights)² / sum of "
    "squared weights, of each session's weight at its end. Where nothing is weighed, all sessions.",
    "share in support": "Share of held-out requests for which the policy's own action lies in the logged box, in every "
    "dimension.",
    "per_decision_is": "Importance sampling per decision: each reward is weighed by how much likelier the smoothed "
    "policy was to get there. Unbiased, and wide.",
    "ncis": "Normalised capped importance sampling: weights per decision, cut at 10 and normalised at each step. The "
    "metric of UnifiedRL, the paper's later version.",
    "doubly_robust": "A fitted Q of the smoothed policy, corrected by importance sampling where the log says "
    "otherwise.",
    "fqe": "Fitted Q evaluation: Q of the policy itself by regression on training users, at the start of each session. "
    "Its interval does not know how far the fit is off.",
    "conservative_fqe": "Fitted Q evaluation whose Q is pushed down at the policy's actions and up at logged ones "
    "(BatchRL-MTF).",
    "distance": "Distance beyond the bounds in half widths, of the dimension farthest out; 0 is inside.",
    "bias": "Mean of this critic's Q minus the mean of all critics, in units of the reward.",
    "size": "Root mean square of this critic's Q minus the mean of all critics, in units of the reward.",
    "error": "Mean of this critic's Q minus the logged return, on steps it was not trained on.",
    "mean return": "Mean discounted reward that the log saw from these steps to the end of their sessions.",
    "correlation": "Pearson's, over the same actions.",
    "share of the top in common": "Items that are among the first places under both policies, over these places; "
    "lists of no more items than places are left out.",
    "change of the share of top places": "Share of the first places that items of this tenth hold under the candidate, "
    "minus that under the other policy, of the same requests.",
    "places an item moves": "Mean of |rank under the candidate − rank under the other policy| over a request's items.",
    "score": "Logarithm of the final score: the sum over predictions of pow × log(prediction + bias).",
    "rank": "Place by the final score; 1 is first.",
    "position": "Where the log showed the item, from 1; empty for a candidate that was not shown.",
    "part": "What this prediction adds to the log final score: pow × log(prediction + bias).",
    "predicted": "The ranking model's prediction for this item.",
    "did": "What became of the item: watched longer than the valid time, or shown and not, or not shown.",
    "reward": "Weighted sum of the feedback signals, by the reward weights of the log.",
    "weight": "The real pow or bias that the action stands for.",
    "lower edge": "Lower bound of the box, as offset from the baseline action, rounded outwards.",
    "upper edge": "Upper bound of the box, as offset from the baseline action, rounded outwards.",
    **{
        f"{edge} {end}": f"{word} end of the 95 % interval of the {edge} edge, over resampled users."
        for edge in ("lower", "upper")
        for end, word in (("from", "Lower"), ("to", "Upper"))
    },
    "lower wall": "Lower bound now, as offset from the baseline action.",
    "upper wall": "Upper bound now, as offset from the baseline action.",
    "below": "Share of requests whose action lies below the lower wall.",
    "at lower": "Share of requests inside, within 2 % of the box's width of the lower wall.",
    "inside": "Share of requests inside and at neither wall.",
    "at upper": "Share of requests inside, within 2 % of the box's width of the upper wall.",
    "above": "Share of requests whose action lies above the upper wall.",
    "distance below": "Mean distance beyond the lower wall, of the requests below it.",
    "distance above": "Mean distance beyond the upper wall, of the requests above it.",
    "at range end": "Share of requests at −1 or 1, where the real range of the weight ends.",
    "figure": "What the check measured: a share, a count, or the p-value of a test.",
    "threshold": "What the figure is compared with; a p-value must not fall below it.",
    "left": "Where the cell begins: 0 is the lower wall of the request's own box, 1 the upper.",
    "right": "Where the cell ends: 0 is the lower wall of the request's own box, 1 the upper.",
    "relative": "Requests in the cell over an even share; 1 is even.",
    "suggested weight": "The correlation, scaled so that the largest is 0.5; of watch time per second, by its "
    "mean. 0 where the interval holds 0.",
    "weight now": "In the reward of this log.",
    "rate": "Share of the impressions that have the signal.",
    "AUC": "Of this behaviour's prediction on the test days, where the predictions were made here.",
    "missing values": "Impressions, or requests for a feature, that lack the value.",
    "reward weight": "What a unit of the signal adds to the reward.",
    "PSI": "Population stability index: sum over tenths of the other log of (share here − there) × "
    "ln(share here / there). From 0.1 slight, from 0.25 large.",
    "PSI by luck": "Two samples of the same users stay below this 999 times of 1,000.",
    "verdict": "Whether the column moved, by its difference and its PSI.",
    "action": "The weight on the scale from −1 to 1, the ends of its range.",
    "offset": "Action minus baseline action, on the scale from −1 to 1 of the action.",
    "new lower": "Lower wall as proposed, as offset from the baseline action.",
    "new upper": "Upper wall as proposed, as offset from the baseline action.",
    **{
        title: f"{percent} % of the requests lie below this."
        for percent in (1, 5, 25, 50, 75, 95, 99)
        for title in (f"{percent} %", f"{percent}% quantile")
    },
    "noise": "Uniform inside the plan's box, or Gaussian of the stated sigma around the baseline action; mixed: "
    "Gaussian for some requests, and for the others a draw around 0 over the whole range (BatchRL-MTF).",
    "sigma": "Standard deviation of the Gaussian noise, on the scale from −1 to 1 of the action.",
    "half width": "Half the width of the box, on the scale from −1 to 1 of the action.",
    "own actions": "Where the policy's own actions lie: inside the bounds, or beyond one of them.",
    "steps": "Logged requests that were counted here.",
    "datasets": "Logs of this workspace; none changes once it is written.",
    "requests": "Steps of sessions: at each, candidates are ranked and the first of them shown.",
    "sessions": "Visits of users: each a row of requests, one after the other.",
    "impressions": "Items that were shown.",
    "trained policies": "Completed trainings.",
    "distance_from_data": "Mean distance of the actor's actions from the centre of the bounds, in standard "
    "deviations of the logged actions. At all walls of a uniform log it is 1.73; beyond 2 nothing is known.",
    "cql_gap": "Mean Q of the policy's actions minus mean Q of the logged ones, in standard deviations of the "
    "return: what the policy believes to gain. Beyond 1 it believes too much.",
    "cql_alpha": "Weight of the conservative loss beside the squared error; moves where a threshold is set.",
    "temperature": "Weight of the policy's entropy in its loss.",
    "candidate_spread": "Standard deviation of a request's candidate actions, over dimensions, in half widths.",
    "share_saturated": "Share of candidates, over dimensions, that are moved by 95 % of `perturbation` or more.",
    "share_capped": "Share of logged actions whose weight exp(temperature × (Q − V)) is cut at its cap.",
    "effective_sample_size": "Equal weights that would tell as much as these, over the batch: 1 is all alike.",
    "policy_std": "Standard deviation of the policy that is trained, over dimensions; its mean is served.",
    "v_mean": "Mean of V, the value of the state, in standard deviations of the return.",
    "t": "The slope over its standard error; beyond 2, either way, it is told from none.",
    "chi2": "Wald's, of all slopes of the return on the explored deviations, errors clustered by session.",
    "degrees of freedom": "Dimensions that move; chi2 is about as large where no action matters.",
    "times the signal of none": "chi2 over its degrees of freedom.",
    "sessions needed": "For a chi2 that tells each slope; empty where chi2 shows no effect at all.",
    "live runs": "Runs that work or wait for their turn.",
}


def meaning(name: str) -> str | None:
    """Returns what a number means: its name is a term, or what it has before a comma, or its first word."""
    terms = (name, name.lower(), name.partition(",")[0], name.partition(" ")[0])
    return next((TERMS[term] for term in terms if term in TERMS), None)


def columns(table: pd.DataFrame) -> dict[str, st.column_config.Column]:
    """Returns the help of the columns of `table` whose meaning is known."""
    known = {name: text for name in table.columns if (text := meaning(str(name)))}
    return {name: st.column_config.Column(help=text) for name, text in known.items()}
