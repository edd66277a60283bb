"""What a mutant is, and how it takes the place of the product's code for a while.

Knows nothing of what is replaced. Runs anywhere; not for several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Replacement = tuple[Any, str, Any]
"""Where, what, and what stands there instead."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted defect. `replacements` is called when it is planted."""

    name: str
    defect: str
    """What is wrong, in a sentence; a number such as D1 is one of docs/defects.md."""
    replacements: Callable[[], list[Replacement]]
    favours: tuple[str, ...] = ()
    """Fault kinds in which a rare defect shows: its histories have these and no others."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Every process that starts and runs within the block has the defect."""
        saved: list[Replacement] = []
        try:
            for place, name, instead in self.replacements():
                saved.append((place, name, place.__dict__[name]))
                setattr(place, name, instead)
            yield
        finally:
            for place, name, before in reversed(saved):
                setattr(place, name, before)
