"""Backups that the leader makes by itself, counted per cluster (`[backup]`).

Every node has a schedule and only the leader's works. When the last backup was is read where the backups are kept, from
the names of the archives: what is there is what can be restored, whoever made it, and a new leader needs no word from the
old one. A record in the log would say that an archive exists which somebody may have removed, and nodes of earlier
releases could not read it. So all nodes have to see the same place. A leader that is replaced meanwhile gives its draft
up; one that has finished proves that it still leads before the archive gets its name. Runs on the event loop; the work
itself in a thread for each backup.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from metasrv.backup.bucket import BucketPlace
from metasrv.backup.encryption import load_key
from metasrv.backup.making import Draft, Pace, finish, make_draft
from metasrv.backup.places import DirectoryPlace, Place
from metasrv.config.sections import BackupConfig
from metasrv.grpc_api.export_lines import ArchiveHead
from metasrv.model.errors import BackupError, MetasrvError, NotLeaderError
from metasrv.model.types import RaftStatus
from metasrv.node.backups import ArchiveName, BackupStanding
from metasrv.node.context import NodeContext
from metasrv.process.operating_system import show_thread_name

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

LOOK_SECONDS = 1.0
RETRY_SECONDS_MIN = 15.0
RETRY_SECONDS_MAX = 600.0
"""After a failure the next attempt waits, twice as long each time, and never longer than the interval."""
BARRIER_TIMEOUT_MS = 10_000
WRITES_GO_ON_SECONDS = 0.5


class Pauses(NamedTuple):
    """Seconds between looks, and between attempts that fail."""

    look_seconds: float = LOOK_SECONDS
    retry_seconds: float = RETRY_SECONDS_MIN


class BackupSchedule:
    """The schedule of one node."""

    def __init__(self, context: NodeContext, place: Place, pauses: Pauses = Pauses()) -> None:  # noqa: B008 - immutable
        self._context = context
        self._config: BackupConfig = context.config.backup
        self._place = place
        self.place = place.text
        self.standing = BackupStanding()
        self._pauses = pauses
        self._asked = False
        self._leads_since: int | None = None
        """The term in which this node leads and has looked at the archives."""
        self._not_before = 0.0
        self._failures = 0

    # ------------------------------------------------------------------------- for the node's services

    def ask(self) -> int:
        status = self._context.consensus.status()
        if not status.is_leader:
            raise NotLeaderError(status.leader_id)
        self._asked = True
        return self.standing.attempts + (2 if self.standing.running else 1)

    async def archives(self) -> list[ArchiveName]:
        cluster_id = self._context.consensus.status().cluster_id
        return [] if cluster_id is None else await in_thread(lambda: self._place.archives(cluster_id))

    # ------------------------------------------------------------------------- the schedule

    async def run(self) -> None:
        """Look for ever, until cancelled."""
        self._context.metrics.backups_every(self._config.every_seconds)
        while True:
            await asyncio.sleep(self._pauses.look_seconds)
            await self.look()

    async def look(self) -> None:
        """Make a backup if this node leads and one is due."""
        status = self._context.consensus.status()
        if not status.is_leader or status.cluster_id is None or self._context.draining or not self._context.joined:
            self._follow()
            return
        if not self._asked and self._context.clock.monotonic() < self._not_before:
            return
        asked, self._asked = self._asked, False
        try:
            if self._leads_since != status.term:
                await self._learn(status)
            if asked or self._is_due():
                await self._attempt(status)
            self._failures = 0
        except MetasrvError as error:
            self._failed(str(error))
        except Exception as error:
            logger.exception("a backup failed in a way that it should not")
            self._failed(f"{type(error).__name__}: {error}")

    def _follow(self) -> None:
        """Another node leads, or none: it has the figures, and the word."""
        if self._leads_since is not None or self.standing.failure:
            self._leads_since, self._failures, self._not_before = None, 0, 0.0
            self.standing.failure = ""
            self._context.metrics.backup_standing(None, failing=False)
        self._asked = False

    async def _learn(self, status: RaftStatus) -> None:
        """See when the cluster's last backup was."""
        found = await self.archives()
        newest = found[-1] if found else None
        self._leads_since = status.term
        self.standing.last_saved_at_ms = None if newest is None else newest.saved_at_ms
        self.standing.last_size_bytes = None if newest is None else newest.size_bytes
        self._show()

    def _is_due(self) -> bool:
        last_ms = self.standing.last_saved_at_ms
        if last_ms is None:
            return True
        age_seconds = (self._context.clock.wall_ms() - last_ms) / 1000
        # A backup from the future was made by a wrong clock, which must not end all backups.
        return not -self._config.every_seconds < age_seconds < self._config.every_seconds

    async def _attempt(self, status: RaftStatus) -> None:
        standing, started = self.standing, self._context.clock.monotonic()
        standing.running = True
        try:
            draft, head = await self._draft()
            await self._finish(draft, status)
        finally:
            standing.running = False
        standing.attempts += 1
        standing.failure = ""
        standing.last_saved_at_ms, standing.last_size_bytes = head.saved_at_ms, draft.size_bytes
        standing.last_duration_seconds = round(self._context.clock.monotonic() - started, 3)
        self._context.metrics.backup_made(draft.size_bytes, standing.last_duration_seconds)
        self._show()
        logger.info(
            "backup %s is in %s: %d keys, %d bytes, checked, after %.1f s",
            draft.name,
            self._place.text,
            draft.keys,
            draft.size_bytes,
            standing.last_duration_seconds,
        )

    async def _draft(self) -> tuple[Draft, ArchiveHead]:
        """An archive that was written and checked, of a state that a quorum confirmed."""
        context = self._context
        await context.consensus.read_barrier_local(BARRIER_TIMEOUT_MS)
        path = self._config.encrypt_with
        key = await in_thread(lambda: load_key(path)) if path else None
        status = context.consensus.status()
        head = ArchiveHead(
            cluster_id=status.cluster_id,
            node_id=status.node_id,
            saved_at_ms=context.clock.wall_ms(),
            confirmed=True,
            last_log_index=status.last_log_id.index,
            leader_id=status.leader_id,
            features=context.machine.features,
        )
        if not self._config.without_secrets:
            head = head.with_secrets()
        pace = Pace(self._busy())
        view = context.machine.open_reader()
        watching = asyncio.create_task(self._abandon_when_replaced(pace), name="backup-watch")
        try:
            return await in_thread(lambda: make_draft(self._place, view, head, status.purged, key, pace)), head
        finally:
            watching.cancel()
            pace.abandon("the node stops")
            view.revoke("the backup has ended")

    async def _finish(self, draft: Draft, status: RaftStatus) -> None:
        try:
            await self._context.consensus.read_barrier_local(BARRIER_TIMEOUT_MS)
        except MetasrvError as error:
            await in_thread(lambda: self._place.discard(draft.draft))
            raise BackupError(
                f"the archive is given up, because this node cannot show that it still leads: {error}"
            ) from error
        cluster_id, keep = str(status.cluster_id), self._config.keep
        removed = await in_thread(lambda: finish(self._place, draft, cluster_id, keep))
        if removed:
            logger.info("%d of the oldest backups were removed: %d are kept", removed, keep)

    async def _abandon_when_replaced(self, pace: Pace) -> None:
        while True:
            await asyncio.sleep(self._pauses.look_seconds)
            if not self._context.consensus.status().is_leader:
                pace.abandon("this node no longer leads; the backup is the new leader's")
                return

    def _busy(self) -> Callable[[], bool]:
        """Whether the state was written to a moment ago."""
        machine, clock = self._context.machine, self._context.clock
        seen, changed_at = machine.last_applied.index, float("-inf")

        def busy() -> bool:
            nonlocal seen, changed_at
            if machine.last_applied.index != seen:
                seen, changed_at = machine.last_applied.index, clock.monotonic()
            return not machine.views.hurry and clock.monotonic() - changed_at < WRITES_GO_ON_SECONDS

        return busy

    def _failed(self, sentence: str) -> None:
        self.standing.attempts += 1
        if not self._context.consensus.status().is_leader:
            logger.info("a backup was given up: %s", sentence)
            return
        longest = min(RETRY_SECONDS_MAX, float(self._config.every_seconds))
        pause = min(longest, self._pauses.retry_seconds * 2 ** min(self._failures, 10))
        self._failures += 1
        self._not_before = self._context.clock.monotonic() + pause
        self.standing.failure = sentence
        self._context.metrics.backup_failed()
        self._show()
        logger.error("the backup failed and is tried again in %.0f s: %s", pause, sentence)

    def _show(self) -> None:
        last_ms = self.standing.last_saved_at_ms
        self._context.metrics.backup_standing((last_ms or 0) / 1000, failing=bool(self.standing.failure))


def place_of(config: BackupConfig) -> Place:
    """Where the configuration has the backups kept."""
    return BucketPlace(config) if config.bucket else DirectoryPlace(config.directory)


def keep_backups(context: NodeContext) -> asyncio.Task[None] | None:
    """Start the schedule that the configuration asks for; None if it asks for none. The caller cancels the task."""
    if not context.config.backup.every_seconds:
        return None
    schedule = BackupSchedule(context, place_of(context.config.backup))
    context.backups = schedule
    return asyncio.create_task(schedule.run(), name="backups")


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run `work` in a thread of its own. A node that stops does not wait for it: a place that hangs keeps nobody."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def run() -> None:
        show_thread_name()
        try:
            result = work()
        except BaseException as error:
            _tell(loop, done, error, None)
        else:
            _tell(loop, done, None, result)

    threading.Thread(target=run, name="backup", daemon=True).start()
    return await done


def _tell(
    loop: asyncio.AbstractEventLoop, done: asyncio.Future[Result], error: BaseException | None, result: Result | None
) -> None:
    def tell() -> None:
        if done.done():
            return  # whoever waited was cancelled
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the node has ended, and its loop with it
        logger.info("a backup ended after its node")
