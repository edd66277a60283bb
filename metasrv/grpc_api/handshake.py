"""Who may call: the handshake that gives out tokens, and the check of the tokens that calls carry.

docs/contract/grpc.md section b has the rules. The signing key is replicated; the first handshake of a cluster proposes
one, later ones only read it, so that a handshake needs no leader. Runs on the event loop; the check of a known token
costs a dictionary look-up.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError

from metasrv.grpc_api.calls import Call, Stream, cluster_metadata, metadata_value, timeout_ms_of
from metasrv.grpc_api.failures import StatusError
from metasrv.grpc_api.http2.headers import Metadata
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.tokens import SECRET_NAME, SECRET_SIZE_BYTES, TokenError, TokenSigner
from metasrv.model.commands import SecretReply, SetClusterSecret
from metasrv.model.errors import NoLeaderError
from metasrv.node.context import NodeContext
from metasrv.protocol.methods import NODE_METADATA_KEY, TOKEN_METADATA_KEY
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.versions import ProtocolVersion

USERNAME = "root"


class Authenticator:
    """Gives out and checks tokens for one node."""

    def __init__(
        self,
        context: NodeContext,
        password: str | None,
        min_client_version: ProtocolVersion,
        server_version: ProtocolVersion,
    ) -> None:
        self._context = context
        self._password = password
        self._min_client_version = min_client_version
        self._server_version = server_version
        self._known_signer: TokenSigner | None = None

    def set_password(self, password: str | None) -> None:
        """Ask for this one from now on. Another one than before ends all earlier tokens."""
        if password != self._password:
            self._password, self._known_signer = password, None

    # ------------------------------------------------------------------------- tokens

    async def check(self, call: Call) -> None:
        """Return if the call carries a valid token; raise StatusError UNAUTHENTICATED otherwise."""
        token = metadata_value(call, TOKEN_METADATA_KEY)
        if not token:
            raise StatusError(StatusCode.UNAUTHENTICATED, "Error auth-token-bin is empty")
        if type(token) is not bytes:
            token = str(token).encode()
        signer = self._signer()
        if signer is None:
            # Another node may have signed it: wait until this one has applied what the cluster has committed.
            await self._context.consensus.read_barrier(timeout_ms_of(call))
            signer = self._signer()
        try:
            if signer is None:
                raise TokenError("this cluster has not signed any token")
            signer.verify(token, self._context.clock.wall_ms() // 1000)
        except TokenError as error:
            raise StatusError(StatusCode.UNAUTHENTICATED, f"token verify failed: {error}") from error

    def _signer(self) -> TokenSigner | None:
        if self._known_signer is None:
            secret = self._context.machine.secret(SECRET_NAME)
            if secret is not None:
                self._known_signer = TokenSigner(secret, self._password)
        return self._known_signer

    # ------------------------------------------------------------------------- handshake

    async def handshake(self, requests: AsyncIterator[pb.HandshakeRequest], stream: Stream) -> None:
        """The Handshake method: one message in, one message out."""
        request = await anext(requests, None)
        if request is None:
            raise StatusError(StatusCode.INTERNAL, "Error request next is None")
        self._check_version(request.protocol_version)
        self._check_user(request.payload)
        signer = await self._signer_or_new(stream.call)
        token = signer.sign(USERNAME, self._context.clock.wall_ms() // 1000)
        address = self._context.config.grpc_api_advertise_address
        named: Metadata = () if address is None else ((NODE_METADATA_KEY, address),)
        metadata = (*named, *cluster_metadata(self._context.machine.cluster_id))
        if metadata:
            await stream.start(metadata)
        reply = pb.HandshakeResponse(protocol_version=self._server_version.digit, payload=token)
        await stream.send(reply.SerializeToString())

    def _check_version(self, digit: int) -> None:
        if 0 < digit < self._min_client_version.digit:
            raise StatusError(
                StatusCode.INVALID_ARGUMENT,
                f"meta-client protocol_version({ProtocolVersion.from_digit(digit)})"
                f" < metasrv min-compatible({self._min_client_version})",
            )

    def _check_user(self, payload: bytes) -> None:
        try:
            user = pb.BasicAuth.FromString(payload)
        except DecodeError as error:
            raise StatusError(StatusCode.INTERNAL, f"the payload of the handshake is not a BasicAuth: {error}") from error
        if user.username != USERNAME:
            raise StatusError(StatusCode.UNAUTHENTICATED, f"Unknown user: {user.username}")
        if self._password is None:
            return
        if not hmac.compare_digest(user.password.encode(), self._password.encode()):
            raise StatusError(StatusCode.UNAUTHENTICATED, f"Wrong password of user: {USERNAME}")

    async def _signer_or_new(self, call: Call) -> TokenSigner:
        signer = self._signer()
        if signer is not None:
            return signer
        command = SetClusterSecret(SECRET_NAME, secrets.token_bytes(SECRET_SIZE_BYTES))
        reply = await self._context.consensus.propose(command, timeout_ms_of(call))
        if not isinstance(reply, SecretReply):
            raise NoLeaderError("the cluster has no key for tokens yet")
        self._known_signer = TokenSigner(reply.secret, self._password)
        return self._known_signer
