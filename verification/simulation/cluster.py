"""The simulated world: machines, their network and disks, one virtual time, and one witness of everything.

Implements `World`. A history runs inside `opened`; what happens to the cluster is decided by the nemesis, what is asked
of it by the clients.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from zlib import crc32

from metasrv.model.errors import DamagedCopyError, DataDamagedError, NotDoneError, RequestError, UnknownOutcomeError
from metasrv.model.types import Endpoint
from metasrv.raft.core.engine import LEADER
from verification.simulation.disk import Image
from verification.simulation.invariants import Invariants
from verification.simulation.loop import SimulatedClock, SimulatedLoop, forget_running_loop
from verification.simulation.machine import Machine, Process, Tuning, endpoint_of
from verification.simulation.network import Network
from verification.simulation.scheduler import Scheduler
from verification.simulation.system import SimulatedSystem
from verification.simulation.world import Wire

T = TypeVar("T")

START_SECONDS = 1000.0
"""Not zero, which the engine takes for "never": as on a machine that has been up for a while."""
EPOCH_MS = 1_700_000_000_000
CLIENT_MACHINE = 0


class WrongAnswerError(Exception):
    """What came is no answer to what was asked."""


class Trace:
    """The history as lines; only their digest is kept unless they are wanted."""

    def __init__(self, keep: bool) -> None:
        self.lines: list[str] | None = [] if keep else None
        self._digest = hashlib.sha256()

    def add(self, line: str) -> None:
        self._digest.update(line.encode() + b"\n")
        if self.lines is not None:
            self.lines.append(line)

    def digest(self) -> str:
        return self._digest.hexdigest()


class SimulatedCluster:
    """The world of one history: machines, network, time and witness."""

    def __init__(self, seed: str, base: str, tuning: Tuning, wire: Wire, *, keep_trace: bool = False) -> None:
        self.base = base
        self.tuning = tuning
        self.wire = wire
        self.stream_source = random.Random(f"{seed}/streams")
        self.source = random.Random(f"{seed}/world")
        self.scheduler = Scheduler()
        self.scheduler.now = START_SECONDS
        self.clock = SimulatedClock(self.scheduler, EPOCH_MS)
        self.network = Network(self.scheduler, random.Random(f"{seed}/network"))
        self.system = SimulatedSystem(base, random.Random(f"{seed}/system"))
        self.invariants = Invariants()
        self.trace = Trace(keep_trace)
        if keep_trace:
            self.network.note_message = self._note_message
            self.network.note_packet = self._note_packet
        self.machines: dict[int, Machine] = {}
        self.on_start: Callable[[Process], None] = lambda _process: None
        self.loop = SimulatedLoop(self.scheduler, self._failed)
        """Where clients and the nemesis run."""

    @property
    def witness(self) -> Invariants:
        return self.invariants

    def endpoint(self, node_id: int) -> Endpoint:
        machine = self.machines.get(node_id)
        return endpoint_of(node_id) if machine is None else machine.endpoint

    def suspect(self, node_id: int) -> bool:
        machine = self.machines.get(node_id)
        return machine is not None and (machine.damaged or machine.suspect)

    def note(self, text: str) -> None:
        """Add a line to the trace, without the name of this run's directory."""
        self.trace.add(f"{self.scheduler.now - START_SECONDS:.6f} {text.replace(self.base, '')}")

    def _note_message(self, from_id: int, to_id: int, payload: bytes) -> None:
        self.note(f"{from_id}>{to_id} {len(payload)} bytes, {crc32(payload):08x}")

    def _note_packet(self, connection: int, side: int, data: bytes) -> None:
        self.note(f"connection {connection} {'<' if side else '>'} {len(data)} bytes, {crc32(data):08x}")

    def _failed(self, text: str) -> None:
        self.witness.violation(f"outside the cluster: {text}")

    def add_machine(self, node_id: int, image: Image | None = None) -> Machine:
        machine = self.machines[node_id] = Machine(self, node_id, image)
        machine.joins = tuple(i for i in sorted(self.machines) if i != node_id)
        return machine

    # ------------------------------------------------------------------ time

    def run(self, awaitable: Awaitable[T], seconds_max: float) -> T:
        """Run the world until the awaitable is done; raises TimeoutError after `seconds_max` of simulated time."""

        async def body() -> T:
            return await awaitable

        task: asyncio.Task[T] = self.loop.create_task(body())
        try:
            in_time = self.scheduler.run(self.scheduler.now + seconds_max, task.done)
        finally:
            forget_running_loop()
        if not in_time:
            raise TimeoutError(f"not over after {seconds_max} simulated seconds")
        return task.result()

    async def until(self, condition: Callable[[], bool], every_seconds: float = 0.02) -> None:
        """Return when a condition holds."""
        while True:
            if condition():
                return
            await asyncio.sleep(every_seconds)

    # ------------------------------------------------------------------ asking

    async def ask(
        self, node_id: int, call: Callable[[Process], Awaitable[T]], timeout_seconds: float, *, reads: bool = False
    ) -> T:
        """Have a node serve one call, as over gRPC.

        Raises NotDoneError when it never arrived, UnknownOutcomeError when no answer came, otherwise what the call
        raised. An error that is no RequestError is a violation.
        """
        network, scheduler = self.network, self.scheduler
        machine = self.machines[node_id]
        process = machine.process
        await asyncio.sleep(network.delay(CLIENT_MACHINE, node_id))
        if process is None or not process.alive or machine.process is not process:
            raise NotDoneError(f"node {node_id} does not run")
        answered: asyncio.Future[T] = self.loop.create_future()

        def answer(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                scheduler.after(0.0, lost, "it was cancelled")
                return
            task.exception()  # mark it as seen: nobody may be waiting any more
            scheduler.after(network.delay(node_id, CLIENT_MACHINE), arrive, task)

        def arrive(task: asyncio.Task[T]) -> None:
            error = task.exception()
            if answered.done():
                return
            if error is None:
                answered.set_result(task.result())
            elif isinstance(error, RequestError | WrongAnswerError):
                answered.set_exception(error)
            else:
                self.witness.violation(f"a call of node {node_id} ended with {type(error).__name__}: {error}")
                lost("the call failed")

        def lost(reason: str = "the node died") -> None:
            if not answered.done():
                answered.set_exception(UnknownOutcomeError(f"no answer of node {node_id}: {reason}"))

        async def serve() -> T:
            # As the client port does (`grpc_api/dispatch.py`).
            if not process.proving.findings.serves:
                raise DamagedCopyError
            try:
                return await call(process)
            except DataDamagedError as error:
                process.proving.proof.health.damaged(str(error))
                raise UnknownOutcomeError(str(error)) from error

        process.loop.call_soon(lambda: process.loop.create_task(serve()).add_done_callback(answer))
        process.on_death.append(lost)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await answered
        except TimeoutError:
            raise UnknownOutcomeError(f"node {node_id} did not answer in {timeout_seconds} s") from None
        finally:
            if lost in process.on_death:
                process.on_death.remove(lost)

    # ------------------------------------------------------------------ looking

    def processes(self) -> list[Process]:
        """The processes of all running nodes, by node id."""
        return [m.process for _, m in sorted(self.machines.items()) if m.process is not None]

    def leader(self) -> Process | None:
        """The process that leads the highest term."""
        leading = [p for p in self.processes() if p.consensus.replica.engine.role() == LEADER]
        return max(leading, key=lambda p: p.consensus.replica.engine.term(), default=None)

    def voters(self) -> list[int]:
        """The voters of the newest membership that any running node has applied."""
        newest: tuple[int, list[int]] = (-1, [])
        for process in self.processes():
            state = process.data.machine
            index = state.membership_log_id.index
            if index > newest[0]:
                newest = (index, sorted(state.membership.voters))
        return newest[1]


@contextmanager
def opened(
    seed: str,
    tuning: Tuning,
    wire: Wire | None = None,
    *,
    keep_trace: bool = False,
    make: type[SimulatedCluster] | None = None,
) -> Iterator[SimulatedCluster]:
    """A world with its directory on a memory file system; everything is gone afterwards."""
    shared = "/dev/shm"
    base = tempfile.mkdtemp(prefix="metasrv-sim-", dir=shared if os.path.isdir(shared) else None)
    cluster = (make or SimulatedCluster)(seed, base, tuning, wire or Wire(), keep_trace=keep_trace)
    try:
        with cluster.system.installed():
            try:
                yield cluster
            finally:
                for machine in cluster.machines.values():
                    machine.abandon()
                cluster.loop.kill()
    finally:
        shutil.rmtree(base, ignore_errors=True)
