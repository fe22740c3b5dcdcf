"""Policies as ONNX graphs, with scaling, clipping and fusion inside."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mtf_engine.fusion import log_final_score
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import BoundsPlan, Refusal

OPSET = 20
EXAMPLE_REQUESTS, EXAMPLE_CANDIDATES = 3, 5
"""Sizes of the traced example: at least 2, or the exporter takes them for constants."""


@dataclass(frozen=True)
class Clip:
    """Bounds that served actions are held in: a plan around a baseline policy."""

    baseline: Policy
    plan: BoundsPlan

    def of(self, policy: Policy) -> Policy:
        """Returns `policy` as it acts when it is held in the bounds."""
        return replace(policy, network=ServedPolicy(policy, self))


class ServedPolicy(nn.Module):
    """Raw observations [n, f] -> actions [n, d], clipped to [-1, 1] and, with `clip`, to the bounds.

    With features [n, k, i] of k items a policy of weights for each item gives actions [n, k, d]; without, they stand
    behind the observations.
    """

    def __init__(self, policy: Policy, clip: Clip | None) -> None:
        super().__init__()
        self.network, self.n_observed = policy.network, len(policy.feature_names)
        self.baseline = None if clip is None else clip.baseline.network
        if clip is not None:
            if clip.plan.n_actions != policy.fusion.n_actions:
                raise Refusal(
                    f"the bounds plan has {clip.plan.n_actions} dimensions and the policy's actions "
                    f"{policy.fusion.n_actions}; give a plan with {', '.join(policy.fusion.names)}"
                )
            if clip.plan.segments:
                raise Refusal(
                    "bounds per user segment cannot be clipped to: a bundle is not told the segment"
                )
            self.register_buffer("lower", torch.tensor(clip.plan.lower))
            self.register_buffer("upper", torch.tensor(clip.plan.upper))

    def forward(self, observations: Tensor, items: Tensor | None = None) -> Tensor:
        actions = self._actions(observations, items).clamp(-1, 1)
        if self.baseline is None:
            return actions
        centre = self.baseline(observations[:, : self.n_observed]).clamp(-1, 1)
        if items is not None:
            centre = centre.unsqueeze(1)
        return actions.clamp(centre + self.lower, centre + self.upper).clamp(-1, 1)

    def _actions(self, observations: Tensor, items: Tensor | None) -> Tensor:
        if items is None:
            return self.network(observations)
        n, k = items.shape[:2]
        states = torch.cat([observations.unsqueeze(1).expand(-1, k, -1), items], dim=2)
        return self.network(states.flatten(0, 1)).unflatten(0, (n, k))


class ServedScores(nn.Module):
    """Raw observations [n, f] and predictions [n, k, p] of k candidates -> log final scores [n, k].

    A policy of weights for each item takes features [n, k, i] of the candidates, too.
    """

    typical: Tensor | None

    def __init__(self, served: ServedPolicy, policy: Policy) -> None:
        super().__init__()
        self.served, self.fusion = served, policy.fusion
        self.register_buffer("typical", None if policy.typical is None else torch.tensor(policy.typical))

    def forward(self, observations: Tensor, predictions: Tensor, items: Tensor | None = None) -> Tensor:
        return log_final_score(
            self.fusion, self.served(observations, items), predictions, torch, self.typical
        )


def graphs(policy: Policy, clip: Clip | None, scores: bool) -> dict[str, bytes]:
    """Returns the content of policy.onnx and, with `scores`, of scores.onnx.

    Numbers of requests and of candidates are free.
    """
    scoring = {"scores.onnx": _scores_graph(policy, clip)} if scores else {}
    return {"policy.onnx": policy_graph(policy, clip), **scoring}


def policy_graph(policy: Policy, clip: Clip | None) -> bytes:
    """Returns the content of policy.onnx; the number of requests is free, and that of items where it takes them."""
    inputs = {**_observations(policy), **_items(policy, torch.export.Dim("items"))}
    return _onnx(ServedPolicy(policy, clip), inputs, "actions")


def _scores_graph(policy: Policy, clip: Clip | None) -> bytes:
    predictions = torch.full((EXAMPLE_REQUESTS, EXAMPLE_CANDIDATES, len(policy.fusion.predictions)), 0.5)
    shape = {0: torch.export.Dim.AUTO, 1: torch.export.Dim("candidates")}
    return _onnx(
        ServedScores(ServedPolicy(policy, clip), policy),
        {
            **_observations(policy),
            "predictions": (predictions, shape),
            **_items(policy, torch.export.Dim.AUTO),
        },
        "log_final_scores",
    )


def _items(policy: Policy, number: Any) -> dict[str, tuple[Tensor, dict[int, Any]]]:
    """Returns the input of item features; none where a policy has one action for all items of a request."""
    if policy.action_level == "request":
        return {}
    example = torch.zeros(EXAMPLE_REQUESTS, EXAMPLE_CANDIDATES, len(policy.item_names))
    return {"item_features": (example, {0: torch.export.Dim.AUTO, 1: number})}


def _observations(policy: Policy) -> dict[str, tuple[Tensor, dict[int, Any]]]:
    return {
        "observations": (
            torch.zeros(EXAMPLE_REQUESTS, len(policy.feature_names)),
            {0: torch.export.Dim("requests")},
        )
    }


def _onnx(module: nn.Module, inputs: dict[str, tuple[Tensor, dict[int, Any]]], output: str) -> bytes:
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            tuple(example for example, _ in inputs.values()),
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple(shape for _, shape in inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # None belongs to the exporter before dynamo
    model = program.model_proto
    for part in (
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
    ):
        del part.metadata_props[:]  # stack traces, with the paths of this machine
    return model.SerializeToString(deterministic=True)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences two remarks of PyTorch about itself: a name it deprecates and uses, and no torchvision."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        yield
    registration.setLevel(level)
