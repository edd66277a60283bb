"""The node's end of the link to a gateway on another machine.

Does for it what `node_end.py` does for a gateway of its own, apart from what needs one machine: no file is shared, no
configuration crosses, and counters and log lines stay with the gateway. It says first which version of the messages it
speaks. What it can make the node hold is bounded. Runs on the node's event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from metasrv.gateway.frame_link import FrameLink
from metasrv.gateway.link import Link
from metasrv.gateway.messages import FROM_REMOTE, REMOTE_VERSION, Confirm, FromGateway, FromNode, registry_out
from metasrv.gateway.node_end import Handle, NodeEnd
from metasrv.gateway.node_reads import NodeReads
from metasrv.gateway.statuses import status_out
from metasrv.model.errors import DataDamagedError, OverloadedError
from metasrv.model.limits import (
    PEER_FRAME_SIZE_BYTES_MAX,
    REMOTE_FORWARDED_SIZE_BYTES_MAX,
    REMOTE_REQUESTS_MAX,
    REMOTE_TIMEOUT_MS_MAX,
)
from metasrv.model.wire import byte_string, integer, string, unsigned
from metasrv.node.context import NodeContext
from metasrv.raft.peers.gateway_streams import GatewayConnection

NAME_CHARACTERS_MAX = 128


class RemoteEnd(NodeEnd):
    """See the module. `greeted` is called once the gateway has said a version that is known."""

    link: FrameLink

    def __init__(
        self,
        number: int,
        context: NodeContext,
        connection: GatewayConnection,
        pool: ThreadPoolExecutor,
        views_left: Callable[[], int],
        greeted: Callable[[RemoteEnd], None],
        lost: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._greeted = greeted
        self.name = ""
        """What the gateway calls itself; empty before it has said a word."""
        self.took_at = 0.0
        """When it last took something of much that waits: nothing is read from it meanwhile."""
        self._unsent_size_bytes = 0
        super().__init__(number, context, lambda: None, lost)
        self.reads = NodeReads(context, self.link, pool, views_left, self.tell_changes, self._failed, self._start_request)
        reads = self.reads
        kept = {kind: handle for kind, handle in self._handles.items() if kind in FROM_REMOTE}
        self._handles: dict[int, Handle] = {FromGateway.GREET: self._on_greet}
        self._once_greeted: dict[int, Handle] = {
            **kept,
            FromGateway.READ: self._on_read,
            FromGateway.LIST: self._on_list,
            FromGateway.VIEW: lambda number, confirm, timeout_ms, few: reads.open(
                unsigned(number), _confirm(confirm), _timeout(timeout_ms), bool(few)
            ),
            FromGateway.VIEW_HEAD: lambda number, view: reads.head(unsigned(number), unsigned(view)),
            FromGateway.VIEW_PAGE: lambda number, view, start, end: reads.page(
                unsigned(number), unsigned(view), string(start), None if end is None else string(end)
            ),
            FromGateway.VIEW_EXPIRY: lambda number, view: reads.expiry(unsigned(number), unsigned(view)),
            FromGateway.VIEW_KEYS: lambda number, view, keys: reads.keys(
                unsigned(number), unsigned(view), tuple(map(string, keys))
            ),
            FromGateway.VIEW_END: lambda number: reads.end(unsigned(number)),
        }

    def note_taken(self, now: float) -> None:
        """Look whether it takes what waits for it."""
        unsent_size_bytes = self.link.unsent_size_bytes
        if unsent_size_bytes < self._unsent_size_bytes:
            self.took_at = now
        self._unsent_size_bytes = unsent_size_bytes

    def refuse(self, sentence: str) -> None:
        """Say why this gateway is not served, and end the link."""
        self.link.send((FromNode.REFUSED, sentence))
        self.link.finish(sentence)

    # ------------------------------------------------------------------------- what differs from a gateway of the node

    def _make_link(self) -> Link:
        return FrameLink(self._connection, self._received, self._ended, PEER_FRAME_SIZE_BYTES_MAX)

    def _ended(self, reason: str) -> None:
        self.reads.close()
        super()._ended(reason)

    def _on_greet(self, version: Any, name: Any, release: Any) -> None:
        self.name = _shown(string(name)) or "without a name"
        if integer(version) != REMOTE_VERSION:
            self.refuse(
                f"this gateway, of release {_shown(string(release))}, speaks version {version} of the messages between "
                f"nodes and gateways, and node {self._context.config.raft_config.id} of release "
                f"{self._context.binary_version} speaks {REMOTE_VERSION}; use one release for both, see docs/scaling.md"
            )
            return
        self._handles = self._once_greeted
        status = self._context.consensus.status()
        self._told_registry, self._told_pulse = self._registry(), self._pulse()
        self.link.send(
            (
                FromNode.GREETED,
                self._context.binary_version,
                status_out(status),
                registry_out(self._told_registry),
                tuple(self._told_pulse),
            )
        )
        self._greeted(self)

    def _answer_current(self, number: int) -> None:
        """After a barrier: there is no file that would have to be written."""
        self.tell_changes()
        self.link.send((FromNode.CURRENT, number, 0))

    def _on_propose(self, number: Any, forwards: Any, timeout_ms: Any, command: Any, *trace: Any) -> None:
        _timeout(timeout_ms)
        waiting, size_bytes = self._writes.asked
        if waiting >= REMOTE_REQUESTS_MAX or (
            waiting and size_bytes + len(byte_string(command)) > REMOTE_FORWARDED_SIZE_BYTES_MAX
        ):
            refusal = OverloadedError(
                f"{waiting} writes of {size_bytes} bytes of this gateway are being forwarded already"
            )
            self._failed(unsigned(number), refusal)
            return
        super()._on_propose(number, forwards, timeout_ms, command, *trace)

    def _on_barrier(self, number: Any, forwards: Any, timeout_ms: Any) -> None:
        barrier = self._barrier(unsigned(number), bool(forwards), _timeout(timeout_ms))
        self._start_request(unsigned(number), barrier)

    def _on_read(self, number: Any, confirm: Any, timeout_ms: Any, reads: Any) -> None:
        asked = [tuple(map(string, keys)) for keys in reads]
        self.reads.read(unsigned(number), _confirm(confirm), _timeout(timeout_ms), asked)

    def _on_list(self, number: Any, confirm: Any, timeout_ms: Any, prefix: Any, limit: Any) -> None:
        most = None if limit is None else unsigned(limit)
        self.reads.list_prefix(unsigned(number), _confirm(confirm), _timeout(timeout_ms), string(prefix), most)

    def _start_request(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= REMOTE_REQUESTS_MAX:
            work.close()
            self._failed(
                number, OverloadedError(f"{REMOTE_REQUESTS_MAX} requests of this gateway are under way, the limit")
            )
            return
        task = self._start(self._guarded(number, work))
        task.add_done_callback(lambda _done: work.close())  # it may have been cancelled before it began

    async def _guarded(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            if isinstance(error, DataDamagedError):
                self._context.damage_found(str(error))
            self._failed(number, error)


def _confirm(value: Any) -> Confirm:
    return Confirm(unsigned(value))


def _timeout(value: Any) -> int:
    timeout_ms = unsigned(value)
    if timeout_ms > REMOTE_TIMEOUT_MS_MAX:
        raise ValueError("a longer timeout than a gateway may ask for")
    return timeout_ms


def _shown(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:NAME_CHARACTERS_MAX])
