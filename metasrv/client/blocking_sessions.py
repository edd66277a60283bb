"""The blocking form of a session: the asyncio session on the client's loop thread, which keeps it alive between calls.

    with client.session() as session:
        ...
        if session.lost.is_set(): ...

`AsyncSession` documents what each call means and raises. Any thread may call.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from metasrv.client.loop_thread import LoopThread
from metasrv.client.sessions import AsyncSession, Executed
from metasrv.client.transaction import Transaction

Result = TypeVar("Result")


class SessionLoss:
    """The end of a session, with the methods of `threading.Event`."""

    def __init__(self, loop: LoopThread, session: AsyncSession) -> None:
        self._loop = loop
        self._loss = session.lost

    @property
    def reason(self) -> str:
        """Why it is over, in words; empty while it is not."""
        return self._loss.reason

    def is_set(self) -> bool:
        """Whether the session is over by now; looks at the clock."""
        if self._loop.is_closed:
            return True

        async def look() -> bool:
            return self._loss.is_set()

        return self._loop.run(look())

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the session is over; False when the time was over first."""
        ended = threading.Event()
        self.add_callback(lambda _: ended.set())
        return ended.wait(timeout_s)

    def add_callback(self, callback: Callable[[str], None]) -> None:
        """Call `callback(reason)` in a thread of its own once the session is over, soon if it is already."""

        def call(reason: str) -> None:
            threading.Thread(target=callback, args=(reason,), name="metasrv-session-lost", daemon=True).start()

        async def add() -> None:
            self._loss.add_callback(call)

        self._loop.run(add())


class Session:
    """The blocking form of `AsyncSession`; made by `Client.session`."""

    def __init__(self, loop: LoopThread, session: AsyncSession) -> None:
        self._loop = loop
        self.asynchronous = session
        """What recipes stand on, on the client's loop."""
        self.lost = SessionLoss(loop, session)

    @property
    def key(self) -> str:
        """The key that lives as long as the session."""
        return self.asynchronous.key

    @property
    def id(self) -> str:
        return self.asynchronous.id

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        self.run(self.asynchronous.open())

    def close(self) -> None:
        """End the session. After the client's end there is nothing to do: the key goes with its time to live."""
        if not self._loop.is_closed:
            self.run(self.asynchronous.close())

    def execute_once(self, transaction: Transaction) -> Executed:
        return self.run(self.asynchronous.execute_once(transaction))

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Wait for a coroutine of a recipe on this session."""
        return self._loop.run(coroutine)

    def iterate(self, items: AsyncGenerator[Result, None]) -> Iterator[Result]:
        """The items of a recipe's asynchronous generator, one by one."""
        return self._loop.iterate(items)
