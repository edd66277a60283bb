"""Places of one kind (large reads, watch streams), divided among the addresses of clients (`http2/portions.py`).

Knows no more of a call than its address and what its connection has proved. Runs on the event loop.
"""

from __future__ import annotations

from typing import NamedTuple

from metasrv.grpc_api.calls import Call, client_host
from metasrv.grpc_api.http2.portions import Standing, portions_of
from metasrv.model.errors import OverloadedError


class Holder(NamedTuple):
    """Who takes places: all calls of one address and standing."""

    host: str
    standing: Standing


def holder_of(call: Call) -> Holder:
    """To whose share a call counts."""
    return Holder(client_host(call.peer()), call.standing())


class Shares:
    """The places of one node; `what` names them in refusals."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._by_holder: dict[Holder, int] = {}
        self.in_use = 0

    def refusal(self, holder: Holder, limit: int) -> str | None:
        """Why there is no place now, None when there is one."""
        if self.in_use >= limit:
            return f"this node already serves {limit} {self._what}, the limit"
        portions = portions_of(limit)
        if not portions.refuses(holder.standing, self.in_use + 1, self._by_holder.get(holder, 0) + 1):
            return None
        if self.in_use >= portions.together[holder.standing]:
            text = f"this node serves {self.in_use} {self._what} and keeps the rest of {limit} free for others"
        else:
            own = portions.each[holder.standing]
            text = f"the address {holder.host} already has {own} {self._what}, its share of {limit}"
        return text + ("; a client that shows a token may have more" if holder.standing is Standing.STRANGER else "")

    def take(self, holder: Holder, limit: int) -> None:
        """Take a place; raises OverloadedError."""
        text = self.refusal(holder, limit)
        if text is not None:
            raise OverloadedError(text)
        self.in_use += 1
        self._by_holder[holder] = self._by_holder.get(holder, 0) + 1

    def give_back(self, holder: Holder) -> None:
        """The place of a call that has ended."""
        self.in_use -= 1
        self._by_holder[holder] -= 1
        if not self._by_holder[holder]:
            del self._by_holder[holder]
