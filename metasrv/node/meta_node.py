"""The composition root: builds a node, starts it in order, drains it in order, and gives the exit code.

    config → data → raft listener → admin HTTP → gRPC → begin or join → register → serve
           → (signal) → hand over → drain → close

Admin HTTP answers before the node has joined. The listeners are handed in by `cli/server.py`, so that this module knows
neither FastAPI nor gRPC. Runs on the node's one event loop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from metasrv import __version__
from metasrv.config.groups import group_number
from metasrv.config.model import Config
from metasrv.model.errors import FatalError, InvariantError, MetasrvError, RemovedError
from metasrv.model.events import EventKind, Severity
from metasrv.model.types import Endpoint, Node
from metasrv.node.beginning import begin_or_find
from metasrv.node.context import NodeContext, Service
from metasrv.node.copy_proof import CopyProof
from metasrv.node.files_in_place import FilesInPlace
from metasrv.node.joining import join_cluster, register_node
from metasrv.node.loop_stalls import LoopStalls
from metasrv.node.members import Members
from metasrv.node.opening import OpenedData, open_data, refuse_voting_learner, removed_sentence
from metasrv.node.own_summary import OwnSummary
from metasrv.node.quota_keeper import QuotaKeeper
from metasrv.node.recording import RecordingMetrics
from metasrv.node.reloads import ConfigSource, watch_configuration, watch_raft
from metasrv.process.build_info import binary_version
from metasrv.process.clock import Clock, SystemClock
from metasrv.process.log_levels import Log
from metasrv.process.operating_system import show_thread_name
from metasrv.process.temporary_directories import sweep_temporary_directories
from metasrv.process.unused_memory import give_back_unused_memory
from metasrv.raft.consensus import RaftConsensus
from metasrv.raft.log.storage_thread import StorageThread
from metasrv.raft.peers.transport import PeerSecurity
from metasrv.raft.replica_parts import RaftSettings, ReplicaResources
from metasrv.tracing.choosing import tracer_of

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.1
HAND_OVER_TIMEOUT_MS = 1_500
SERVICE_GRACE_MS = 1_000

ServiceFactory = Callable[[NodeContext], Service]
Work = Callable[[NodeContext], asyncio.Task[None] | None]
"""Begins what goes on beside the services until the node drains, if the configuration asks for it."""


class MetaNode:
    """One node of the cluster, from start to exit."""

    def __init__(
        self,
        config: Config,
        commit: str,
        factories: Sequence[ServiceFactory],
        clock: Clock | None = None,
        *,
        begin_cluster: bool = False,
        source: ConfigSource | None = None,
        works: Sequence[Work] = (),
        log: Log | None = None,
    ) -> None:
        """`begin_cluster`: begin a cluster if no address in `join` knows one, although some do not answer.

        `source` reads the configuration again when its file has changed; without it only certificates are reloaded.
        `works` begin what goes on beside the services. `log` is this process's log, where it is this node's.
        """
        self._log = log
        self._source = source
        self._context: NodeContext | None = None
        self._begin_cluster = begin_cluster
        self._config = config
        self._commit = commit
        self._factories = factories
        self._works = works
        self._clock = clock or SystemClock()
        self._stop = asyncio.Event()
        self._failure: FatalError | None = None
        self._files: FilesInPlace | None = None
        self._services: list[Service] = []
        self.listening: Callable[[NodeContext], None] = lambda _context: None
        """Called once every listener is open; the node has not joined yet."""
        self.started: Callable[[NodeContext], None] = lambda _context: None
        """Called once the node is registered and serves."""

    def request_stop(self) -> None:
        """Begin an orderly stop (SIGTERM, SIGINT)."""
        self._stop.set()

    def reload(self) -> None:
        """Load certificates, secrets and what else can change anew now (SIGHUP)."""
        if self._context is not None:
            self._context.reloader.ask()

    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._stop.is_set()

    async def run(self) -> int:
        """Serve until asked to stop; returns the process's exit code."""
        raft = self._config.raft_config
        helpers = ThreadPoolExecutor(thread_name_prefix="helper", initializer=show_thread_name)
        asyncio.get_running_loop().set_default_executor(helpers)
        sweep_temporary_directories()
        data = open_data(
            raft.raft_dir,
            raft.id,
            raft.raft_advertise_endpoint,
            raft.single and not raft.join,
            allowed_group=group_number(self._config.file_group),
        )
        try:
            if raft.learner:
                refuse_voting_learner(data, self._begin_cluster)
            consensus, context = self._build(data)
            beat = asyncio.create_task(self._beat(context), name="loop-beat")
            self._files = FilesInPlace(data)
            files = asyncio.create_task(self._files.watch(consensus.fail), name="files-in-place")
            memory = asyncio.create_task(give_back_unused_memory(), name="unused-memory")
            reloads = asyncio.create_task(context.reloader.run(), name="reloads")
            quota = asyncio.create_task(QuotaKeeper(context).run(), name="quota")
            proof = self._start_proof(consensus, context, data)
            proof += [task for work in self._works if (task := work(context)) is not None]
            try:
                await self._serve(consensus, context, data)
            finally:
                for task in proof:
                    task.cancel()
                await self._drain(consensus, context)
                beat.cancel()
                files.cancel()
                memory.cancel()
                reloads.cancel()
                quota.cancel()
        finally:
            data.close()
        if self._failure is not None:
            raise self._failure
        return 0

    def _build(self, data: OpenedData) -> tuple[RaftConsensus, NodeContext]:
        config, raft = self._config, self._config.raft_config
        metrics = RecordingMetrics(__version__, self._commit, self._config.raft_config.cluster_name)
        settings = RaftSettings(
            endpoint=raft.raft_advertise_endpoint,
            heartbeat_ms=raft.heartbeat_interval,
            election_timeout_min_ms=raft.election_timeout_min_ms,
            election_timeout_max_ms=raft.election_timeout_max_ms,
            snapshot_logs_since_last=raft.snapshot_logs_since_last,
            max_applied_log_to_keep=raft.max_applied_log_to_keep,
            snapshot_chunk_size_bytes=raft.snapshot_chunk_size,
            install_snapshot_timeout_ms=raft.install_snapshot_timeout,
            clock_offset_max_ms=raft.clock_offset_max_ms,
            hints=tuple(
                endpoint for text in raft.join if (endpoint := Endpoint.parse(text)) != raft.raft_advertise_endpoint
            ),
        )
        resources = ReplicaResources(
            settings=settings,
            directory=data.directory,
            machine=data.machine,
            store=data.store,
            writer=data.writer,
            log_thread=StorageThread("raft-log", after_each=data.writer.upkeep, when_idle=data.writer.give_back),
            snapshot_thread=StorageThread("snapshot", handed_over=metrics.storage_result),
            state_thread=StorageThread("state", handed_over=metrics.storage_result),
            security=PeerSecurity.from_config(raft),
            observer=metrics,
            clock=self._clock,
        )
        resources.events.node_id = raft.id
        metrics.events = resources.events
        consensus = RaftConsensus(resources, self._fail)
        consensus.watch.tracer = tracer_of(
            config.tracing, node_id=raft.id, version=__version__, cluster_name=raft.cluster_name
        )
        context = NodeContext(
            config=config,
            consensus=consensus,
            machine=data.machine,
            metrics=metrics,
            clock=self._clock,
            started_at_ms=self._clock.wall_ms(),
            binary_version=binary_version(self._commit),
            events=resources.events,
            ask_summary=consensus.forwarding.summary,
            watch=consensus.watch,
            log=self._log,
        )
        own = OwnSummary(context)
        consensus.summary = own.answer
        context.members = Members(consensus, consensus.forwarding, self._clock, own.own)
        context.events.tell(EventKind.START, Severity.INFO, f"node {raft.id} starts, version {context.binary_version}")
        if self._source is not None:
            watch_configuration(context, self._source)
        watch_raft(context, consensus.secure)
        self._context = context
        consensus.belonging.addresses = [Endpoint.parse(address) for address in raft.join]
        consensus.belonging.on_removed = lambda reason: self._removed(context, data, reason)
        return consensus, context

    def _start_proof(self, consensus: RaftConsensus, context: NodeContext, data: OpenedData) -> list[asyncio.Task[None]]:
        """Begin to look for damage of this node's copy of the state, and to compare it with the others'."""
        proof = CopyProof(consensus, data.directory, context.copies, context.metrics, self._clock)
        context.damage_found = proof.health.damaged
        return [asyncio.create_task(self._guarded(work), name=name) for name, work in proof.works().items()]

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """A disk that refuses ends the node; any other error is this code's own, and must not pass unseen."""
        try:
            await work
        except FatalError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("looking after the copies of the state failed")
            self._fail(InvariantError(f"looking after the copies of the state failed: {type(error).__name__}: {error}"))

    async def _serve(self, consensus: RaftConsensus, context: NodeContext, data: OpenedData) -> None:
        raft = self._config.raft_config
        context.listeners["raft"] = await consensus.start(raft.raft_listen_host, raft.raft_api_port)
        consensus.load_snapshots()
        for factory in self._factories:
            service = factory(context)
            context.listeners[service.name] = await service.start()
            self._services.append(service)
        self.listening(context)
        joining = asyncio.create_task(self._join(consensus, context, data), name="join")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({joining, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if joining.done():
                await joining
                context.joined, context.waiting_for = True, ""
                gc.collect()
                gc.freeze()  # later collections skip what lives as long as the process
                self.started(context)
                await stopping
        finally:
            for task in (joining, stopping):
                task.cancel()
            await asyncio.gather(joining, stopping, return_exceptions=True)

    async def _join(self, consensus: RaftConsensus, context: NodeContext, data: OpenedData) -> None:
        config, raft = self._config, self._config.raft_config
        node = Node(raft.id, raft.raft_advertise_endpoint, config.grpc_api_address, config.grpc_api_advertise_address)
        if not await self._begin(consensus, context, node):
            await join_cluster(
                consensus=consensus,
                machine=data.machine,
                node=node,
                incarnation=data.directory.identity.incarnation,
                learner=raft.learner,
                addresses=raft.join,
                clock=self._clock,
                timeout_ms=raft.wait_leader_timeout,
                waiting=context.set_waiting_for,
            )
        context.set_waiting_for("a leader to register with")
        await register_node(consensus, node, self._clock, raft.wait_leader_timeout)

    async def _begin(self, consensus: RaftConsensus, context: NodeContext, node: Node) -> bool:
        """Begin a cluster, if this node is to and nobody knows one; whether it did."""
        raft = self._config.raft_config
        if not consensus.beginning.possible():
            if self._begin_cluster:
                logger.warning(
                    "--begin-cluster has no effect: this node's data belongs to cluster %s", consensus.cluster_id()
                )
            return False
        if not raft.single and not self._begin_cluster:
            return False
        return await begin_or_find(
            consensus=consensus,
            node=node,
            addresses=raft.join,
            forced=self._begin_cluster,
            clock=self._clock,
            waiting=context.set_waiting_for,
        )

    async def _drain(self, consensus: RaftConsensus, context: NodeContext) -> None:
        """Hand leadership over, let requests in flight finish, stop."""
        context.draining = True
        context.events.tell(EventKind.STOP, Severity.INFO, f"node {self._config.raft_config.id} stops")
        if self._failure is None and context.joined:
            try:
                await consensus.hand_over(HAND_OVER_TIMEOUT_MS)
            except MetasrvError as error:
                logger.warning("leadership was not handed over: %s", error)
        await asyncio.gather(*(service.stop(SERVICE_GRACE_MS) for service in self._services))
        context.log_levels.close()
        await consensus.close()
        await context.watch.close()

    async def _beat(self, context: NodeContext) -> None:
        """Measure how late the event loop is; liveness looks at the last beat."""
        stalls = LoopStalls(self._config.raft_config.id, context.metrics.work.slow_step_seconds)
        while True:
            due = self._clock.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            now = self._clock.monotonic()
            context.loop_lag_ms = max(0.0, (now - due) * 1000)
            context.metrics.loop_lag(context.loop_lag_ms / 1000)
            context.loop_lag_peak_ms = max(context.loop_lag_peak_ms, context.loop_lag_ms)
            context.loop_beat_at = now
            stalls.beat(now, context.loop_lag_ms / 1000)

    def _removed(self, context: NodeContext, data: OpenedData, reason: str) -> None:
        """A node that serves goes on and says what it is; one that has just been started ends."""
        text = f"node {self._config.raft_config.id} is no longer a member: {reason}"
        context.events.tell(EventKind.LEAVE, Severity.CRITICAL, text)
        if not context.joined:
            self._fail(RemovedError(removed_sentence(data.directory.root, reason)))

    def _fail(self, error: FatalError) -> None:
        # What goes wrong first may be a write to a file that is no longer there; the cause is the better sentence.
        self._failure = (self._files.problem() if self._files is not None else None) or error
        self._stop.set()
