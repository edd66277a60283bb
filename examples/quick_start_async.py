"""Quick start on asyncio, with what a failed write means.

python examples/quick_start_async.py [HOST:PORT ...]
"""

import asyncio
import sys

from metasrv.client import AsyncClient, InvalidRequestError, NotDoneError, Transaction, UnknownOutcomeError


async def main(endpoints: list[str]) -> None:
    async with AsyncClient(endpoints, timeout_ms=5_000) as client:
        try:
            await client.upsert("quick-start-async/count", b"1")
        except NotDoneError:
            print("certainly not written: try again")
        except UnknownOutcomeError:
            print("perhaps written: look before you try again")
        except InvalidRequestError:
            print("will never be written: the request is wrong")

        # Both or neither, and only while the first key is there.
        both = Transaction().when_present("quick-start-async/count")
        both.put("quick-start-async/left", b"L").put("quick-start-async/right", b"R")
        print("both written:", (await client.transaction(both)).success)
        left, right = await client.get_many(["quick-start-async/left", "quick-start-async/right"])
        print("left", left and left.data, "right", right and right.data)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193"]))
