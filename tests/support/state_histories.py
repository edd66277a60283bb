"""Long random histories of commands from one seed, for comparing the state machine with the plain model.

Hypothesis draws short histories and shrinks what fails; these are long and cheap, so that rare meetings happen too.
Numbers of NEAR and their meaning are those of `state_strategies.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from metasrv.model import commands as c

BASE_MS = 1_700_000_000_000
U64 = 2**64 - 1
KEYS = ["", "a", "a/", "a/b", "a/b/c", "a0", "b", "b\0", "é", "\uffff", "\U00010000", "\U0010ffff"]
COMMON_KEYS = ["a", "a/", "a/b"]
"""So that commands meet what others left."""
VALUES = [b"", b"0", b"7", b" 12 ", b"-1", b"1.0", b"007", b"\xff", str(U64).encode(), str(U64 + 1).encode()]
NEAR = {2**40 - 1: -1, 2**40: 0, 2**40 + 1: 1}
"""Numbers that stand for what they are compared with, and for its neighbours."""
LARGE = [2**63 - 1, 2**63, U64]
FIXED_EXPIRIES = [0, 10**11, 10**11 + 1, *LARGE]
DELTAS = [-(2**63), -3, 0, 1, 5, 2**63 - 1]


class Drawn:
    """Draws commands and histories from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._limits = random.Random(f"limits {seed}")
        self._time_ms = BASE_MS

    def history(self, entries: int) -> list[Any]:
        """Entries with up to four commands each, their time going on and now and then back."""
        actions: list[Any] = []
        for _ in range(entries):
            if self._random.random() < 0.04:
                actions.append(self._random.choice(["reopen", "snapshot"]))
            self._time_ms += self._random.choice([0, 0, 1, 2, 9, 30])
            time_ms = self._time_ms + self._random.choice([0, 0, 0, -20])
            actions.append((time_ms, tuple([self.command() for _ in range(self._random.randint(0, 4))])))
        return actions

    def limited_history(self, entries: int) -> list[Any]:
        """The same, in a cluster whose limits are turned on and off among the commands."""
        limited: list[Any] = []
        for action in self.history(entries):
            if action in ("reopen", "snapshot") or self._limits.random() > 0.25:
                limited.append(action)
                continue
            time_ms, batch = action
            place = self._limits.randint(0, len(batch))
            limited.append((time_ms, (*batch[:place], self.limit(), *batch[place:])))
        return limited

    def limit(self) -> c.Command:
        if self._limits.random() < 0.5:
            return c.SetReadOnly(self._limits.choice(["", "moving", None, None, None]))
        return c.SetQuota(self._limits.choice([0, 1, 8, 20, 40, 80]))

    def command(self) -> c.Command:
        number = self._random.random()
        if number < 0.35:
            match = c.MatchSeq(self._random.choice(list(c.MatchKind)), self.number())
            operation = self._random.choice(list(c.Operation))
            return c.Upsert(self.key(), match, operation, self.value(), self.expiry(), self.ttl())
        if number < 0.6:
            return c.Transaction((), (), (self.operation(),), ())
        if number < 0.8:
            return c.Transaction((), (self.condition(),), (self.operation(),), (self.operation(),))
        if number < 0.9:
            return c.BranchTransaction(self.few(self.branch))
        parts = self.few(self.branch), self.few(self.condition), self.few(self.operation), self.few(self.operation)
        return c.Transaction(*parts)

    def operation(self) -> c.TransactionOperation:
        number = self._random.random()
        if number < 0.1:
            return c.Get(self.key())
        if number < 0.45:
            return c.Put(self.key(), self.value(), self.expiry(), self.ttl(), self.maybe(self.number))
        if number < 0.6:
            return c.Delete(self.key(), self.maybe(self.number))
        if number < 0.65:
            return c.DeleteByPrefix(self.key())
        if number < 0.9:
            return c.FetchIncrease(self.key(), self._random.choice(DELTAS), self.maybe(self.number), self.number())
        return c.PutSequential(self.key(), self.key(), self.value(), self.expiry(), self.ttl())

    def condition(self) -> c.Condition:
        target = self._random.choice(list(c.Target))
        operand: int | bytes = 0 if target is c.Target.NONE else self.number()
        if target is c.Target.VALUE:
            operand = self.value()
        return c.Condition(self.key(), target, operand, self._random.choice(list(c.Comparison)))

    def branch(self) -> c.Branch:
        return c.Branch(self.maybe(self.expression), self.few(self.operation))

    def expression(self, depth: int = 2) -> c.Expression:
        inner = self.few(lambda: self.expression(depth - 1)) if depth else ()
        return c.Expression(self._random.choice(list(c.Combine)), inner, self.few(self.condition))

    def key(self) -> str:
        return self._random.choice(COMMON_KEYS if self._random.random() < 0.6 else KEYS)

    def value(self) -> bytes:
        return self._random.choice(VALUES)

    def number(self) -> int:
        kind = self._random.random()
        if kind < 0.6:
            return self._random.choice(list(NEAR))
        return self._random.randint(0, 12) if kind < 0.9 else self._random.choice(LARGE)

    def expiry(self) -> int | None:
        kind = self._random.random()
        if kind < 0.6:
            return None
        if kind < 0.8:
            return self._time_ms + self._random.randint(-5, 60)
        return self._time_ms // 1000 + self._random.randint(-1, 1) if kind < 0.85 else self._random.choice(FIXED_EXPIRIES)

    def ttl(self) -> int | None:
        kind = self._random.random()
        if kind < 0.7:
            return None
        return self._random.randint(0, 30) if kind < 0.95 else U64

    def maybe(self, draw: Callable[[], Any]) -> Any:
        return draw() if self._random.random() < 0.5 else None

    def few(self, draw: Callable[[], Any]) -> tuple[Any, ...]:
        return tuple([draw() for _ in range(self._random.randint(0, 2))])
