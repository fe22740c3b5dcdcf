"""Networks as safetensors files with JSON metadata: nothing in them is ever unpickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from mtf_engine.policies.heads import KEY, SCHEMA_VERSION, read_head
from mtf_engine.spec import Refusal


def network_bytes(network: nn.Module, metadata: Mapping[str, Any]) -> bytes:
    """Returns the file of `network`, whose class has an `architecture`, and of JSON-able `metadata`."""
    head = {
        "schema_version": SCHEMA_VERSION,
        "kind": type(network).__name__,
        "architecture": network.architecture,
        **metadata,
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    return save(tensors, {KEY: json.dumps(head, sort_keys=True)})


def read_network(path: Path, kinds: Mapping[str, type[nn.Module]]) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the network at `path`, one of `kinds`, and its metadata; a Refusal where it holds none."""
    head = read_head(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if head["kind"] not in kinds:
        expected = " or ".join(kinds)
        raise Refusal(f"{path.name} is no {expected} of this version; train or export it again")
    network = kinds[head["kind"]](**head["architecture"])
    network.load_state_dict(tensors)
    return network.requires_grad_(False), head
