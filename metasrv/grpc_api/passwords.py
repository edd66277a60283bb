"""Compares the passwords of handshakes with stored ones: in a helper thread, one at a time, and each good one once.

Clients make a handshake for every connection, and a stored password takes 50 ms to compare (`model/passwords.py`). So
what proved right is remembered under a key that only this process has, and costs a hash of two short texts from then
on. Wrong ones are not remembered: `guessing.py` keeps them few. A comparison that has begun ends, and counts, whatever
becomes of its client. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from functools import partial

from metasrv.grpc_api.fair_turns import FairTurns
from metasrv.grpc_api.guessing import Attempt
from metasrv.model.limits import PASSWORD_CHECKS_WAITING_MAX, PASSWORDS_REMEMBERED_MAX
from metasrv.model.passwords import PREFIX, is_password


class PasswordChecker:
    """The good passwords that this process has seen, and the comparison that is under way."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._good: dict[bytes, None] = {}
        self._turns = FairTurns("passwords already wait to be compared", PASSWORD_CHECKS_WAITING_MAX)
        self.computed = 0
        """Stored passwords that were compared the slow way."""

    async def is_right(self, password: str, expected: str, attempt: Attempt) -> bool:
        """Whether `password` is `expected`, a stored password or a plain one; `attempt` counts it.

        Raises OverloadedError when whoever tries has to wait, or too many wait already.
        """
        attempt.check()
        if not expected.startswith(PREFIX):
            return attempt.counted(hmac.compare_digest(self._mark("", password), self._mark("", expected)))
        mark = self._mark(expected, password)
        if mark in self._good:
            return attempt.counted(True)
        await self._turns.take(attempt.origin)
        comparing: asyncio.Future[bool] | None = None
        try:
            attempt.check()  # other tries of this address came first, and may have been wrong
            if mark in self._good:
                return attempt.counted(True)
            comparing = asyncio.ensure_future(asyncio.to_thread(is_password, password, expected))
        finally:
            if comparing is None:
                self._turns.give_back()
        self.computed += 1
        # Not at the end of this call: a client that is gone ends the call, and not the thread.
        comparing.add_done_callback(partial(self._compared, mark, attempt))
        return await asyncio.shield(comparing)

    def _compared(self, mark: bytes, attempt: Attempt, comparing: asyncio.Future[bool]) -> None:
        self._turns.give_back()
        if comparing.cancelled() or comparing.exception() is not None or not attempt.counted(comparing.result()):
            return
        if len(self._good) >= PASSWORDS_REMEMBERED_MAX:
            self._good.clear()  # bounded; the few in use are computed once more
        self._good[mark] = None

    def _mark(self, expected: str, password: str) -> bytes:
        """What stands for both texts; nobody without the key can tell them from it."""
        inner = hmac.digest(self._key, expected.encode(errors="surrogateescape"), "sha256")
        return hmac.digest(inner, password.encode(errors="surrogateescape"), "sha256")
