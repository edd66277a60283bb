"""The routes of log levels, slow writes and diagnostics: shapes, codes, scopes, audit lines, and who may see keys."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from metasrv.admin import bundle
from metasrv.admin.app import create_app
from metasrv.admin.schemas import LoggerLevelSchema, LogLevelsSchema, SlowWritesSchema
from metasrv.config.model import Config, RaftConfig, SecretText
from metasrv.config.sections import LogConfig
from metasrv.model.limits import (
    DIAGNOSTICS_FILES_MAX,
    DIAGNOSTICS_PROFILE_SECONDS_MAX,
    DIAGNOSTICS_STACK_FRAMES_MAX,
    DIAGNOSTICS_TASKS_MAX,
    LOG_LEVEL_SECONDS_MAX,
)
from metasrv.node.slow_writes import Written
from metasrv.process.directory_listing import directory_listing
from metasrv.process.log_levels import LogLevels
from metasrv.process.logs import RunningLogs, start_logging
from metasrv.profiling.thread_stacks import task_names, thread_stacks
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status

READ, OPERATE = "read-0123456789abcdef", "operate-0123456789abcdef"
ACTION = {"X-Metasrv-Action": "1"}


class Admin:
    """The application of a node whose log is its own."""

    def __init__(self, machine: StateMachine, directory: Path, log: RunningLogs, **keys: Any) -> None:
        config = Config(raft_config=RaftConfig(id=1, raft_dir=str(directory)), **keys)
        self.context, self.consensus = fake_context(machine, config, leader_status())
        self.context.log_levels = LogLevels(log, self.context.clock, self.context.events)
        self.app = create_app(self.context)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def change(self, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.put("/v1/log-levels", content=content, headers={**ACTION, **headers})


@pytest.fixture
def log() -> Iterator[RunningLogs]:
    config = LogConfig.model_validate({"file": {"on": False}, "stderr": {"on": True, "level": "Info"}})
    logging.getLogger("metasrv.raft")
    started = start_logging(config, stderr=io.StringIO())
    yield started
    started.stop()


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[StateMachine]:
    opened = StateMachine.open(str(tmp_path / "state.db"))
    yield opened
    opened.close()


@pytest.fixture
def admin(machine: StateMachine, tmp_path: Path, log: RunningLogs) -> Iterator[Admin]:
    made = Admin(machine, tmp_path, log)
    yield made
    made.context.log_levels.close()


def problem_of(answer: httpx.Response, status: int) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    return str(answer.json()["detail"])


# ----------------------------------------------------------------------------- log levels


async def test_a_level_is_changed_shown_and_told(admin: Admin) -> None:
    answer = await admin.change({"logger": "metasrv.raft", "level": "DEBUG", "seconds": 60})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    LoggerLevelSchema.model_validate(answer.json())
    shown = (await admin.client.get("/v1/log-levels")).json()
    LogLevelsSchema.model_validate(shown)
    assert shown["levels"][1] == answer.json()
    assert (shown["seconds_default"], shown["seconds_max"]) == (300, LOG_LEVEL_SECONDS_MAX)
    assert [event.text for event in admin.context.events.after(0)] == ["the log level of metasrv.raft is debug for 60 s"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "the body is an object with logger, level, seconds"),
        ({"logger": "metasrv"}, "level: Field required"),
        ({"logger": "metasrv", "level": "info", "seconds": "60"}, "seconds: Input should be a valid integer"),
        ({"logger": "metasrv", "level": "info", "more": 1}, "more: Extra inputs are not permitted"),
        ({"logger": "metasrv", "level": "info", "seconds": LOG_LEVEL_SECONDS_MAX + 1}, "it must be between"),
        ({"logger": "metasrv", "level": "loud"}, "not a log level"),
        ({"logger": "\ud800", "level": "info"}, ""),
        ({"logger": "nowhere", "level": "info"}, "there is no logger 'nowhere'"),
    ],
)
async def test_what_cannot_be_set_is_a_problem(admin: Admin, body: Any, sentence: str) -> None:
    assert sentence in problem_of(await admin.change(body), 400)
    assert admin.context.events.last_number == 0


async def test_a_change_is_guarded_as_other_actions(machine: StateMachine, tmp_path: Path, log: RunningLogs) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"prom:read:{READ}\nops:operate:{OPERATE}\n")
    admin = Admin(machine, tmp_path, log, admin_tokens_file=str(tokens), admin_get_actions=False)
    body = {"logger": "metasrv.raft", "level": "info", "seconds": 1}
    operate = {"Authorization": f"Bearer {OPERATE}"}
    problem_of(await admin.change(body), 401)
    problem_of(await admin.change(body, Authorization=f"Bearer {READ}"), 403)
    page = {**operate, "Origin": "http://evil.example"}
    assert "a web page may not" in problem_of(await admin.change(body, **page), 403)
    bare = await admin.client.put("/v1/log-levels", content=json.dumps(body), headers=operate)
    assert "X-Metasrv-Action" in problem_of(bare, 403)
    assert (await admin.change(body, **operate)).status_code == 200
    refused = await admin.client.delete("/v1/log-levels", headers={**ACTION, **operate})
    assert problem_of(refused, 405) == "method not allowed"
    assert refused.headers["allow"] == "GET, HEAD, PUT"
    admin.context.log_levels.close()


async def test_without_a_log_of_its_own_a_node_says_so(admin: Admin) -> None:
    admin.context.log_levels = LogLevels(None, admin.context.clock, admin.context.events)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(admin.context)), base_url="http://localhost")
    body = json.dumps({"logger": "metasrv", "level": "info"})
    for answer in (await client.get("/v1/log-levels"), await client.put("/v1/log-levels", content=body, headers=ACTION)):
        assert problem_of(answer, 503) == "the log of this process is not the node's own"


# ----------------------------------------------------------------------------- slow writes


def note(admin: Admin, *keys: str) -> None:
    admin.context.slow_writes.note(0.0, 0.25, 2_000, "Transaction", lambda: Written(keys, 4), "timeout")


async def test_slow_writes_show_keys_where_the_browser_of_keys_is_on(
    machine: StateMachine, tmp_path: Path, log: RunningLogs
) -> None:
    for on in (False, True):
        admin = Admin(machine, tmp_path, log, admin_key_browser=on)
        admin.context.slow_writes._clock = lambda: 1.0
        note(admin, "tenant/secret-name")
        answer = await admin.client.get("/v1/slow-writes")
        shown = answer.json()
        SlowWritesSchema.model_validate(shown)
        assert ("secret-name" in answer.text) is on
        assert (shown["keys"] is None) is on
        (write,) = shown["slowest"]
        assert (write["milliseconds"], write["size_bytes"], write["operations"]) == (250.0, 2_000, 4)
        assert (write["failure"], shown["largest"]) == ("timeout", [write])


async def test_slow_writes_need_a_token_wherever_there_are_any(
    machine: StateMachine, tmp_path: Path, log: RunningLogs
) -> None:
    admin = Admin(machine, tmp_path, log, admin_token=SecretText(OPERATE))
    problem_of(await admin.client.get("/v1/slow-writes"), 401)
    problem_of(await admin.client.get("/v1/diagnostics"), 401)
    assert (await admin.client.get("/v1/log-levels")).status_code == 200


# ----------------------------------------------------------------------------- diagnostics


def files_in(body: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


async def test_a_bundle_has_what_is_known(
    admin: Admin, log: RunningLogs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note(admin)
    with caplog.at_level(logging.INFO, "metasrv.audit"):
        answer = await admin.client.get("/v1/diagnostics?seconds=0")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/gzip")
    assert answer.headers["content-disposition"].startswith('attachment; filename="metasrv-node-1-')
    assert answer.headers["cache-control"] == "no-store"
    files = files_in(answer.content)
    assert {
        *("about.json", "status.json", "nodes.json", "checks.json", "console.json", "events.json", "history.json"),
        *("metrics.txt", "configuration.txt", "log-levels.json", "log.txt", "slow-writes.json", "limits.json"),
        *("files.txt", "tasks.txt", "threads.txt", "members.json"),
    } == files.keys()
    assert json.loads(files["about.json"])["packages"]["pysyncobj"] == "0.3.17"
    assert json.loads(files["limits.json"])["metasrv"]["DIAGNOSTICS_FILES_MAX"] == DIAGNOSTICS_FILES_MAX
    assert b"state.db" in files["files.txt"]
    assert b"Thread MainThread" in files["threads.txt"]
    assert b"diagnostics at BundleResponse" in files["tasks.txt"]
    (line,) = (json.loads(record.getMessage()) for record in caplog.records if record.name == "metasrv.audit")
    assert (line["method"], line["path"], line["query"]) == ("GET", "/v1/diagnostics", "seconds=0")


async def test_a_file_that_cannot_be_made_is_named_and_the_others_are_there(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_root: str) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(bundle, "directory_listing", broken)
    files = files_in((await admin.client.get("/v1/diagnostics?seconds=0")).content)
    assert files["errors.txt"] == b"files.txt: PermissionError: [Errno 13] Permission denied\n"
    assert "files.txt" not in files
    assert "members.json" in files


async def test_one_bundle_at_a_time_and_a_caller_that_leaves_ends_it(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, ended = asyncio.Event(), asyncio.Event()

    async def forever(*_: Any) -> Any:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(bundle, "record_cpu", forever)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/diagnostics",
        "query_string": b"seconds=9",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    first = asyncio.create_task(admin.app(scope, receive, send))
    await asyncio.wait_for(waiting.wait(), 30)
    second = await admin.client.get("/v1/diagnostics?seconds=0")
    assert problem_of(second, 409).startswith("another diagnostics bundle of this node is being made")
    profile = await admin.client.get("/debug/pprof/profile?seconds=1")
    assert (profile.status_code, profile.text) == (409, "a CPU profile is being taken; try again when it is done")
    left.set()
    await asyncio.wait_for(ended.wait(), 30)
    await first
    assert sent[0]["status"] == 200
    assert (await admin.client.get("/v1/diagnostics?seconds=0")).status_code == 200, "and the next one is made"


@pytest.mark.parametrize(("query", "code"), [(f"seconds={DIAGNOSTICS_PROFILE_SECONDS_MAX + 1}", 400), ("seconds=0", 200)])
async def test_a_profile_has_a_longest_time(admin: Admin, query: str, code: int) -> None:
    answer = await admin.client.head(f"/v1/diagnostics?{query}")
    assert (answer.status_code, answer.content) == (code, b"")


def test_a_listing_is_bounded_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "away").symlink_to("/")
    (tmp_path / "b\nc").mkdir()
    (tmp_path / "b\nc" / "file").write_bytes(b"12345")
    listed = directory_listing(str(tmp_path)).splitlines()
    assert len(listed) == 5, listed
    assert listed[1].startswith("lrwxrwxrwx")
    assert listed[2].endswith(r"'b\nc'")
    assert " 5 " in listed[3]
    for number in range(DIAGNOSTICS_FILES_MAX):
        (tmp_path / f"{number:05}").touch()
    listed = directory_listing(str(tmp_path)).splitlines()
    assert len(listed) == DIAGNOSTICS_FILES_MAX + 3
    assert listed[-2] == f"… only the first {DIAGNOSTICS_FILES_MAX:,} files are listed"
    assert "cannot be listed: No such file" in directory_listing(str(tmp_path / "nowhere"))


async def test_stacks_and_tasks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def deeper(left: int) -> str:
        return thread_stacks() if left == 0 else deeper(left - 1)

    own = next(part for part in deeper(2 * DIAGNOSTICS_STACK_FRAMES_MAX).split("\n\n") if "this one" in part)
    assert len(own.splitlines()) == DIAGNOSTICS_STACK_FRAMES_MAX + 2
    assert own.rstrip().endswith("  …")
    monkeypatch.setattr("metasrv.profiling.thread_stacks.DIAGNOSTICS_TASKS_MAX", 2)
    assert DIAGNOSTICS_TASKS_MAX > 2
    tasks = [asyncio.create_task(asyncio.sleep(0), name="same") for _ in range(5)]
    assert "more" in task_names()
    await asyncio.gather(*tasks)
