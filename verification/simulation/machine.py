"""A machine of the simulated cluster: its disk, and the metasrv process that starts, runs and dies on it.

The process is composed from the same parts as in `metasrv.node.meta_node`. Everything that can happen to a process or to
its disk is a method here; the nemesis decides when it happens.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from metasrv.model.commands import Reply
from metasrv.model.entries import Entry
from metasrv.model.errors import DataDamagedError, FatalError, InvariantError, MetasrvError, RemovedError
from metasrv.model.types import Endpoint, LogId, Node
from metasrv.node.beginning import begin_or_find
from metasrv.node.joining import join_cluster, register_node
from metasrv.node.opening import OpenedData, open_data
from metasrv.raft.consensus import RaftConsensus
from metasrv.raft.replica_parts import ReplicaResources
from verification.simulation.counting_observer import CountingObserver
from verification.simulation.disk import Disk, Image, torn_write, write_image
from verification.simulation.loop import ProcessKilled, SimulatedLoop
from verification.simulation.networked_loop import NetworkedLoop
from verification.simulation.proving import Harm, Proving
from verification.simulation.security import security_of
from verification.simulation.storage import DiskFaults, SimulatedStorage
from verification.simulation.streams import Streams
from verification.simulation.transport import SimulatedTransport
from verification.simulation.watched_machine import WatchedMachine
from verification.simulation.world import LOG_CHECKPOINT_SIZE_BYTES, Tuning, World, endpoint_of

HAND_OVER_TIMEOUT_MS = 500
JOIN_TIMEOUT_MS = 60_000

_open_data = partial(open_data, machine_class=WatchedMachine, log_checkpoint_size_bytes=LOG_CHECKPOINT_SIZE_BYTES)

__all__ = ["Machine", "Process", "Tuning", "endpoint_of"]


@dataclass(eq=False)
class Process:
    """One life of a node."""

    machine: Machine
    number: int
    loop: NetworkedLoop
    disk: Disk
    data: OpenedData
    consensus: RaftConsensus
    log_storage: SimulatedStorage
    joined: bool = False
    ending: bool = False
    proving: Proving = field(init=False)
    on_death: list[Callable[[], None]] = field(default_factory=list)
    """Called when the process dies: clients whose calls are under way."""

    @property
    def alive(self) -> bool:
        return not self.loop.dead

    @property
    def state(self) -> WatchedMachine:
        machine = self.data.machine
        assert isinstance(machine, WatchedMachine)
        return machine

    @property
    def faults(self) -> DiskFaults:
        return self.machine.faults

    def applied(self, log_id: LogId, entry: Entry, replies: tuple[Reply, ...]) -> None:
        """The state machine has applied an entry."""
        self.machine.world.witness.applied(self, log_id, entry, replies)

    def installed(self) -> None:
        """The state machine has taken over a snapshot, and with it a sound copy."""
        self.machine.harm, self.machine.differs = None, False
        self.machine.world.witness.installed(self)


class Machine:
    """One node of the cluster, running or not."""

    def __init__(self, world: World[Process], node_id: int, image: Image | None) -> None:
        self.world = world
        self.node_id = node_id
        self.image = image
        """What the disk holds while nothing runs; None for an empty disk."""
        self.process: Process | None = None
        self.endpoint = endpoint_of(node_id)
        self.moves = 0
        self.faults = DiskFaults()
        self.lives = 0
        self.damaged = False
        """Its files were damaged on purpose: it may refuse to start or stop later, but never answer wrongly."""
        self.harm: Harm | None = None
        """What was done to its copy of the state, and nothing has replaced since."""
        self.differs = False
        """Its copy is good in itself, but holds another value than the entries say."""
        self.suspect = False
        """Its copy was harmed in the past, or of a directory that is gone."""
        self.faulty = False
        """Its disk was made to fail, so the node is allowed to stop."""
        self.removed = False
        """It has left the cluster and stays down."""
        self.rate = 1.0
        self.wall_offset_ms = 0
        self.joins: tuple[int, ...] = ()
        """Node ids through which it joins when its disk is empty; asked first when it may begin a cluster. With data they
        are hints where members are. Their addresses are those of the moment when it starts."""
        self.hinted = True
        """Whether it is told where the others are when it starts with data."""
        self.addresses: tuple[Endpoint, ...] = ()
        self.learner = False
        self.bootstrap = False
        """It may begin a cluster: at once without `joins`, otherwise once all of those know of none (`single = true`)."""
        self.on_exit: Callable[[FatalError | None], None] = lambda _error: None
        """Called when the process ended by itself, or refused to start; None after an orderly stop."""
        self.on_damage: Callable[[Process], None] = lambda _process: None
        """Called when the process says that its own copy of the state is damaged."""

    @property
    def serves(self) -> bool:
        """Its process has joined the cluster and is registered."""
        return self.process is not None and self.process.joined

    # ------------------------------------------------------------------ starting

    def start(self, *, steps_left: int | None = None) -> bool:
        """Start a process on what the disk holds; False when it refused to start.

        With `steps_left` it dies after this many steps that make something durable, including those of opening its files.
        """
        if self.process is not None:
            return True
        world = self.world
        self.lives += 1
        self.addresses = tuple(world.endpoint(i) for i in self.joins)
        disk = Disk(os.path.join(world.base, f"{self.node_id}-{self.lives}"))
        os.mkdir(disk.root, 0o700)
        write_image(disk.root, self.image or {})
        world.system.add_disk(disk)
        disk.all_synced()
        world.network.power(self.node_id, True)
        loop = NetworkedLoop(world.scheduler, self._loop_failed, rate=self.rate)
        loop.streams = Streams(world.network, self.node_id, loop, world.wire, world.stream_source)
        world.clock.wall_offset_ms[loop] = self.wall_offset_ms
        loop.steps_left = steps_left
        loop.on_last_step = lambda name: self._killed_while_opening(loop, disk, name)
        try:
            begins = self.bootstrap and not self.joins
            data = loop.enter(lambda: _open_data(disk.root, self.node_id, self.endpoint, begins))
        except FatalError as error:
            world.note(f"node {self.node_id} refuses to start: {type(error).__name__}: {error}")
            world.witness.count("starts refused")
            if isinstance(error, InvariantError) or not (self.damaged or isinstance(error, RemovedError)):
                world.witness.violation(f"node {self.node_id} refused undamaged files: {type(error).__name__}: {error}")
            loop.kill()
            self.on_exit(error)
            return False
        except ProcessKilled:
            return False
        except Exception as error:  # the product promises a FatalError, whatever is wrong with its files
            world.witness.violation(f"node {self.node_id} cannot start: {type(error).__name__}: {error}")
            loop.kill()
            return False
        self.process = process = self._compose(loop, disk, data)
        world.witness.opened(process)
        world.on_start(process)
        if self.lives > 1:
            world.witness.count("restarts")
        world.note(f"node {self.node_id} starts, life {self.lives}, applied {data.machine.last_applied.index}")
        loop.call_soon(lambda: loop.create_task(self._serve(process)))
        return True

    def _compose(self, loop: NetworkedLoop, disk: Disk, data: OpenedData) -> Process:
        world, tuning = self.world, self.world.tuning
        storage = partial(SimulatedStorage, loop, self.faults, self._job_seconds)
        log_storage = storage(
            after_each=data.writer.upkeep, executed=lambda args: world.witness.written(self.node_id, args[0])
        )
        resources = ReplicaResources(
            settings=tuning.settings(self.endpoint, self.addresses if self.hinted else ()),
            directory=data.directory,
            machine=data.machine,
            store=data.store,
            writer=data.writer,
            log_thread=log_storage,
            snapshot_thread=storage(),
            state_thread=storage(),
            security=security_of(world.wire.security, self.node_id),
            observer=CountingObserver(world.witness.count, lambda: world.witness.check(process)),
            clock=world.clock,
            make_transport=partial(SimulatedTransport, world, self.lives, loop),
        )
        consensus = loop.enter(lambda: RaftConsensus(resources, lambda error: self._fatal(process, error)))
        process = Process(self, self.lives, loop, disk, data, consensus, log_storage)
        fatal, damaged = partial(self._fatal, process), lambda: self.on_damage(process)
        process.proving = loop.enter(lambda: Proving(world, consensus, data.directory, fatal, damaged))
        process.state.watcher = process
        loop.on_last_step = self._last_step
        consensus.belonging.on_removed = lambda reason: self._removed(process, reason)
        return process

    async def _serve(self, process: Process) -> None:
        """As `MetaNode` does: listen, begin or join, register."""
        endpoint = self.endpoint
        consensus = process.consensus
        process.proving.start()
        await consensus.start(endpoint.addr, endpoint.port)
        consensus.load_snapshots()
        node = Node(self.node_id, endpoint, f"{endpoint.addr}:9191", None)
        try:
            if not await self._begin(process, node):
                await join_cluster(
                    consensus=consensus,
                    machine=process.data.machine,
                    node=node,
                    incarnation=process.data.directory.identity.incarnation,
                    learner=self.learner,
                    addresses=[str(address) for address in self.addresses],
                    clock=self.world.clock,
                    timeout_ms=JOIN_TIMEOUT_MS,
                )
            await register_node(consensus, node, self.world.clock, JOIN_TIMEOUT_MS)
        except FatalError as error:
            self.world.note(f"node {self.node_id} did not get in: {error}")
            self._exit(process, error)
            return
        process.joined = True
        self.world.note(f"node {self.node_id} serves")

    async def _begin(self, process: Process, node: Node) -> bool:
        if not self.bootstrap or not process.consensus.beginning.possible():
            return False
        self.world.witness.count("empty first nodes that ask")
        return await begin_or_find(
            consensus=process.consensus,
            node=node,
            addresses=[str(address) for address in self.addresses],
            forced=False,
            clock=self.world.clock,
            waiting=lambda text: self.world.note(f"node {self.node_id} waits: {text}"),
        )

    # ------------------------------------------------------------------ ending

    def kill(self, *, power_lost: bool = False) -> None:
        """The process dies at once; if the power is lost as well, so is what was not synced."""
        process = self.process
        if process is None:
            return
        source = self.world.source
        job = process.log_storage.pending_job()
        if job is not None and source.random() < 0.6:
            self._die_in_job(process, job, torn=source.random() < 0.7)
        self.world.witness.count("power losses" if power_lost else "kills")
        self.image = process.disk.image_after_power_loss(source) if power_lost else process.disk.image()
        self._gone(process, power_lost)

    def _die_in_job(self, process: Process, job: Callable[[], object], *, torn: bool) -> None:
        """Die in the middle of a log write: some or all of it has reached the file, and nobody was told."""
        process.loop.steps_left = None

        def run() -> None:
            try:
                job()
            except MetasrvError:
                return  # an earlier fault has disabled the writer, so this job writes nothing

        self.world.witness.count("deaths in a log write")
        if torn:
            torn_write(process.disk.root, run, self.world.source)
        else:
            run()

    def _gone(self, process: Process, power_lost: bool) -> None:
        self.process = None
        process.loop.kill()
        if power_lost:
            self.world.network.power(self.node_id, False)
        self.world.network.process_ended(process.loop.streams, power_lost=power_lost)
        self.world.witness.ended(process)
        for forget in process.on_death:
            forget()
        process.on_death.clear()
        process.loop.enter(lambda: _let_go(process))

    def empty(self) -> None:
        """Swap the disk of a stopped machine for an empty one."""
        if self.process is not None:
            raise AssertionError(f"node {self.node_id} runs: its disk cannot be swapped")
        self.image = None
        self.suspect = self.suspect or self.damaged
        self.damaged = self.differs = False
        self.harm = None
        self.world.witness.emptied(self.node_id)

    def move(self) -> None:
        """Give a stopped machine another address, where it will listen from its next start on."""
        if self.process is not None:
            raise AssertionError(f"node {self.node_id} runs: its address cannot be changed")
        self.moves += 1
        self.endpoint = Endpoint(f"node-{self.node_id}-{self.moves}", endpoint_of(self.node_id).port)
        self.world.note(f"node {self.node_id} moves to {self.endpoint}")
        self.world.witness.count("moves to another address")

    def abandon(self) -> None:
        """Release everything at the end of the history."""
        process, self.process = self.process, None
        if process is not None:
            process.loop.kill()
            process.loop.enter(lambda: _let_go(process))

    def stop(self) -> None:
        """An orderly stop, as on SIGTERM."""
        process = self.process
        if process is None or process.ending:
            return
        process.ending = True
        process.loop.call_soon(lambda: process.loop.create_task(self._drain(process)))

    async def _drain(self, process: Process) -> None:
        process.proving.stop()
        try:
            await process.consensus.hand_over(HAND_OVER_TIMEOUT_MS)
        except MetasrvError as error:
            self.world.note(f"node {self.node_id} did not hand over: {error}")
        await process.consensus.close()
        self._exit(process, None)

    def _exit(self, process: Process, error: FatalError | None) -> None:
        """The process ends by itself and closes its files first."""
        if self.process is not process:
            return
        try:
            process.data.close()
        except FatalError as failure:
            self.world.note(f"node {self.node_id} could not close its files: {type(failure).__name__}")
        self.image = process.disk.image()
        self._gone(process, power_lost=False)
        self.on_exit(error)

    def _fatal(self, process: Process, error: FatalError) -> None:
        self.world.note(f"node {self.node_id} stops for good: {type(error).__name__}: {error}")
        self.world.witness.count("stops for good")
        expected = self.faulty or (self.damaged and isinstance(error, DataDamagedError))
        if isinstance(error, InvariantError) or not expected:
            self.world.witness.violation(f"node {self.node_id} stopped: {type(error).__name__}: {error}")
        process.loop.call_soon(self._exit, process, error)

    def _removed(self, process: Process, reason: str) -> None:
        """As `MetaNode` does: a node that serves goes on, one that has just been started ends."""
        self.world.witness.removed(self.node_id, process.data.directory.identity.incarnation)
        if not process.joined:
            process.loop.call_soon(self._exit, process, RemovedError(reason))

    # ------------------------------------------------------------------ for the parts

    def _job_seconds(self, name: str) -> float:
        world = self.world
        return self.faults.delayed(name, world.scheduler.now, world.tuning.sync_seconds * (0.5 + world.source.random()))

    def _killed_while_opening(self, loop: SimulatedLoop, disk: Disk, name: str) -> None:
        source = self.world.source
        self.world.note(f"node {self.node_id} is killed {name}, while it opens its files")
        self.image = disk.image_after_power_loss(source) if source.random() < 0.5 else disk.image()
        loop.kill()

    def _last_step(self, name: str) -> None:
        self.world.note(f"node {self.node_id} is killed {name}")
        self.world.witness.count("deaths at a persist step")
        self.kill(power_lost=self.world.source.random() < 0.5)

    def _loop_failed(self, text: str) -> None:
        self.world.witness.violation(f"node {self.node_id}: an unhandled error: {text}")


def _let_go(process: Process) -> None:
    """Remove the files of a dead process and close its descriptors; the contents were copied before.

    Files go first: SQLite then copies no write-ahead log into a database that nobody will read.
    """
    shutil.rmtree(process.disk.root, ignore_errors=True)
    snapshots = process.consensus.replica.snapshots
    for close in (snapshots.close, process.data.machine.close, process.data.writer.close, process.data.directory.close):
        try:
            close()
        except (FatalError, OSError):
            continue  # already closed, or on a failing disk: these files are not used again
