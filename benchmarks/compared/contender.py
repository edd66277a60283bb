"""What the benchmark needs of a cluster, whoever made it: three nodes or more, calls as bytes, and ways to harm a node.

Numbers of nodes are the contender's own. A call is a path and a message; who sends it is not its business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from benchmarks.compared.raw_load import Request
from benchmarks.compared.wire import grpc_message, header_block
from benchmarks.load import Target
from metasrv.model.types import Endpoint


class Call(NamedTuple):
    """A method of gRPC and the one message that is sent to it."""

    path: str
    message: bytes


class Contender(Protocol):
    """A running cluster."""

    @property
    def name(self) -> str: ...

    @property
    def nodes(self) -> Sequence[int]: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Sent with every call."""
        ...

    async def leader(self) -> int:
        """The node that leads, once all that run agree."""
        ...

    def endpoint(self, node: int) -> Endpoint:
        """Where its clients connect."""
        ...

    def pid(self, node: int) -> int: ...

    async def changes(self) -> int:
        """A counter of the store that grows with each change: proof that requests were writes."""
        ...

    async def term(self) -> int:
        """The term in which the present leader leads."""
        ...

    def changes_of_put_many(self, puts: int) -> int:
        """By how much that counter grows with one transaction of so many puts."""
        ...

    def put(self, key: str, value: bytes) -> Call: ...

    def put_many(self, keys: Sequence[str], value: bytes) -> Call:
        """One transaction."""
        ...

    def get(self, key: str) -> Call:
        """A linearizable read."""
        ...

    def list(self, prefix: str) -> Call:
        """All records below, linearizable."""
        ...

    def watch(self, key: str) -> Call: ...

    @property
    def watch_greetings(self) -> int:
        """Messages that a watch brings before there is any change."""
        ...

    @property
    def watch_is_open(self) -> bool:
        """Whether a client that has said all its requests would end the watch."""
        ...

    async def kill(self, node: int) -> None:
        """SIGKILL."""
        ...

    async def silence(self, node: int) -> None:
        """Its processes stop and say nothing more, and its connections stay open, as behind a cut cable."""
        ...

    async def unsilence(self, node: int) -> None: ...

    async def start(self, node: int) -> None:
        """Returns at once."""
        ...

    async def wait_until_serving(self, node: int) -> None:
        """Until it answers a linearizable read."""
        ...


def target(contender: Contender, node: int, call: Call) -> Target:
    """For h2load."""
    return Target(contender.endpoint(node), call.path, call.message, contender.headers)


def request(contender: Contender, node: int, call: Call) -> Request:
    """For the generator of this package."""
    block = header_block(contender.endpoint(node), call.path, contender.headers)
    return Request(block, grpc_message(call.message))
