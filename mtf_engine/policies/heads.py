"""What the file of a network says of itself, read without PyTorch, which takes seconds to load."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mtf_engine.spec import Refusal

KEY = "mtf_engine"
"""Of the head among the metadata of the file."""


def read_head(path: Path) -> dict[str, Any]:
    """Returns the metadata of the network at `path`, empty where it has none; a Refusal where it is no such file."""
    try:
        with safe_open(path, "np") as file:
            return dict(json.loads((file.metadata() or {}).get(KEY, "{}")))
    except (OSError, SafetensorError) as error:
        raise Refusal(f"{path.name} cannot be read as a network: {error}; train or export it again") from None
