"""Writers of the source held off for the cut-over, with the read-only switch of a cluster of metasrv.

The reason in the switch names the run that turned it on, because two runs may follow each other, and an operator may use
the switch as well: only what this run, or one before it that ended without a word, has turned on is turned off again.
Runs on the event loop of a program of its own.
"""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple, Protocol

from metasrv.model.errors import InvalidRequestError, MetasrvError

_REASON = "metactl migrate moves this cluster to {target}, run {run}"
_ATTEMPTS = 5
_AGAIN_SECONDS = 1.0


class SwitchState(NamedTuple):
    """What the source says of its switch."""

    cluster_id: str
    reason: str | None
    """Why the source takes no writes; None while it does."""
    obstacle: str = ""
    """Why the switch cannot be used, in words for the operator."""


class Switch(Protocol):
    """The switch, over an admin API of the source. Both raise MetasrvError."""

    async def look(self) -> SwitchState:
        """Raises InvalidRequestError when the source has no such switch."""

    async def turn(self, reason: str | None) -> None:
        """Refuse writes of clients in the whole source for this reason; with None, take them."""


class StillLeftError(MetasrvError):
    """The switch could not be turned off; the text says so and what to do."""


class Standstill:
    """The switch in the hands of one run."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._own = ""
        self._is_on = False
        """Whether this run may have turned the switch on; set before the request leaves."""

    async def check(self, source_cluster_id: str | None) -> None:
        """Raise InvalidRequestError unless the switch is that of the source, and can be used."""
        state = await self._switch.look()
        if source_cluster_id is None or state.cluster_id != source_cluster_id:
            raise InvalidRequestError(
                f"--from-admin-api-address leads to cluster {state.cluster_id}, "
                f"and --from to {source_cluster_id or 'one that does not name itself'}"
            )
        if state.obstacle:
            raise InvalidRequestError(state.obstacle)

    async def take_over(self, target: str, run: int) -> bool:
        """Name this run, and let the source take writes if an earlier run to this target left it read-only.

        Returns whether one did. Call it once this run leads the migration: no earlier one can end it any more.
        """
        self._own = _REASON.format(target=target, run=run)
        earlier = re.escape(_REASON.format(target=target, run="")) + r"\d+"
        reason = (await self._switch.look()).reason
        if reason is None or re.fullmatch(earlier, reason) is None:
            return False
        await self._switch.turn(None)
        return True

    async def begin(self) -> str | None:
        """Hold the writers off; the reason of an operator who had done so before."""
        reason = (await self._switch.look()).reason
        if reason in (None, self._own):
            self._is_on = True
            await self._switch.turn(self._own)
            return None
        return reason

    async def still_holds(self) -> bool:
        """Whether the source refuses writes for the reason that this run knows of, or another operator's."""
        reason = (await self._switch.look()).reason
        return reason == self._own if self._is_on else reason is not None

    async def end(self) -> bool:
        """Let the source take writes again, if this run had turned them off; returns whether it did.

        Raises StillLeftError when the source cannot be told.
        """
        if not self._is_on:
            return False
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_AGAIN_SECONDS)
            try:
                # A request to turn it on may still be on its way, so one to turn it off follows also where it is not on.
                if (await self._switch.look()).reason in (None, self._own):
                    await self._switch.turn(None)
                self._is_on = False
                return True
            except MetasrvError as error:
                failure = error
        raise StillLeftError(f"the source may still be read-only, and cannot be told to take writes: {failure}")

    def keep(self) -> bool:
        """Leave the switch as it is for good; whether this run had turned it on."""
        was_on, self._is_on = self._is_on, False
        return was_on
