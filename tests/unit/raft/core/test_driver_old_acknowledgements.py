"""An acknowledgement says what is on the disk (invariant 1), also when a newer leader took it back in the same step."""

from __future__ import annotations

import asyncio
from pathlib import Path

from metasrv.raft.core.messages import AppendReply, Message, encode_message
from tests.support.raft_bench import NoThread, driver_of, make_bench, noop, regular


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
