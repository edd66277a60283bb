"""Watch a prefix: its present values, then every change, also over the loss of a node.

    python examples/watch_a_prefix.py [HOST:PORT ...]

In a program of yours the loop goes on for ever; here it ends with the key `watched/end`.
"""

import sys

from metasrv.client import Client, EventKind


def main(endpoints: list[str]) -> None:
    with Client(endpoints) as client, Client(endpoints) as writer:
        for key, _ in client.list_prefix("watched/"):
            client.delete(key)
        client.upsert("watched/a", b"1")
        view: dict[str, bytes] = {}
        for event in client.watch_prefix("watched/"):
            if event.kind is EventKind.SYNCED:
                print("the view is complete:", sorted(view))
                writer.upsert("watched/b", b"2")
                writer.delete("watched/a")
                writer.upsert("watched/end", b"")
            elif event.kind is EventKind.DELETE:
                del view[event.key]
                print("deleted:", event.key)
            elif event.record is not None:
                view[event.key] = event.record.data
                print("now:", event.key, "=", event.record.data.decode())
                if event.key == "watched/end":
                    break


if __name__ == "__main__":
    main(sys.argv[1:] or ["127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193"])
