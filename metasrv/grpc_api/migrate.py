"""The Migrate method: a step of moving another cluster's records into this one (docs/contract/grpc.md section g.3).

Turns the request into the command and its reply into a message; what a step does is the state machine's business. Any
node takes it; a follower forwards. Runs on the event loop.
"""

from __future__ import annotations

from metasrv.grpc_api.calls import Call, timeout_ms_of
from metasrv.grpc_api.context import GrpcContext
from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError, InvariantError
from metasrv.model.migration import MigratedRecord, MigrationStep
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.command_rules import validate_command

_FEATURE_OFF = (
    f"the feature {c.MIGRATION_FEATURE} is off; once every node of the cluster runs a release that knows it, turn it on: "
    f"metactl set-feature --feature {c.MIGRATION_FEATURE} --enable true"
)


class MigrateMethod:
    """Body of Migrate."""

    def __init__(self, context: GrpcContext) -> None:
        self._consensus = context.consensus
        self._machine = context.machine

    async def migrate(self, request: pb.MigrateRequest, call: Call) -> pb.MigrateReply:
        """Migrate: one step, answered with where the migration stands. Refused while the feature is off."""
        if c.MIGRATION_FEATURE not in self._machine.features:
            raise InvalidRequestError(_FEATURE_OFF)
        command = command_from(request)
        validate_command(command)
        reply = await self._consensus.propose(command, timeout_ms_of(call))
        if isinstance(reply, c.MigrationReply):
            return pb.MigrateReply(**reply._asdict())
        if isinstance(reply, c.ErrorReply):
            raise InvalidRequestError(reply.text)
        raise InvariantError(f"consensus answered with a {type(reply).__name__}")


def command_from(request: pb.MigrateRequest) -> c.Migrate:
    """The command of a request. Raises InvalidRequestError for a step that is not known."""
    try:
        step = MigrationStep(request.step)
    except ValueError as error:
        raise InvalidRequestError(f"{request.step} is no step of a migration") from error
    records = tuple(map(_record, request.records))
    return c.Migrate(step, request.run, request.source, request.last_seq, request.count, records)


def _record(record: pb.MigratedRecord) -> MigratedRecord:
    return MigratedRecord(
        record.key,
        record.seq,
        record.data if record.HasField("data") else None,
        record.expire_at if record.HasField("expire_at") else None,
        record.proposed_at_ms,
    )
