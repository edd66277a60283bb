"""Copy, follow, compare, cut over: the course of a migration (`metasrv/migration/__init__.py` says why it is safe).

Whatever fails on the way and may be tried again begins a new session: another node of the source, a new watch, a new
comparison. Tells an operator through `Reports`. Runs on the event loop of a program of its own; comparisons run in a
helper thread, so that the watch is read meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from time import monotonic
from typing import NamedTuple, Protocol

from metasrv.migration.changes import Pending
from metasrv.migration.comparing import Difference, Mirror, differences, mirror_of
from metasrv.migration.source import Position, Source
from metasrv.migration.target import MigrationRefusedError, Target
from metasrv.model.errors import NotDoneError

UNNAMED_SOURCE = "unnamed"
"""Stands for a cluster that does not name itself, as upstream's do not."""
QUIET_SECONDS_DEFAULT = 5.0
CHECK_SECONDS = 600.0
"""How often what was followed is compared, while nobody cuts over."""
_POLL_SECONDS = 0.5
_IDLE_SECONDS = 0.02
_LEVEL_CHANGES = 100
"""A source that is written to is never quite reached; with this many changes left the target counts as level."""
_RETRY_SECONDS = 1.0
_SETTLE_SECONDS = 2.0
"""So long after a sequence number was given out its event has come, if it has any: some leave no record."""
_PAGE = 2048
_TAKE = 1024
_NAMED_DIFFERENCES = 5
_FRUITLESS_COMPARISONS_MAX = 3


class Reports(Protocol):
    """Where an operator reads what happens."""

    def progress(self, text: str) -> None:
        """How far it is; the next one takes its place."""

    def note(self, text: str) -> None:
        """A sentence that stays."""


class Outcome(NamedTuple):
    """How a migration ended."""

    key_count: int
    last_seq: int
    addresses: list[str]
    """Where clients find the members of the target."""


class Compared(NamedTuple):
    """The source at one instant, and how many keys the target did not hold alike before they were stored."""

    mirror: Mirror
    differing: int
    first: list[Difference]


class Migration:
    """One run of `metactl migrate`."""

    def __init__(
        self,
        source: Source,
        target: Target,
        reports: Reports,
        *,
        directory: str | None = None,
        quiet_seconds: float = QUIET_SECONDS_DEFAULT,
    ) -> None:
        """`directory` is where exports are kept while they are compared."""
        self._source = source
        self._target = target
        self._reports = reports
        self._directory = directory
        self._quiet_seconds = quiet_seconds
        self._fruitless = 0
        """Comparisons of a source that stood still which found a difference, one after the other."""

    async def run(self, *, cut_over: bool) -> Outcome:
        """Copy and follow; with `cut_over` until source and target are equal and the migration is ended, else for ever.

        Raises MigrationRefusedError, InvalidRequestError, BackupError, StorageError.
        """
        await self._begin()
        while True:
            try:
                return await self._session(cut_over)
            except NotDoneError as error:
                self._source.choose_next()
                self._reports.note(f"{error}; going on with a new comparison, from {self._source.address}")
                await asyncio.sleep(_RETRY_SECONDS)

    async def _begin(self) -> None:
        await self._find_a_node()
        await self._target.addresses()
        named = self._source.cluster_id
        if named is not None and named == self._target.cluster_id:
            raise MigrationRefusedError(f"--from and --to name the same cluster, {named}")
        reply = await self._target.begin(named or UNNAMED_SOURCE)
        if reply.key_count:
            self._reports.note(f"going on with a migration: the target has {reply.key_count:,} keys")

    async def _find_a_node(self) -> None:
        """Choose a node of the source that answers; raises NotDoneError when none does, unlike later on."""
        for left in reversed(range(len(self._source.addresses))):
            try:
                await self._source.status()
                return
            except NotDoneError:
                self._source.choose_next()
                if not left:
                    raise

    # ------------------------------------------------------------------------- a session

    async def _session(self, cut_over: bool) -> Outcome:
        pending = Pending()
        async with self._source.watching(pending) as watch:
            compared = await self._compare(pending, "copied")
            self._reports.note(f"{compared.differing:,} of {compared.mirror.key_count:,} keys copied")
            level = _Level(self._quiet_seconds)
            looked_at = checked_at = monotonic()
            while True:
                if watch.done():
                    await watch
                await self._target.store(pending.take(_TAKE))
                await asyncio.sleep(0 if len(pending) else _IDLE_SECONDS)
                if monotonic() - looked_at < _POLL_SECONDS:
                    continue
                looked_at = monotonic()
                level.look(pending, (await self._source.status()).last_seq)
                self._reports.progress(level.text)
                if level.is_level and not level.was_told:
                    level.was_told = True
                    self._reports.note(_LEVEL_AND_CUTTING if cut_over else _LEVEL)
                if cut_over and level.is_quiet:
                    if (outcome := await self._cut_over(pending)) is not None:
                        return outcome
                    level = _Level(self._quiet_seconds, was_told=True)
                elif not cut_over and level.is_level and monotonic() - checked_at > CHECK_SECONDS:
                    compared = await self._compare(pending, "compared")
                    self._reports.note(f"compared: {compared.differing:,} of {compared.mirror.key_count:,} keys differed")
                    checked_at = monotonic()

    async def _cut_over(self, pending: Pending) -> Outcome | None:
        """Compare while the source stands still, and end the migration if there is no difference; None to go on."""
        before = await self._source.position()
        if not before.is_level:
            self._reports.progress(before.problem or f"{self._source.address} is behind other members of the source")
            return None
        events = pending.events
        compared = await self._compare(pending, "compared")
        after = await self._source.position()
        if pending.events != events or not _same(before, after) or compared.mirror.last_seq != after.last_seq:
            self._reports.note("the source was written to while it was compared; stop its writers")
            return None
        if compared.differing:
            self._fruitless += 1
            names = "; ".join(map(str, compared.first))
            text = f"{compared.differing:,} keys differed from a source that stands still: {names}"
            if self._fruitless >= _FRUITLESS_COMPARISONS_MAX:
                raise MigrationRefusedError(f"{text}. Nothing was ended; the source is as it was")
            self._reports.note(f"{text}; they are stored, and compared again")
            return None
        reply = await self._target.finish(compared.mirror.key_count, max(compared.mirror.last_seq, pending.last_seq))
        return Outcome(compared.mirror.key_count, reply.last_seq, await self._target.addresses())

    # ------------------------------------------------------------------------- comparing

    async def _compare(self, pending: Pending, doing: str) -> Compared:
        """Compare exports of both, and store what differs. The watch has to have begun before."""
        with tempfile.TemporaryDirectory(prefix="metasrv-migrate-", dir=self._directory) as directory:
            exported, mirrored, present = (os.path.join(directory, name) for name in ("source", "mirror", "target"))
            self._reports.progress(f"exporting {self._source.address}")
            await self._source.export(exported)
            self._reports.progress("reading the export")
            mirror = await asyncio.to_thread(mirror_of, exported, mirrored)
            os.unlink(exported)
            pending.last_seq = max(pending.last_seq, mirror.last_seq)
            self._reports.progress("exporting the target")
            await self._target.export(present)
            found = differences(mirror, present)
            first: list[Difference] = []
            count = 0
            try:
                while page := await asyncio.to_thread(_next_page, found):
                    first += page[: _NAMED_DIFFERENCES - len(first)]
                    changes = [change for difference in page for change in difference.changes()]
                    await self._target.store(changes, mirror.last_seq)
                    count += len(page)
                    self._reports.progress(f"{doing} {count:,} of {mirror.key_count:,} keys; {len(pending):,} wait")
            finally:
                await asyncio.to_thread(found.close)
        return Compared(mirror, count, first)


_LEVEL = "level: the target has everything that the source says; it stays level until this command is interrupted"
_LEVEL_AND_CUTTING = "level: stop the writers of the source now; it is compared when nothing was written for a while"


class _Level:
    """How far the target is behind, by what was seen from time to time."""

    def __init__(self, quiet_seconds: float, *, was_told: bool = False) -> None:
        self._quiet_seconds = quiet_seconds
        self._moved_at = monotonic()
        self._seen: tuple[int, int] | None = None
        self.was_told = was_told
        self.is_level = False
        self.is_quiet = False
        """Nothing is left, and nothing was written for the time that was asked for."""
        self.text = ""

    def look(self, pending: Pending, last_seq: int) -> None:
        now = monotonic()
        seen = (last_seq, pending.events)
        if seen != self._seen:
            self._seen, self._moved_at = seen, now
        still_seconds = now - self._moved_at
        behind = max(last_seq - pending.last_seq, 0) if still_seconds < _SETTLE_SECONDS else 0
        self.is_level = len(pending) + behind <= _LEVEL_CHANGES
        self.is_quiet = not len(pending) and not behind and still_seconds >= self._quiet_seconds
        self.text = (
            f"following: {len(pending):,} changes wait, {behind:,} sequence numbers behind, {pending.events:,} seen"
        )


def _same(before: Position, after: Position) -> bool:
    return after.is_level and (before.last_seq, before.last_log_index) == (after.last_seq, after.last_log_index)


def _next_page(found: Iterator[Difference]) -> list[Difference]:
    return list(islice(found, _PAGE))
