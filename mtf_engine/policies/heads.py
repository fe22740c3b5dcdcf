"""What the file of a network says of itself, read without PyTorch, which takes seconds to load."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mtf_engine import sealed
from mtf_engine.spec import Refusal

KEY, SCHEMA_VERSION = "mtf_engine", 1
"""Of the head among the metadata of the file, and its version."""


REMEDY = "restore it from a copy, or train again with the same settings and seed, which gives the same"
"""What to do about the file of a network that is damaged."""


def read_head(path: Path) -> dict[str, Any]:
    """Returns the metadata of the network at `path`; a Refusal where the file holds none of this version.

    Or where it is not what was written there.
    """
    try:
        sealed.read(path, REMEDY)
        with safe_open(path, "np") as file:
            head = json.loads((file.metadata() or {}).get(KEY, "{}"))
    except (OSError, SafetensorError) as error:
        raise Refusal(f"{path.name} cannot be read as a network: {error}; train or export it again") from None
    if head.get("schema_version") != SCHEMA_VERSION:
        raise Refusal(f"{path.name} is no network of this version; train or export it again")
    return dict(head)
