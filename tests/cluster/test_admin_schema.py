"""Every route of a node's admin API, called as its description allows and forbids, gives an answer that it names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from metasrv.admin.actions import ACTION_PATHS
from metasrv.testing.processes import ProcessCluster

EXAMPLES = 5
PROFILE_SECONDS = 1
CALL_SECONDS = 20
TOKEN = "the admin token"
HEADERS = {"X-Metasrv-Action": "1", "Authorization": f"Bearer {TOKEN}"}
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
SLOW = frozenset({"/debug/pprof/profile", "/debug/mem/pprof/profile", "/v1/diagnostics"})
ENDLESS = "/v1/console/stream"
"""Its answer does not end; tests/cluster has tests of its own for it."""


def call_every_route(admin: str) -> dict[tuple[str, str], set[int]]:
    """The status codes of each operation. Raises what a check finds."""
    load_all_checks()
    schema = schemathesis.openapi.from_url(f"http://{admin}/openapi.json")
    seen: dict[tuple[str, str], set[int]] = {}
    for result in schema.exclude(path=ENDLESS).get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        codes = seen.setdefault((operation.method.upper(), operation.path), set())
        takes_input = bool(operation.query or operation.body)
        modes = MODES if takes_input and operation.path not in SLOW else MODES[:1]
        for mode in modes:
            call(operation, mode, codes)
    return seen


def call(operation: Any, mode: GenerationMode, codes: set[int]) -> None:
    """Call one operation some times, with what its description allows, or forbids."""
    is_slow = operation.path in SLOW

    @seed(1)
    @settings(
        max_examples=1 if is_slow else EXAMPLES,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        if is_slow:
            case.query["seconds"] = PROFILE_SECONDS
        answer = case.call_and_validate(headers=HEADERS, checks=CHECKS, timeout=CALL_SECONDS)
        codes.add(answer.status_code)

    check()


@pytest.mark.timeout(120)
async def test_every_route_answers_as_its_description_says() -> None:
    async with ProcessCluster(1) as cluster:
        cluster.start(1, METASRV_ADMIN_TOKEN=TOKEN, METASRV_GRPC_PASSWORD="sesame")
        await cluster.wait_for_leader(members=1)
        seen = await asyncio.to_thread(call_every_route, str(cluster.nodes[1].admin))
        assert {200, 400} <= seen["POST", "/v1/features/set"]
        assert {200, 404} <= seen["GET", "/livez/{check}"]
        assert seen["GET", "/v1/diagnostics"] == seen["GET", "/v1/slow-writes"] == {200}
        assert seen["PUT", "/v1/log-levels"] <= {200, 400}
        assert {path for method, path in seen if method == "POST"} >= ACTION_PATHS
        assert await cluster.stop(1) == 0, "and the node goes on"
