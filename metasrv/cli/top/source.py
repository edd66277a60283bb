"""Follows the console's stream of one node, and goes on at another node of the cluster when that one falls silent.

Other addresses are learned from what the nodes say, so one endpoint is enough. A thread reads the stream; what it found
is handed over whole, so that the terminal never waits for the network.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from metasrv.cli.ctl_admin import AdminError
from metasrv.cli.top.sight import Sight
from metasrv.model.errors import MetasrvError, NotDoneError
from metasrv.model.limits import TOP_ADDRESSES_MAX

STREAM_PATH = "/v1/console/stream"
RETRY_SECONDS = 0.5
FIRST_LINES = frozenset({"state", "history", "events"})
"""What a stream begins with."""


def plain(address: str) -> str:
    """Without a scheme, as people say it."""
    return address.partition("://")[2] or address


class LineClient(Protocol):
    """The part of `AdminClient` that is used here."""

    def lines(self, path: str) -> Iterator[bytes]: ...


class News(NamedTuple):
    """What is known at one instant."""

    sight: Sight
    address: str
    """Where the node is that was asked last."""
    trouble: str
    """Why nothing new comes from there; empty while it does."""
    instead_of: str = ""
    """The address that the caller gave, when another one is asked in its place."""


class Source:
    """The stream, from whichever node gives it. `latest` may be read from any thread."""

    def __init__(self, addresses: list[str], client_of: Callable[[str], LineClient], *, tls: bool = False) -> None:
        """`addresses` are `host:port` or URLs. With `tls` no address is followed to that has none: it gets the token."""
        self._addresses = addresses
        self._learnt: list[str] = []
        self._client_of = client_of
        self._tls = tls or any(address.startswith("https://") for address in addresses)
        self.latest = News(Sight(), plain(addresses[0]), "")
        self.changed: Callable[[], None] = lambda: None
        """Called by the thread with each new `latest`."""

    def first(self) -> News:
        """One whole view, from the first address that gives one. Raises what the last of them answered."""
        error: MetasrvError = NotDoneError("there is no address to ask")
        for address in self._addresses:
            seen: set[str] = set()
            try:
                for kind in self._follow(address):
                    seen.add(kind)
                    if seen >= FIRST_LINES:
                        return self.latest
                error = NotDoneError(f"the node at {address} ended the stream")
            except MetasrvError as failure:
                error = failure
        raise error

    def start(self) -> None:
        """Follow for as long as the process lives."""
        threading.Thread(target=self._run, name="top-source", daemon=True).start()

    def _run(self) -> None:
        while True:
            for address in self._round():
                trouble = self._try(address)
                self._tell(self.latest._replace(address=plain(address), trouble=trouble))
            time.sleep(RETRY_SECONDS)

    def _round(self) -> list[str]:
        """Every address once, the one that just failed last."""
        every = list({plain(address): address for address in [*self._learnt, *self._addresses]}.values())
        failed = self.latest.address if self.latest.trouble else ""
        every.sort(key=lambda address: (plain(address) == failed, address not in self._addresses))
        return every

    def _try(self, address: str) -> str:
        """Follow one node until it gives nothing any more; why."""
        try:
            for _ in self._follow(address):
                pass
        except AdminError as error:
            return f"{address} refuses: {error}"
        except MetasrvError as error:
            return str(error)
        return f"the node at {address} ended the stream"

    def _follow(self, address: str) -> Iterator[str]:
        """The type of each line, once it is in `latest`."""
        sight = Sight(events=self.latest.sight.events)
        for text in self._client_of(address).lines(STREAM_PATH):
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            if not isinstance(line, dict) or not isinstance(line.get("type"), str):
                raise NotDoneError(f"the server at {address} is not a node's admin API: it answered something else")
            sight = sight.learnt(line)
            self._learn(sight)
            here, given = plain(address), plain(self._addresses[0])
            self._tell(News(sight, here, "", given if here != given else ""))
            yield line["type"]

    def _learn(self, sight: Sight) -> None:
        if sight.cluster is None:
            return
        urls = [node.admin_url for node in sight.cluster.nodes if node.admin_url]
        fit = [url for url in urls if urlsplit(url).scheme == ("https" if self._tls else "http")]
        if fit:
            self._learnt = fit[:TOP_ADDRESSES_MAX]

    def _tell(self, news: News) -> None:
        self.latest = news
        self.changed()
