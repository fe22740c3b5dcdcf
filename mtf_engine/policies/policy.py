"""Policy: the thing that is trained, evaluated, reviewed, promoted and exported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import nn

from mtf_engine.disk import write_atomically
from mtf_engine.policies.candidates import CandidatePolicy
from mtf_engine.policies.network_files import network_bytes, read_network
from mtf_engine.policies.networks import CHUNK, POLICY_NETWORKS, ConstantAction, LinearPolicy
from mtf_engine.spec import FusionSpec, Refusal

POLICY_NETWORKS[CandidatePolicy.__name__] = CandidatePolicy  # known wherever a policy is read
BLOCK = 64
"""Rows that a network is given a multiple of."""
ActionLevel = Literal["request", "item"]
LEVELS: dict[ActionLevel, str] = {
    "item": "the policy has weights for each item (action_level=item), and here one action of the whole request is "
    "asked for; take a policy of action_level=request",
    "request": "the policy has one action for all items of a request, and here weights of each item are asked for",
}
"""What is told where a policy of a level is asked for the other."""


@dataclass(frozen=True)
class Policy:
    """A deterministic map from raw observations to actions, with the names it was trained on.

    `numeric_mask` tells the features that are standardised inside `network`; `info` says where the policy
    comes from (algo, dataset_id, run_id, reward_scale, plan, ...), JSON-able. With `item_names` it reads features of
    items, too, behind the observation, and gives every item weights of its own (Enhanced-State RL, arXiv 2409.11678);
    `numeric_mask` then goes on with theirs, and `typical_predictions` [p] are what scores are told beside.
    """

    network: nn.Module
    fusion: FusionSpec
    feature_names: tuple[str, ...]
    numeric_mask: tuple[bool, ...]
    info: dict[str, Any] = field(default_factory=dict)
    item_names: tuple[str, ...] = ()
    typical_predictions: tuple[float, ...] = ()

    @property
    def action_level(self) -> ActionLevel:
        """What an action is for: all items of a request, or one item of it."""
        return "item" if self.item_names else "request"

    @property
    def typical(self) -> np.ndarray | None:
        """The predictions of a typical item, float32 [p], where items have weights of their own."""
        return np.array(self.typical_predictions, np.float32) if self.item_names else None

    @classmethod
    def baseline(
        cls,
        fusion: FusionSpec,
        feature_names: Sequence[str],
        numeric_mask: Sequence[bool],
        action: Sequence[float] | None = None,
    ) -> Self:
        """Returns the default live policy: `action` for everybody, by default 0, the middle of every range."""
        network = ConstantAction.of(len(feature_names), np.array(action or (0.0,) * fusion.n_actions))
        return cls(
            network, fusion, tuple(feature_names), tuple(map(bool, numeric_mask)), {"algo": "baseline"}
        )

    @classmethod
    def linear(
        cls,
        fusion: FusionSpec,
        feature_names: Sequence[str],
        numeric_mask: Sequence[bool],
        bias: Sequence[float],
        weights: Mapping[str, Sequence[float]],
    ) -> Self:
        """Returns a live policy linear in features as they are: `bias` [d], and `weights` [d] by feature name."""
        network = LinearPolicy(len(feature_names), fusion.n_actions, len(weights)).requires_grad_(False)
        for component, name in enumerate(weights):
            network.components[tuple(feature_names).index(name), component] = 1
        network.weight.copy_(torch.tensor(list(weights.values())))
        network.bias.copy_(torch.tensor(bias))
        return cls(
            network, fusion, tuple(feature_names), tuple(map(bool, numeric_mask)), {"algo": "baseline"}
        )

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Returns actions, float32 [n, d] in [-1, 1], for raw observations, float32 [n, f].

        An action is the same to the last bit whoever else is asked.
        """
        self._check_level("request")
        return self._acted(observations)

    def act_on(self, observations: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Returns an action for each item, float32 [n, k, d] in [-1, 1], for items [n, k, `item_names`].

        With items [n, `item_names`] one is of each observation, and actions are [n, d].
        """
        self._check_level("item")
        spread = observations[:, None] if items.ndim == 3 else observations
        spread = np.broadcast_to(spread, (*items.shape[:-1], observations.shape[-1]))
        states = np.concatenate([spread, items], axis=-1, dtype=np.float32)
        actions = self._acted(states.reshape(-1, states.shape[-1]))
        return actions.reshape(*items.shape[:-1], self.fusion.n_actions)

    def _check_level(self, level: ActionLevel) -> None:
        if self.action_level != level:
            raise Refusal(LEVELS[self.action_level])

    @torch.inference_mode()
    def _acted(self, states: np.ndarray) -> np.ndarray:
        chunks = torch.as_tensor(states).split(CHUNK)
        return np.concatenate([self._act(chunk).numpy() for chunk in chunks])

    def _act(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns the actions of `rows`, in whole blocks: a matrix product rounds a remainder differently."""
        blocks = nn.functional.pad(rows, (0, 0, 0, -len(rows) % BLOCK)).to(self._device)
        return self.network(blocks)[: len(rows)].clamp(-1, 1).cpu()

    @property
    def _device(self) -> torch.device:
        held = chain(self.network.parameters(), self.network.buffers(), [torch.empty(0)])
        return next(held).device

    def check(self, fusion: FusionSpec, feature_names: Sequence[str]) -> None:
        """Refuses data whose features, predictions or action dimensions differ from the policy's, by name."""
        for what, mine, theirs in (
            ("features", self.feature_names, tuple(feature_names)),
            ("predictions", self.fusion.predictions, fusion.predictions),
            ("action dimensions", self.fusion.names, fusion.names),
        ):
            if mine != theirs:
                raise Refusal(
                    f"the policy and the data differ in their {what}: {_first_difference(mine, theirs)}; "
                    "use data with the names and order the policy was trained on"
                )

    def to_bytes(self) -> bytes:
        """Returns the policy as the content of a .safetensors file; the same policy gives the same bytes."""
        return network_bytes(
            self.network,
            {
                "fusion": self.fusion.model_dump(mode="json"),
                "feature_names": self.feature_names,
                "numeric_mask": self.numeric_mask,
                "info": self.info,
                **(self._of_items() if self.item_names else {}),
            },
        )

    def _of_items(self) -> dict[str, Any]:
        names = ("action_level", "item_names", "typical_predictions")
        return {name: getattr(self, name) for name in names}

    def save(self, path: Path) -> None:
        """Writes the policy to `path` in one step."""
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Returns the policy that `save` wrote; a Refusal where the file is not one."""
        network, head = read_network(path, POLICY_NETWORKS)
        return cls(
            network=network,
            fusion=FusionSpec.model_validate(head["fusion"]),
            feature_names=tuple(head["feature_names"]),
            numeric_mask=tuple(head["numeric_mask"]),
            info=head["info"],
            item_names=tuple(head.get("item_names", ())),
            typical_predictions=tuple(head.get("typical_predictions", ())),
        )


def _first_difference(mine: Sequence[str], theirs: Sequence[str]) -> str:
    for i, (a, b) in enumerate(zip(mine, theirs, strict=False)):
        if a != b:
            return f"number {i + 1} is {a} in the policy and {b} in the data"
    return f"the policy has {len(mine)}, the data {len(theirs)}"
