"""Whether a call may take the short way of `quick_reads.py` and `quick_writes.py`.

It may where nothing about it is unusual: the node serves, no spans are made, and the caller's token is good without a
question to another node. Every other call goes the dispatcher's way, which says what is wrong with it. Runs on the event
loop, for nearly every call.
"""

from __future__ import annotations

from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.handshake import Authenticator, Recognized
from metasrv.grpc_api.http2.call import ServerCall
from metasrv.protocol.methods import READ_METADATA_KEY, TOKEN_METADATA_KEY


class QuickAdmission:
    """One node's."""

    def __init__(self, context: GrpcContext, authenticator: Authenticator) -> None:
        self._context = context
        self._watch = context.watch
        self._authenticator = authenticator
        self.stopping = False
        """Whether this node takes no more calls."""

    def recognize(self, call: ServerCall) -> Recognized | None:
        """Who calls; None for a call that has to go the other way."""
        context = self._context
        if self.stopping or context.draining or not context.copies.serves or self._watch.tracer is not None:
            return None
        token: str | bytes | None = None
        for name, value in call.invocation_metadata():
            if name == TOKEN_METADATA_KEY:
                token = token or value
            elif name == READ_METADATA_KEY:
                return None
        return self._authenticator.recognize(token)
