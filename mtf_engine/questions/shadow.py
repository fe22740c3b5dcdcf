"""The shadow diff of two policies on a log's held-out requests, read from the workspace."""

from dataclasses import replace

import numpy as np

from mtf_engine.evaluation.shadow import Shadow, Source, shadow
from mtf_engine.logs.datasets import Dataset
from mtf_engine.logs.schema import EvaluationRows
from mtf_engine.registry import REGRESSION, is_trained
from mtf_engine.runs.storage import load_policy, open_dataset, open_policy, training_rows
from mtf_engine.spec import Refusal
from mtf_engine.workspace import Workspace

USERS = 5_000
"""Of the log, at most; the same ones at every call."""


def shadow_diff(
    workspace: Workspace,
    candidate: str,
    against: str,
    dataset: str,
    *,
    top_k: int | None = None,
    seed: int = 0,
) -> Shadow:
    """Returns how `candidate` ranks what was logged beside the policy `against`, on test rows where there are any.

    The lists are all candidates of the requests that kept them; in a log that kept none, what was shown.
    """
    names = [workspace.policy(name) for name in (candidate, against)]
    if names[0] == names[1]:
        raise Refusal(
            f"{candidate} and {against} are one policy, {names[0]}, which differs in nothing; name another"
        )
    for name in names:
        workspace.check_policy(name, on_log=True)
    log = open_dataset(workspace, dataset)
    rows, source = _lists(log, log.evaluation_rows(n_users=USERS))
    learned = training_rows(workspace, dataset, names)[1] if REGRESSION in names else None
    ranked, beside = (
        load_policy(workspace, name) if is_trained(name) else open_policy(workspace, name, log.meta, learned)
        for name in names
    )
    return shadow(ranked, beside, rows, source=source, top_k=top_k, seed=seed)


def _lists(log: Dataset, rows: EvaluationRows) -> tuple[EvaluationRows, Source]:
    """Returns the requests of `rows` whose candidates were kept, with all of these for items; else `rows`."""
    if "candidates" not in log.tables:
        return rows, "impressions"
    items = log.arrays(
        "SELECT request_id, predictions FROM candidates SEMI JOIN (SELECT unnest(?) AS request_id) r "
        "USING (request_id) ORDER BY request_id, item_id",
        [rows.request_id.tolist()],
    )
    kept = np.flatnonzero(np.isin(rows.request_id, items["request_id"]))
    if not len(kept):
        return rows, "impressions"
    by_id = np.argsort(rows.request_id[kept], kind="stable")
    request = by_id[np.searchsorted(rows.request_id[kept], items["request_id"], sorter=by_id)]
    return replace(
        rows,
        request_id=rows.request_id[kept],
        user=rows.user[kept],
        segment=rows.segment[kept],
        observations=rows.observations[kept],
        baseline_actions=None,
        lower=None,
        upper=None,
        request=request,
        predictions=items["predictions"],
        reward=np.full(len(request), np.nan),  # most of them nobody saw
        label=np.zeros(len(request), bool),
    ), "candidates"
