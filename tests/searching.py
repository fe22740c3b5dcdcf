"""Examples of a property: few in `make test`, the same each time; many, and others, in `make slow`."""

from hypothesis import settings

REPEATABLE, SEARCHING = "repeatable", "searching"
MORE = 10
"""So many times the examples where new counterexamples are looked for."""


def examples(n: int) -> settings:
    """Returns settings of `n` examples, and of ten times as many where pytest was asked to search."""
    return settings(max_examples=n * MORE if settings.get_current_profile_name() == SEARCHING else n)
