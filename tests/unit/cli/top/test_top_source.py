"""Where `metactl top` asks: one endpoint, the others that it learns, and what it says when one falls silent."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from metasrv.cli import ctl
from metasrv.cli.ctl_admin import AdminClient, AdminError
from metasrv.cli.top import command, source
from metasrv.cli.top.screen import Screen, is_ascii_only
from metasrv.cli.top.source import News, Source
from metasrv.cli.top.view import SORTS
from metasrv.model.errors import NotDoneError
from metasrv.model.limits import TOP_ADDRESSES_MAX, TOP_LINE_SIZE_BYTES_MAX
from tests.support import console_scenes, console_states
from tests.support.top_frames import NOW_MS


def lines_of(answered_by: int = 1, scheme: str = "http") -> list[bytes]:
    state = console_scenes.STATES["healthy"](NOW_MS)
    state["answered_by"] = answered_by
    for node in state["nodes"]:
        node["admin_url"] = f"{scheme}://node{node['id']}:28101"
    history, events = console_states.history(NOW_MS), console_states.events(NOW_MS)
    given: list[dict[str, Any]] = [
        {"type": "state", "state": state},
        {"type": "history", "history": history},
        {"type": "events", "events": events},
    ]
    return [json.dumps(line).encode() for line in given]


class Ended(Exception):
    """Ends the thread's loop, in a test."""


class Nodes:
    """What each address gives: lines, or a failure. `asked` has the order."""

    def __init__(self, **given: list[bytes] | Exception) -> None:
        self.given = given
        self.asked: list[str] = []
        self.told: list[News] = []

    def client(self, address: str) -> Any:
        nodes, name = self, source.plain(address).partition(":")[0]

        class Client:
            def lines(self, path: str) -> Iterator[bytes]:
                assert path == "/v1/console/stream"
                nodes.asked.append(address)
                given = nodes.given.get(name, NotDoneError(f"nothing listens at {address}"))
                if isinstance(given, Exception):
                    raise given
                yield from given

        return Client()

    def run(self, made: Source, rounds: int, monkeypatch: pytest.MonkeyPatch) -> list[News]:
        """The thread's loop, here, for some rounds of all addresses."""
        left = [rounds]

        def sleep(_seconds: float) -> None:
            left[0] -= 1
            if not left[0]:
                raise Ended

        monkeypatch.setattr("metasrv.cli.top.source.time.sleep", sleep)
        made.changed = lambda: self.told.append(made.latest)
        with pytest.raises(Ended):
            made._run()
        return self.told


def test_it_goes_on_at_addresses_that_it_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(node1=lines_of(1), node3=lines_of(3))
    made = Source(["node1:28101"], nodes.client)
    told = nodes.run(made, 2, monkeypatch)
    assert nodes.asked == ["node1:28101", *["http://node2:28101", "http://node3:28101", "node1:28101"]]
    at_the_third = next(news for news in told if news.sight.cluster and news.sight.cluster.answered_by == 3)
    assert (at_the_third.address, at_the_third.instead_of, at_the_third.trouble) == ("node3:28101", "node1:28101", "")
    assert at_the_third.sight.events, "those that are known stay"
    silent = next(news for news in told if news.address == "node2:28101")
    assert silent.trouble == "nothing listens at http://node2:28101"
    assert silent.sight.cluster is not None, "what was known is shown, as old"


def test_one_that_fails_is_asked_last_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes()
    nodes.run(Source(["a:1", "b:1"], nodes.client), 2, monkeypatch)
    assert nodes.asked == ["a:1", "b:1", "a:1", "b:1"]
    assert Source(["a:1", "b:1"], nodes.client)._round() == ["a:1", "b:1"]


@pytest.mark.parametrize(("given", "flag"), [("https://node1:28101", False), ("node1:28101", True)])
def test_a_token_given_for_tls_is_not_sent_without_it(monkeypatch: pytest.MonkeyPatch, given: str, flag: bool) -> None:
    nodes = Nodes(node1=lines_of(scheme="http"))
    made = Source([given], nodes.client, tls=flag)
    nodes.run(made, 1, monkeypatch)
    assert made._learnt == []
    nodes = Nodes(node1=lines_of(scheme="https"))
    made = Source([given], nodes.client, tls=flag)
    nodes.run(made, 1, monkeypatch)
    assert made._learnt == [f"https://node{node_id}:28101" for node_id in (1, 2, 3)]


def test_addresses_that_are_learned_are_bounded() -> None:
    state = console_scenes.STATES["lone"](NOW_MS)
    state["nodes"] = [{**state["nodes"][0], "id": n, "admin_url": f"http://n{n}:1"} for n in range(60)]
    nodes = Nodes(a=[json.dumps({"type": "state", "state": state}).encode()])
    made = Source(["a:1"], nodes.client)
    with pytest.raises(NotDoneError, match="ended the stream"):
        made.first()
    assert len(made._learnt) == TOP_ADDRESSES_MAX


@pytest.mark.parametrize("line", [b"<html>", b"7", b"[]", b"{}", b'{"type": 7}', b"[" * 100_000, b"\xff"])
def test_what_is_no_node_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(NotDoneError, match="the server at a:1 is not a node's admin API"):
        Source(["a:1"], Nodes(a=[line]).client).first()


def test_the_first_view_comes_from_the_first_that_answers() -> None:
    nodes = Nodes(b=lines_of(2))
    first = Source(["a:1", "b:1"], nodes.client).first()
    assert (first.address, first.instead_of) == ("b:1", "a:1")
    with pytest.raises(AdminError, match="401"):
        Source(["a:1"], Nodes(a=AdminError(401, "a token is wanted")).client).first()


# ----------------------------------------------------------------------------- the command


def given_to(monkeypatch: pytest.MonkeyPatch, nodes: Nodes) -> None:
    def made(address: str, _arguments: argparse.Namespace) -> Any:
        return nodes.client(address)

    monkeypatch.setattr(command, "made", made)


def test_one_frame_is_plain_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given_to(monkeypatch, Nodes(a=lines_of()))
    monkeypatch.setenv("COLUMNS", "90")
    for arguments in (["--once"], []):
        assert ctl.main(["top", *arguments, "--admin-api-address", "a:1"]) == 0
        out = capsys.readouterr().out
        assert "orders  node 1 leads  term 7" in out
        assert "\x1b" not in out
        assert "q quit" not in out
        assert max(map(len, out.splitlines())) <= 90


def test_failures_are_sentences(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given_to(monkeypatch, Nodes(b=AdminError(401, "a token is wanted")))
    assert ctl.main(["top", "--admin-api-address", "a:1"]) == 1
    assert capsys.readouterr().err == "Error: nothing listens at a:1\n"
    assert ctl.main(["top", "--admin-api-address", "b:1"]) == 1
    assert "METASRV_ADMIN_TOKEN" in capsys.readouterr().err


@pytest.mark.program
def test_other_commands_do_not_load_what_draws() -> None:
    code = "import sys; from metasrv.cli import ctl; ctl.build_parser(); print('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


# ----------------------------------------------------------------------------- keys


def test_keys_pause_sort_and_end() -> None:
    screen = Screen(Source(["a:1"], Nodes().client), 2)
    assert screen._look().sort == SORTS[0]
    assert screen._press("s")
    assert screen._look().sort == SORTS[1]
    assert screen._press("previous")
    assert screen._press("previous")
    assert screen._look().sort == SORTS[-1]
    assert screen._press("p")
    assert screen._look().paused
    assert screen._press(" ")
    assert not screen._look().paused
    assert not screen._press("x")
    assert not screen._quits
    assert screen._press("q")
    assert screen._quits


class Stream:
    """A stream with an encoding, a terminal or not."""

    def __init__(self, encoding: str | None, terminal: bool) -> None:
        self.encoding, self._terminal = encoding, terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("encoding", "terminal", "locale", "ascii_only"),
    [
        ("utf-8", True, "en_US.UTF-8", False),
        ("utf-8", True, "C", True),
        ("utf-8", False, "C", False),
        ("ascii", True, "en_US.UTF-8", True),
        ("latin-1", True, "de_DE", True),
        ("no such encoding", True, "", True),
        (None, False, "", True),
    ],
)
def test_a_terminal_that_knows_only_ascii_is_recognised(
    monkeypatch: pytest.MonkeyPatch, encoding: str | None, terminal: bool, locale: str, ascii_only: bool
) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    for name in ("LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    stream: Any = Stream(encoding, terminal)
    assert is_ascii_only(stream) is ascii_only


# ----------------------------------------------------------------------------- the stream


class Connection:
    """A connection whose answer is these bytes."""

    sock = None

    def __init__(self, body: bytes, status: int = 200) -> None:
        self._body, self.status, self.closed = io.BytesIO(body), status, False
        self.read, self.readline = self._body.read, self._body.readline

    def request(self, *_given: Any) -> None:
        """Nothing is sent."""

    def getresponse(self) -> Connection:
        return self

    def close(self) -> None:
        self.closed = True


def test_lines_come_one_by_one_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    long = b"x" * (TOP_LINE_SIZE_BYTES_MAX - 1) + b"\n"
    for body, count, ends_well in ((b"a\nb\n", 2, True), (long, 1, True), (b"a\n" + b"x" + long, 1, False)):
        connection = Connection(body)
        monkeypatch.setattr(AdminClient, "_connected", lambda _client, given=connection: given)
        lines, failed = [], False
        try:
            for line in AdminClient("a:1").lines("/x"):
                lines.append(line)
        except NotDoneError as error:
            failed = str(error) == f"a line from a:1 has more than {TOP_LINE_SIZE_BYTES_MAX} bytes"
        assert (len(lines), failed, connection.closed) == (count, not ends_well, True)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"bare text", "bare text"),
        (b'{"type":"about:blank","title":"Conflict","status":409,"detail":"it leads"}', "it leads"),
        (b'{"title":"Conflict"}', '{"title":"Conflict"}'),
        (b"[1]", "[1]"),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_a_refusal_is_said_whatever_its_form(monkeypatch: pytest.MonkeyPatch, body: bytes, said: str) -> None:
    monkeypatch.setattr(AdminClient, "_connected", lambda _client: Connection(body, 409))
    for ask in (lambda client: client.text("/x"), lambda client: list(client.lines("/x"))):
        with pytest.raises(AdminError) as caught:
            ask(AdminClient("a:1"))
        assert str(caught.value) == f"status code: 409, msg: {said}"
