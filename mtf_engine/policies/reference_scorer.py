"""The reference scorer: what a bundle computes, in numpy alone, with nothing of the project that made the bundle.

It reads the weights, not the graphs, and tells how far it is from the answers stored in the bundle:
`python reference_scorer.py policy.zip`.
"""

import io
import json
import sys
import zipfile
from typing import Any

import numpy as np

Floats = np.ndarray
Weights = dict[str, np.ndarray]


def read(content: bytes) -> tuple[dict[str, Any], Weights]:
    """Returns head and weights of a .safetensors file: 8 bytes of length, JSON, then float32 numbers."""
    start = 8 + int.from_bytes(content[:8], "little")
    told = json.loads(content[8:start])
    head, data = json.loads(told.pop("__metadata__")["mtf_engine"]), content[start:]
    arrays = {n: np.frombuffer(data[slice(*of["data_offsets"])], "<f4") for n, of in told.items()}
    return head, {name: array.reshape(told[name]["shape"]) for name, array in arrays.items()}


def act(network: dict[str, Any], weights: Weights, observations: Floats) -> Floats:
    """Returns actions [n, d] in [-1, 1] for observations [n, f] in natural units, in the order of the features."""
    actions = NETWORKS[network["kind"]](network["architecture"], weights, observations.astype(np.float32))
    return actions.clip(-1, 1).astype(np.float32)


def log_final_scores(fusion: dict[str, Any], actions: Floats, predictions: Floats) -> Floats:
    """Returns `sum_i pow_i * log(prediction_i + bias_i)` [n, k] of k candidates' predictions [n, k, p]."""
    real = {kind: np.zeros((len(actions), 1, predictions.shape[2])) for kind in ("pow", "bias")}
    for action, of in zip(actions.T, fusion["dimensions"], strict=True):
        unit = (of["high"] + of["low"]) / 2 + (of["high"] - of["low"]) / 2 * action
        real[of["kind"]][:, 0, fusion["predictions"].index(of["prediction"])] += unit
    return (real["pow"] * np.log(np.maximum(predictions, 1e-6) + real["bias"])).sum(axis=-1)


def _part(weights: Weights, name: str) -> Weights:
    return {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}


def _standardised(weights: Weights, observations: Floats) -> Floats:
    return ((observations - weights["standardise.mean"]) / weights["standardise.std"]).clip(-5, 5)


def _layers(weights: Weights, inputs: Floats) -> Floats:  # numbered 0, 2, 4, ..., a ReLU between any two
    for i in range(0, len(weights), 2):
        inputs = np.maximum(inputs, 0) if i else inputs
        inputs = inputs @ weights[f"{i}.weight"].T.astype(inputs.dtype) + weights[f"{i}.bias"]
    return inputs


def _candidates(of: dict[str, Any], weights: Weights, observations: Floats) -> Floats:
    """Returns of each request's candidates near the baseline's action the one that the first critic values most."""
    half_width, critics = weights["half_width"], of["critics"]
    base = act(of["baseline"], _part(weights, "baseline"), observations)
    state = np.hstack([_standardised(_part(weights, "critics"), observations), base]).astype(np.float64)
    best, most = np.zeros(base.shape), np.full(len(base), -np.inf)
    for latent in weights["latents"]:
        near = _layers(_part(weights, "decoder"), np.hstack([state, np.tile(latent, (len(state), 1))]))
        pushed = np.tanh(_layers(_part(weights, "shift"), np.hstack([state, near]))) * (half_width > 0)
        seen = actions = (base + half_width * near + of["perturbation"] * pushed).clip(-1, 1)
        if critics["action_input"] == "deviation":
            seen = (actions - weights["centre"] - base) / np.where(half_width == 0, np.inf, half_width)
        hidden, width = np.hstack([state, seen[:, critics["explored"]]]), critics["hidden"][0]
        for i in range(len(critics["hidden"]) + 1):
            weight, bias = weights[f"critics.weights.{i}"], weights[f"critics.biases.{i}"]
            weight, bias = (weight[0], bias[0, :, 0]) if i else (weight[:, :width], bias[:width, 0])
            hidden = (np.maximum(hidden, 0) if i else hidden) @ weight + bias
        better = hidden[:, 0] > most
        best[better], most[better] = actions[better], hidden[better, 0]
    return best


NETWORKS = {
    "Actor": lambda _, w, obs: np.tanh(_layers(_part(w, "head"), _standardised(w, obs))),
    "ConstantAction": lambda _, w, obs: np.tile(w["action"], (len(obs), 1)),
    "LinearPolicy": lambda _, w, obs: _standardised(w, obs) @ w["components"] @ w["weight"] + w["bias"],
    "OffsetPolicy": lambda of, w, obs: act(of["base"], _part(w, "base"), obs) + w["offset"],
    "CandidatePolicy": _candidates,
}

if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as bundle:
        manifest = json.loads(bundle.read("manifest.json"))
        network, weights = read(bundle.read("policy.safetensors"))
        golden = np.load(io.BytesIO(bundle.read("golden.npz")), allow_pickle=False)
    if manifest["clipped_to_bounds"] or "item_features" in manifest["inputs"]:
        sys.exit("held in bounds, or with weights for each item, as the graphs alone do it: ask policy.onnx")
    actions = act(network, weights, golden["observations"])
    print(f"actions: at most {abs(actions - golden['actions']).max():.1e} off")
    if "predictions" in golden:
        scores = log_final_scores(manifest["fusion"], actions, golden["predictions"])
        print(f"log final scores: at most {abs(scores - golden['log_final_scores']).max():.1e} off")
