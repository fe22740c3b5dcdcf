"""A linear policy on the principal components of users' profiles, which starts as the baseline policy."""

import warnings
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray

from mtf_engine.learning.start import FIT_ERROR, baseline_actions, standardisation
from mtf_engine.logs.transitions import Requests, Transitions
from mtf_engine.policies.networks import LinearPolicy
from mtf_engine.policies.policy import Policy
from mtf_engine.spec import Refusal

LEAST_VARIANCE = 1e-6
"""A component of less is left out; a standardised feature has 1."""


def starting_policy(transitions: Transitions, n_parameters: int, baseline: Policy | None) -> LinearPolicy:
    """Returns a network of at most `n_parameters` that acts as the baseline policy does, as nearly as it can.

    A network of this kind and shape is copied. Else its parameters are the least-squares fit of the baseline's
    actions, of those logged where no policy is given, with a warning where that is off by more than 1e-3.
    """
    network = _on_components(transitions, n_parameters)
    if baseline is not None:
        baseline.check(transitions.fusion, transitions.feature_names)
        if _alike(baseline.network, network):
            network.load_state_dict(baseline.network.state_dict())
            return network
    _fit(network, transitions, baseline)
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
    d, f = transitions.fusion.n_actions, len(transitions.feature_names)
    if n_parameters < 2 * d:
        raise Refusal(
            f"n_parameters: {n_parameters} are too few for a bias and a weight in each of {d} dimensions; "
            f"set {2 * d} or more"
        )
    standardise = standardisation(transitions, (True,) * f)

    def products(block: Requests) -> NDArray[np.float64]:
        observations = standardise(torch.as_tensor(block.observations))
        profiles = observations[:, : transitions.n_profile].double().numpy()
        return profiles.T @ profiles

    covariance = sum(map(products, transitions.blocks())) / len(transitions)
    components = _principal_components(np.asarray(covariance), n_parameters // d - 1)
    network = LinearPolicy(f, d, components.shape[1]).requires_grad_(False)
    network.standardise.load_state_dict(standardise.state_dict())
    network.components[: len(components)] = torch.as_tensor(components, dtype=torch.float32)
    return network


def _principal_components(covariance: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Returns the axes [p, c] of features with that covariance, largest variance first, scaled to 1 / c each.

    So a step of one size for all parameters moves an action as much by the bias as by the c weights together.
    One axis of zeros where nothing varies.
    """
    variances, axes = np.linalg.eigh(covariance)
    largest = np.argsort(-variances, kind="stable")[:most]
    kept = largest[variances[largest] > LEAST_VARIANCE]
    return axes[:, kept] / np.sqrt(len(kept) * variances[kept]) if len(kept) else np.zeros((len(axes), 1))


def _fit(network: LinearPolicy, transitions: Transitions, baseline: Policy | None) -> None:
    """Sets the parameters to the least-squares fit of the baseline's actions."""
    mean = transitions.mean(lambda block: baseline_actions(block, baseline), np.float64)

    def equations(block: Requests) -> NDArray[np.float64]:
        observations = network.standardise(torch.as_tensor(block.observations))
        known = (observations @ network.components).double().numpy()
        return np.concatenate([known, baseline_actions(block, baseline) - mean], axis=1)

    def error(block: Requests) -> float:
        acted = network(torch.as_tensor(block.observations)).numpy()
        return float(np.abs(acted - baseline_actions(block, baseline)).max())

    together = reduce(_triangular, map(equations, transitions.blocks()))
    n_components = network.components.shape[1]
    weight = np.linalg.lstsq(together[:, :n_components], together[:, n_components:], rcond=None)[0]
    network.bias.copy_(torch.as_tensor(mean))
    network.weight.copy_(torch.as_tensor(weight))
    largest = max(map(error, transitions.blocks()))
    if largest > FIT_ERROR:
        warnings.warn(f"the policy starts up to {largest:.1e} from the baseline policy", stacklevel=3)


def _triangular(some: NDArray[np.float64], more: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns as few equations as there are columns, with the least-squares solution of all of both."""
    return np.asarray(np.linalg.qr(np.concatenate([some, more]), mode="r"))
