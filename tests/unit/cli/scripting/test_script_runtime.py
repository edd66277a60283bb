"""The interpreter of scripts: tasks, output, errors with their lines, and what scripts cannot reach."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from metasrv.cli.scripting import runtime
from metasrv.cli.scripting.runtime import ScriptError, ScriptExitError, ScriptRunner, Source
from metasrv.cli.scripting.services import Answer, Services
from metasrv.model.errors import InvalidRequestError


class Scripted(Services):
    """Answers from a table, after a turn of the loop; remembers what it was asked."""

    def __init__(self, **answers: Answer) -> None:
        super().__init__(lambda _address: pytest.fail("no client is made"), lambda _address: pytest.fail("nor here"))
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []

    async def call(self, kind: str, number: int, address: bytes, method: str, *arguments: Any) -> Answer:
        self.asked.append((kind, number, address, method, *arguments))
        await asyncio.sleep(0)
        return self.answers[method]


class Ran:
    """What scripts did."""

    def __init__(self, services: Services | None = None) -> None:
        self.printed = b""
        self.reported: list[str] = []
        self.runner = ScriptRunner(services or Scripted(), self.write, lambda: None)
        self.runner.report = self.reported.append

    def write(self, data: bytes) -> None:
        self.printed += data

    def __call__(self, *texts: str | bytes) -> str:
        sources = [
            Source(f"@{number}.lua", text.encode() if isinstance(text, str) else text)
            for number, text in enumerate(texts, 1)
        ]
        asyncio.run(self.runner.run(sources))
        return self.printed.decode("utf-8", "replace")


def test_output_keeps_its_order_and_every_byte() -> None:
    ran = Ran()
    ran('print("a", 1, nil) io.write("b", 2, "\\n") io.stdout:write("\\0\\255"):flush() print()')
    assert ran.printed == b"a\t1\tnil\nb2\n\x00\xff\n"


def test_scripts_run_in_order_and_share_their_globals() -> None:
    assert Ran()("function greet() print('hello') end", "greet()", "metactl.sleep(0) greet()") == "hello\nhello\n"


def test_tasks_run_at_the_same_time_and_give_their_values() -> None:
    text = """
    local events = {}
    local function work(name)
        return metactl.spawn(function()
            for step = 1, 3 do
                events[#events + 1] = name .. step
                metactl.sleep(0)
            end
            return name, nil, 7
        end)
    end
    local a, b = work("a"), work("b")
    events[#events + 1] = "main"
    print(a:join())
    print(b:join())
    print(a:join())
    print(table.concat(events, " "))
    """
    ran = Ran()(text).splitlines()
    assert ran[:3] == ["a\tnil\t7", "b\tnil\t7", "a\tnil\t7"]
    events = ran[3].split()
    assert events.index("b1") < events.index("a2") < events.index("b3")
    assert set(events) == {"main", *(f"{name}{step}" for name in "ab" for step in (1, 2, 3))}


def test_what_a_script_leaves_running_ends_with_it() -> None:
    text = "metactl.spawn(function() while true do metactl.sleep(0) end end) metactl.sleep(0) print('end')"
    assert Ran()(text, "print('next')") == "end\nnext\n"


def test_answers_become_tables() -> None:
    record = {"seq": 3, "meta": {"proposed_at_ms": 5}, "data": bytes(range(256)) * 40}
    services = Scripted(
        get=(record, None), upsert=({"prev": None, "result": record}, None), metrics=("x 1\n", None), status=(None, "no")
    )
    ran = Ran(services)
    ran(
        """
        local client, admin = metactl.new_grpc_client("h:1"), metactl.new_admin_client("h:2")
        local record, problem = client:get("k")
        assert(problem == nil and record.seq == 3 and record.meta.proposed_at_ms == 5)
        assert(#record.data == 10240 and record.data[1] == 0 and record.data[256] == 255)
        assert(string.char(table.unpack(record.data, 1, 3)) == "\\0\\1\\2")
        local reply = client:upsert("k", "\\255")
        assert(reply.prev == metactl.NULL and type(metactl.NULL) == "userdata" and reply.result.seq == 3)
        assert(admin:metrics() == "x 1\\n")
        local value, problem = admin:status()
        assert(value == nil and problem == "no")
        """
    )
    assert services.asked == [
        ("grpc", 1, b"h:1", "get", b"k"),
        ("grpc", 1, b"h:1", "upsert", b"k", b"\xff"),
        ("admin", 2, b"h:2", "metrics"),
        ("admin", 2, b"h:2", "status"),
    ]


def test_a_transaction_arrives_as_a_dictionary() -> None:
    services = Scripted(transaction=({"success": True, "responses": []}, None))
    Ran(services)(
        """
        local client = metactl.new_grpc_client("h:1")
        client:transaction(metactl.new_txn({metactl.eq_seq("a", 0), metactl.eq_value("b", "v")},
            {metactl.put_op("a", "v", 1.5), metactl.get_op("a")}, {metactl.delete_op("a")}))
        client:transaction({x = print, y = {[{}] = 1}})
        """
    )
    assert services.asked[0][4] == {
        b"conditions": {
            1: {b"key": b"a", b"op": b"eq_seq", b"value": 0},
            2: {b"key": b"b", b"op": b"eq_value", b"value": b"v"},
        },
        b"then": {
            1: {b"op": b"put", b"key": b"a", b"value": b"v", b"ttl": 1.5},
            2: {b"op": b"get", b"key": b"a"},
        },
        b"else": {1: {b"op": b"delete", b"key": b"a"}},
    }
    other = services.asked[1][4]
    assert other[b"x"].lua_type == "function"
    assert [key.lua_type for key in other[b"y"]] == ["table"]


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("nil", "nil"),
        ("metactl.NULL", "NULL"),
        ("1.5", "1.5"),
        ("'say \"hi\"\\t\\1\\200\\\\'", '"say \\"hi\\"\\t\\x01\\xc8\\\\"'),
        ("{}", "{}"),
        ("{b = 'x', a = {c = true}, [2] = 1}", '{[2]=1,"a"={"c"=true},"b"="x"}'),
        ("{104, 105}", '"hi"'),
        ("{104, 256}", "{[1]=104,[2]=256}"),
        ("{[2] = 104}", "{[2]=104}"),
        ("{a = 1, b = metactl.NULL}", '{"a"=1}'),
        ("{[true] = 'yes'}", '{[true]="yes"}'),
        ("print", "<function>"),
        ("(function() local t = {} t.t = t return t end)()", '{"t"=<cycle>}'),
    ],
)
def test_to_string(expression: str, text: str) -> None:
    assert Ran()(f"print(metactl.to_string({expression}))") == f"{text}\n"


def test_zipf_indices_are_skewed_and_within_bounds() -> None:
    text = """
    math.randomseed(1)
    for _, alpha in ipairs({0.5, 1.0, 1.2}) do
        local zipf, low = metactl.ZipfGenerator:new(1000, alpha), 0
        assert(zipf.num_keys == 1000 and zipf.alpha == alpha and zipf:generate_key_index(0) == 1)
        for _ = 1, 4000 do
            local index = zipf:generate_key_index(math.random())
            assert(index >= 1 and index <= 1000 and math.type(index) == "integer")
            low = low + (index <= 100 and 1 or 0)
        end
        print(low)
    end
    """
    low = list(map(int, Ran()(text).split()))
    assert 1000 < low[0] < 1600 < low[1] < low[2]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 1\ny = =", "1.lua:2: unexpected symbol near '='"),
        ("\n\nnothing.here()", "1.lua:3: attempt to index a nil value (global 'nothing')"),
        ("error('mine')", "1.lua:1: mine"),
        ("error({code = 4})", '{"code"=4}'),
        ("error(setmetatable({}, {__tostring = function() return 'own' end}))", "own"),
        ("metactl.sleep(-1)", "1.lua:1: sleep: duration must be finite, non-negative, and representable"),
        ("metactl.new_grpc_client(5)", "1.lua:1: an address is a string, got number"),
        ("metactl.new_grpc_client('h:1'):get()", "1.lua:1: get: argument 1 must be a string, got nil"),
        ("coroutine.wrap(function() metactl.sleep(0) end)()", "1.lua:1: it waits, and so cannot be called in a"),
        ("\x1bLua", "attempt to load a binary chunk (mode is 't')"),
    ],
)
def test_an_error_is_one_sentence_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ScriptError) as failed:
        Ran()(text)
    assert str(failed.value).startswith(problem)
    assert "\n" not in str(failed.value)


def test_a_spawned_task_that_fails_is_reported_and_fails_the_script_at_its_end() -> None:
    ran = Ran()
    with pytest.raises(ScriptError, match="a spawned task failed"):
        ran("local task = metactl.spawn(function() error('mine') end) print(task:join())")
    assert ran.printed == b"nil\t1.lua:1: mine\n"
    assert ran.reported == ["spawned task: 1.lua:1: mine"]


@pytest.mark.parametrize("text", ["os.exit(%s)", "metactl.spawn(function() os.exit(%s) end) metactl.sleep(1e9)"])
@pytest.mark.parametrize(("argument", "code"), [("", 0), ("true", 0), ("false", 1), ("3", 3), ("256", 0)])
def test_os_exit_ends_everything(text: str, argument: str, code: int) -> None:
    with pytest.raises(ScriptExitError) as ended:
        Ran()(text % argument, "error('not reached')")
    assert ended.value.code == code


def test_output_that_is_not_taken_ends_the_script_even_if_it_catches_errors() -> None:
    ran = Ran()

    def broken(_data: bytes) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    ran.runner._write = broken
    with pytest.raises(BrokenPipeError):
        ran("while true do pcall(print, 'x') metactl.sleep(0) end")


def test_an_interrupt_ends_a_script_that_never_waits_and_catches_errors() -> None:
    ran = Ran()

    def interrupt(_data: bytes) -> None:
        ran.runner.interrupt()  # as a signal handler does while Lua runs

    ran.runner._write = interrupt
    with pytest.raises(KeyboardInterrupt):
        ran("print() while true do pcall(coroutine.wrap(function() while true do end end)) end")
    with pytest.raises(KeyboardInterrupt):
        ran.runner.interrupt()  # while no script runs, at once


@pytest.mark.parametrize(
    "expression",
    [
        "python",
        "debug",
        "package.loadlib",
        "package.loaded.python",
        "package.loaded.debug",
        "string.dump",
        "pcall(require, 'debug') and true or nil",
        "load('\\27Lua', 'x', 'b')",
        "loadfile('/bin/sh', 'b')",
    ],
)
def test_scripts_do_not_find(expression: str) -> None:
    assert Ran()(f"print(({expression}))") == "nil\n"


def test_no_object_of_python_is_within_reach() -> None:
    """Everything that can be reached from the globals is of Lua: each userdata is a file, or NULL."""
    text = """
    local seen, found = {}, 0
    local function walk(value)
        if seen[value] then return end
        seen[value] = true
        if type(value) == "userdata" then
            found = found + 1
            local name = tostring(value)
            assert(name == "NULL" or name:match("^file"), name)
            assert(not pcall(function() return value.__class__ end) or value.__class__ == nil)
        elseif type(value) == "table" then
            for key, item in pairs(value) do walk(key) walk(item) end
        end
        local meta = getmetatable(value)
        if type(meta) == "table" then walk(meta) end
    end
    walk(_G)
    walk(metactl.new_grpc_client("h:1"))
    local task = metactl.spawn(function() end)
    walk(task)
    print(found > 0)
    """
    assert Ran()(text) == "true\n"


def test_an_attribute_of_python_is_refused_whatever_object_a_script_might_get() -> None:
    with pytest.raises(AttributeError):
        runtime._no_attributes(print, b"__globals__", False)


def test_without_lupa_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "lua54", None)
    with pytest.raises(InvalidRequestError, match=r"pip install 'metasrv\[lua\]'"):
        Ran()
