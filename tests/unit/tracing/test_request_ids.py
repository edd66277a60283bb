"""Which code works for a request, and what the request is called in the lines that are written for it."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging

import pytest

from metasrv.config.sections import LogConfig
from metasrv.process.logs import RunningLogs, start_logging
from metasrv.tracing.request_ids import Header, begin_request, current_request_id


def named(name: str | None) -> Header:
    return lambda key: name if key == "x-request-id" else None


@pytest.fixture(autouse=True)
def _apart() -> None:
    """Each test has a context of its own: pytest runs asynchronous ones in a task, and others in none."""
    assert current_request_id() is None


async def test_no_request_has_no_id() -> None:
    assert current_request_id() is None


async def test_the_clients_name_is_taken_and_an_indecent_one_is_not() -> None:
    begin_request(2, named("req-17"))
    assert current_request_id() == "req-17"
    made = set()
    for given in (None, "", "two words", "x" * 65, "tab\there", "größe"):
        begin_request(2, named(given))
        made.add(current_request_id())
    assert len(made) == 6
    assert all(str(text).startswith("2-") and len(str(text)) == 14 for text in made)


async def test_an_id_stays_the_same_and_can_be_that_of_a_trace() -> None:
    mark = begin_request(2, named(None))
    assert current_request_id() == mark.id == current_request_id()
    mark.rename("0af7651916cd43dd8448eb211c80319c")
    assert current_request_id() == "0af7651916cd43dd8448eb211c80319c"


async def test_an_id_is_made_only_when_somebody_asks() -> None:
    asked: list[str] = []

    def header(key: str) -> None:
        asked.append(key)

    begin_request(2, header)
    assert asked == []
    assert current_request_id()
    assert current_request_id()
    assert asked == ["x-request-id"]


async def test_threads_and_tasks_of_a_request_work_for_it_until_it_ends() -> None:
    goes_on, found = asyncio.Event(), []

    async def outlives() -> None:
        found.append(current_request_id())
        await goes_on.wait()
        found.append(current_request_id())
        found.append(await asyncio.to_thread(current_request_id))

    async def request() -> asyncio.Task[None]:
        begin_request(1, named("req"))
        assert await asyncio.to_thread(current_request_id) == "req"
        task = asyncio.create_task(outlives())
        await asyncio.sleep(0)
        return task

    task = await asyncio.create_task(request())
    goes_on.set()
    await task
    assert found == ["req", None, None]


async def test_a_callback_of_the_loop_works_for_everybody() -> None:
    begin_request(1, named("req"))
    called: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: called.set_result(current_request_id()))
    assert await called is None


async def test_requests_at_a_time_have_their_own_ids() -> None:
    async def request(name: str) -> str | None:
        begin_request(1, named(name))
        await asyncio.sleep(0)
        return current_request_id()

    first, second = await asyncio.gather(request("a"), request("b"))
    assert (first, second) == ("a", "b")


# ----------------------------------------------------------------------------- lines


def running(stream: io.StringIO, line_format: str = "text") -> RunningLogs:
    config = LogConfig.model_validate({"file": {"on": False}, "stderr": {"on": True, "format": line_format}})
    logs = start_logging(config, stderr=stream)
    logs.describe(lambda: {"node": 3, "term": 7, "request_id": current_request_id()})
    return logs


def written(stream: io.StringIO) -> list[str]:
    return [line.partition(": ")[2] for line in stream.getvalue().splitlines()]


async def test_every_line_of_a_request_has_its_id_and_others_have_none() -> None:
    stream = io.StringIO()
    logs = running(stream)
    logger = logging.getLogger("metasrv.anything")

    async def request() -> None:
        begin_request(3, named("req-1"))
        logger.warning("refused")
        await asyncio.to_thread(logger.warning, "refused in a thread")

    try:
        logger.warning("on its own")
        await asyncio.create_task(request())
        logger.warning("with its own", extra={"node": 3, "term": 6, "request_id": "given"})
        logging.getLogger("metasrv.audit").warning("{}")
    finally:
        logs.stop()
    assert written(stream) == [
        "on its own node=3 term=7",
        "refused node=3 term=7 request_id=req-1",
        "refused in a thread node=3 term=7 request_id=req-1",
        "with its own node=3 term=6 request_id=given",
        "{}",
    ]


def test_the_same_line_of_many_requests_is_folded() -> None:
    stream = io.StringIO()
    logs = running(stream)

    async def request(name: str) -> None:
        begin_request(3, named(name))
        logging.getLogger("metasrv.anything").warning("refused")

    try:
        for number in range(3):
            contextvars.copy_context().run(asyncio.run, request(f"req-{number}"))
    finally:
        logs.stop()
    assert written(stream) == [
        "refused node=3 term=7 request_id=req-0",
        "refused (2 times more within 1 s) node=3 term=7 request_id=req-2",
    ]


def test_what_is_not_known_is_left_out() -> None:
    stream = io.StringIO()
    logs = running(stream)
    logs.describe(lambda: {"node": 3, "term": None})
    logging.getLogger("metasrv.anything").warning("starts", extra={"term": None})
    logs.stop()
    assert written(stream) == ["starts node=3"]
