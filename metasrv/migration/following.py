"""Copy, follow, compare, cut over: the course of a migration (`metasrv/migration/__init__.py` says why it is safe).

Whatever fails on the way and may be tried again begins a new session: another node of the source, a new watch, a new
comparison. Tells an operator through `Reports`. Runs on the event loop of a program of its own; comparisons run in a
helper thread, so that the watch is read meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from time import monotonic
from typing import NamedTuple, Protocol

from metasrv.migration.changes import Pending
from metasrv.migration.comparing import Difference, Mirror, differences, mirror_of
from metasrv.migration.source import Position, Source
from metasrv.migration.standstill import Standstill, StillLeftError
from metasrv.migration.target import MigrationRefusedError, Target
from metasrv.model.errors import MetasrvError, NotDoneError

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
_PATIENCE_SECONDS = 10.0
"""So long a source that is read-only is waited for; after that the comparison finds what is missing."""


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
    is_left_read_only: bool
    """Whether the source refuses writes from now on, because this run told it to."""


class Compared(NamedTuple):
    """The source at one instant, and how many keys the target did not hold alike before they were stored."""

    mirror: Mirror
    differing: int
    expired: int
    """How many of these the source may have let expire: it has none, and the target's has an expiry."""
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
        standstill: Standstill | None = None,
    ) -> None:
        """`directory` is where exports are kept while they are compared; `standstill` turns off writes at the source."""
        self._source = source
        self._target = target
        self._reports = reports
        self._directory = directory
        self._quiet_seconds = quiet_seconds
        self._standstill = standstill
        self._is_ending = False
        """Whether the target has been asked to end the migration, and the answer is open."""
        self._fruitless = 0
        """Comparisons of a source that stood still which found a difference, one after the other."""

    async def run(self, *, cut_over: bool) -> Outcome:
        """Copy and follow; with `cut_over` until source and target are equal and the migration is ended, else for ever.

        Raises MigrationRefusedError, InvalidRequestError, BackupError, StorageError.
        """
        await self._begin()
        try:
            while True:
                try:
                    return await self._session(cut_over)
                except NotDoneError as error:
                    await self._let_writers_go_on()
                    self._source.choose_next()
                    self._reports.note(f"{error}; going on with a new comparison, from {self._source.address}")
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            await self._let_writers_go_on()

    async def _begin(self) -> None:
        await self._find_a_node()
        await self._target.addresses()
        named = self._source.cluster_id
        if named is not None and named == self._target.cluster_id:
            raise MigrationRefusedError(f"--from and --to name the same cluster, {named}")
        if self._standstill is not None:
            await self._standstill.check(named)
        reply = await self._target.begin(named or UNNAMED_SOURCE)
        if self._standstill is not None and await self._standstill.take_over(
            str(self._target.cluster_id), self._target.run
        ):
            self._reports.note(f"an earlier run had left the source read-only; {_WRITES_AGAIN}")
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
                    level = await self._tell_level(level, cut_over)
                elif cut_over and level.is_quiet:
                    if (outcome := await self._cut_over(pending)) is not None:
                        return outcome
                    level = level.anew()
                elif not cut_over and level.is_level and monotonic() - checked_at > CHECK_SECONDS:
                    compared = await self._compare(pending, "compared")
                    self._reports.note(f"compared: {compared.differing:,} of {compared.mirror.key_count:,} keys differed")
                    checked_at = monotonic()

    async def _tell_level(self, level: _Level, cut_over: bool) -> _Level:
        """Say that the target is level, hold the writers off where that was asked for; what to watch from now on."""
        level.was_told = True
        if cut_over and self._standstill is not None:
            if problem := (await self._source.position()).problem:
                raise MigrationRefusedError(problem)
            try:
                operators = await self._standstill.begin()
            except MetasrvError as error:
                raise MigrationRefusedError(f"the source cannot be made read-only: {error}") from error
            whose = "" if operators is None else f", as an operator told it before ({operators or 'no reason'})"
            self._reports.note(f"level: the source refuses writes now{whose}, and is compared")
            return _Level(0.0, was_told=True, patience_seconds=_PATIENCE_SECONDS)
        self._reports.note(_LEVEL_AND_CUTTING if cut_over else _LEVEL)
        return level

    async def _let_writers_go_on(self) -> None:
        """Undo what `_tell_level` did at the source, unless the target may have ended the migration."""
        if self._standstill is None:
            return
        if self._is_ending and self._standstill.keep():
            self._reports.note(_UNKNOWN_END)
            return
        try:
            if await self._standstill.end():
                self._reports.note(_WRITES_AGAIN)
        except StillLeftError as error:
            self._reports.note(f"{error}; `metactl cluster read-only off` there does that")

    # ------------------------------------------------------------------------- the cut-over

    async def _cut_over(self, pending: Pending) -> Outcome | None:
        """Compare while the source stands still, and end the migration if there is no difference; None to go on."""
        is_held = self._standstill is not None
        before = await self._source.position()
        if not (before.has_newest if is_held else before.is_level):
            text = before.problem or f"{self._source.address} is behind other members of the source"
            if is_held:
                raise NotDoneError(text)  # writers do not wait for it; another node is read next
            self._reports.progress(text)
            return None
        events = pending.events
        compared = await self._compare(pending, "compared")
        after = await self._source.position()
        is_still = await self._standstill.still_holds() if self._standstill is not None else _same(before, after)
        # While writes are refused, only expiry lets an event come. What expired has the same end at the target.
        is_still = is_still and (is_held or pending.events == events)
        if not is_still or compared.mirror.last_seq != after.last_seq:
            if is_held:
                raise MigrationRefusedError(
                    "somebody let the source take writes while it was compared; nothing was ended"
                )
            self._reports.note("the source was written to while it was compared; stop its writers")
            return None
        if compared.differing > (compared.expired if is_held else 0):
            self._fruitless += 1
            names = "; ".join(map(str, compared.first))
            text = f"{compared.differing:,} keys differed from a source that stands still: {names}"
            if self._fruitless >= _FRUITLESS_COMPARISONS_MAX:
                raise MigrationRefusedError(f"{text}. Nothing was ended; the source is as it was")
            self._reports.note(f"{text}; they are stored, and compared again")
            return None
        return await self._end(compared.mirror, pending)

    async def _end(self, mirror: Mirror, pending: Pending) -> Outcome:
        self._is_ending = True
        try:
            reply = await self._target.finish(mirror.key_count, max(mirror.last_seq, pending.last_seq))
        except MetasrvError:
            self._is_ending = False  # it is certain that it was not ended
            raise
        is_left = self._standstill is not None and self._standstill.keep()
        self._is_ending = False
        try:
            addresses = await self._target.addresses()
        except MetasrvError:
            addresses = []  # the migration is ended nevertheless
        return Outcome(mirror.key_count, reply.last_seq, addresses, is_left)

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
            count = expired = 0
            try:
                while page := await asyncio.to_thread(_next_page, found):
                    first += page[: _NAMED_DIFFERENCES - len(first)]
                    changes = [change for difference in page for change in difference.changes()]
                    await self._target.store(changes, mirror.last_seq)
                    count += len(page)
                    expired += sum(difference.may_be_expiry for difference in page)
                    self._reports.progress(f"{doing} {count:,} of {mirror.key_count:,} keys; {len(pending):,} wait")
            finally:
                await asyncio.to_thread(found.close)
        return Compared(mirror, count, expired, first)


_LEVEL = "level: the target has everything that the source says; it stays level until this command is interrupted"
_LEVEL_AND_CUTTING = "level: stop the writers of the source now; it is compared when nothing was written for a while"
_WRITES_AGAIN = "the source takes writes again"
_LET_GO = "somebody let the source take writes while it was compared; nothing was ended"
_UNKNOWN_END = (
    "the target was asked to end the migration, and has not answered: the source stays read-only. Run the same command "
    "again; if it says that the target is not empty, the migration was ended"
)


class _Level:
    """How far the target is behind, by what was seen from time to time."""

    def __init__(self, quiet_seconds: float, *, was_told: bool = False, patience_seconds: float = math.inf) -> None:
        self._quiet_seconds = quiet_seconds
        self._patience_seconds = patience_seconds
        self._began_at = self._moved_at = monotonic()
        self._seen: tuple[int, int] | None = None
        self.was_told = was_told
        self.is_level = False
        self.is_quiet = False
        """Nothing is left, and nothing was written for the time that was asked for; or patience has ended."""
        self.text = ""

    def anew(self) -> _Level:
        """The same wait, from its beginning."""
        return _Level(self._quiet_seconds, was_told=self.was_told, patience_seconds=self._patience_seconds)

    def look(self, pending: Pending, last_seq: int) -> None:
        now = monotonic()
        seen = (last_seq, pending.events)
        if seen != self._seen:
            self._seen, self._moved_at = seen, now
        still_seconds = now - self._moved_at
        behind = max(last_seq - pending.last_seq, 0) if still_seconds < _SETTLE_SECONDS else 0
        self.is_level = len(pending) + behind <= _LEVEL_CHANGES
        self.is_quiet = not len(pending) and not behind and still_seconds >= self._quiet_seconds
        self.is_quiet = self.is_quiet or now - self._began_at >= self._patience_seconds
        self.text = (
            f"following: {len(pending):,} changes wait, {behind:,} sequence numbers behind, {pending.events:,} seen"
        )


def _same(before: Position, after: Position) -> bool:
    return after.is_level and (before.last_seq, before.last_log_index) == (after.last_seq, after.last_log_index)


def _next_page(found: Iterator[Difference]) -> list[Difference]:
    return list(islice(found, _PAGE))
