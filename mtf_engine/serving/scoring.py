"""A bundle as it is served: verified, its graphs in this process, its actions explored around inside bounds."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mtf_engine.environments import draws
from mtf_engine.environments.draws import Channel
from mtf_engine.exploration.policies import Exploration, Kind, explore
from mtf_engine.fusion import log_final_score
from mtf_engine.policies.bundle import verify
from mtf_engine.policies.bundle_reading import MANIFEST, SCORES, read
from mtf_engine.spec import BoundsPlan, FusionSpec, Refusal

INPUTS = {"observations", "predictions"}
"""What a graph may ask for here."""


class ServedBundle:
    """A bundle whose graphs answer in this process."""

    def __init__(self, path: Path, n_threads: int = 1) -> None:
        """Reads and verifies the bundle at `path`; a Refusal where it is none, or its graphs answer otherwise."""
        content = io.BytesIO(_content(path))
        members = read(content, path.name)
        self.manifest = _manifest(json.loads(members[MANIFEST]), path.name)
        if foreign := sorted(set(self.manifest["inputs"]) - INPUTS):
            raise Refusal(f"{path.name} takes {', '.join(foreign)}, which is not served here; use its graphs")
        if not (found := verify(content, path.name))["ok"]:
            raise Refusal(
                f"the graphs in {path.name} answer otherwise than its policy, by {found['max_abs_diff']:.1e}; "
                "export the policy again"
            )
        self.name = path.name
        self.sha256 = hashlib.sha256(content.getvalue()).hexdigest()
        self.fusion = FusionSpec.model_validate(self.manifest["fusion"])
        self.features: tuple[str, ...] = tuple(self.manifest["features"])
        self._policy = _session(members["policy.onnx"], n_threads)
        self._scores = _session(members[SCORES], n_threads) if SCORES in members else None

    @property
    def scores_candidates(self) -> bool:
        return self._scores is not None

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns what the policy does, [n, d] in [-1, 1], for observations [n, f] in natural units."""
        (actions,) = self._policy.run(None, {"observations": observations})
        return np.asarray(actions)

    def score(
        self,
        observations: NDArray[np.float32],
        predictions: NDArray[np.float32],
        actions: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Returns log final scores [n, k] of candidates [n, k, p], under other `actions` where they are given."""
        if actions is not None:
            return np.asarray(log_final_score(self.fusion, actions, predictions), np.float32)
        assert self._scores is not None
        (scores,) = self._scores.run(None, {"observations": observations, "predictions": predictions})
        return np.asarray(scores)


@dataclass(frozen=True)
class Exploring:
    """How served actions are drawn around those of the bundle, which are the baseline of what is logged.

    A draw depends on the seed, the session and its step alone, so the same request is served the same twice; who
    is a control user, on the seed and the user.
    """

    kind: Kind
    plan: BoundsPlan
    sigma: float = 0.2
    control_share: float = 0.1
    seed: int = 0

    @classmethod
    def of(cls, bundle: ServedBundle, kind: Kind, plan: BoundsPlan | None, **how: Any) -> Self:
        """Returns exploration inside `plan`, or else the bundle's own bounds: those of the log it learned from.

        A Refusal where there are none, or where the bundle is held in bounds around a policy that it does not carry.
        """
        d = bundle.fusion.n_actions
        if kind == "mixed":
            raise Refusal("--explore mixed is not served; explore uniform or gaussian")
        if kind == "baseline":
            return cls(kind, BoundsPlan(lower=(0.0,) * d, upper=(0.0,) * d), **how)
        if plan is None and bundle.manifest["clipped_to_bounds"]:
            raise Refusal(
                f"{bundle.name} is held in bounds around its baseline, and exploring around what it serves would leave "
                "them; say by --bounds in which box around that it may"
            )
        if plan is None and not (told := bundle.manifest["origin"].get("plan")):
            raise Refusal(f"{bundle.name} has no bounds of its own to explore in; name a plan by --bounds")
        plan = plan or BoundsPlan.model_validate(told)
        if plan.n_actions != d:
            raise Refusal(
                f"the bounds plan has {plan.n_actions} dimensions and the actions of {bundle.name} {d}; give a plan "
                f"with {', '.join(bundle.fusion.names)}"
            )
        return cls(kind, plan, **how)

    def draw(
        self, actions: NDArray[np.float32], segment: str, user_id: str, session_id: str, step: int
    ) -> Exploration:
        """Returns what one request is served with instead of `actions` [1, d], and how likely that was."""
        root = draws.root(self.seed)
        of_user = draws.child(draws.child(root, Channel.CONTROL), _number(user_id))
        of_session = draws.child(draws.child(root, Channel.NOISE), _number(session_id))
        keys = draws.child(draws.child(of_session, step)[:, None], np.arange(actions.shape[1]))
        return explore(
            self.kind,
            actions,
            self.plan,
            np.array([segment]),
            sigma=self.sigma,
            control=draws.uniform(of_user) < self.control_share,
            luck=draws.uniform(keys),
        )


def _manifest(told: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns what a manifest says, once it says what is served by; a Refusal where an export never wrote it so."""
    try:
        FusionSpec.model_validate(told["fusion"])
        if plan := told["origin"].get("plan"):
            BoundsPlan.model_validate(plan)
        fits = all(isinstance(one, str) for part in ("features", "standardised") for one in told[part])
        if fits and isinstance(told["inputs"], dict) and {"approved", "clipped_to_bounds"} <= set(told):
            return told
    except (LookupError, TypeError, AttributeError, ValueError):
        pass
    raise Refusal(f"the manifest of {name} does not say what an export writes; export the policy again")


def _number(text: str) -> NDArray[np.uint64]:
    """Returns a number [1] that stands for a text, the same everywhere."""
    return np.array([int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())], np.uint64)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refusal(f"{path.name} cannot be read as a bundle: {error.strerror}; check the path") from None


def _session(graph: bytes, n_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
    return onnxruntime.InferenceSession(graph, options)
