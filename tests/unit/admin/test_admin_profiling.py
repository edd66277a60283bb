"""The profile routes without profilers: queries, limits, codes, headers, one at a time, callers that hang up."""

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
from metasrv.model.limits import PROFILE_FREQUENCY_HERTZ_MAX, PROFILE_SECONDS_MAX
from metasrv.profiling.profile import Profile, ProfileFormat, ProfilerUnavailableError, ProfilingError
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, sample_status

CPU = "/debug/pprof/profile"
MEMORY = "/debug/mem/pprof/profile"


class Profilers:
    """Stand-ins that record what they were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.cancelled = False
        self.begun = asyncio.Event()

    async def cpu(self, seconds: int, frequency_hertz: int, form: ProfileFormat) -> Profile:
        return await self._take(Profile(b"cpu", form, "py-spy"), seconds, frequency_hertz, form)

    async def memory(self, seconds: int, form: ProfileFormat) -> Profile:
        return await self._take(Profile(b"heap", form, "memray"), seconds, form)

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
async def client(tmp_path: Path, profilers: Profilers) -> AsyncIterator[httpx.AsyncClient]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    context, _ = fake_context(machine, Config(raft_config=RaftConfig(raft_dir=str(tmp_path))), sample_status())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(context)), base_url="http://localhost") as made:
        yield made
    machine.close()


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
    assert profilers.asked == [(seconds, frequency_hertz, ProfileFormat.PPROF)]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (f"{CPU}?seconds=0", "seconds is 0, it must be between 1 and 300"),
        (f"{CPU}?seconds={PROFILE_SECONDS_MAX + 1}", "seconds is 301, it must be between 1 and 300"),
        (f"{MEMORY}?seconds=301", "seconds is 301, it must be between 1 and 300"),
        (f"{CPU}?frequency={PROFILE_FREQUENCY_HERTZ_MAX + 1}", "frequency is 1001, it must be between 1 and 1000"),
        (f"{CPU}?frequency=-1", "frequency is -1, it must be between 1 and 1000"),
        (f"{CPU}?format=memray", "format is 'memray', it must be one of pprof, svg, folded, speedscope"),
        (f"{MEMORY}?format=speedscope", "format is 'speedscope', it must be one of pprof, svg, folded, memray"),
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
