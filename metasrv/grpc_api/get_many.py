"""Answers keys that arrive one by one, all from the instant at which the first could have been asked for: KvGetMany.

The client decides how long that takes, so the call has an end of its own: at its age, and when too much was replaced
meanwhile (`state/instants.py`). Knows neither messages nor the call; the simulator's clients use the same function. Runs
on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from metasrv.grpc_api.context import LocalState
from metasrv.model.errors import ViewLostError
from metasrv.model.limits import GRPC_GET_MANY_SECONDS_MAX
from metasrv.model.types import SeqV
from metasrv.state.validate import validate_key


async def answer_at_one_instant(
    machine: LocalState,
    keys: AsyncIterator[str],
    now_ms: int,
    send: Callable[[str, SeqV | None], Awaitable[None]],
) -> None:
    """Send each key's record as it is now, however late the key arrives; `now_ms` decides what has expired.

    Raises ViewLostError when that instant is given up, InvalidRequestError for a key that cannot be.
    """
    loop = asyncio.get_running_loop()
    with machine.open_instant() as instant:
        try:
            async with asyncio.timeout(GRPC_GET_MANY_SECONDS_MAX) as end:
                instant.on_lost = lambda: None if end.expired() else end.reschedule(loop.time())
                async for key in keys:
                    validate_key(key)
                    await send(key, instant.get(key, now_ms))
        except TimeoutError as error:
            if not end.expired():
                raise
            raise ViewLostError(
                instant.lost
                or f"this read was open for {GRPC_GET_MANY_SECONDS_MAX} seconds, the limit; read again, more quickly"
            ) from error
