"""The policy network of BatchRL-MTF: candidates near the logged actions, of which a critic takes the best."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtf_engine.policies.networks import (
    CriticEnsemble,
    described,
    initialise,
    mlp,
    policy_network,
)

LATENT_CLIP = 0.5
"""Latents are cut here, so that candidates stay where most logged actions are."""


class CandidatePolicy(nn.Module):
    """Raw observations [n, f] -> actions [n, d] in [-1, 1]: the best of `n_candidates` by the first critic.

    A candidate is `baseline + half_width * decoder(state, latent)`, moved by `perturbation` times a tanh.
    `latents` are fixed, so the policy is deterministic; `centre` and `half_width` [d] are of the log's bounds
    about the baseline action, 0 in fixed dimensions. A state is [standardised observation, baseline action],
    the baseline a policy network of its own. The best is chosen in float64: candidates that are nearly alike
    are told apart by the same digits everywhere.
    """

    centre: Tensor
    half_width: Tensor
    latents: Tensor

    def __init__(
        self,
        baseline: nn.Module | dict[str, Any],
        critics: CriticEnsemble | dict[str, Any],
        hidden: Sequence[int],
        n_candidates: int,
        perturbation: float,
    ) -> None:
        """Takes the networks, or the descriptions of them that `architecture` has."""
        super().__init__()
        self.baseline = policy_network(baseline) if isinstance(baseline, dict) else baseline
        self.critics = CriticEnsemble(**critics) if isinstance(critics, dict) else critics
        self.hidden, self.perturbation = tuple(hidden), perturbation
        n_features, n_actions = (self.critics.architecture[name] for name in ("n_features", "n_actions"))
        n_state, self.n_latents = n_features + n_actions, 2 * n_actions
        self.decoder = mlp([n_state + self.n_latents, *hidden, n_actions])
        self.shift = mlp([n_state + n_actions, *hidden, n_actions])
        self.register_buffer("centre", torch.zeros(n_actions))
        self.register_buffer("half_width", torch.ones(n_actions))
        self.register_buffer("latents", torch.zeros(n_candidates, self.n_latents))

    @property
    def architecture(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-able."""
        return {
            "baseline": described(self.baseline), "critics": self.critics.architecture, "hidden": list(self.hidden),
            "n_candidates": len(self.latents), "perturbation": self.perturbation,
        }  # fmt: skip

    def initialise(self, centre: Tensor, half_width: Tensor, generator: torch.Generator) -> "CandidatePolicy":
        """Returns the policy with fresh weights and latents; all its candidates are the baseline's action."""
        for layers in (self.decoder, self.shift):
            last = cast("nn.Linear", initialise(layers, generator)[-1])
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.centre.copy_(centre)
        self.half_width.copy_(half_width)
        self.latents.copy_(
            torch.randn(self.latents.shape, generator=generator).clamp(-LATENT_CLIP, LATENT_CLIP)
        )
        return self

    def forward(self, observations: Tensor) -> Tensor:
        baseline = self.baseline(observations).clamp(-1, 1)
        state = torch.cat([self.critics.standardise(observations), baseline], dim=1).double()
        latents = self.latents.double()[:, None].expand(
            -1, state.shape[0], -1
        )  # [k, n, 2 d]; len() would fix n in the graph
        return self.best(state, self.perturbed(state, self.decode(state, latents))).float()

    def offsets(self, state: Tensor, actions: Tensor) -> Tensor:
        """Returns actions [n, d] in half widths from the baseline action; 0 in fixed dimensions."""
        fixed = self.half_width == 0
        return (actions - self._baseline_of(state)) / self.half_width.masked_fill(fixed, torch.inf)

    def decode(self, state: Tensor, latents: Tensor) -> Tensor:
        """Returns the offsets [..., n, d] of latents [..., n, 2 d]."""
        return _through(self.decoder, _beside(state, latents))

    def push(self, state: Tensor, offsets: Tensor, shift: nn.Sequential | None = None) -> Tensor:
        """Returns in which direction offsets [..., n, d] are moved by `shift`, or the policy's own: -1 to 1."""
        return _through(shift or self.shift, _beside(state, offsets)).tanh()

    def perturbed(self, state: Tensor, offsets: Tensor, shift: nn.Sequential | None = None) -> Tensor:
        """Returns the actions [..., n, d] that offsets become; fixed dimensions keep the baseline's."""
        pushed = self.push(state, offsets, shift) * (self.half_width > 0)
        moved = self.half_width * offsets + self.perturbation * pushed
        return (self._baseline_of(state) + moved).clamp(-1, 1)

    def best(self, state: Tensor, candidates: Tensor) -> Tensor:
        """Returns of actions [k, n, d] those [n, d] of the highest first critic."""
        chosen = self._value(state, candidates).argmax(dim=0)  # [n]
        return candidates.gather(0, chosen[None, :, None].expand(1, -1, candidates.shape[2]))[0]

    def _baseline_of(self, state: Tensor) -> Tensor:
        return state[:, -len(self.half_width) :]

    def _value(self, state: Tensor, actions: Tensor) -> Tensor:
        """Returns the first critic's Q [k, n] of actions [k, n, d], computed in the type of the state."""
        seen = actions
        if self.critics.action_input == "deviation":
            seen = self.offsets(state, actions - self.centre)
        hidden = _beside(state, seen.index_select(2, self.critics.explored))
        for i, (weight, bias) in enumerate(self.critics.layers_of(0)):
            hidden = functional.linear(hidden.relu() if i else hidden, weight.to(hidden), bias.to(hidden))
        return hidden[..., 0]


def _beside(state: Tensor, inputs: Tensor) -> Tensor:
    """Returns states [n, s] beside inputs [..., n, i]: [..., n, s + i]."""
    return torch.cat([state.expand(*inputs.shape[:-1], -1), inputs], dim=-1)


def _through(layers: nn.Sequential, inputs: Tensor) -> Tensor:
    """Returns the output of the layers of `mlp`, computed in the type of the inputs."""
    for i, layer in enumerate(layers):
        if i % 2:
            inputs = inputs.relu()
        else:
            linear = cast("nn.Linear", layer)
            inputs = functional.linear(inputs, linear.weight.to(inputs), linear.bias.to(inputs))
    return inputs
