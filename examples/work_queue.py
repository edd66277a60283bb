"""A work queue: urgent items first, one consumer for each item, results written once.

python examples/work_queue.py [HOST:PORT ...]
"""

import sys
import threading

from metasrv.client import Client, Queue, Transaction


def main(endpoints: list[str]) -> None:
    with Client(endpoints) as client, client.session(name="producer") as session:
        queue = Queue(session, "thumbnails")
        for number in range(4):
            queue.put(b"picture-%d" % number)
        queue.put(b"picture-urgent", priority=1)
        print("waiting:", queue.size())

        consumers = [threading.Thread(target=consume, args=(endpoints,)) for _ in range(2)]
        for consumer in consumers:
            consumer.start()
        for consumer in consumers:
            consumer.join()
        print("waiting:", queue.size())
        for key, _ in client.list_prefix("thumbnails/done/"):
            print(key)
            client.delete(key)


def consume(endpoints: list[str]) -> None:
    with Client(endpoints) as client, client.session(name="consumer") as session:
        queue = Queue(session, "thumbnails")
        while True:
            try:
                item = queue.take(timeout_ms=1_000)
            except TimeoutError:
                return
            # The result and the end of the item are one transaction, and only for whoever still has the item.
            item.done(Transaction().put("thumbnails/done/" + item.value.decode(), b"made"))


if __name__ == "__main__":
    main(sys.argv[1:] or ["127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193"])
