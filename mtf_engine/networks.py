"""The networks all algorithms share: standardised actors, one-tensor critic ensembles, soft updates."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

OBSERVATION_CLIP = 5.0
"""Standardised features beyond this many standard deviations are cut."""

CHUNK = 65_536
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
    def fit(cls, observations: np.ndarray, numeric: Sequence[bool]) -> "Standardise":
        """Returns the scaling of `numeric` columns to mean 0, std 1; others, and constants, keep theirs."""
        mean, std = observations.mean(0, dtype=np.float64), observations.std(0, dtype=np.float64)
        scaled = np.asarray(numeric) & (std > 1e-6 * np.maximum(1, abs(mean)))
        mean, std = np.where(numeric, mean, 0), np.where(scaled, std, 1)
        return cls(torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32))

    def forward(self, observations: Tensor) -> Tensor:
        return ((observations - self.mean) / self.std).clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)


class Actor(nn.Module):
    """A deterministic policy: raw observations [n, f] -> actions [n, d] in [-1, 1].

    `head` is the part that learns; it takes observations that are standardised already.
    """

    def __init__(self, n_features: int, n_actions: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.standardise = Standardise(torch.zeros(n_features), torch.ones(n_features))
        sizes = [n_features, *hidden, n_actions]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(sizes):
            layers += [nn.utils.skip_init(nn.Linear, width_in, width_out), nn.ReLU()]
        self.head = nn.Sequential(*layers[:-1], nn.Tanh())
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
        """Returns the actor with fresh weights, uniform within 1 / sqrt(fan-in) (PyTorch's own default)."""
        self.standardise.load_state_dict(standardise.state_dict())
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                for parameter in layer.parameters():
                    _uniform_(parameter, layer.in_features, generator)
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

    @property
    def architecture(self) -> dict[str, Any]:
        return {"n_features": self.n_features, "n_actions": len(self.action)}

    def forward(self, observations: Tensor) -> Tensor:
        return self.action.expand(observations.shape[0], -1)


POLICY_NETWORKS: dict[str, type[nn.Module]] = {n.__name__: n for n in (Actor, ConstantAction)}
"""What a policy file may hold; each kind is rebuilt from its `architecture` and its tensors."""


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
        self.architecture = {
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

    def action_inputs(self, actions: Tensor, centre: Tensor, half_width: Tensor) -> Tensor:
        """Returns what the critics see of actions [n, d]: [n, explored dimensions]."""
        if self.action_input == "deviation":
            actions = deviation(actions, centre, half_width)
        return actions if len(self.explored) == actions.shape[1] else actions.index_select(1, self.explored)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns Q [n_critics, n] of [standardised observation, baseline action, action inputs], [n, in]."""
        return self._above_first(torch.addmm(self.biases[0], self.weights[0].t(), inputs.t()))

    def of_actions(self, state: Tensor, action_inputs: Tensor) -> Tensor:
        """Returns the same Q of [state, action_inputs], with first-layer gradients for the actions alone.

        An actor's step needs no others: its backward pass is then a matmul of a few columns.
        """
        n_state = state.shape[1]
        with torch.no_grad():
            of_state = torch.addmm(self.biases[0], self.weights[0][:n_state].t(), state.t())
        weight = self.weights[0][n_state:].detach()
        return self._above_first(torch.addmm(of_state, weight.t(), action_inputs.t().contiguous()))

    def _above_first(self, hidden: Tensor) -> Tensor:
        """Returns Q [n_critics, n] from the first layer's sums [n_critics * width, n]."""
        n = hidden.shape[1]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            hidden = hidden.relu_().view(self.n_critics, -1, n)
            hidden = torch.baddbmm(bias, weight.transpose(1, 2), hidden)  # [n_critics, width, n]
        return hidden[:, 0]

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
        seen = self.action_inputs(actions, *box(baseline, lower, upper))
        return self(torch.cat([state, seen], dim=1)).numpy()


def box(baseline_actions: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Returns centre and half width [n, d] of bounds that are offsets from the baseline action.

    The half width of fixed dimensions, of width 0, is infinite: no action is then off their centre.
    """
    half_width = (upper - lower) / 2
    return baseline_actions + (lower + upper) / 2, half_width.masked_fill(half_width <= 0, torch.inf)


def deviation(actions: Tensor, centre: Tensor, half_width: Tensor) -> Tensor:
    """Returns actions in half widths from the centre of their bounds, [n, d]; 0 in fixed dimensions."""
    return (actions - centre) / half_width


@torch.no_grad()
def soft_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Moves the parameters of `target` the share `tau` of the way to those of `source`."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)


def _uniform_(parameter: Tensor, fan_in: int, generator: torch.Generator) -> None:
    limit = 1 / math.sqrt(fan_in)
    nn.init.uniform_(parameter, -limit, limit, generator=generator)
