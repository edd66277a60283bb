"""Runs Lua scripts, whose tasks wait at the same time: a coroutine of Lua for each, resumed by a task of asyncio.

The only module that knows lupa. A script sees no object of Python: what it waits for it yields as a request, and what it
prints goes through two functions that only `prelude.lua` can name. Runs on the loop of the script's process.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from metasrv.cli.scripting.services import Services
from metasrv.cli.scripting.transactions import OtherValue
from metasrv.model.errors import InvalidRequestError, MetasrvError
from metasrv.model.types import I64_MAX

try:
    from lupa import lua54
except ImportError:  # it is an extra; `ScriptRunner` says so
    lua54 = None

_DEPTH_MAX = 16
"""Nesting of a table that goes into a request; none that a request knows is deeper than four."""
NOT_INSTALLED = "lua scripts need the package lupa: pip install 'metasrv[lua]'"


class ScriptError(MetasrvError):
    """A script is wrong, or ended with an error; the text has its name and the line."""


class ScriptExitError(MetasrvError):
    """A script called os.exit."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Source(NamedTuple):
    """One script."""

    name: str
    """As Lua takes it: `@` and a path, or `=` and a description."""
    text: bytes


class ScriptRunner:
    """One interpreter. Scripts that it runs one after the other share their globals."""

    def __init__(self, services: Services, write: Callable[[bytes], None], flush: Callable[[], None]) -> None:
        """`write` prints and `flush` hands over what was printed; both may raise OSError, which ends the script.

        Raises InvalidRequestError when lupa is not installed.
        """
        if lua54 is None:
            raise InvalidRequestError(NOT_INSTALLED)
        self._services = services
        self._write = write
        self._flush = flush
        self._output_error: OSError | None = None
        self._interrupted = self._in_lua = False
        self._ended: asyncio.Future[None]
        self._tasks: dict[int, asyncio.Task[str | None]] = {}
        self._spawned_tasks = 0
        self._failed = 0
        self.report: Callable[[str], None] = lambda _sentence: None
        """Told why a spawned task failed."""
        self._lua = lua54.LuaRuntime(
            encoding=None,
            attribute_filter=_no_attributes,
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
        )
        prelude = files(__package__).joinpath("prelude.lua").read_bytes()
        parts = self._lua.execute(
            prelude, self._print, _wall_ms, self._is_interrupted, os.devnull.encode(), name=b"=metactl", mode=b"t"
        )
        self._start, self._load = parts[b"start"], parts[b"load"]
        self._byte_array, self._null = parts[b"byte_array"], parts[b"null"]

    def interrupt(self) -> None:
        """End the scripts, also one that never waits; for a signal handler. Raises KeyboardInterrupt."""
        self._interrupted = True
        if not self._in_lua:  # where it would be an error that the script may catch
            raise KeyboardInterrupt

    async def run(self, sources: Sequence[Source]) -> None:
        """Run the scripts in order; tasks that still run when a script ends are ended with it.

        Raises ScriptError, ScriptExitError, OSError of the output, KeyboardInterrupt.
        """
        for source in sources:
            loaded = self._load(source.text, source.name.encode())
            if isinstance(loaded, tuple):
                raise ScriptError(_shown(loaded[1]))
            problem = await self._run(loaded)
            if problem is not None:
                raise ScriptError(problem)
        if self._failed:
            raise ScriptError(f"{self._failed} spawned tasks failed" if self._failed > 1 else "a spawned task failed")

    # ------------------------------------------------------------------------- tasks

    async def _run(self, body: Any) -> str | None:
        """Run one script beside the tasks that it spawns. What ends all of them is raised, whichever of them met it."""
        self._ended = asyncio.get_running_loop().create_future()
        main = asyncio.create_task(self._guarded(self._drive(body, None)))
        main.add_done_callback(lambda _task: self._end(None))
        try:
            await self._ended
            return await main
        finally:
            tasks, self._tasks = [main, *self._tasks.values()], {}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _guarded(self, driven: Coroutine[Any, Any, str | None]) -> str | None:
        try:
            return await driven
        except (ScriptExitError, ScriptError, OSError, KeyboardInterrupt) as error:
            self._end(error)
            return None

    def _end(self, error: BaseException | None) -> None:
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)

    async def _drive(self, body: Any, task: Any) -> str | None:
        """Run a function of the script to its end; why it failed, or None."""
        thread = self._start.coroutine(body, task)
        answer: tuple[Any, ...] | None = None
        while True:
            self._in_lua = True
            try:
                kind, *arguments = thread.send(answer)
            except lua54.LuaError as error:  # of the interpreter itself: no memory, for example
                if not self._interrupted:
                    raise ScriptError(str(error)) from error
            finally:
                self._in_lua = False
            if self._interrupted:
                raise KeyboardInterrupt
            if self._output_error is not None:
                raise self._output_error
            if kind == b"done":
                return None if arguments[0] else _shown(arguments[1])
            self._flush()
            answer = await self._perform(kind, arguments)

    async def _perform(self, kind: bytes, arguments: list[Any]) -> tuple[Any, ...]:
        """Do what a task asks for; the answer is what its call returns."""
        if kind == b"sleep":
            await asyncio.sleep(arguments[0])
            return (None,)
        if kind == b"spawn":
            return self._spawn(*arguments)
        if kind == b"join":
            return (await self._join(arguments[0]),)
        if kind == b"exit":
            raise ScriptExitError(arguments[0])
        service, number, address, method, *rest = arguments
        value, problem = await self._services.call(
            service.decode(), number, address, method.decode(), *(_from_lua(argument) for argument in rest)
        )
        return (self._to_lua(value), None) if problem is None else (None, problem.encode())

    def _spawn(self, task: Any, body: Any) -> tuple[Any, ...]:
        self._spawned_tasks += 1
        task[b"number"] = self._spawned_tasks
        self._tasks[self._spawned_tasks] = asyncio.create_task(self._guarded(self._spawned(body, task)))
        return (None,)

    async def _spawned(self, body: Any, task: Any) -> str | None:
        problem = await self._drive(body, task)
        if problem is not None:
            self._failed += 1
            self.report(f"spawned task: {problem}")
        return problem

    async def _join(self, task: Any) -> bytes | None:
        running = self._tasks.get(task[b"number"])
        if running is None:
            return b"the task ended with its script"
        problem = await asyncio.shield(running)
        return None if problem is None else problem.encode()

    # ------------------------------------------------------------------------- what Lua calls

    def _print(self, data: bytes) -> bool:
        try:
            self._write(data)
        except OSError as error:
            self._output_error = error
            return False
        return True

    def _is_interrupted(self) -> bool:
        return self._interrupted

    # ------------------------------------------------------------------------- values

    def _to_lua(self, value: Any) -> Any:
        if value is None:
            return self._null
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        if isinstance(value, bytes):
            return self._byte_array(value)
        if isinstance(value, dict):
            return self._lua.table_from({key.encode(): self._to_lua(item) for key, item in value.items()})
        if isinstance(value, list):
            return self._lua.table_from([self._to_lua(item) for item in value])
        if isinstance(value, int) and abs(value) > I64_MAX:
            return float(value)
        return value


def _from_lua(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float | bytes):
        return value
    kind = _shown(lua54.lua_type(value))
    if kind != "table" or depth > _DEPTH_MAX:
        return OtherValue(kind)
    return {_from_lua(key, _DEPTH_MAX + 1): _from_lua(item, depth + 1) for key, item in value.items()}


def _no_attributes(_object: object, name: object, _is_setting: bool) -> str:
    raise AttributeError(f"scripts have no access to {name!r}")


def _shown(text: Any) -> str:
    return text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else str(text)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
