"""A lock, and the token that has the cluster refuse what a former holder still sends.

    python examples/lock_with_fencing.py [HOST:PORT ...]

A lock alone does not protect anything: a holder that is paused between the question "do I hold it?" and its write does
not know that time has passed. `fenced_by` puts the question into the write.
"""

import sys

from metasrv.client import Client, Lock, Transaction


def main(endpoints: list[str]) -> None:
    with Client(endpoints) as client, client.session(ttl_ms=10_000, name="example") as session:
        lock = Lock(session, "reports/daily")
        with lock as token:
            write = Transaction().fenced_by(token).put("reports/last", b"written by the holder")
            print("the holder writes:", client.transaction(write).success)
            print("the session lives:", not session.lost.is_set())

        # The lock is free now, so the same token opens nothing any more.
        late = Transaction().fenced_by(token).put("reports/last", b"written too late")
        print("a former holder writes:", client.transaction(late).success)

        with lock as newer:
            print("tokens grow:", newer.seq > token.seq)


if __name__ == "__main__":
    main(sys.argv[1:] or ["127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193"])
