"""Makes one attack on one port, for some seconds, in a process of its own. Prints how many connections it took.

Knows the wire alone, no node. An attacker that is cut off connects again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from verification.attack.catalog import EVERY_ATTACK, Listed, Port
from verification.attack.target import OWN_ADDRESS, Credentials, Target, trusting_tls


async def attack(listed: Listed, target: Target) -> int:
    """Attack until the time is over; returns how many connections it took."""
    while target.goes_on():
        with suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(max(0.0, target.until - time.monotonic())):
                await listed.run(target)
        for writer in target.writers:
            writer.close()
        target.writers.clear()
    return target.connections


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one attack. Credentials are in the environment (`Credentials`)."""
    parser = argparse.ArgumentParser(prog="python -m verification.attack.attackers")
    parser.add_argument("name", choices=EVERY_ATTACK)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--tls", action="store_true", help="the port speaks TLS")
    options = parser.parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it is no news here that connections are cut
    listed, credentials = EVERY_ATTACK[options.name], Credentials.from_environment()
    tls = None
    if options.tls:
        tls = trusting_tls(credentials, *(["h2"] if listed.port is Port.GRPC else []))
    source = OWN_ADDRESS if listed.own_address else ""
    target = Target(options.host, options.port, time.monotonic() + options.seconds, tls, credentials, source)
    print(asyncio.run(attack(listed, target)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
