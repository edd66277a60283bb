"""Users beyond root: who there is, and how they are changed.

    GET /v1/users/list    every user with its rights; no password, stored or not
    POST /v1/users/set    add, remove, set-password, grant, revoke, end-tokens; rotate-key for all tokens

What to change stands in the body, because the audit line shows the query. Passwords arrive hashed (`metactl` does that),
since this API may be plain HTTP. Both routes need the admin token, and refuse on a node that has none: whoever reaches
the port could make a user otherwise. Any node takes a change; it is forwarded to the leader. Two changes at once never
mix: the state takes a change only if the user is as it was read. Runs on the event loop.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from fastapi import APIRouter, Request

from metasrv.admin.actions import USERS_LIST_PATH, USERS_SET_PATH
from metasrv.admin.audit_lines import audit
from metasrv.admin.problem import problem
from metasrv.admin.responses import PROBLEM_MEDIA_TYPE, JsonResponse, codes
from metasrv.admin.schemas import UserChangeSchema, UserSchema, UsersSchema
from metasrv.model.commands import TOKEN_KEY_NAME, USERS_FEATURE, ReplaceSecret, ReplaceSecretReply
from metasrv.model.errors import CodecError, InvalidRequestError, MetasrvError, NotDoneError, RequestError
from metasrv.model.limits import TOKEN_KEY_SIZE_BYTES, USERS_MAX
from metasrv.model.users import Grant, Right, User, check_user, secret_name, user_in, user_names, user_out
from metasrv.node.context import NodeContext
from metasrv.state.command_rules import validate_command

logger = logging.getLogger(__name__)

TIMEOUT_MS = 10_000
TRIES = 5
"""How often a change is made again because another one came first."""
RIGHTS = {str(right): right for right in Right}
NO_ADMIN_TOKEN = "users are only managed where `admin_token` is set: whoever reaches this port could make one"  # noqa: S105
NO_PASSWORD = "set `grpc_password` on every node first: without it everybody may log in as root"  # noqa: S105 - a sentence
FEATURE_OFF = (
    f"the feature {USERS_FEATURE} is off; once every node of the cluster runs a release that knows it, turn it on: "
    f"metactl set-feature --feature {USERS_FEATURE} --enable true"
)
SET_CODES = codes(
    PROBLEM_MEDIA_TYPE,
    ok="the user as it is now, null when it is removed",
    s400="the body is not a change, or asks for something impossible",
    s403="this node has no admin token",
    s404="there is no such user",
    s409="the user exists already, or the cluster or this node is not prepared for users",
    s500="the change was not committed",
)


@runtime_checkable
class ToldOfUsers(Protocol):
    """Processes that serve clients of this node, and learn from it which users there are."""

    async def until_told(self) -> None:
        """Return once all of them go by the users that this node has applied."""


class ChangeRefusedError(MetasrvError):
    """The change is not made; `code` is the status of the answer."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def users_router(context: NodeContext) -> APIRouter:
    router = APIRouter(tags=["users"])

    @router.get(
        USERS_LIST_PATH,
        operation_id="listUsers",
        response_model=UsersSchema,
        responses=codes(PROBLEM_MEDIA_TYPE, ok="from local applied state", s403="this node has no admin token"),
    )
    async def list_users() -> JsonResponse:
        """Every user beyond root and its rights."""
        if context.config.admin_token is None:
            return problem(403, NO_ADMIN_TOKEN)
        return JsonResponse({"users": [user_view(user) for user in _users(context.machine.secrets)]})

    @router.post(
        USERS_SET_PATH,
        operation_id="setUser",
        response_model=UserSchema | None,
        openapi_extra={
            "requestBody": {"content": {"application/json": {"schema": UserChangeSchema.model_json_schema()}}}
        },
        responses=SET_CODES,
    )
    async def set_user(request: Request) -> JsonResponse:
        """Make one change of one user, or of the key that signs all tokens."""
        if context.config.admin_token is None:
            return problem(403, NO_ADMIN_TOKEN)
        try:
            body = _body(await request.body())
            user = await _set_user(context, body)
        except ChangeRefusedError as error:
            return problem(error.code, str(error))
        except InvalidRequestError as error:
            return problem(400, str(error))
        except RequestError as error:
            return problem(500, str(error))
        said = {name: body[name] for name in ("change", "name", "right", "prefix") if name in body}
        audit({"at_ms": context.clock.wall_ms(), "user_change": said})
        return JsonResponse(None if user is None else user_view(user))

    return router


def user_view(user: User) -> dict[str, Any]:
    grants = [{"right": str(right), "prefix": prefix} for right, prefix in user.grants]
    return {"name": user.name, "has_password": user.stored_password is not None, "grants": grants}


def _users(stored: Mapping[str, bytes]) -> list[User]:
    """Every user; one that cannot be read has no rights and no password."""
    users = []
    for name in user_names(stored):
        try:
            users.append(user_in(name, stored[secret_name(name)]))
        except CodecError:
            users.append(User(name, None, ""))
    return users


# ----------------------------------------------------------------------------- changes


def _body(data: bytes) -> Mapping[str, str]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    known = UserChangeSchema.model_fields
    if type(body) is not dict or any(name not in known or type(value) is not str for name, value in body.items()):
        raise InvalidRequestError(f"the body is an object of texts named {', '.join(known)}")
    return body


async def _set_user(context: NodeContext, body: Mapping[str, str]) -> User | None:
    """Make the change; the user as it is then."""
    if USERS_FEATURE not in context.machine.features:
        raise ChangeRefusedError(409, FEATURE_OFF)
    if context.config.grpc_password is None:
        raise ChangeRefusedError(409, NO_PASSWORD)
    change = body.get("change", "")
    if change == "rotate-key":
        key = secrets.token_bytes(TOKEN_KEY_SIZE_BYTES)
        await _replace(context, TOKEN_KEY_NAME, lambda _before: key)
        return None
    make = _CHANGES.get(change)
    if make is None:
        raise InvalidRequestError(f"`change` is one of {', '.join((*_CHANGES, 'rotate-key'))}, not {change!r}")
    name = body.get("name", "")
    after: list[User | None] = []

    def changed(before: bytes | None) -> bytes | None:
        if change == "remove" and before is not None:
            after[:] = [None]  # also a user that this release cannot read
            return None
        user = make(None if before is None else user_in(name, before), body)
        if user is not None:
            check_user(user)
            if before is None and len(user_names(context.machine.secrets)) >= USERS_MAX:
                raise ChangeRefusedError(409, f"there are {USERS_MAX} users already, the limit")
        after[:] = [user]
        return None if user is None else user_out(user)

    await _replace(context, secret_name(name), changed)
    return after[0]


async def _replace(context: NodeContext, name: str, changed: Callable[[bytes | None], bytes | None]) -> None:
    """Replace the secret by what `changed` makes of it; again, if somebody else was first."""
    for _ in range(TRIES):
        await context.consensus.read_barrier(TIMEOUT_MS)
        before = context.machine.secrets.get(name)
        try:
            command = ReplaceSecret(name, before, changed(before))
        except CodecError as error:
            raise ChangeRefusedError(409, str(error)) from error
        validate_command(command)
        reply = await context.consensus.propose(command, TIMEOUT_MS)
        if not isinstance(reply, ReplaceSecretReply):
            raise NotDoneError(f"the change was not made: {reply}")
        if reply.replaced:
            await _until_in_force(context)
            return
    raise NotDoneError(f"the change was not made: {TRIES} times another change came first")


async def _until_in_force(context: NodeContext) -> None:
    """Return once all that serve this node's clients go by the change: an operator relies on what is answered."""
    try:
        await context.consensus.read_barrier(TIMEOUT_MS)  # another node may lead, and have applied it alone so far
    except NotDoneError as error:
        logger.warning("a change of users was made, and this node does not go by it yet: %s", error)
    gateways: object = context.gateways
    if isinstance(gateways, ToldOfUsers):
        await gateways.until_told()
    if context.remote_gateways is not None:
        await context.remote_gateways.until_told()


def _add(before: User | None, body: Mapping[str, str]) -> User:
    if before is not None:
        raise ChangeRefusedError(409, f"user {before.name} exists already")
    return User(body.get("name", ""), body.get("password_hash"), _generation())


def _remove(before: User | None, body: Mapping[str, str]) -> None:
    """Only reached for a user that does not exist."""
    _existing(before, body)


def _set_password(before: User | None, body: Mapping[str, str]) -> User:
    user = _existing(before, body)
    if "password_hash" not in body:
        raise InvalidRequestError("`password_hash` is missing")
    return user._replace(stored_password=body["password_hash"], generation=_generation())


def _grant(before: User | None, body: Mapping[str, str]) -> User:
    """The user with the right, in place of another one on the same prefix."""
    user, right, prefix = _existing(before, body), RIGHTS.get(body.get("right", "")), _prefix(body)
    if right is None:
        raise InvalidRequestError(f"`right` is one of {', '.join(RIGHTS)}")
    others = [grant for grant in user.grants if grant.prefix != prefix]
    return user._replace(grants=tuple(sorted([*others, Grant(right, prefix)], key=lambda grant: grant.prefix)))


def _revoke(before: User | None, body: Mapping[str, str]) -> User:
    user, prefix = _existing(before, body), _prefix(body)
    left = tuple(grant for grant in user.grants if grant.prefix != prefix)
    if left == user.grants:
        raise ChangeRefusedError(404, f"user {user.name} has no right on the prefix {prefix!r} itself")
    return user._replace(grants=left)


def _end_tokens(before: User | None, body: Mapping[str, str]) -> User:
    return _existing(before, body)._replace(generation=_generation())


_CHANGES: Mapping[str, Callable[[User | None, Mapping[str, str]], User | None]] = {
    "add": _add,
    "remove": _remove,
    "set-password": _set_password,
    "grant": _grant,
    "revoke": _revoke,
    "end-tokens": _end_tokens,
}


def _existing(user: User | None, body: Mapping[str, str]) -> User:
    if user is None:
        raise ChangeRefusedError(404, f"there is no user {body.get('name', '')!r}")
    return user


def _prefix(body: Mapping[str, str]) -> str:
    if "prefix" not in body:
        raise InvalidRequestError("`prefix` is missing; an empty one is all keys")
    return body["prefix"]


def _generation() -> str:
    return secrets.token_hex(16)
