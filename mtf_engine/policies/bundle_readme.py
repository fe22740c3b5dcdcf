"""What an engineer reads beside a bundle: what is in it, and the ten lines that serve it by onnxruntime."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtf_engine.policies import reference_scorer
from mtf_engine.policies.bundle_reading import SCORES

SCORER = Path(reference_scorer.__file__)
LINES = """\
import json, zipfile
import numpy as np, onnxruntime

with zipfile.ZipFile({name}) as bundle:
    manifest = json.loads(bundle.read("manifest.json"))
    graph = onnxruntime.InferenceSession(bundle.read("{graph}"))

asked = {{"observations": np.zeros((1, len(manifest["features"])), np.float32)}}  # in natural units
"""
SCORING = """\
asked["predictions"] = np.full((1, 60, len(manifest["fusion"]["predictions"])), 0.1, np.float32)
(log_final_scores,) = graph.run(None, asked)  # [requests, candidates]: 1 and 60 here
best_first = np.argsort(-log_final_scores, axis=1)
"""
BY_ITEM = 'asked["item_features"] = np.zeros((1, 60, len(manifest["item_features"])), np.float32)\n'
ACTING = "(actions,) = graph.run(None, asked)  # [requests, dimensions], each in [-1, 1]\n"


ALONE = (
    f"`{SCORER.name}` computes the same in numpy: `python {SCORER.name} FILE`. `mtf serve FILE` answers by HTTP, for "
    "tests and staging."
)
"""What does not serve a policy with weights for each item."""


def serving_lines(manifest: Mapping[str, Any], name: str) -> str:
    """Returns the Python that serves the bundle in the file `name` by onnxruntime."""
    scores = SCORES in manifest["sha256"]
    lines = LINES.format(name=json.dumps(name), graph=SCORES if scores else "policy.onnx")
    return lines + BY_ITEM * _by_item(manifest) + (SCORING if scores else ACTING)


def _by_item(manifest: Mapping[str, Any]) -> bool:
    """Returns whether the policy has weights for each item, by its features."""
    return "item_features" in manifest["inputs"]


def bundle_readme(manifest: Mapping[str, Any], name: str) -> str:
    """Returns what an engineer has to know of the bundle in the file `name`, as Markdown."""
    origin, bounds = manifest["origin"], manifest["clip_bounds"]
    approved = "approved for live use" if manifest["approved"] else "not approved: for tests and staging"
    held = (
        f"inside {bounds['lower']} to {bounds['upper']} around its baseline"
        if bounds
        else "as it was trained"
    )
    weights = [
        f"{d['kind']} of {json.dumps(d['prediction'])}, of which -1 to 1 is {d['low']:g} to {d['high']:g}"
        for d in manifest["fusion"]["dimensions"]
    ]
    told = {"method": origin.get("algo"), "run": origin.get("run_id"), "log": origin.get("dataset_id")}
    parts = [
        f"# {name}",
        f"A policy of fusion weights, {approved}; served {held}.",
        _code([f"{what}: {json.dumps(which)}" for what, which in told.items() if which]),
        "## Serve it by onnxruntime",
        _code(serving_lines(manifest, name).splitlines()),
        "Numbers of requests and of candidates are free. `mtf verify` compares the graphs with the answers stored in "
        "the bundle." + ("" if _by_item(manifest) else f" {ALONE}"),
        "## Features of an observation, in order",
        _numbered(map(json.dumps, manifest["features"])),
        *(
            ("## Features of an item, in order", _numbered(map(json.dumps, manifest["item_features"])))
            if _by_item(manifest)
            else ()
        ),
        "## Predictions of a candidate, in order",
        _numbered(map(json.dumps, manifest["fusion"]["predictions"])),
        "## Dimensions of the action, in order",
        _numbered(weights),
    ]
    return "\n\n".join(parts) + "\n"


def _numbered(lines: Iterable[str]) -> str:
    return _code(f"{i}  {line}" for i, line in enumerate(lines))


def _code(lines: Iterable[str]) -> str:
    """Returns lines as a block of code, in which nothing that a stranger named is Markdown."""
    return "\n".join(f"    {line}" if line else "" for line in lines)
