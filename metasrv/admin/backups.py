"""Routes about the backups that the leader makes by itself.

    GET /v1/backup/list                  the archives of this cluster where its backups are kept
    GET, POST /v1/ctrl/trigger_backup    have one made now; leader only

Runs on the event loop; the archives are listed in a thread.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter

from metasrv.admin.actions import BACKUP_PATH, action
from metasrv.admin.control import optional_text
from metasrv.admin.problem import problem
from metasrv.admin.responses import PROBLEM_MEDIA_TYPE, JsonResponse, codes
from metasrv.admin.schemas import BackupAskedSchema, BackupListSchema
from metasrv.model.errors import BackupError, NotLeaderError
from metasrv.node.context import NodeContext

LIST_PATH = "/v1/backup/list"
NOT_CONFIGURED = "no backups are configured: set `every_seconds` and a place in `[backup]`"


def backups_router(context: NodeContext) -> APIRouter:
    router = APIRouter(tags=["backup"])
    act = partial(action, router)

    @router.get(
        LIST_PATH,
        operation_id="listBackups",
        response_model=BackupListSchema,
        responses=codes(
            PROBLEM_MEDIA_TYPE,
            ok="read from the place now",
            s404="no backups are configured",
            s500="the place cannot be read",
        ),
    )
    async def list_backups() -> JsonResponse:
        """The archives of this cluster in the configured place, the oldest first; from any node."""
        if context.backups is None:
            return problem(404, NOT_CONFIGURED)
        try:
            archives = await context.backups.archives()
        except BackupError as error:
            return problem(500, str(error))
        return JsonResponse({"place": context.backups.place, "archives": [archive._asdict() for archive in archives]})

    @act(
        BACKUP_PATH,
        operation_id="triggerBackup",
        response_model=BackupAskedSchema,
        responses=codes(
            PROBLEM_MEDIA_TYPE, ok="it will be made now", s404="this node is not the leader, or no backups are configured"
        ),
    )
    async def trigger_backup() -> JsonResponse:
        """Have a backup made now. `backup.attempts` in the status reaches the number once it has ended."""
        if context.backups is None:
            return problem(404, NOT_CONFIGURED)
        try:
            attempt = context.backups.ask()
        except NotLeaderError:
            status = context.consensus.status()
            leader = optional_text(status.leader_id)
            return problem(
                404, f"This node is not leader, cannot make a backup; id={status.node_id} current_leader={leader}"
            )
        return JsonResponse({"attempt": attempt})

    return router
