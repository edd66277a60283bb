"""An acknowledgement says what is on the disk (invariant 1), also when a newer leader took it back in the same step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metasrv.raft.core.driver import Driver
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.messages import AppendReply, Message, decode_message, encode_message
from metasrv.raft.core.proposals import Proposals
from metasrv.raft.observer import SilentObserver
from metasrv.testing.hand_clock import HandClock
from tests.support.raft_bench import Bench, make_bench, noop, regular


class NoThread:
    """Takes one write and is asked to finish it."""

    def __init__(self) -> None:
        self.finish: Callable[[object, BaseException | None], None] | None = None

    def submit(self, _function: object, *_args: object, on_done: Callable[[Any, BaseException | None], None]) -> None:
        self.finish = on_done

    async def run(self, *_args: object) -> Any:
        raise AssertionError("nothing waits for this thread")

    async def stop(self) -> None:
        """Nothing runs."""


def driver_of(bench: Bench, thread: NoThread, sent: list[tuple[int, Message]]) -> Driver:
    def send(node_id: int, payload: bytes) -> bool:
        sent.append((node_id, decode_message(payload)))
        return True

    writer: Any = type("Writer", (), {"write": None})
    driver = Driver(
        clock=HandClock(),
        store=bench.store,
        writer=writer,
        thread=thread,
        reads=bench.reads,
        proposals=Proposals(2, LogTime(bench.clock, 0)),
        observer=SilentObserver(),
        send=send,
    )
    bench.engine._emit = bench.guards._send = driver.outgoing
    driver.attach(bench.engine, bench.guards)
    return driver


def test_what_a_newer_leader_took_back_in_the_same_step_is_not_acknowledged(tmp_path: Path) -> None:
    async def body() -> None:
        bench, thread, sent = make_bench(tmp_path), NoThread(), list[tuple[int, Message]]()
        driver = driver_of(bench, thread, sent)
        old = bench.append(1, (1, 0), [(noop(1), 2, 1), (regular(1), 3, 1)])
        new = bench.append(2, (1, 0), [(noop(3), 2, 2)])
        driver.incoming(1, encode_message(old))
        driver.incoming(3, encode_message(new))
        driver._step()
        assert bench.indexes() == [(1, 0), (2, 2)]
        assert thread.finish is not None
        thread.finish(None, None)
        driver.stop()
        replies = [(node_id, message) for node_id, message in sent if isinstance(message, AppendReply)]
        assert [(node_id, reply.term, reply.next_index) for node_id, reply in replies] == [(3, 2, 3)]

    asyncio.run(body())
