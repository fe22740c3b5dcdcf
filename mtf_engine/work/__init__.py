"""The kinds of run, one a file: what a run is told, how it is submitted, and its work."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from mtf_engine.runs.kind import RunKind
from mtf_engine.runs.provenance import source


@cache
def kinds() -> dict[str, RunKind]:
    """Returns every kind of run by name: the `KIND` of each file here that has one."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    found = (module.KIND for module in modules if hasattr(module, "KIND"))
    return {kind.name: kind for kind in found}


HEAVY = (
    "torch._dynamo",  # Adam's
    "mtf_engine.environments.session",
    "mtf_engine.evaluation",
    "mtf_engine.learning.training",
    "mtf_engine.logs.importing",
    "mtf_engine.policies.examples",
    "mtf_engine.work.fitness",
)
"""What most kinds work with, and load when they do."""


def load() -> None:
    """Loads all that, which takes seconds: once, for all workers that are copies of this process."""
    kinds()
    source()  # which is what has been loaded
    for name in HEAVY:
        import_module(name)
