"""Compares the passwords of handshakes with stored ones: in a helper thread, one at a time, and each good one once.

Clients make a handshake for every connection, and a stored password takes 50 ms to compare (`model/passwords.py`). So
what proved right is remembered under a key that only this process has, and costs a hash of two short texts from then
on. Wrong ones are not remembered: `guessing.py` keeps them few. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets

from metasrv.model.errors import OverloadedError
from metasrv.model.limits import PASSWORD_CHECKS_WAITING_MAX, PASSWORDS_REMEMBERED_MAX
from metasrv.model.passwords import PREFIX, is_password


class PasswordChecker:
    """The good passwords that this process has seen, and the comparison that is under way."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._good: dict[bytes, None] = {}
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0
        self.computed = 0
        """Stored passwords that were compared the slow way."""

    async def is_right(self, password: str, expected: str) -> bool:
        """Whether `password` is `expected`, a stored password or a plain one. Raises OverloadedError."""
        if not expected.startswith(PREFIX):
            return hmac.compare_digest(self._mark("", password), self._mark("", expected))
        mark = self._mark(expected, password)
        if mark in self._good:
            return True
        if self._waiting >= PASSWORD_CHECKS_WAITING_MAX:
            raise OverloadedError(f"{PASSWORD_CHECKS_WAITING_MAX} passwords already wait to be compared, the limit")
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                if mark in self._good:
                    return True
                self.computed += 1
                if not await asyncio.to_thread(is_password, password, expected):
                    return False
        finally:
            self._waiting -= 1
        if len(self._good) >= PASSWORDS_REMEMBERED_MAX:
            self._good.clear()  # bounded; the few in use are computed once more
        self._good[mark] = None
        return True

    def _mark(self, expected: str, password: str) -> bytes:
        """What stands for both texts; nobody without the key can tell them from it."""
        inner = hmac.digest(self._key, expected.encode(errors="surrogateescape"), "sha256")
        return hmac.digest(inner, password.encode(errors="surrogateescape"), "sha256")
