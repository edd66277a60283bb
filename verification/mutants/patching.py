"""What a mutant is, and how it replaces product code for a while.

Knows nothing of what is replaced. Not for several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Replacement = tuple[Any, str, Any]
"""A module or class, the name of an attribute, and its replacement."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted defect. `replacements` is called when it is planted."""

    name: str
    defect: str
    """What is wrong, in a sentence; a number such as D1 is one of docs/defects.md."""
    replacements: Callable[[], list[Replacement]]
    favours: tuple[str, ...] = ()
    """Fault kinds that show a rare defect: its histories have only these."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Plant the defect in every process that runs within the block."""
        saved: list[Replacement] = []
        try:
            for place, name, instead in self.replacements():
                saved.append((place, name, place.__dict__[name]))
                setattr(place, name, instead)
            yield
        finally:
            for place, name, before in reversed(saved):
                setattr(place, name, before)
