"""What a runner learns from a node that dies in the middle of an answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from metasrv.cli.node_process import fetch, fetch_status
from metasrv.model.types import Endpoint

WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"leader":{}}'


@contextmanager
def node_that_answers(answer: bytes) -> Iterator[Endpoint]:
    """A node that sends this to one request and is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        thread = threading.Thread(target=_answer_once, args=(listener, answer))
        thread.start()
        try:
            yield Endpoint(host, port)
        finally:
            thread.join()


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(answer)


def test_a_whole_answer_is_returned() -> None:
    with node_that_answers(WHOLE) as node:
        assert fetch(f"http://{node}/v1/cluster/status") == (200, b'{"leader":{}}')


@pytest.mark.parametrize(
    "answer", [WHOLE[:-5], b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nno", b"", b"no HTTP\r\n\r\n"]
)
def test_an_answer_that_breaks_off_is_an_error_of_the_connection(answer: bytes) -> None:
    with node_that_answers(answer) as node, pytest.raises(ConnectionError, match="whole answer"):
        fetch(f"http://{node}/v1/metrics")


def test_a_status_that_breaks_off_is_none() -> None:
    with node_that_answers(WHOLE[:-5]) as node:
        assert fetch_status(node) is None
