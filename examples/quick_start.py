"""Quick start: write, read, compare and set, a key that expires, a list.

python examples/quick_start.py [HOST:PORT ...]
"""

import sys

from metasrv.client import Client, Transaction


def main(endpoints: list[str]) -> None:
    with Client(endpoints) as client:
        client.upsert("quick-start/colour", b"green")
        record = client.get("quick-start/colour")
        assert record is not None
        print("colour is", record.data.decode())

        # A change that is refused when somebody else was faster.
        swap = Transaction().when_seq("quick-start/colour", "==", record.seq).put("quick-start/colour", b"blue")
        print("first swap:", client.transaction(swap).success)
        print("same swap again:", client.transaction(swap).success)

        client.upsert("quick-start/hint", b"gone in ten seconds", ttl_ms=10_000)
        for key, record in client.list_prefix("quick-start/"):
            print(key, "=", record.data.decode())


if __name__ == "__main__":
    main(sys.argv[1:] or ["127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193"])
