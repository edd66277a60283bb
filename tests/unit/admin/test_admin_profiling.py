"""The profile routes without profilers: queries, limits, codes, headers, one at a time, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from metasrv.admin import profiling
from metasrv.admin.app import create_app
from metasrv.config.model import Config, RaftConfig
from metasrv.model.limits import CONTINUOUS_PROFILE_HERTZ_MAX, PROFILE_FREQUENCY_HERTZ_MAX, PROFILE_SECONDS_MAX
from metasrv.profiling.captures import Capture, Captures
from metasrv.profiling.continuous import MINUTE_MS, ContinuousProfile
from metasrv.profiling.flamegraph import CONTENT_SECURITY_POLICY
from metasrv.profiling.profile import Profile, ProfileFormat, ProfilerUnavailableError, ProfilingError, Subject
from metasrv.profiling.stacks import Frame
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, sample_status

NOON_MS = 1_795_860_000_000
LOOP_WAITS = (Frame("MainThread"), Frame("Runner.run", "asyncio/runners.py", 118))
HISTORY, MINUTES, CAPTURES = "/v1/profile/history", "/v1/profile/minutes", "/v1/profile/captures"
CPU = "/debug/pprof/profile"
MEMORY = "/debug/mem/pprof/profile"


class Profilers:
    """Stand-ins that record what they were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.idle: list[bool] = []
        self.bases: list[Capture | None] = []
        self.small_objects: list[bool] = []
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.cancelled = False
        self.begun = asyncio.Event()

    async def cpu(self, node_id: int, seconds: int, frequency_hertz: int, form: ProfileFormat, idle: bool) -> Profile:
        self.idle.append(idle)
        return await self._take(Profile(b"cpu", form, "py-spy"), node_id, seconds, frequency_hertz, form)

    async def memory(
        self, node_id: int, seconds: int, form: ProfileFormat, captures: Captures, base: Capture | None, small: bool
    ) -> Profile:
        self.small_objects.append(small)
        self.bases.append(base)
        capture_id = captures.keep(Subject(node_id, 1_795_860_000_000_000_000 + len(self.bases) * 10**9, seconds), b"")
        return await self._take(Profile(b"heap", form, "memray", capture_id), node_id, seconds, form)

    async def _take(self, profile: Profile, *asked: Any) -> Profile:
        self.asked.append(asked)
        self.begun.set()
        if self.failure is not None:
            raise self.failure
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        return profile


@pytest.fixture
def profilers(monkeypatch: pytest.MonkeyPatch) -> Profilers:
    made = Profilers()
    monkeypatch.setattr(profiling, "record_cpu", made.cpu)
    monkeypatch.setattr(profiling, "record_memory", made.memory)
    return made


@pytest.fixture
async def client(tmp_path: Path, profilers: Profilers, continuous: ContinuousProfile) -> AsyncIterator[httpx.AsyncClient]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    context, _ = fake_context(machine, Config(raft_config=RaftConfig(id=7, raft_dir=str(tmp_path))), sample_status())
    app = create_app(context, None, None, continuous)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as made:
        yield made
    machine.close()


@pytest.fixture
def continuous() -> ContinuousProfile:
    """Two minutes: the node applied in the first, and waited in the second."""
    moments = iter((NOON_MS, NOON_MS + MINUTE_MS, NOON_MS + MINUTE_MS))
    made = ContinuousProfile(1, lambda: next(moments))
    made.take([(True, (Frame("MainThread"), Frame("apply", "metasrv/state/machine.py", 88)))])
    made.take([(False, LOOP_WAITS)])
    made.take([(False, LOOP_WAITS)])
    return made


async def test_home_links_to_the_profile(client: httpx.AsyncClient) -> None:
    answer = await client.get("/debug/home")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert '<a href="/debug/pprof/profile?seconds=5">' in answer.text


@pytest.mark.parametrize(
    ("query", "seconds", "frequency_hertz"),
    [
        ("", 5, 99),
        ("?seconds=1&frequency=1", 1, 1),
        (f"?seconds={PROFILE_SECONDS_MAX}&frequency={PROFILE_FREQUENCY_HERTZ_MAX}", 300, 1000),
        ("?seconds=x", 5, 99),
        ("?seconds=-1&frequency=50", 5, 99),
        ("?seconds=2&frequency=0", 5, 99),
        ("?seconds=2&frequency=2147483648", 5, 99),
        ("?seconds=2&seconds=3", 5, 99),
        ("?seconds=2&unknown=x", 2, 99),
    ],
)
async def test_numbers_are_taken_as_a_unit(
    client: httpx.AsyncClient, profilers: Profilers, query: str, seconds: int, frequency_hertz: int
) -> None:
    answer = await client.get(CPU + query)
    assert (answer.status_code, answer.content) == (200, b"cpu")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-profile-sampler"] == "py-spy"
    assert profilers.asked == [(7, seconds, frequency_hertz, ProfileFormat.PPROF)]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (f"{CPU}?seconds=0", "seconds is 0, it must be between 1 and 300"),
        (f"{CPU}?seconds={PROFILE_SECONDS_MAX + 1}", "seconds is 301, it must be between 1 and 300"),
        (f"{MEMORY}?seconds=301", "seconds is 301, it must be between 1 and 300"),
        (f"{CPU}?frequency={PROFILE_FREQUENCY_HERTZ_MAX + 1}", "frequency is 1001, it must be between 1 and 1000"),
        (f"{CPU}?frequency=-1", "frequency is -1, it must be between 1 and 1000"),
        (f"{CPU}?format=memray", "format is 'memray', it must be one of pprof, svg, folded, speedscope"),
        (f"{MEMORY}?format=html", "format is 'html', it must be one of pprof, svg, folded, speedscope, memray"),
        (
            f"{MEMORY}?format=memray&base=x",
            "memray's raw capture cannot be a difference; leave base out, or ask for another format",
        ),
    ],
)
async def test_what_is_out_of_range_is_400(client: httpx.AsyncClient, profilers: Profilers, url: str, text: str) -> None:
    answer = await client.get(url)
    assert (answer.status_code, answer.text, profilers.asked) == (400, text, [])


@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        ("svg", "image/svg+xml"),
        ("folded", "text/plain; charset=utf-8"),
        ("speedscope", "application/json; charset=utf-8"),
    ],
)
async def test_every_form_has_its_content_type(client: httpx.AsyncClient, form: str, content_type: str) -> None:
    answer = await client.get(f"{CPU}?format={form}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
    assert "content-disposition" not in answer.headers


async def test_a_heap_dump_is_a_file(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{MEMORY}?seconds=2")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"heap", "4")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith('attachment; filename="heap_dump_')
    assert answer.headers["content-disposition"].endswith('.prof"')


@pytest.mark.parametrize(
    ("failure", "code"), [(ProfilerUnavailableError("no memray here"), 404), (ProfilingError("it broke"), 500)]
)
async def test_profilers_that_fail_say_why(
    client: httpx.AsyncClient, profilers: Profilers, failure: Exception, code: int
) -> None:
    profilers.failure = failure
    answer = await client.get(MEMORY)
    assert (answer.status_code, answer.text) == (code, str(failure))


async def test_one_profile_at_a_time_of_either_kind(client: httpx.AsyncClient, profilers: Profilers) -> None:
    profilers.gate = asyncio.Event()
    first = asyncio.create_task(client.get(CPU))
    await profilers.begun.wait()
    for url in (CPU, MEMORY):
        answer = await client.get(url)
        assert (answer.status_code, answer.text) == (
            409,
            "a CPU profile is being taken; try again when it is done",
        )
    profilers.gate.set()
    assert (await first).status_code == 200
    assert (await client.get(MEMORY)).status_code == 200


async def test_a_caller_that_hangs_up_ends_its_profile(client: httpx.AsyncClient, profilers: Profilers) -> None:
    profilers.gate = asyncio.Event()
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    messages = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0)
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": CPU,
        "raw_path": CPU.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("n", 80),
    }
    await transport.app(scope, receive, send)
    assert profilers.cancelled
    assert sent[0]["status"] == profiling.STATUS_CLIENT_CLOSED_REQUEST
    profilers.gate.set()
    assert (await client.get(CPU)).status_code == 200


@pytest.mark.parametrize(
    ("query", "idle"), [("", False), ("?idle=true", True), ("?idle=false", False), ("?idle=1", False)]
)
async def test_waiting_threads_are_shown_when_asked_for(
    client: httpx.AsyncClient, profilers: Profilers, query: str, idle: bool
) -> None:
    assert (await client.get(CPU + query)).status_code == 200
    assert profilers.idle == [idle]


async def test_a_picture_may_run_its_own_script_alone(client: httpx.AsyncClient) -> None:
    for url in (CPU, MEMORY, HISTORY):
        answer = await client.get(f"{url}?format=svg")
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in (await client.get(CPU)).headers


async def test_a_memory_profile_is_compared_with_a_kept_one(client: httpx.AsyncClient, profilers: Profilers) -> None:
    first = (await client.get(f"{MEMORY}?seconds=3")).headers["x-profile-capture"]
    assert first == "20261128T100001Z"
    answer = await client.get(f"{MEMORY}?format=svg&base={first}")
    assert (answer.status_code, answer.headers["x-profile-capture"]) == (200, "20261128T100002Z")
    base = profilers.bases[1]
    assert base is not None
    assert (base.capture_id, base.subject.seconds) == (first, 3)
    kept = (await client.get(CAPTURES)).json()["captures"]
    assert kept[0] == {"capture": first, "started_at_ms": NOON_MS + 1000, "seconds": 3}
    assert [one["capture"] for one in kept] == [first, "20261128T100002Z"]
    unknown = await client.get(f"{MEMORY}?base=yesterday")
    assert (unknown.status_code, unknown.text) == (
        404,
        "no memory profile 'yesterday' is kept; kept are: 20261128T100001Z, 20261128T100002Z",
    )


async def test_minutes_say_how_busy_they_were(client: httpx.AsyncClient) -> None:
    answer = await client.get(MINUTES)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "frequency_hertz": 1,
        "minutes": [
            {"start_ms": NOON_MS, "looks": 1, "busy_looks": 1},
            {"start_ms": NOON_MS + MINUTE_MS, "looks": 2, "busy_looks": 0},
        ],
    }


async def test_the_profile_of_a_minute(client: httpx.AsyncClient) -> None:
    minute = f"?from_ms={NOON_MS}&to_ms={NOON_MS + MINUTE_MS}"
    answer = await client.get(f"{HISTORY}{minute}&format=folded")
    assert (answer.status_code, answer.text) == (200, "MainThread;apply (metasrv.state.machine:88) 1\n")
    assert answer.headers["x-profile-sampler"] == "continuous"
    picture = (await client.get(f"{HISTORY}{minute}&format=svg")).text
    assert ">Time of node 7, 2026-11-28 10:00:00 UTC, 60 s</text>" in picture
    waiting = await client.get(f"{HISTORY}?from_ms={NOON_MS + MINUTE_MS}&idle=true&format=folded")
    assert waiting.text == "MainThread;Runner.run (asyncio.runners:118) 2\n"
    assert (await client.get(f"{HISTORY}?format=speedscope")).json()["name"].endswith("10:00:00 UTC, 120 s")
    assert (await client.get(HISTORY)).headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("query", "code", "text"),
    [
        ("?format=html", 400, "format is 'html', it must be one of pprof, svg, folded, speedscope"),
        (
            f"?to_ms={NOON_MS}",
            404,
            f"no minute of this time is kept; kept is what was between {NOON_MS} and {NOON_MS + 2 * MINUTE_MS}",
        ),
    ],
)
async def test_what_the_history_lacks_is_a_problem(client: httpx.AsyncClient, query: str, code: int, text: str) -> None:
    answer = await client.get(HISTORY + query)
    assert (answer.status_code, answer.json()["detail"]) == (code, text)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_node_that_keeps_no_minutes_says_so(tmp_path: Path) -> None:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    context, _ = fake_context(machine, Config(raft_config=RaftConfig(raft_dir=str(tmp_path))), sample_status())
    transport = httpx.ASGITransport(create_app(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get(MINUTES)).json() == {"frequency_hertz": 0, "minutes": []}
        answer = await client.get(HISTORY)
        assert (answer.status_code, "`continuous_profile_hertz` is 0" in answer.text) == (404, True)
    machine.close()
    assert Config().continuous_profile_hertz == 1
    with pytest.raises(ValueError, match="continuous_profile_hertz"):
        Config(continuous_profile_hertz=CONTINUOUS_PROFILE_HERTZ_MAX + 1)
    assert Config(continuous_profile_hertz=CONTINUOUS_PROFILE_HERTZ_MAX).continuous_profile_hertz == 20
