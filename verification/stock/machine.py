"""A machine that runs a plain pysyncobj node, with the interface that the nemesis and the clients need.

Nothing is ever synced, so a power loss takes whatever the kernel has not written by itself: in the seconds of a history,
nothing. Files that were renamed over others are whole, as on ext4 with its defaults; of the journal, a memory map, any
pages may be missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from metasrv.model.codec import encode_command
from metasrv.model.commands import Command, Reply
from metasrv.model.errors import FatalError, NotDoneError, StorageError, UnknownOutcomeError
from verification.simulation.cluster import SimulatedCluster
from verification.simulation.disk import Disk, Image, mixed, write_image
from verification.simulation.loop import ProcessKilled, SimulatedLoop
from verification.simulation.machine import endpoint_of
from verification.simulation.storage import DiskFaults
from verification.stock.engine import REFUSED, SUCCESS, TICK_SECONDS, StockSettings, StockStore
from verification.stock.transport import StockTransport

TICK_COST_SECONDS = 0.001
"""Time that a tick takes: in some states of a damaged cluster each tick causes the next."""
_PAGE_SIZE_BYTES = 4096
_JOURNAL = "journal"


@dataclass(eq=False)
class StockProcess:
    """One life. Clients ask `consensus` and `data.machine` as they ask the product."""

    machine: StockMachine
    loop: SimulatedLoop
    disk: Disk
    engine: StockStore
    transport: StockTransport
    at_start: Image
    ending: bool = False
    on_death: list[Callable[[], None]] = field(default_factory=list)
    _tick_due: bool = False

    @property
    def alive(self) -> bool:
        return not self.loop.dead

    @property
    def joined(self) -> bool:
        return bool(self.engine.isReady())

    @property
    def consensus(self) -> StockProcess:
        return self

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(machine=self.engine)

    async def read_barrier(self, _timeout_ms: int) -> None:
        """The safest read of plain pysyncobj without a log entry: from the node that believes that it leads."""
        if not self.engine.leads():
            raise NotDoneError("this node does not lead")

    async def propose(self, command: Command, timeout_ms: int) -> Reply:
        answered: Any = self.loop.create_future()

        def callback(result: Reply | None, reason: int) -> None:
            if answered.done():
                return
            if reason == SUCCESS:
                answered.set_result(result)
            elif reason in REFUSED:
                answered.set_exception(NotDoneError(f"pysyncobj says {reason}"))
            else:
                answered.set_exception(UnknownOutcomeError(f"pysyncobj says {reason}"))

        self.engine.execute(encode_command(command), callback=callback)
        if not self.machine.settings.use_batch:
            self.tick_soon()
        reply: Reply = await answered
        return reply

    # ------------------------------------------------------------------ turning

    def start(self) -> None:
        self.transport.arrived = self.tick_soon
        self.transport.start()
        # Nodes do not start or tick at the same moment: their elections would be tied forever.
        self.loop.call_later(TICK_SECONDS * self.machine.world.source.random(), self._on_timer)

    def _on_timer(self) -> None:
        self.loop.call_later(TICK_SECONDS, self._on_timer)
        self.tick()

    def tick_soon(self) -> None:
        """Something arrived: tick in a moment, for all that arrives until then."""
        if not self._tick_due:
            self._tick_due = True
            self.loop.call_later(TICK_COST_SECONDS, self._tick_for_arrival)

    def _tick_for_arrival(self) -> None:
        self._tick_due = False
        self.tick()

    def tick(self) -> None:
        """Tick as pysyncobj's own thread does: an exception is logged, and the next tick tries again."""
        try:
            self.engine.doTick(0.0)
        except ProcessKilled:
            raise
        except Exception as error:
            self.machine.world.note(f"tick of node {self.machine.node_id} failed: {type(error).__name__}: {error}")


class StockMachine:
    """One node, running or not; the same methods and attributes as the product's `Machine`."""

    def __init__(self, world: SimulatedCluster, node_id: int, size: int, settings: StockSettings) -> None:
        self.world = world
        self.node_id = node_id
        self.settings = settings
        self.image: Image | None = None
        self.process: StockProcess | None = None
        self.faults = DiskFaults()
        self.lives = 0
        self.damaged = self.faulty = self.removed = self.bootstrap = self.learner = False
        self.rate = 1.0
        self.wall_offset_ms = 0
        self.joins: tuple[int, ...] = ()
        self.on_exit: Callable[[FatalError | None], None] = lambda _error: None
        self.refusals = 0
        """Starts that ended in an exception."""
        self._others = [i for i in range(1, size + 1) if i != node_id]

    @property
    def serves(self) -> bool:
        return self.process is not None and self.process.joined

    def start(self, *, steps_left: int | None = None) -> bool:
        if self.process is not None:
            return True
        world = self.world
        self.lives += 1
        disk = Disk(os.path.join(world.base, f"{self.node_id}-{self.lives}"))
        os.mkdir(disk.root, 0o700)
        write_image(disk.root, self.image or {})
        world.system.add_disk(disk)
        disk.all_synced()
        world.network.power(self.node_id, True)
        loop = SimulatedLoop(world.scheduler, self._loop_failed, rate=self.rate)
        loop.steps_left = steps_left
        loop.on_last_step = lambda _name: self._killed_while_opening(loop, disk)
        transport = StockTransport(world.network, self.node_id, self._others, loop, endpoint_of)
        try:
            engine = loop.enter(lambda: StockStore(self.node_id, self._others, disk.root, self.settings, transport))
        except ProcessKilled:
            return False
        except Exception as error:
            return self._refused(loop, error)
        self.process = process = StockProcess(self, loop, disk, engine, transport, dict(self.image or {}))
        loop.on_last_step = lambda name: self.kill(power_lost=world.source.random() < 0.5)
        world.note(f"node {self.node_id} starts, life {self.lives}")
        loop.call_soon(process.start)
        return True

    def _refused(self, loop: SimulatedLoop, error: Exception) -> bool:
        self.refusals += 1
        self.world.note(f"node {self.node_id} cannot start: {type(error).__name__}: {error}")
        loop.kill()
        self.on_exit(StorageError(str(error)))
        return False

    def _killed_while_opening(self, loop: SimulatedLoop, disk: Disk) -> None:
        self.image = disk.image()
        loop.kill()

    def kill(self, *, power_lost: bool = False) -> None:
        process = self.process
        if process is None:
            return
        self.image = self._after_power_loss(process) if power_lost else process.disk.image()
        self.process = None
        process.loop.kill()
        if power_lost:
            self.world.network.power(self.node_id, False)
        self.world.network.process_ended(process.transport, power_lost=power_lost)
        for forget in process.on_death:
            forget()
        process.on_death.clear()
        process.engine.close_files()

    def _after_power_loss(self, process: StockProcess) -> Image:
        """What is left: renamed files are whole, old or new; any page of the journal may be as at the start."""
        source, now, before = self.world.source, process.disk.image(), process.at_start
        image: Image = {}
        for path in sorted({*now, *before}):
            old, new = before.get(path), now.get(path)
            if path != _JOURNAL:
                kept = source.choice((old, new))
            elif new is None or old is None:
                kept = new
            else:
                kept = source.choice((old, new, mixed(old, new, source, _PAGE_SIZE_BYTES)))
            if kept is not None:
                image[path] = kept
        return image

    def stop(self) -> None:
        """End the process: pysyncobj has no other orderly stop."""
        process = self.process
        if process is not None and not process.ending:
            process.ending = True
            process.loop.call_soon(self._stopped)

    def _stopped(self) -> None:
        self.kill()
        self.on_exit(None)

    def abandon(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.loop.kill()
            process.engine.close_files()

    def _loop_failed(self, text: str) -> None:
        self.world.note(f"node {self.node_id}: {text}")
