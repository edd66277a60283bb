"""The read-only switch of a migration's source, over an admin API of its nodes.

One thread sends the requests one after the other, so that they arrive in order, also when nobody waits for an answer any
more. Runs beside the event loop of a short process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, TypeVar

from metasrv.cli import ctl_admin
from metasrv.migration.standstill import SwitchState
from metasrv.model.commands import LIMITS_FEATURE
from metasrv.model.errors import InvalidRequestError

TOKEN_VARIABLE = ctl_admin.TOKEN_VARIABLE.replace("METASRV_", "METASRV_FROM_")
READ_ONLY_PATH = "/v1/ctrl/read_only"
_NONE = (
    "the source has no read-only switch: the server at --from-admin-api-address is not a node of metasrv that knows it. "
    "Stop the writers yourself, and leave --from-read-only out"
)
_OFF = (
    f"the source cannot be made read-only: its feature {LIMITS_FEATURE} is off. Once all its nodes run a release that "
    f"knows the feature, turn it on there: metactl set-feature --feature {LIMITS_FEATURE} --enable true. Or stop the "
    "writers yourself, and leave --from-read-only out"
)
Result = TypeVar("Result")


class SourceSwitch:
    """A switch (`metasrv.migration.standstill.Switch`); nothing is asked before it is used."""

    def __init__(self, client: ctl_admin.AdminClient) -> None:
        self._client = client
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="source-switch")

    async def look(self) -> SwitchState:
        return await self._in_thread(self._look)

    async def turn(self, reason: str | None) -> None:
        await self._in_thread(lambda: self._turn(reason))

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _look(self) -> SwitchState:
        status = self._object("/v1/cluster/status")
        if "cluster_id" not in status or "read_only" not in status:
            raise InvalidRequestError(_NONE)
        if status["read_only"] is not None:
            return SwitchState(str(status["cluster_id"]), str(status["read_only"]["reason"]))
        features = self._object("/v1/features/list")
        is_usable = LIMITS_FEATURE in features.get("enabled", ())
        return SwitchState(str(status["cluster_id"]), None, "" if is_usable else _OFF)

    def _turn(self, reason: str | None) -> None:
        query = {"on": "false"} if reason is None else {"on": "true", "reason": reason}
        self._client.post(READ_ONLY_PATH, None, **query)

    def _object(self, path: str) -> dict[str, Any]:
        try:
            answer = json.loads(self._client.text(path))
        except ctl_admin.AdminError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            raise InvalidRequestError(_NONE) from error
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise InvalidRequestError(_NONE)
        return answer


def of(arguments: argparse.Namespace) -> SourceSwitch | None:
    """The switch that the command line asks for. Raises InvalidRequestError for options that do not go together."""
    if not arguments.from_read_only:
        if arguments.from_admin_api_address:
            raise InvalidRequestError("--from-admin-api-address is for --from-read-only, which is missing")
        return None
    if not arguments.cut_over:
        raise InvalidRequestError("--from-read-only holds writers off for the cut-over: it goes with --cut-over")
    if not arguments.from_admin_api_address:
        raise InvalidRequestError("--from-read-only needs --from-admin-api-address: the switch is on the admin API")
    token = os.environ.get(TOKEN_VARIABLE)
    given = argparse.Namespace(
        admin_tls_ca_file=arguments.from_admin_tls_ca_file,
        admin_tls_cert_file=arguments.from_admin_tls_cert_file,
        admin_tls_key_file=arguments.from_admin_tls_key_file,
        admin_token_file=arguments.from_admin_token_file,
    )
    return SourceSwitch(ctl_admin.made(arguments.from_admin_api_address, given, token))
