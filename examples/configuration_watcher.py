"""A program that always runs with the newest configuration, which an operator changes key by key.

    python examples/configuration_watcher.py [HOST:PORT ...]

It starts with whole settings, never with a half-read one, and takes up each change, also those that were made while its
node was gone. Try `metactl upsert --key settings/greeting --value hello`. Here the program ends by itself.
"""

import asyncio
import sys
from contextlib import aclosing

from metasrv.client import AsyncClient, EventKind

PREFIX = "settings/"
DEFAULTS = {"greeting": "hello", "workers": "2"}


class Settings:
    """The newest settings; `changed` is set with each of them."""

    def __init__(self) -> None:
        self.values = dict(DEFAULTS)
        self.changed = asyncio.Event()

    async def follow(self, client: AsyncClient) -> None:
        newest = dict(DEFAULTS)
        complete = False
        async with aclosing(client.watch_prefix(PREFIX)) as events:
            async for event in events:
                name = event.key.removeprefix(PREFIX)
                if event.record is not None:
                    newest[name] = event.record.data.decode()
                elif event.kind is EventKind.DELETE:
                    newest.pop(name)
                    if name in DEFAULTS:
                        newest[name] = DEFAULTS[name]
                complete = complete or event.kind is EventKind.SYNCED
                if complete and newest != self.values:
                    self.values = dict(sorted(newest.items()))
                    self.changed.set()


async def main(endpoints: list[str]) -> None:
    async with AsyncClient(endpoints) as client, AsyncClient(endpoints) as operator:
        for key, _ in await operator.list_prefix(PREFIX):
            await operator.delete(key)
        settings = Settings()
        following = asyncio.create_task(settings.follow(client))
        print(settings.values)
        await operator.upsert(PREFIX + "greeting", b"good morning")
        await show_next(settings)
        await operator.upsert(PREFIX + "workers", b"8")
        await show_next(settings)
        await operator.delete(PREFIX + "greeting")
        await show_next(settings)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def show_next(settings: Settings) -> None:
    await settings.changed.wait()
    settings.changed.clear()
    print(settings.values)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193"]))
