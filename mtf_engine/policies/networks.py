"""The networks all algorithms share: standardised actors, one-tensor critic ensembles, soft updates."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mtf_engine.spec import MIN_WIDTH

OBSERVATION_CLIP = 5.0
"""Standardised features beyond this many standard deviations are cut."""

CHUNK = 16_384
"""Rows a network sees at once outside training, which bounds memory."""


class Standardise(nn.Module):
    """Observations in natural units [n, f] -> standardised and clipped to +-5, [n, f]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    @classmethod
    def of(cls, mean: np.ndarray, std: np.ndarray, numeric: Sequence[bool]) -> "Standardise":
        """Returns the scaling of `numeric` columns to mean 0, std 1; others, and constants, keep theirs."""
        scaled = np.asarray(numeric) & (std > 1e-6 * np.maximum(1, abs(mean)))
        mean, std = np.where(numeric, mean, 0), np.where(scaled, std, 1)
        return cls(torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32))

    def forward(self, observations: Tensor) -> Tensor:
        return ((observations - self.mean) / self.std).clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Returns linear layers of `sizes`, ReLU between them; their weights are not set yet."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(sizes):
        layers += [nn.utils.skip_init(nn.Linear, width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def initialise(layers: nn.Sequential, generator: torch.Generator) -> nn.Sequential:
    """Returns the layers with fresh weights, uniform within 1 / sqrt(fan-in) (PyTorch's own default)."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            for parameter in layer.parameters():
                _uniform_(parameter, layer.in_features, generator)
    return layers


class Actor(nn.Module):
    """A deterministic policy: raw observations [n, f] -> actions [n, d] in [-1, 1].

    `head` is the part that learns; it takes observations that are standardised already.
    """

    def __init__(self, n_features: int, n_actions: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.standardise = Standardise(torch.zeros(n_features), torch.ones(n_features))
        self.head = nn.Sequential(*mlp([n_features, *hidden, n_actions]), nn.Tanh())
        self.hidden = tuple(hidden)

    @property
    def architecture(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-able."""
        first, last = self.head[0], self.last
        return {"n_features": first.in_features, "n_actions": last.out_features, "hidden": list(self.hidden)}

    @property
    def last(self) -> nn.Linear:
        return self.head[-2]  # type: ignore[return-value]

    def initialise(self, standardise: Standardise, generator: torch.Generator) -> "Actor":
        """Returns the actor with fresh weights."""
        self.standardise.load_state_dict(standardise.state_dict())
        initialise(self.head, generator)
        return self

    def forward(self, observations: Tensor) -> Tensor:
        return self.head(self.standardise(observations))


class ConstantAction(nn.Module):
    """A policy that gives every observation [n, f] the same action [d]."""

    action: Tensor

    def __init__(self, n_features: int, n_actions: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.register_buffer("action", torch.zeros(n_actions))

    @classmethod
    def of(cls, n_features: int, action: np.ndarray) -> "ConstantAction":
        """Returns the policy that gives everybody `action` [d]."""
        network = cls(n_features, len(action))
        network.action.copy_(torch.as_tensor(action))
        return network

    @property
    def architecture(self) -> dict[str, Any]:
        return {"n_features": self.n_features, "n_actions": len(self.action)}

    def forward(self, observations: Tensor) -> Tensor:
        return self.action.expand(observations.shape[0], -1)


class LinearPolicy(nn.Module):
    """Raw observations [n, f] -> actions [n, d], linear in a few components of the features, cut at +-1.

    `components` [f, c] takes standardised features to c uncorrelated ones of one variance.
    """

    components: Tensor

    def __init__(self, n_features: int, n_actions: int, n_components: int) -> None:
        super().__init__()
        self.standardise = Standardise(torch.zeros(n_features), torch.ones(n_features))
        self.register_buffer("components", torch.zeros(n_features, n_components))
        self.weight = nn.Parameter(torch.zeros(n_components, n_actions))
        self.bias = nn.Parameter(torch.zeros(n_actions))

    @property
    def architecture(self) -> dict[str, Any]:
        n_features, n_components = self.components.shape
        return {"n_features": n_features, "n_actions": len(self.bias), "n_components": n_components}

    def forward(self, observations: Tensor) -> Tensor:
        return (self.standardise(observations) @ self.components @ self.weight + self.bias).clamp(-1, 1)


class OffsetPolicy(nn.Module):
    """Raw observations [n, f] -> the actions [n, d] of another policy network, all moved by one offset [d]."""

    offset: Tensor

    def __init__(self, base: nn.Module | dict[str, Any], n_actions: int) -> None:
        """Takes the other network, or the description of it that `architecture` has."""
        super().__init__()
        self.base = policy_network(base) if isinstance(base, dict) else base
        self.register_buffer("offset", torch.zeros(n_actions))

    @property
    def architecture(self) -> dict[str, Any]:
        return {"base": described(self.base), "n_actions": len(self.offset)}

    def forward(self, observations: Tensor) -> Tensor:
        return (self.base(observations).clamp(-1, 1) + self.offset).clamp(-1, 1)


POLICY_NETWORKS: dict[str, type[nn.Module]] = {
    network.__name__: network for network in (Actor, ConstantAction, LinearPolicy, OffsetPolicy)
}
"""What a policy file may hold; each kind is rebuilt from its `architecture` and its tensors."""


def described(network: nn.Module) -> dict[str, Any]:
    """Returns kind and architecture of a policy network, JSON-able."""
    return {"kind": type(network).__name__, "architecture": network.architecture}


def policy_network(description: dict[str, Any]) -> nn.Module:
    """Returns a policy network as `described`, its tensors not set yet."""
    return POLICY_NETWORKS[description["kind"]](**description["architecture"])


class CriticEnsemble(nn.Module):
    """Independent critics as one module: Q [n_critics, n] of n observations and actions.

    Weights are [n_critics, in, out], biases [n_critics, out, 1]. The first layer, whose input all critics
    share, is [in, n_critics * out], so it is one matmul. Activations are laid out [n_critics, width, n]:
    every matmul then reads and writes contiguous memory, and the last layer is ten times faster for it.

    Each critic sees the standardised observation, the baseline action, and the action: as
    `(action - centre) / half_width` of the logged bounds ("deviation"), or as it is ("raw", an ablation).
    Dimensions that no log explores, not `explored`, leave the input.
    """

    explored: Tensor

    def __init__(
        self,
        n_critics: int,
        n_features: int,
        n_actions: int,
        hidden: Sequence[int],
        action_input: Literal["deviation", "raw"] = "deviation",
        explored: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        explored = range(n_actions) if explored is None else explored
        self.architecture: dict[str, Any] = {
            "n_critics": n_critics, "n_features": n_features, "n_actions": n_actions, "hidden": list(hidden),
            "action_input": action_input, "explored": [int(i) for i in explored],
        }  # fmt: skip
        self.n_critics, self.action_input = n_critics, action_input
        self.standardise = Standardise(torch.zeros(n_features), torch.ones(n_features))
        self.register_buffer("explored", torch.tensor(self.architecture["explored"]), persistent=False)
        sizes = [n_features + n_actions + len(self.explored), *hidden, 1]
        shapes = list(pairwise(sizes))
        first, rest = shapes[0], shapes[1:]
        self.weights = nn.ParameterList(
            [torch.empty(first[0], n_critics * first[1]), *(torch.empty(n_critics, i, o) for i, o in rest)]
        )
        self.biases = nn.ParameterList(
            [torch.empty(n_critics * first[1], 1), *(torch.empty(n_critics, o, 1) for _, o in rest)]
        )

    def initialise(
        self, standardise: Standardise, value: float, generator: torch.Generator
    ) -> "CriticEnsemble":
        """Returns the ensemble with fresh weights, independent for each critic, predicting around `value`."""
        self.standardise.load_state_dict(standardise.state_dict())
        for weight, bias in zip(self.weights, self.biases, strict=True):
            _uniform_(weight, weight.shape[-2], generator)
            _uniform_(bias, weight.shape[-2], generator)
        nn.init.constant_(self.biases[-1], value)
        return self

    def action_inputs(self, actions: Tensor, relative: Tensor) -> Tensor:
        """Returns what the critics see of actions [n, d], `relative` or as they are: [n, explored dimensions]."""
        seen = relative if self.action_input == "deviation" else actions
        return seen if len(self.explored) == seen.shape[1] else seen.index_select(1, self.explored)

    def forward(self, state: Tensor, action_inputs: Tensor, learn: bool = True) -> Tensor:
        """Returns Q [n_critics, n] of states [n, f + d], [standardised observation, baseline action].

        Gradients reach `action_inputs` and, where the critics are to `learn`, their parameters.
        """
        parameters = [*self.weights, *self.biases]
        return _Ensemble.apply(
            state, action_inputs, *(parameters if learn else [p.detach() for p in parameters])
        )

    def layers_of(self, critic: int) -> list[tuple[Tensor, Tensor]]:
        """Returns weight [out, in] and bias [out] of each layer of one critic."""
        width = len(self.biases[0]) // self.n_critics
        own = slice(critic * width, (critic + 1) * width)
        rest = zip(self.weights[1:], self.biases[1:], strict=True)
        return [
            (self.weights[0][:, own].t(), self.biases[0][own, 0]),
            *((weight[critic].t(), bias[critic, :, 0]) for weight, bias in rest),
        ]

    @torch.no_grad()
    def summed(self, n_parts: int) -> "CriticEnsemble":
        """Returns n_critics / n_parts critics, each the sum of those at its place in equal parts of the ensemble.

        Their hidden layers lie side by side in one critic's, so what reads critics reads sums of them too.
        """
        n = self.n_critics // n_parts
        hidden = [n_parts * width for width in self.architecture["hidden"]]
        sums = CriticEnsemble(**self.architecture | {"n_critics": n, "hidden": hidden})
        sums.standardise.load_state_dict(self.standardise.state_dict())
        first = self.weights[0].unflatten(1, (n_parts, n, -1)).transpose(1, 2)  # [in, n, n_parts, width]
        sums.weights[0].copy_(first.flatten(1))
        sums.biases[0].copy_(self.biases[0].view(n_parts, n, -1).transpose(0, 1).reshape(-1, 1))
        for i in range(1, len(self.weights)):
            apart = [
                torch.block_diag(*parts) for parts in self.weights[i].unflatten(0, (n_parts, n)).unbind(1)
            ]
            biases = self.biases[i].unflatten(0, (n_parts, n)).transpose(0, 1).flatten(1, 2)
            last = i == len(self.weights) - 1
            sums.weights[i].copy_(torch.stack(apart).sum(2, keepdim=True) if last else torch.stack(apart))
            sums.biases[i].copy_(biases.sum(1, keepdim=True) if last else biases)
        return sums.to(self.explored.device)

    @torch.inference_mode()
    def q(
        self,
        observations: np.ndarray,
        baseline_actions: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        actions: np.ndarray,
    ) -> np.ndarray:
        """Returns Q, float32 [n_critics, n], in units of the scaled reward, for raw observations [n, f].

        `lower` and `upper` [n, d] are the logged bounds, offsets from the baseline actions [n, d].
        """
        arrays = [torch.as_tensor(a) for a in (observations, baseline_actions, lower, upper, actions)]
        return np.concatenate(
            [self._q(*rows) for rows in zip(*(a.split(CHUNK) for a in arrays), strict=True)], axis=1
        )

    def _q(
        self, observations: Tensor, baseline: Tensor, lower: Tensor, upper: Tensor, actions: Tensor
    ) -> np.ndarray:
        state = torch.cat([self.standardise(observations), baseline], dim=1)
        seen = self.action_inputs(actions, relative_actions(actions, *box(baseline, lower, upper)))
        return self(state, seen).numpy()


class _Ensemble(torch.autograd.Function):
    """Q [n_critics, n] of equally shaped critics, with its gradients written out.

    By automatic differentiation an update takes 9 to 19 % longer (`benchmarks/training_step.py`): it keeps a copy of
    every layer's gradient where one buffer serves, and multiplies out the gradient of all inputs where the actions'
    is asked.
    """

    @staticmethod
    def forward(ctx: Any, state: Tensor, actions: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        inputs, n_critics = torch.cat([state, actions], dim=1), len(weights[-1])
        sums = torch.addmm(biases[0], weights[0].t(), inputs.t())  # [n_critics * width, n]
        layers = []
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            layers.append(sums.relu_().view(n_critics, weight.shape[1], len(inputs)))  # [n_critics, width, n]
            sums = torch.baddbmm(bias, weight.transpose(1, 2), layers[-1])
        ctx.save_for_backward(inputs, *weights, *layers)
        ctx.n_actions = actions.shape[1]
        return sums[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, *saved = ctx.saved_tensors
        depth = (len(saved) + 1) // 2
        weights, layers, learn = saved[:depth], saved[depth:], ctx.needs_input_grad[2]
        of_weights: list[Tensor | None] = [None] * depth
        of_biases: list[Tensor | None] = [None] * depth
        of_sums = gradient[:, None]  # [n_critics, 1, n]
        for i in reversed(range(1, depth)):
            if learn:
                of_weights[i] = torch.bmm(layers[i - 1], of_sums.transpose(1, 2))
                of_biases[i] = of_sums.sum(dim=2, keepdim=True)
            outer = of_sums.shape[1] == 1
            of_sums = weights[i] * of_sums if outer else torch.bmm(weights[i], of_sums)
            _cut(of_sums, layers[i - 1])
        of_sums = of_sums.view(-1, len(inputs))  # [n_critics * width, n]
        if learn:
            of_weights[0] = torch.mm(inputs.t(), of_sums.t())
            of_biases[0] = of_sums.sum(dim=1, keepdim=True)
        of_actions = (weights[0][-ctx.n_actions :] @ of_sums).t() if ctx.needs_input_grad[1] else None
        return None, of_actions, *of_weights, *of_biases


def _cut(gradient: Tensor, activation: Tensor) -> None:
    """Sets the gradient of a ReLU to 0, in place, where it let nothing through."""
    torch.ops.aten.threshold_backward.grad_input(gradient, activation, 0, grad_input=gradient)


def box(baseline_actions: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Returns centre and half width [n, d] of bounds that are offsets from the baseline action.

    The half width of fixed dimensions, of no width but for rounding, is infinite: no action is then off their
    centre.
    """
    half_width = (upper - lower) / 2
    fixed = half_width < MIN_WIDTH / 4
    return baseline_actions + (lower + upper) / 2, half_width.masked_fill(fixed, torch.inf)


def relative_actions(actions: Tensor, centre: Tensor, half_width: Tensor) -> Tensor:
    """Returns actions in half widths from the centre of their bounds, [n, d]; 0 in fixed dimensions."""
    return (actions - centre) / half_width


@torch.no_grad()
def soft_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Moves the parameters of `target` the share `tau` of the way to those of `source`."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)


def _uniform_(parameter: Tensor, fan_in: int, generator: torch.Generator) -> None:
    limit = 1 / math.sqrt(fan_in)
    nn.init.uniform_(parameter, -limit, limit, generator=generator)
