"""What if the reward weighed a signal otherwise: policies and a log, read from the workspace."""

from collections.abc import Sequence

from mtf_engine.evaluation.what_if import WhatIf, what_if
from mtf_engine.fusion import LogPredictions
from mtf_engine.policies.reading import logged_actions
from mtf_engine.runs.storage import open_dataset, open_policy
from mtf_engine.workspace import Workspace

USERS = 2_000
"""Of the log, at most; the same ones at every call."""


def reward_what_if(workspace: Workspace, policies: Sequence[str], dataset: str, signal: str) -> WhatIf:
    """Returns how `policies` rank on a log's test rows over the weight of one signal of its reward."""
    log = open_dataset(workspace, dataset)
    rows = log.evaluation_rows(n_users=USERS)
    names = ", ".join(f'i."{name}"' for name in log.meta.signals)
    signals = log.arrays(
        f"SELECT {names} FROM impressions i SEMI JOIN (SELECT unnest(?) AS request_id) r USING (request_id) "
        "ORDER BY i.user_id, i.request_id, i.position",
        [rows.request_id.tolist()],
    )
    predictions = LogPredictions(rows.fusion, rows.predictions)
    scores = {
        name: predictions.log_final_score(*logged_actions(open_policy(workspace, name, log.meta), rows))
        for name in policies
    }
    return what_if(scores, rows.label, signals, rows.impression_user, log.meta.reward, signal)
