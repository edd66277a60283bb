"""Loads files anew while the process runs: certificates, secrets, whatever is a `Reloadable`.

Every few seconds, off the loop, the files are looked at: time, inode, size. A change that has stayed the same for two
looks is loaded, so that a certificate and its key may be replaced one after the other. What cannot be loaded leaves what
was loaded before in force, and is not tried again before the files change or somebody asks. Knows nothing of what the
files hold. Runs on the event loop; `load` runs in a helper thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from metasrv.model.errors import MetasrvError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
"""How often the files are looked at."""

T = TypeVar("T")
_Signature = tuple[tuple[str, int, int, int] | str, ...]


@dataclass(frozen=True)
class Reloadable(Generic[T]):
    """Something that comes from files and can be replaced while the node runs."""

    name: str
    """For log lines and the label of metrics."""
    paths: Callable[[], Sequence[str]]
    """The files it comes from now; asked for at each look."""
    load: Callable[[], T]
    """Reads the files, in a helper thread. Raises MetasrvError, OSError or ValueError when they are not usable."""
    swap: Callable[[T], None]
    """Puts what was loaded in force, on the loop."""


class ReloadObserver(Protocol):
    """Is told of each attempt."""

    def reloaded(self, name: str, succeeded: bool) -> None: ...


@dataclass
class _Watched:
    reloadable: Reloadable[object]
    loaded: _Signature
    """What the files were when they were last loaded, or could not be."""
    seen: _Signature
    """What they were at the last look."""


class Reloader:
    """Looks after all that can be loaded anew, in the order in which it was added."""

    def __init__(self, observer: ReloadObserver) -> None:
        self._observer = observer
        self._watched: list[_Watched] = []
        self._asked = asyncio.Event()

    def add(self, reloadable: Reloadable[T]) -> None:
        """Watch its files from now on; add it before they are first loaded, so that no change is missed."""
        signature = _signature_of(reloadable.paths())
        self._watched.append(_Watched(reloadable, signature, signature))  # type: ignore[arg-type]  # it stays with its own T

    def ask(self) -> None:
        """Load everything anew now, changed or not (SIGHUP)."""
        self._asked.set()

    async def run(self) -> None:
        """Look and load until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), LOOK_SECONDS)
            asked = self._asked.is_set()
            self._asked.clear()
            await self.look(everything=asked)

    async def look(self, *, everything: bool = False) -> None:
        """Load what has changed and no longer changes, or everything."""
        for watched in self._watched:
            signature = await asyncio.to_thread(_signature_of, watched.reloadable.paths())
            settled = signature == watched.seen
            watched.seen = signature
            if everything or (settled and signature != watched.loaded):
                await self._load(watched, signature)

    async def _load(self, watched: _Watched, signature: _Signature) -> None:
        reloadable, before = watched.reloadable, tuple(watched.reloadable.paths())
        watched.loaded = signature
        try:
            reloadable.swap(await asyncio.to_thread(reloadable.load))
        except (MetasrvError, OSError, ValueError) as error:
            self._observer.reloaded(reloadable.name, succeeded=False)
            text = "%s: what the files hold now cannot be used, and what they held before stays in force: %s"
            logger.error(text, reloadable.name, error)
            return
        after = tuple(reloadable.paths())
        if after != before:  # there is something else to compare with from now on
            watched.loaded = watched.seen = await asyncio.to_thread(_signature_of, after)
        self._observer.reloaded(reloadable.name, succeeded=True)
        logger.info("%s: loaded anew", reloadable.name)


def _signature_of(paths: Sequence[str]) -> _Signature:
    """What tells a changed file from an unchanged one; a missing file is something as well."""
    found: list[tuple[str, int, int, int] | str] = []
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            found.append(path)
        else:
            found.append((path, status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)
