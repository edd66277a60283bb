"""Who may call: the handshake that gives out tokens, and the check of the tokens that calls carry.

docs/contract/grpc.md section b has the rules. The signing key is replicated; the first handshake of a cluster proposes
one, later ones only read it, so that a handshake needs no leader. Users beyond root are replicated, too (`users.py`).
Runs on the event loop; the check of a known token costs a dictionary look-up.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError

from metasrv.grpc_api.calls import Call, Stream, cluster_metadata, metadata_value, timeout_ms_of
from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.failures import StatusError
from metasrv.grpc_api.guessing import Attempt, Guesses
from metasrv.grpc_api.http2.headers import Metadata
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.passwords import PasswordChecker
from metasrv.grpc_api.tokens import Claims, TokenError, TokenSigner
from metasrv.grpc_api.users import Users
from metasrv.model.commands import TOKEN_KEY_NAME, SecretReply, SetClusterSecret
from metasrv.model.errors import NoLeaderError
from metasrv.model.limits import TOKEN_KEY_SIZE_BYTES, TOKEN_LIFETIME_SECONDS_MAX, VERIFIED_TOKENS_MAX
from metasrv.model.users import ROOT, User
from metasrv.process.tls import common_name
from metasrv.protocol.methods import NODE_METADATA_KEY, TOKEN_METADATA_KEY
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.versions import ProtocolVersion

NOBODYS_PASSWORD = "$scrypt$ln=14,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 43
"""Compared for a user that does not exist, so that the answer takes as long as for one that does."""


class Recognized(NamedTuple):
    """Who shows a token that is good."""

    user: User | None
    """None for root."""
    expires_at: int
    """Seconds since the epoch."""


class Authenticator:
    """Gives out and checks tokens for one node."""

    def __init__(
        self,
        context: GrpcContext,
        password: str | None,
        min_client_version: ProtocolVersion,
        server_version: ProtocolVersion,
    ) -> None:
        self._context = context
        self._machine = context.machine
        self._password = password
        self._min_client_version = min_client_version
        self._server_version = server_version
        self._lifetime_seconds = context.config.grpc_token_lifetime_seconds
        self._users = Users(context.machine)
        self._signer: TokenSigner | None = None
        self._seen_secrets: Mapping[str, bytes] | None = None
        """The replicated secrets that the signer was made of."""
        self._recognized: dict[bytes, Recognized] = {}
        """Good tokens that calls have shown, as long as no secret changes."""
        self._recognized_in: Mapping[str, bytes] | None = None
        """The replicated secrets for which that holds."""
        self._ended: set[Claims] = set()
        """Tokens that are signed and no longer good, so that who shows them again costs no question to the leader."""
        self._ended_in: Mapping[str, bytes] | None = None
        """The replicated secrets for which that holds."""
        self._passwords = PasswordChecker()
        self._guesses = Guesses(context.clock.monotonic)

    def set_password(self, password: str | None) -> None:
        """Ask for this one from now on. Another one than before ends all earlier tokens: their key depends on it."""
        if password != self._password:
            self._recognized.clear()
            self._password, self._signer, self._seen_secrets = password, None, None

    # ------------------------------------------------------------------------- tokens

    @property
    def has_users(self) -> bool:
        """Whether there are users beyond root: then every method needs a token."""
        return self._users.any

    async def check(self, call: Call) -> User | None:
        """The user whose valid token the call carries, None for root; raises StatusError UNAUTHENTICATED otherwise."""
        token = metadata_value(call, TOKEN_METADATA_KEY)
        if not token:
            raise StatusError(StatusCode.UNAUTHENTICATED, "Error auth-token-bin is empty")
        if type(token) is not bytes:
            token = str(token).encode()
        if self._machine.secrets is not self._seen_secrets:
            self._take_key()
        if self._signer is None:
            # Another node may have signed it: wait until this one has applied what the cluster has committed.
            await self._context.consensus.read_barrier(timeout_ms_of(call))
            self._take_key()
        try:
            if self._signer is None:
                raise TokenError("this cluster has not signed any token")
            claims = self._signer.verify(token, self._context.clock.wall_ms() // 1000)
            if claims.generation is not None:
                return await self._user_of(claims, call)
            if self._password is None and self.has_users:
                raise TokenError(f"no password was asked for it: {self._no_root()}")
        except TokenError as error:
            raise _unauthenticated(f"token verify failed: {error}") from error
        return None

    def recognize(self, token: str | bytes | None) -> Recognized | None:
        """The caller, if `check` would let this token pass without a question to another node; None otherwise."""
        secrets = self._machine.secrets
        if secrets is not self._recognized_in:
            self._recognized_in = secrets
            self._recognized.clear()
        if type(token) is not bytes:
            return None
        found = self._recognized.get(token)
        if found is None:
            found = self._look_up(token)
        if found is None or found.expires_at < self._context.clock.wall_ms() // 1000:
            return None
        return found

    def _look_up(self, token: bytes) -> Recognized | None:
        if self._machine.secrets is not self._seen_secrets:
            self._take_key()
        if self._signer is None:
            return None
        try:
            claims = self._signer.verify(token, self._context.clock.wall_ms() // 1000)
            user = None if claims.generation is None else self._current(claims.username, claims.generation)
        except TokenError:
            return None
        if user is None and self._password is None and self.has_users:
            return None
        if len(self._recognized) >= VERIFIED_TOKENS_MAX:
            self._recognized.clear()
        found = self._recognized[token] = Recognized(user, claims.expires_at)
        return found

    def knows(self, call: Call) -> bool:
        """Whether the call carries a valid token, where none is needed."""
        token = metadata_value(call, TOKEN_METADATA_KEY)
        if type(token) is not bytes:
            return False
        if self._machine.secrets is not self._seen_secrets:
            self._take_key()
        if self._signer is None:
            return False
        try:
            claims = self._signer.verify(token, self._context.clock.wall_ms() // 1000)
            if claims.generation is not None:
                self._current(claims.username, claims.generation)
        except TokenError:
            return False
        return True

    async def _user_of(self, claims: Claims, call: Call) -> User:
        try:
            return self._current(claims.username, claims.generation)
        except TokenError:
            if self._is_ended(claims):
                raise
        # A node that lags may not know of the user yet.
        await self._context.consensus.read_barrier(timeout_ms_of(call))
        try:
            return self._current(claims.username, claims.generation)
        except TokenError:
            self._ended.add(claims)
            raise

    def _is_ended(self, claims: Claims) -> bool:
        """Whether the leader was asked about this token, and no user has changed since."""
        if self._machine.secrets is not self._ended_in or len(self._ended) >= VERIFIED_TOKENS_MAX:
            self._ended_in = self._machine.secrets
            self._ended.clear()
        return claims in self._ended

    def _current(self, name: str, generation: str | None) -> User:
        user = self._users.get(name)
        if user is None:
            raise TokenError(f"there is no user {name}")
        if user.generation != generation:
            raise TokenError(f"the tokens of user {name} were ended; log in again")
        return user

    def current(self, user: User) -> User:
        """The same user as it is now; raises StatusError UNAUTHENTICATED when its token is no longer good."""
        try:
            return self._current(user.name, user.generation)
        except TokenError as error:
            raise _unauthenticated(f"token verify failed: {error}") from error

    def _take_key(self) -> None:
        """Sign and verify with the key that is replicated now."""
        before, self._seen_secrets = self._seen_secrets, self._machine.secrets
        key = self._seen_secrets.get(TOKEN_KEY_NAME)
        if before is not None and self._signer is not None and key == before.get(TOKEN_KEY_NAME):
            return
        self._signer = None if key is None else TokenSigner(key, self._password)

    # ------------------------------------------------------------------------- handshake

    async def handshake(self, requests: AsyncIterator[pb.HandshakeRequest], stream: Stream) -> None:
        """The Handshake method: one message in, one message out."""
        request = await anext(requests, None)
        if request is None:
            raise StatusError(StatusCode.INTERNAL, "Error request next is None")
        self._check_version(request.protocol_version)
        password = self._password
        user = await self._log_in(request.payload, stream.call)
        signer = await self._signer_or_new(stream.call)
        if user is None and password != self._password:
            raise _unauthenticated("the password was changed during the handshake; log in again")
        now_seconds = self._context.clock.wall_ms() // 1000
        if user is not None:
            token = signer.sign(user.name, now_seconds, self._lifetime_seconds, user.generation)
        else:
            lifetime = TOKEN_LIFETIME_SECONDS_MAX if self._password is None else self._lifetime_seconds
            token = signer.sign(ROOT, now_seconds, lifetime)
        address = self._context.config.grpc_api_advertise_address
        named: Metadata = () if address is None else ((NODE_METADATA_KEY, address),)
        metadata = (*named, *cluster_metadata(self._machine.cluster_id))
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

    async def _log_in(self, payload: bytes, call: Call) -> User | None:
        """The user that the handshake names, None for root. Raises StatusError, OverloadedError.

        Who shows a certificate with the user's name needs no password; who names another user does.
        """
        try:
            given = pb.BasicAuth.FromString(payload)
        except DecodeError as error:
            raise StatusError(StatusCode.INTERNAL, f"the payload of the handshake is not a BasicAuth: {error}") from error
        certified = common_name(call.peer_certificate()) == given.username
        if given.username == ROOT:
            if certified and self._password is not None:
                return None
            if self._password is not None:
                await self._compare(given, self._password, call)
            elif self.has_users:
                raise _unauthenticated(self._no_root())
            return None
        user = self._users.get(given.username)
        if user is None and self.has_users:
            self._guesses.check(call.peer(), given.username)  # nobody has to ask the leader for a client that must wait
            # It may have been added just now, through another node.
            await self._context.consensus.read_barrier(timeout_ms_of(call))
            user = self._users.get(given.username)
        elif user is None:
            raise _unauthenticated(f"Unknown user: {given.username}")
        if certified and user is not None:
            return user
        expected = None if user is None else user.stored_password
        # Whether the user does not exist or has no password: the answer is the same, and takes as long.
        await self._compare(given, NOBODYS_PASSWORD if expected is None else expected, call)
        if user is None or expected is None:
            raise _unauthenticated(f"Wrong password of user: {given.username}")
        return user

    async def _compare(self, given: pb.BasicAuth, expected: str, call: Call) -> None:
        """Return if the password is the expected one; raises StatusError UNAUTHENTICATED, OverloadedError."""
        attempt = Attempt(self._guesses, call.peer(), given.username)
        if not await self._passwords.is_right(given.password, expected, attempt):
            raise _unauthenticated(f"Wrong password of user: {given.username}")

    def _no_root(self) -> str:
        return "this cluster has users, and this node has no grpc_password: root cannot log in here"

    async def _signer_or_new(self, call: Call) -> TokenSigner:
        if self._machine.secrets is not self._seen_secrets:
            self._take_key()
        if self._signer is not None:
            return self._signer
        command = SetClusterSecret(TOKEN_KEY_NAME, secrets.token_bytes(TOKEN_KEY_SIZE_BYTES))
        reply = await self._context.consensus.propose(command, timeout_ms_of(call))
        if not isinstance(reply, SecretReply):
            raise NoLeaderError("the cluster has no key for tokens yet")
        return TokenSigner(reply.secret, self._password)


def _unauthenticated(text: str) -> StatusError:
    return StatusError(StatusCode.UNAUTHENTICATED, text)
