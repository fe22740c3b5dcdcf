"""The card of an exported policy: one page of Markdown that says what it is, what it learned from, and its limits.

The same bundle and workspace give the same bytes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mtf_engine.registry import BASELINE, DatasetRow, RunState
from mtf_engine.release.memo import Part, document, text
from mtf_engine.release.rounds import Estimate
from mtf_engine.workspace import Workspace

INSIDE = (
    "It was learned from actions inside the bounds above. What an action outside them would do was never seen, and is "
    "not known."
)
RANKING = (
    "Weighted GAUC tells how well it ranks what was shown under another policy. It does not tell what users consume "
    "under this one: that takes an A/B test."
)
SYNTHETIC = "Users and feedback are synthetic: no figure here is of people."
READS = (
    "It takes the features and predictions that manifest.json lists, in that order and in natural units. Where they "
    "drift from the log it learned from, its scores say nothing."
)


def card(workspace: Workspace, policy: str, manifest: Mapping[str, Any]) -> str:
    """Returns the card of the bundle with that `manifest`, of `policy`, as Markdown.

    Scores are those that the bundle tells, differences those of the same evaluations, and A/B tests those of the
    workspace. A log that is deleted is named by its id.
    """
    logs = {row.id: row for row in workspace.registry.datasets()}
    name = policy if manifest["purpose"] == "live" else f"{policy} (for tests)"
    return document(f"Policy {name}", _sections(workspace, policy, manifest, logs))


def _sections(
    workspace: Workspace, policy: str, manifest: Mapping[str, Any], logs: Mapping[str, DatasetRow]
) -> Iterator[tuple[str, list[Part]]]:
    origin, fusion = manifest["origin"], manifest["fusion"]
    log = logs.get(str(origin.get("dataset_id")))
    approval = manifest["approval"]
    level = "item" if "item_features" in manifest["inputs"] else "request"
    yield (
        "What it is",
        [
            f"Weights of {len(fusion['predictions'])} predictions for each {level} ({len(fusion['dimensions'])} "
            f"dimensions, {len(manifest['features'])} features), by {origin.get('algo')}.",
            f"Approved by {approval['name']} at {approval['at']}. {approval['reason']}".strip()
            if approval
            else "Nobody has approved it for live use.",
        ],
    )
    yield "Data", [*_data(origin, log)]
    yield "Bounds", [*_bounds(manifest, log)]
    yield "Scores", [*_scores(workspace, policy, manifest, logs), *_tested(workspace, policy, manifest)]
    synthetic = log is not None and log.meta["synthetic"]
    yield "Limits", [INSIDE, RANKING, READS, *([SYNTHETIC] if synthetic else [])]


def _data(origin: Mapping[str, Any], log: DatasetRow | None) -> Iterator[str]:
    """Yields what is known of the log that a policy learned from."""
    if "dataset_id" not in origin:
        yield "It learned from no log."
        return
    yield f"Dataset {origin['dataset_id']}, content hash {origin.get('dataset_hash', 'unknown')}."
    if log is None:
        yield "That log is deleted."
        return
    explored = log.meta["exploration"] or "unknown"
    control = log.meta["control_share"]
    kept = f", {control:.0%} of users kept at the baseline" if control is not None else ""
    yield (
        f"{log.name}: {log.n_requests:,} requests with {log.n_impressions:,} impressions from {log.source}; "
        f"exploration {explored} around {log.meta['baseline']}{kept}."
    )
    weights = ", ".join(f"{signal} {weight:g}" for signal, weight in log.meta["reward"]["weights"].items())
    yield f"Reward of an impression: {weights}."


def _bounds(manifest: Mapping[str, Any], log: DatasetRow | None) -> Iterator[Part]:
    """Yields the table of dimensions: what an action means, what was explored, what is served."""
    plan, clip = log and log.meta["plan"], manifest["clip_bounds"]
    yield "Lower and upper are offsets of the action, which is in [-1, 1], from the baseline's."
    rows = []
    for i, of in enumerate(manifest["fusion"]["dimensions"]):
        ends = [f"{box[end][i]:g}" if box else "-" for box in (plan, clip) for end in ("lower", "upper")]
        rows.append((f"{of['kind']}_{of['prediction']}", f"{of['low']:g} to {of['high']:g}", *ends))
    head = ("dimension", "[-1, 1] means", "explored: lower", "upper", "held in: lower", "upper")
    yield head, rows
    if plan and plan["segments"]:
        yield f"Segments were explored in boxes of their own: {', '.join(plan['segments'])}."
    if clip is None:
        yield "What is served is held in no bounds but [-1, 1]."


def _scores(
    workspace: Workspace, policy: str, manifest: Mapping[str, Any], logs: Mapping[str, DatasetRow]
) -> Iterator[Part]:
    runs = {run.id: run for run in workspace.registry.runs(RunState.COMPLETED, kind="evaluate")}
    rows = []
    for score in (manifest["evaluation"] or {"evaluations": []})["evaluations"]:
        run = runs.get(score.get("evaluation", ""))
        found = [
            d
            for d in ((run and run.result) or {"differences": []})["differences"]
            if (d["run_id"], d["base"], d["group"]) == (policy, BASELINE, "user")
        ]
        log = logs.get(score["dataset_id"])
        rows.append(
            (
                f"{log.name} ({log.id})" if log else score["dataset_id"],
                score["split"],
                text(_estimate(score, "weighted_gauc"), "{:.4f}"),
                text(_estimate(found[0], "value")) if found else "-",
                f"{score['users_used']:,} ({score['users_left_out']:,})",
            )
        )
    head = ("log", "rows", "weighted GAUC (95 % interval)", "minus baseline", "users (left out: one class)")
    yield (head, rows) if rows else "It was evaluated on no log."


def _tested(workspace: Workspace, policy: str, manifest: Mapping[str, Any]) -> Iterator[Part]:
    """Yields the newest A/B test in each environment; held in bounds it is another policy, which none has played."""
    newest: dict[str, list[tuple[str, ...]]] = {}
    for run in workspace.registry.runs(RunState.COMPLETED, kind="abtest"):
        told = run.result or {}
        effects = [effect for effect in told["effects"] if effect["policy"] == policy]
        if effects and not manifest["clipped_to_bounds"]:
            rows: list[tuple[str, ...]] = [
                (
                    told["env"],
                    effect["metric"].replace("_", " "),
                    told["base"],
                    text(_estimate(effect, "relative"), "{:+.2%}"),
                    f"{told['n_users']:,}",
                )
                for effect in effects
            ]
            newest.setdefault(told["env"], rows)
    if rows := [row for rows in newest.values() for row in rows]:
        yield ("A/B test in", "metric", "against", "relative difference (95 % interval)", "users"), rows
    else:
        yield "No A/B test has played it."


def _estimate(row: Mapping[str, Any], value: str) -> Estimate:
    return Estimate(
        value=row[value],
        ci_low=row["ci_low"],
        ci_high=row["ci_high"],
        n_users=0,
    )
