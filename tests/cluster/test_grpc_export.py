"""Exports of three nodes after a random workload: byte for byte the same but for the node's own number."""

from __future__ import annotations

import asyncio
import json
import random
import threading

from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.grpc_wire import OWN_LINE, Wire, delete, delete_by_prefix, fetch_increase, put, put_sequential, when


def random_transaction(rng: random.Random) -> pb.TxnRequest:
    def key() -> str:
        return f"x/{rng.randrange(6)}/{rng.choice(['a', 'é', chr(0x10400), 'b/c', ''])}{rng.randrange(40)}"

    def operation() -> pb.TxnOp:
        kind = rng.randrange(10)
        if kind == 0:
            return delete(key())
        if kind == 1:
            return delete_by_prefix(f"x/{rng.randrange(6)}/{rng.randrange(4)}")
        if kind == 2:
            return fetch_increase(f"x/count{rng.randrange(3)}", rng.randrange(-3, 9), max_value=rng.randrange(4))
        if kind == 3:
            return put_sequential("x/seq/", "x/seq", rng.randbytes(4), ttl_ms=rng.choice([50, 3_600_000]))
        meta = rng.choice([{}, {}, {"ttl_ms": rng.randrange(300)}, {"ttl_ms": 10**7}, {"expire_at": 4_000_000_000}])
        return put(key(), rng.randbytes(rng.randrange(60)), **meta)

    operations = [operation() for _ in range(rng.randint(1, 6))]
    if rng.random() < 0.3:
        condition = when(key(), rng.randrange(6), seq=rng.randrange(300))
        return pb.TxnRequest(condition=[condition], if_then=operations, else_then=[operation()])
    return pb.TxnRequest(if_then=operations)


def work(wire: Wire, seed: int, count: int) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        wire.transaction(random_transaction(rng))


async def exports_when_equal(cluster: ProcessCluster, wires: dict[int, Wire]) -> dict[int, list[str]]:
    await cluster.wait_until_equal()
    return {node_id: wire.export_lines() for node_id, wire in wires.items()}


async def test_exports_are_equal_after_a_random_workload_with_restarts_and_a_snapshot(
    start_cluster: StartCluster,
) -> None:
    cluster: ProcessCluster = start_cluster(3, settings={"snapshot_logs_since_last": 60, "max_applied_log_to_keep": 20})
    leader = await cluster.boot()
    wires = {node_id: Wire(str(node.grpc)) for node_id, node in cluster.nodes.items()}
    workers = [threading.Thread(target=work, args=(wire, 70 + node_id, 150)) for node_id, wire in wires.items()]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join)
    lagging = next(node_id for node_id in cluster.nodes if node_id != leader)
    await cluster.kill(lagging)
    await asyncio.to_thread(work, wires[leader], 99, 150)  # past what the log keeps: it comes back by a snapshot
    cluster.start(lagging)
    await cluster.wait_for_leader()
    await cluster.wait_for_ready()  # it has registered: nothing more is written by itself
    found = await exports_when_equal(cluster, wires)
    assert len(found[1]) > 50
    for node_id, lines in found.items():
        assert lines[1] == f"{OWN_LINE}{node_id}}}]"
        assert [line for line in lines if line.startswith(OWN_LINE)] == [lines[1]]
    purged = {node_id: status["purged"]["index"] for node_id, status in (await cluster.statuses()).items() if status}
    for node_id, lines in found.items():
        assert json.loads(lines[4])[1]["Purged"]["index"] == purged[node_id] > 0
    one, two, three = ("\n".join(lines[:1] + lines[2:4] + lines[5:]).encode() for lines in found.values())
    assert one == two == three
    kinds = [next(iter(json.loads(line)[1])) for line in found[1]]
    assert {"Expire", "GenericKV", "Nodes", "Sequences"} <= set(kinds)
    for wire in wires.values():
        wire.close()


async def test_chunk_sizes_and_one_instant_while_writes_go_on(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(1)
    await cluster.boot()
    wire = Wire(str(cluster.nodes[1].grpc))
    wire.run(*(put(f"pair/{number:04}/{side}", b"0") for number in range(400) for side in "ab"))
    for chunk_size, longest in ((None, 32), (1, 1), (7, 7), (10**6, 4096), (0, 1)):
        chunks = wire.export(chunk_size)
        assert max(map(len, chunks)) == min(longest, sum(map(len, chunks))), chunk_size
        assert all(len(chunk) == longest for chunk in chunks[:-1]), chunk_size
    old = [list(chunk.data) for chunk in wire.stub.Export(pb.Empty(), timeout=10)]
    assert max(map(len, old)) == 32

    ended = threading.Event()

    def write_pairs() -> None:
        value = 0
        while not ended.is_set():
            value += 1
            for number in range(0, 400, 40):
                key = f"pair/{number:04}/"
                wire.run(put(key + "a", str(value).encode()), put(key + "b", str(value).encode()))

    writer = threading.Thread(target=write_pairs)
    writer.start()
    try:
        for _ in range(5):
            records: dict[str, list[int]] = {}
            for line in await asyncio.to_thread(wire.export_lines):
                body = json.loads(line)[1]
                if "GenericKV" in body:
                    records[body["GenericKV"]["key"]] = body["GenericKV"]["value"]["data"]
            for number in range(400):
                assert records[f"pair/{number:04}/a"] == records[f"pair/{number:04}/b"], "a transaction was cut in two"
    finally:
        ended.set()
        await asyncio.to_thread(writer.join)
    wire.close()
