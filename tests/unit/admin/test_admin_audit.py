"""The audit log under a flood of refused requests: what was done keeps its line, refusals are counted."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.admin.audit import COUNTED_SECONDS, Audit, AuditedRequest
from metasrv.config.model import Config, RaftConfig
from metasrv.model.limits import ADMIN_REFUSALS_AUDITED_MAX, ADMIN_REFUSED_CLIENTS_AUDITED_MAX
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status

DONE = AuditedRequest(
    client=("10.0.0.1", 5),
    authenticated=True,
    token="ops",
    certificate=None,
    scope="operate",
    method="POST",
    path="/v1/ctrl/trigger_snapshot",
    query="",
    status_code=200,
    seconds=0.1,
    is_refused=False,
)
REFUSED = DONE._replace(authenticated=False, token=None, scope=None, status_code=401, is_refused=True)


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    config = Config(raft_config=RaftConfig(raft_dir=str(tmp_path)))
    yield Audit(fake_context(machine, config, leader_status())[0])
    machine.close()


def written(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "metasrv.audit"]
    caplog.clear()
    return lines


async def test_refusals_past_a_few_are_one_line_with_their_count(audit: Audit, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "metasrv.audit")
    for port in range(ADMIN_REFUSALS_AUDITED_MAX):
        audit.write(REFUSED._replace(client=("10.0.0.1", port)))
    assert len(written(caplog)) == ADMIN_REFUSALS_AUDITED_MAX
    for port in range(500):
        audit.write(REFUSED._replace(client=("10.0.0.1", port)))
    audit.write(DONE)
    audit.write(DONE._replace(status_code=500))
    assert [line["result"] for line in written(caplog)] == ["done", "failed"], "whatever reached a route has its line"
    audit.report()
    (line,) = written(caplog)
    assert (line["client"], line["result"], line["more_refused"]) == ("10.0.0.1", "refused", 500)
    assert line["within_seconds"] == COUNTED_SECONDS
    audit.write(REFUSED)
    assert len(written(caplog)) == 1, "the count begins anew"
    audit.report()
    assert written(caplog) == []


async def test_each_client_has_lines_of_its_own_up_to_a_limit(audit: Audit, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "metasrv.audit")
    for number in range(ADMIN_REFUSED_CLIENTS_AUDITED_MAX - 1):
        audit.write(REFUSED._replace(client=(f"10.0.1.{number}", 1)))
    audit.write(REFUSED._replace(token="reader", status_code=403))
    assert len(written(caplog)) == ADMIN_REFUSED_CLIENTS_AUDITED_MAX
    for number in range(300):
        audit.write(REFUSED._replace(client=(f"10.1.{number // 256}.{number % 256}", 1)))
    assert written(caplog) == []
    audit.report()
    (line,) = written(caplog)
    assert (line["client"], line["more_refused"]) == ("others", 300)
