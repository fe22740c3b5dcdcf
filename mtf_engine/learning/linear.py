"""A linear policy on the principal components of users' profiles, which starts as the baseline policy."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from mtf_engine.learning.start import FIT_ERROR
from mtf_engine.logs.schema import Transitions
from mtf_engine.networks import LinearPolicy, Standardise
from mtf_engine.policy import Policy
from mtf_engine.spec import Refusal

LEAST_VARIANCE = 1e-6
"""A component of less is left out; a standardised feature has 1."""


def starting_policy(transitions: Transitions, n_parameters: int, baseline: Policy | None) -> LinearPolicy:
    """Returns a network of at most `n_parameters` that acts as the baseline policy does, as nearly as it can.

    A network of this kind and shape is copied. Else its parameters are the least-squares fit of the baseline's
    actions, of those logged where no policy is given, with a warning where that is off by more than 1e-3.
    """
    network = _on_components(transitions, n_parameters)
    actions = transitions.baseline_actions
    if baseline is not None:
        baseline.check(transitions.fusion, transitions.feature_names)
        if _alike(baseline.network, network):
            network.load_state_dict(baseline.network.state_dict())
            return network
        actions = baseline.act(transitions.observations)
    _fit(network, torch.as_tensor(transitions.observations), actions)
    return network


def parameters(network: LinearPolicy) -> NDArray[np.float64]:
    """Returns the parameters of a network as one vector."""
    return torch.nn.utils.parameters_to_vector(network.parameters()).double().numpy()


def set_parameters(network: LinearPolicy, vector: NDArray[np.float64]) -> None:
    """Sets the parameters of a network to those of `vector`."""
    torch.nn.utils.vector_to_parameters(torch.tensor(vector, dtype=torch.float32), network.parameters())


def _alike(one: torch.nn.Module, other: LinearPolicy) -> bool:
    return isinstance(one, LinearPolicy) and one.architecture == other.architecture


def _on_components(transitions: Transitions, n_parameters: int) -> LinearPolicy:
    """Returns a network, all of whose parameters are 0, on as many components as its parameters allow."""
    d, (_, f) = transitions.fusion.n_actions, transitions.observations.shape
    if n_parameters < 2 * d:
        raise Refusal(
            f"n_parameters: {n_parameters} are too few for a bias and a weight in each of {d} dimensions; "
            f"set {2 * d} or more"
        )
    standardise = Standardise.fit(transitions.observations, (True,) * f)
    profiles = standardise(torch.as_tensor(transitions.observations))[:, : transitions.n_profile]
    components = _principal_components(profiles.double().numpy(), n_parameters // d - 1)
    network = LinearPolicy(f, d, components.shape[1]).requires_grad_(False)
    network.standardise.load_state_dict(standardise.state_dict())
    network.components[: len(components)] = torch.as_tensor(components, dtype=torch.float32)
    return network


def _principal_components(features: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Returns the axes [p, c] of features [n, p] whose mean is 0, largest variance first, scaled to 1 / c each.

    So a step of one size for all parameters moves an action as much by the bias as by the c weights together.
    One axis of zeros where nothing varies.
    """
    variances, axes = np.linalg.eigh(features.T @ features / len(features))
    largest = np.argsort(-variances, kind="stable")[:most]
    kept = largest[variances[largest] > LEAST_VARIANCE]
    return axes[:, kept] / np.sqrt(len(kept) * variances[kept]) if len(kept) else np.zeros((len(axes), 1))


def _fit(network: LinearPolicy, observations: torch.Tensor, actions: NDArray[np.float32]) -> None:
    """Sets the parameters to the least-squares fit of `actions` [n, d]."""
    components = (network.standardise(observations) @ network.components).double().numpy()
    mean = actions.mean(axis=0, dtype=np.float64)
    weight = np.linalg.lstsq(components, actions - mean, rcond=None)[0]
    network.bias.copy_(torch.as_tensor(mean))
    network.weight.copy_(torch.as_tensor(weight))
    error = float(np.abs(network(observations).numpy() - actions).max())
    if error > FIT_ERROR:
        warnings.warn(f"the policy starts up to {error:.1e} from the baseline policy", stacklevel=3)
