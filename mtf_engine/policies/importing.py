"""The policy in a bundle of another machine: its weights alone, once they are shown to be what the bundle serves.

Nothing of it is executed, unpickled or unpacked: weights are safetensors of networks that are known here, in the sizes
that they say, and the graphs, which are not kept, answer in a process of their own (`bundle_reading`).
"""

import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from mtf_engine.environments import world
from mtf_engine.environments.names import world_of
from mtf_engine.fusion import log_final_score
from mtf_engine.policies.bundle import TOLERANCE, verify
from mtf_engine.policies.bundle_reading import GOLDEN, MANIFEST, SCORES, arrays, head_of, read, refusal
from mtf_engine.policies.examples import Examples
from mtf_engine.policies.heads import KEY, SCHEMA_VERSION
from mtf_engine.policies.networks import POLICY_NETWORKS
from mtf_engine.policies.policy import Policy
from mtf_engine.registry import BASELINE
from mtf_engine.spec import BoundsPlan, FusionSpec, Refusal

LARGEST_SIZE, LONGEST_ARCHITECTURE, LONGEST_NAME, MOST_FEATURES = 20_000, 20_000, 200, 20_000
"""Of one layer, the characters that describe a network or name a feature, and features."""
CONTROL = ("Loop", "Scan", "If")
PROBES = (0.0, 1.0, -1e3, 1e3)
"""What observations are multiplied by: a policy acts on whatever a log holds."""
FOREIGN = "export the policy again"


@dataclass(frozen=True)
class Imported:
    """A policy from elsewhere, rows that it can be exported with, the manifest it came with, and the bundle's hash."""

    policy: Policy
    examples: Examples
    manifest: dict[str, Any]
    sha256: str


def import_bundle(content: bytes, name: str) -> Imported:
    """Returns the policy in the bundle `content`, called `name`; a Refusal says why it is none.

    Its weights answer the golden examples as its graphs do. One that is held in bounds is refused: the policy that
    these are around is not in the bundle.
    """
    members = read(io.BytesIO(content), name)
    manifest = json.loads(members[MANIFEST])
    if manifest.get("clipped_to_bounds") is not False:
        raise Refusal(
            f"{name} is held in bounds around a policy that it does not hold, so that it cannot be made anew here; "
            "export it without --clip, and hold it in bounds here"
        )
    if "item_features" in (manifest.get("inputs") or ()):
        raise Refusal(
            f"{name} has weights for each item, which are not imported; train it here (action_level=item)"
        )
    try:
        policy = _policy(members["policy.safetensors"], manifest)
        golden = arrays(members[GOLDEN], name)
        _check_golden(policy, golden)
        for graph in ("policy.onnx", SCORES):
            if graph in members:
                _check_flow(members[graph])
    except (
        SafetensorError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, MemoryError,
    ) as error:  # fmt: skip
        problem = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise refusal(f"{name} holds no policy that is known here: {problem}; {FOREIGN}") from None
    if not verify(io.BytesIO(content), name)["ok"]:
        raise refusal(f"{name} serves other actions than its own examples say; {FOREIGN}")
    sha256 = hashlib.sha256(content).hexdigest()
    return Imported(
        policy=replace(policy, info=_info(policy, sha256)),
        examples=Examples(
            golden["observations"],
            golden.get("predictions", np.zeros((0, len(policy.fusion.predictions)), np.float32)).reshape(
                -1, len(policy.fusion.predictions)
            ),
            policy.fusion,
            policy.feature_names,
        ),
        manifest=manifest,
        sha256=sha256,
    )


def _policy(content: bytes, manifest: Mapping[str, Any]) -> Policy:
    """Returns the policy in a safetensors file, whose manifest says the same of it; else a ValueError."""
    head = json.loads((head_of(content).get("__metadata__") or {})[KEY])
    if head["schema_version"] != SCHEMA_VERSION or head["kind"] not in POLICY_NETWORKS:
        raise ValueError("its weights are of no network of this version")
    fusion = FusionSpec.model_validate(head["fusion"])
    names, mask = head["feature_names"], head["numeric_mask"]
    if not all(
        isinstance(one, str) and 0 < len(one) <= LONGEST_NAME for one in (*names, *fusion.predictions)
    ):
        raise ValueError("a feature or a prediction has no name, or one too long")
    if not 0 < len(set(names)) == len(names) == len(mask) <= MOST_FEATURES or {*map(type, mask)} != {bool}:
        raise ValueError("its features are not those of a policy")
    standardised = [name for name, numeric in zip(names, mask, strict=True) if numeric]
    told = FusionSpec.model_validate(manifest["fusion"]), manifest["features"], manifest["standardised"]
    if told != (fusion, names, standardised):
        raise ValueError("its manifest tells of another policy than its weights")
    network = _network(head["kind"], head["architecture"], load(content))
    info = head["info"] if isinstance(head["info"], dict) else {}
    return Policy(network, fusion, tuple(names), tuple(mask), info)


def _network(kind: str, architecture: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """Returns a network with exactly these weights; a ValueError where it would have others, or they are not finite."""
    if len(json.dumps(architecture)) > LONGEST_ARCHITECTURE:
        raise ValueError("its network is described at too great a length")
    for number in _numbers(architecture):
        if not (math.isfinite(number) and abs(number) <= LARGEST_SIZE):
            raise ValueError("its network is larger than a policy's can be")
    with torch.device("meta"):  # nothing is laid out before it is known to be as large as the file
        described = POLICY_NETWORKS[kind](**architecture)
    if beside := sorted(set(tensors) - set(described.state_dict())):
        raise ValueError(f"its weights hold {beside[0][:LONGEST_NAME]}, which its network has not")
    for name, own in described.state_dict().items():
        if name not in tensors or (tensors[name].shape, tensors[name].dtype) != (own.shape, own.dtype):
            raise ValueError(f"its weights lack {name}, or have it in another shape")
        if not tensors[name].isfinite().all():
            raise ValueError(f"its weights {name} are not finite")
    network = POLICY_NETWORKS[kind](**architecture)
    network.load_state_dict(dict(tensors))
    return network.requires_grad_(False)


def _numbers(value: Any) -> Iterator[float]:
    """Yields every number in JSON."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)


def _check_golden(policy: Policy, golden: Mapping[str, NDArray[np.float32]]) -> None:
    """Raises a ValueError where the weights answer otherwise than the golden examples, or with what is no action."""
    observations, actions = golden["observations"], golden["actions"]
    if not len(observations) or observations.shape[1:] != (len(policy.feature_names),):
        raise ValueError("its examples are not of its features")
    found = policy.act(observations)
    if found.shape != actions.shape or found.shape[1] != policy.fusion.n_actions:
        raise ValueError("its actions have not the dimensions of its fusion")
    pairs = [(found, actions)]
    if "predictions" in golden:
        if golden["predictions"].shape[2:] != (len(policy.fusion.predictions),):
            raise ValueError("its examples are not of its predictions")
        scores = log_final_score(policy.fusion, found, golden["predictions"])
        pairs.append((scores, golden["log_final_scores"]))
    for answered, told in pairs:
        if answered.shape != told.shape or not np.allclose(answered, told, TOLERANCE, TOLERANCE):
            raise ValueError("its weights answer otherwise than its examples say")
    if not all(np.isfinite(policy.act(observations[:1] * np.float32(probe))).all() for probe in PROBES):
        raise ValueError("its weights answer with what is no number")


def _check_flow(content: bytes) -> None:
    """Raises a ValueError where a graph loops, branches or calls functions of its own, as none of an export does."""
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf's own class
        raise ValueError(f"a graph cannot be read: {type(error).__name__}") from None
    if model.functions or any(node.op_type in CONTROL for node in model.graph.node):
        raise ValueError("a graph loops or branches, as none that is exported does")


def _info(policy: Policy, sha256: str) -> dict[str, Any]:
    """Returns what is kept of where a policy says that it is from: what is checked, and the rest as told, for show.

    The bounds that it was explored in are kept where they are around the baseline, which is everywhere the same.
    """
    told = policy.info
    algo, scale, env = (told.get(name) for name in ("algo", "reward_scale", "env"))
    known: dict[str, Any] = {
        "algo": algo if isinstance(algo, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,40}", algo) else "imported",
        "baseline": BASELINE,
        "bundle_sha256": sha256,
        "told": {
            name: str(told[name])[:LONGEST_NAME]
            for name in ("run_id", "dataset_id", "dataset_hash", "baseline", "env", "step")
            if told.get(name) is not None
        },
    }
    if isinstance(scale, int | float) and 0 < scale < math.inf:
        known["reward_scale"] = float(scale)
    if isinstance(env, str) and world_of(env) in world.names():
        known["env"] = env
    if told.get("baseline") == BASELINE and isinstance(told.get("plan"), dict):
        plan = BoundsPlan.model_validate(told["plan"])
        if plan.n_actions == policy.fusion.n_actions:
            known["plan"] = plan.model_dump(mode="json")
    return known
