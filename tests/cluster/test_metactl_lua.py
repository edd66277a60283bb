"""`metactl lua` with the real program against real nodes (docs/contract/admin-api.md section 4.1).

What Databend's scripts do with keys, transactions, tasks and the admin API.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.metactl import metactl

KEYS = """
local client = metactl.new_grpc_client(ADDRESS)
local function text(record) return string.char(table.unpack(record.data)) end

local reply, problem = client:upsert("lua/a", "first")
assert(problem == nil and reply.prev == metactl.NULL and text(reply.result) == "first", problem)
local second = client:upsert("lua/a", "\\0\\127\\255")
assert(second.prev.seq == reply.result.seq and second.result.seq > second.prev.seq)
local record = client:get("lua/a")
assert(text(record) == "\\0\\127\\255" and math.type(record.meta.proposed_at_ms) == "integer")
assert(client:get("lua/none") == metactl.NULL)
local value, problem = client:get("\\255")
assert(value == nil and problem == "gRPC error: a key must be UTF-8")
print(metactl.to_string(client:get("lua/none")), "keys: ok")
"""

TRANSACTIONS = """
local client = metactl.new_grpc_client(ADDRESS)
local function run(...)
    local reply, problem = client:transaction(metactl.new_txn(...))
    assert(problem == nil, problem)
    return reply
end

local made = run({metactl.eq_seq("txn/a", 0)}, {metactl.put_op("txn/a", "1"), metactl.get_op("txn/a")})
assert(made.success and made.execution_path == "then" and #made.responses == 2)
local put, got = made.responses[1].response.Put, made.responses[2].response.Get
assert(put.prev_value == metactl.NULL and put.key == "txn/a" and got.value.seq == put.current.seq)
local again = run({metactl.eq_seq("txn/a", 0)}, {metactl.put_op("txn/a", "2")}, {metactl.get_op("txn/a")})
assert(not again.success and again.execution_path == "else" and again.responses[1].response.Get.value.data[1] == 49)
local seq = put.current.seq
local matched = run({metactl.ge_seq("txn/a", seq), metactl.eq_value("txn/a", "1")}, {metactl.delete_op("txn/a")})
assert(matched.success and matched.responses[1].response.Delete.success)
assert(client:get("txn/a") == metactl.NULL)
run(nil, {metactl.put_op("txn/ttl", "x", 0.3)})
assert(client:get("txn/ttl") ~= metactl.NULL)
metactl.sleep(0.6)
assert(client:get("txn/ttl") == metactl.NULL)
local empty = client:transaction({})
assert(empty.success and #empty.responses == 0)
local none, problem = client:transaction({["then"] = {{op = "get", key = "k", ttl = 1}}})
assert(none == nil and problem == 'Invalid transaction: transaction["then"][1]: unknown field `ttl`', problem)
print("transactions: ok")
"""

RACE = """
local wins, tasks = 0, {}
for worker = 1, 8 do
    tasks[worker] = metactl.spawn(function()
        local client = metactl.new_grpc_client(ADDRESS)
        local reply = assert(client:transaction(metactl.new_txn(
            {metactl.eq_seq("race", 0)}, {metactl.put_op("race", tostring(worker))}, {metactl.get_op("race")})))
        wins = wins + (reply.success and 1 or 0)
        return worker
    end)
end
for worker, task in ipairs(tasks) do assert(task:join() == worker) end
assert(wins == 1, wins)
local began = metactl.now_ms()
for i = 1, 20 do tasks[i] = metactl.spawn(function() metactl.sleep(0.2) end) end
for i = 1, 20 do tasks[i]:join() end
assert(metactl.now_ms() - began < 3000, "the sleeps did not run at the same time")
print("race: ok")
"""

ADMIN = """
local admin = metactl.new_admin_client(ADMIN_ADDRESS)
local status = assert(admin:status())
assert(status.is_leader and #status.voters == 2 and status.leader.name == tostring(status.id))
assert(assert(admin:metrics()):find("metasrv_server_is_leader 1", 1, true))
assert(admin:trigger_snapshot() == true)
assert(metactl.to_string(assert(admin:list_features()).enabled) == "{}")
assert(metactl.to_string(assert(admin:set_feature("dummy", true)).enabled) == '{[1]="dummy"}')
local none, problem = admin:set_feature("no such", true)
assert(none == nil and problem:find("Admin API error: status code: 400", 1, true), problem)
local moved = assert(admin:transfer_leader())
assert(moved.from == status.id and moved.to ~= status.id and #moved.voter_ids == 2)
repeat metactl.sleep(0.05) until assert(admin:status()).leader.name == tostring(moved.to)
local none, problem = admin:transfer_leader(status.id)
assert(none == nil and problem:find("not leader", 1, true), problem)
local none, problem = metactl.new_admin_client("127.0.0.1:99999"):metrics()
assert(none == nil and problem:find("Admin API error: ", 1, true))
local none, problem = metactl.new_grpc_client("nowhere"):get("k")
assert(none == nil and problem:find("gRPC error: ", 1, true))
print("admin: ok")
"""


async def test_scripts_read_write_and_operate_a_cluster(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster: ProcessCluster = start_cluster(2)
    await cluster.boot()
    leader = await cluster.wait_for_leader()
    follower = next(node_id for node_id in cluster.nodes if node_id != leader)
    define = tmp_path / "define.lua"
    address, admin_address = cluster.nodes[follower].grpc, cluster.nodes[leader].admin
    define.write_text(f"#!/usr/bin/env metactl\nADDRESS, ADMIN_ADDRESS = '{address}', '{admin_address}'")
    keys = tmp_path / "keys.lua"
    keys.write_text(KEYS)
    ran = await metactl(
        "lua", "--file", define, "--script", TRANSACTIONS, "--file", keys, "--script", RACE, "--script", ADMIN
    )
    assert ran.out == "transactions: ok\nNULL\tkeys: ok\nrace: ok\nadmin: ok\n"
    assert ran.err == ""


async def test_a_script_from_standard_input_and_how_scripts_fail(tmp_path: Path) -> None:
    said, wrong, missing, exited = await asyncio.gather(
        metactl("lua", given=b"print('Hello')\nprint(5 * 6)\n"),
        metactl("lua", given=b"print('before')\nlocal nothing\nnothing.here()", code=1),
        metactl("lua", "--file", tmp_path / "missing.lua", code=1),
        metactl("lua", "--script", "print('before')", "--script", "os.exit(7)", "--script", "print('after')", code=7),
    )
    assert (said.out, said.err) == ("Hello\n30\n", "")
    assert (wrong.out, wrong.err) == ("before\n", "Error: stdin:3: attempt to index a nil value (local 'nothing')\n")
    assert missing.err == f"Error: {tmp_path}/missing.lua cannot be read: No such file or directory\n"
    assert exited.out == "before\n"
