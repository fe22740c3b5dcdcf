"""What the queue, the worker and the registry know of a kind of run, as one value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf_engine.spec import Spec

if TYPE_CHECKING:
    from mtf_engine.runs.worker import Job


@dataclass(frozen=True)
class RunKind:
    """A kind of run: what its runs are told, and what they do.

    `work` takes the job and its config and returns the result, JSON-able. It imports what it needs itself, so that
    a worker loads no more than its own kind's share of the engine.
    """

    name: str
    Config: type[Spec] | None
    """None where runs differ in what they are told: a training gets its algorithm's own settings, as a dict."""
    work: Callable[["Job", Any], dict[str, Any]]
    writes_dataset: bool = False
    """Whether a run gets the id of a dataset that it writes."""
    coordinates: bool = False
    """Whether a run only waits for its parts, which are queued and have processes of their own."""
    checkpoints: bool = False
    """Whether a run that is told to end does so after its step, and then has a checkpoint."""

    def told(self, config: dict[str, Any]) -> Any:
        """Returns the config of a run as its work takes it."""
        return self.Config.model_validate(config) if self.Config else config
