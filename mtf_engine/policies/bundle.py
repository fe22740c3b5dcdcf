"""The bundle a server loads: one zip with fixed names, which anyone can check with numpy and onnxruntime.

Nothing heavy is imported at the top, so that `verify` runs where there is no PyTorch.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtf_engine.policies.bundle_reading import (
    GOLDEN,
    MANIFEST,
    SCHEMA_VERSION,
    SCORES,
    answers,
    arrays,
    manifest_hash,
    read,
    refusal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf_engine.logs.schema import EvaluationRows
    from mtf_engine.policies.examples import Examples
    from mtf_engine.policies.graphs import Clip
    from mtf_engine.policies.policy import Policy

GOLDEN_REQUESTS, GOLDEN_CANDIDATES = 256, 8
TOLERANCE = 1e-5
"""Largest difference that counts as the same: absolute below 1, relative above."""


def export(
    policy: Policy,
    to: Path,
    *,
    rows: EvaluationRows | Examples,
    evaluation: Mapping[str, Any] | None = None,
    clip: Clip | None = None,
    approval: Mapping[str, Any] | None = None,
    purpose: str = "test",
    reward: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Returns the manifest of the bundle written to `to`, in one step, once it is shown to compute the same.

    `rows` are logged requests to take golden examples from, and where they have no impressions the policy is written
    alone, without the graph that scores candidates; `evaluation` is the policy's scores, JSON-able;
    `clip` holds served actions inside bounds; `approval` tells who made the policy live, and why; `purpose` what the
    bundle is for; `reward` has the weights of the log's reward, by which a negative pow is told. The same arguments
    give the same bytes. A Refusal where rows and policy differ in names, or where onnxruntime and the policy disagree.
    """
    from mtf_engine.disk import write_atomically
    from mtf_engine.policies.graphs import graphs

    policy.check(rows.fusion, rows.feature_names)
    members = {
        **graphs(policy, clip, scores=len(rows.predictions) > 0),
        "policy.safetensors": policy.to_bytes(),
        GOLDEN: _golden(policy, clip, rows),
    }
    manifest = _manifest(policy, members, evaluation, clip, approval) | {
        "purpose": purpose,
        "negative_pows": _negative_pows(policy, clip, rows, members[GOLDEN], reward),
    }
    manifest = json.loads(json.dumps(manifest))
    manifest["sha256"][MANIFEST] = manifest_hash(manifest)
    content = _zip({**members, MANIFEST: json.dumps(manifest, indent=1, sort_keys=True).encode()})
    checked = verify(io.BytesIO(content))
    if not checked["ok"]:
        difference = f"{checked['max_abs_diff']:.1e}"
        raise refusal(f"the exported graphs differ from the policy by {difference}; nothing was written")
    write_atomically(to, content)
    return manifest


def verify(path: Path | io.BytesIO, name: str = "") -> dict[str, Any]:
    """Returns whether a bundle's graphs answer its golden examples as the policy did: `ok`, `max_abs_diff`.

    All requests at once, and the first one alone with one candidate. A Refusal where the file is no bundle,
    or not as it was written. Members are read by their fixed names, in the sizes that they may have; nothing is
    unpacked or unpickled. The graphs run in a process of their own, with limits of time and memory. A refusal calls
    the file `name`, else as it is called.
    """
    name = name or (path.name if isinstance(path, Path) else "the bundle")
    members = read(path, name)
    golden = arrays(members[GOLDEN], name)
    expected = {"policy.onnx": "actions"} | ({SCORES: "log_final_scores"} if SCORES in members else {})
    by_item = "item_features" in golden
    asked_of = (
        "observations",
        *(("predictions",) if SCORES in members else ()),
        *(("item_features",) if by_item else ()),
    )
    if not {*asked_of, *expected.values()} <= set(golden):
        raise refusal(f"{GOLDEN} in {name} lacks answers; export the policy again")
    parts = {"observations": 1, "actions": 2 if by_item else 1, "predictions": 2, "log_final_scores": 2}
    parts |= {"item_features": 2}
    alone = {key: golden[key][(slice(1),) * parts[key]] for key in golden}
    asked = [{key: of[key] for key in asked_of} for of in (golden, alone)]
    found = answers({graph: members[graph] for graph in expected}, asked, name)
    pairs = [
        (answered[graph], of[key])
        for answered, of in zip(found, (golden, alone), strict=True)
        for graph, key in expected.items()
    ]
    if any(answered.shape != told.shape for answered, told in pairs):
        raise refusal(f"a graph in {name} answers in another shape; export the policy again")
    return {
        "ok": all(np.allclose(answered, told, TOLERANCE, TOLERANCE) for answered, told in pairs),
        "max_abs_diff": max(float(np.abs(answered - told).max(initial=0)) for answered, told in pairs),
    }


def _negative_pows(
    policy: Policy,
    clip: Clip | None,
    rows: EvaluationRows | Examples,
    golden: bytes,
    reward: Mapping[str, float] | None,
) -> list[dict[str, Any]]:
    """Returns the pows of positive behaviours that are negative, or may be, as they are served on `rows`.

    Of a policy with weights for each item, on the items of the golden requests. None where nothing is predicted: there
    an action is the weights themselves, and no behaviour's.
    """
    if not len(rows.predictions):
        return []
    import torch

    from mtf_engine.policies.graphs import ServedPolicy
    from mtf_engine.policies.monotony import negative_pows

    if policy.action_level == "item":
        actions = np.load(io.BytesIO(golden), allow_pickle=False)["actions"]
        actions = actions.reshape(-1, actions.shape[-1])
    else:
        with torch.inference_mode():
            actions = ServedPolicy(policy, clip)(torch.as_tensor(rows.observations)).numpy()
    return [one.model_dump(mode="json") for one in negative_pows(rows.fusion, actions, reward)]


def _golden(policy: Policy, clip: Clip | None, rows: EvaluationRows | Examples) -> bytes:
    """Returns golden.npz: requests spread over the log, each with 8 logged impressions as candidates if it has any."""
    import torch

    from mtf_engine.fusion import log_final_score
    from mtf_engine.observation import item_states
    from mtf_engine.policies.graphs import ServedPolicy

    requests = np.unique(np.linspace(0, len(rows.observations) - 1, GOLDEN_REQUESTS).astype(int))
    golden = {"observations": rows.observations[requests]}
    if len(rows.predictions):
        first = np.linspace(0, len(rows.predictions) - 1, len(requests)).astype(int)
        candidates = (first[:, None] + np.arange(GOLDEN_CANDIDATES)) % len(rows.predictions)
        golden["predictions"] = rows.predictions[candidates]
        if policy.action_level == "item":
            features = None if rows.item_features is None else rows.item_features[candidates]
            golden["item_features"] = item_states(
                policy.item_names, rows.item_names, features, rows.fusion.predictions, golden["predictions"]
            )
    elif policy.action_level == "item":
        raise refusal(
            "the policy has weights for each item, and the rows show none; export with a log that does"
        )
    asked = [torch.as_tensor(golden[name]) for name in ("observations", "item_features") if name in golden]
    with torch.inference_mode():
        golden["actions"] = ServedPolicy(policy, clip)(*asked).numpy()
    if len(rows.predictions):
        scores = log_final_score(
            rows.fusion, golden["actions"], golden["predictions"], typical=policy.typical
        )
        golden["log_final_scores"] = scores.astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **golden)
    return buffer.getvalue()


def _manifest(
    policy: Policy,
    members: Mapping[str, bytes],
    evaluation: Mapping[str, Any] | None,
    clip: Clip | None,
    approval: Mapping[str, Any] | None,
) -> dict[str, Any]:
    inputs = {"observations": "float32 [requests, features], natural units, in the order of features"}
    if SCORES in members:
        inputs["predictions"] = (
            "float32 [requests, candidates, predictions], in the order of fusion.predictions"
        )
    own: dict[str, Any] = {}
    if policy.action_level == "item":
        shape = "float32 [requests, candidates, features]"
        inputs["item_features"] = f"{shape}, natural units, in the order of item_features"
        own = {
            "action_level": "item",
            "item_features": list(policy.item_names),
            "typical_predictions": list(policy.typical_predictions),
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "approved": approval is not None,
        "approval": approval,
        "inputs": inputs,
        "features": list(policy.feature_names),
        "standardised": [
            name
            for name, numeric in zip(
                (*policy.feature_names, *policy.item_names), policy.numeric_mask, strict=True
            )
            if numeric
        ],
        **own,
        "fusion": policy.fusion.model_dump(mode="json"),
        "origin": policy.info,
        "clipped_to_bounds": clip is not None,
        "clip_bounds": clip and clip.plan.model_dump(mode="json"),
        "evaluation": evaluation,
        "sha256": {member: hashlib.sha256(content).hexdigest() for member, content in members.items()},
    }


def _zip(members: Mapping[str, bytes]) -> bytes:
    """Returns a zip whose bytes depend on its members alone: its dates are fixed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in sorted(members.items()):
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
