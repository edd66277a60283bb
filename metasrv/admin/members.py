"""Routes about the members of the cluster: who they are, how they are, and how they change.

    GET /v1/cluster/members                     every member, asked at this moment
    POST /v1/cluster/members                    what a new node needs to join
    DELETE /v1/cluster/members/{id}             remove a member; a leader hands over first
    POST /v1/cluster/members/{id}/promote       give a learner its vote
    POST /v1/cluster/members/{id}/replace       remove a silent member, and what its successor needs

Any node takes them: it asks the others over the raft port, and the leader makes the changes. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError

from metasrv.admin.actions import MEMBER_PATH, MEMBERS_PATH, PROMOTE_PATH, REPLACE_PATH
from metasrv.admin.audit_lines import audit
from metasrv.admin.problem import problem
from metasrv.admin.query import boolean, parse_query
from metasrv.admin.responses import PROBLEM_MEDIA_TYPE, JsonResponse, codes
from metasrv.admin.schemas import MemberChangeSchema, MembersSchema, NewMemberSchema
from metasrv.model.errors import InvalidRequestError, MembershipError, RequestError
from metasrv.model.types import Endpoint, Member, PeerProgress
from metasrv.node.context import NodeContext
from metasrv.node.members import Change, Overview, UnknownMemberError
from metasrv.node.new_members import NewMember, Wish, add_member, replace_member

ID_DIGITS_MAX = 20
NODE_ID = {
    "name": "node_id",
    "in": "path",
    "required": True,
    "description": "The member's id.",
    "schema": {"type": "integer"},
}
FORCE = {
    "name": "force",
    "in": "query",
    "required": False,
    "description": "`true` also where it is refused because the cluster would stop, or because the member answers.",
    "schema": {"type": "boolean"},
}
BODY = {"requestBody": {"content": {"application/json": {"schema": NewMemberSchema.model_json_schema()}}}}
CHANGE_CODES = {
    "s400": "the body or the id is not valid",
    "s404": "there is no such member",
    "s409": "refused, with the reason; nothing was changed",
    "s500": "no leader, or the change was not committed in time",
}


def members_router(context: NodeContext) -> APIRouter:
    router = APIRouter(tags=["members"])

    @router.get(
        MEMBERS_PATH,
        operation_id="members",
        response_model=MembersSchema,
        responses=codes(PROBLEM_MEDIA_TYPE, ok="this node asked each of them, for a second at most"),
    )
    async def members() -> JsonResponse:
        """Every member: its role, whether it answers, how far it is, and how many failures the cluster survives."""
        return JsonResponse(members_view(await context.members.look()))

    @router.post(
        MEMBERS_PATH,
        operation_id="addMember",
        response_model=MemberChangeSchema,
        openapi_extra=BODY,
        responses=codes(PROBLEM_MEDIA_TYPE, ok="it may join, with this configuration", **CHANGE_CODES),
    )
    async def add(request: Request) -> JsonResponse:
        """Check that a node can join, and write its configuration; it becomes a member when it starts with that."""
        return await _answer(context, "add", _add(context, request))

    @router.delete(
        MEMBER_PATH,
        operation_id="removeMember",
        response_model=MemberChangeSchema,
        openapi_extra={"parameters": [NODE_ID, FORCE]},
        responses=codes(PROBLEM_MEDIA_TYPE, ok="it is removed", **CHANGE_CODES),
    )
    async def remove(request: Request) -> JsonResponse:
        """Remove a member. A leader hands leadership over first; one whose loss would stop the cluster is refused."""
        return await _answer(context, "remove", _remove(context, request))

    @router.post(
        PROMOTE_PATH,
        operation_id="promoteMember",
        response_model=MemberChangeSchema,
        openapi_extra={"parameters": [NODE_ID]},
        responses=codes(PROBLEM_MEDIA_TYPE, ok="it votes", **CHANGE_CODES),
    )
    async def promote(request: Request) -> JsonResponse:
        """Give a learner its vote, once it has caught up."""
        return await _answer(context, "promote", _promote(context, request))

    @router.post(
        REPLACE_PATH,
        operation_id="replaceMember",
        response_model=MemberChangeSchema,
        openapi_extra={**BODY, "parameters": [NODE_ID, FORCE]},
        responses=codes(
            PROBLEM_MEDIA_TYPE, ok="it is removed, and its successor may join with this configuration", **CHANGE_CODES
        ),
    )
    async def replace(request: Request) -> JsonResponse:
        """Remove a member that does not answer, and write the configuration of the node that takes its place."""
        return await _answer(context, "replace", _replace(context, request))

    return router


# ----------------------------------------------------------------------------- changes


async def _answer(context: NodeContext, change: str, made: Awaitable[dict[str, Any]]) -> JsonResponse:
    """Make a change, and answer with what it did or why it was not made."""
    try:
        view = await made
    except UnknownMemberError as error:
        return problem(404, str(error))
    except MembershipError as error:
        return problem(409, str(error))
    except InvalidRequestError as error:
        return problem(400, str(error))
    except RequestError as error:
        return problem(500, str(error))
    audit({"at_ms": context.clock.wall_ms(), "member_change": {"change": change, "id": view["id"]}})
    return JsonResponse(view)


async def _add(context: NodeContext, request: Request) -> dict[str, Any]:
    return _new_view(await add_member(context, _wish(await request.body())))


async def _remove(context: NodeContext, request: Request) -> dict[str, Any]:
    node_id = _node_id(request)
    return _change_view(node_id, await context.members.remove(node_id, _force(request)))


async def _promote(context: NodeContext, request: Request) -> dict[str, Any]:
    node_id = _node_id(request)
    return _change_view(node_id, await context.members.promote(node_id))


async def _replace(context: NodeContext, request: Request) -> dict[str, Any]:
    wish = _wish(await request.body() or b"{}")
    return _new_view(await replace_member(context, _node_id(request), wish, _force(request)))


def _node_id(request: Request) -> int:
    # Not a parameter of the function: the framework would answer 422 to some.
    text = request.path_params["node_id"]
    if not text.isascii() or not text.isdigit() or len(text) > ID_DIGITS_MAX:
        raise InvalidRequestError(f"{text!r} is not the id of a node")
    return int(text)


def _force(request: Request) -> bool:
    return bool(parse_query(request.scope["query_string"], {"force": boolean}).get("force", False))


def _wish(data: bytes) -> Wish:
    """What a body says of a new node. Raises InvalidRequestError."""
    try:
        body = NewMemberSchema.model_validate_json(data)
        address = None if body.raft_address is None else Endpoint.parse(body.raft_address)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise InvalidRequestError(
            f"{where}: {first['msg']}; the body is an object with any of {', '.join(NewMemberSchema.model_fields)}"
        ) from error
    except ValueError as error:
        raise InvalidRequestError(f"raft_address: {error}") from error
    if body.id is not None and not 0 <= body.id < 2**63:
        raise InvalidRequestError(f"id: {body.id} is not the id of a node")
    if address is not None and address.port == 0:
        raise InvalidRequestError("raft_address: port 0 cannot be dialled")
    return Wish(body.id, address, body.learner, body.grpc_api_address, body.admin_api_address, body.raft_dir)


# ----------------------------------------------------------------------------- views


def _new_view(new: NewMember) -> dict[str, Any]:
    return _change_view(new.node_id, new.change, new.configuration)


def _change_view(node_id: int, change: Change, configuration: str | None = None) -> dict[str, Any]:
    return {
        "id": node_id,
        "changed": change.changed,
        "failure_tolerance": change.tolerance.spare,
        "failure_tolerance_text": change.tolerance.counted_text,
        "next_step": change.next_step,
        "configuration": configuration,
    }


def members_view(seen: Overview) -> dict[str, Any]:
    """All members, by ascending id."""
    status, tolerance = seen.status, seen.tolerance()
    members = {**status.membership.voters, **status.membership.learners}
    peers = {peer.node_id: peer for peer in status.peers}
    return {
        "cluster_id": status.cluster_id,
        "asked": status.node_id,
        "leader": status.leader_id,
        "voters": tolerance.voters,
        "answering": tolerance.voters_heard,
        "majority": tolerance.majority,
        "failure_tolerance": tolerance.spare,
        "failure_tolerance_text": tolerance.counted_text,
        "members": [_member_view(seen, node_id, members[node_id], peers.get(node_id)) for node_id in sorted(members)],
    }


def _member_view(seen: Overview, node_id: int, member: Member, peer: PeerProgress | None) -> dict[str, Any]:
    status, said = seen.status, seen.summaries.get(node_id)
    node = status.registered_or_member(node_id, member)
    votes = node_id in status.membership.voters
    return {
        "id": node_id,
        "role": "leader" if node_id == status.leader_id else "voter" if votes else "learner",
        "votes": votes,
        "raft_address": str(member.endpoint),
        "grpc_address": node.grpc_api_advertise_address or node.grpc_api_addr or None,
        "admin_address": (said.admin_address or None) if said else None,
        "reachable": node_id in seen.answering(),
        "error": seen.errors.get(node_id),
        "ready": said.ready if said else None,
        "not_ready": (said.not_ready or None) if said else None,
        "warnings": (said.warnings or None) if said else None,
        "version": said.version if said else None,
        "state": said.state if said else None,
        "term": said.term if said else None,
        "applied_index": said.applied_index if said else None,
        "lag": seen.lag(node_id),
        "last_contact_ms": peer.last_contact_ms if peer else None,
        "learner_for_ms": peer.learner_for_ms if peer else None,
        "caught_up": peer.caught_up if peer else None,
        "clock_offset_ms": said.clock_offset_ms if said else None,
        "certificates": dict(said.certificates) if said else None,
        "started_at_ms": said.started_at_ms if said else None,
    }
