"""metactl's commands over the admin API: one request each, the answer as text or JSON.

Runs in the foreground of a short process; knows no route's meaning beyond its answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from metasrv.cli.output import pretty_json
from metasrv.cli.terminal import note, show, show_text
from metasrv.model.commands import USERS_FEATURE
from metasrv.model.errors import InvalidRequestError, MetasrvError, NotDoneError
from metasrv.model.limits import TOP_LINE_SIZE_BYTES_MAX

ADMIN_PORT, UPSTREAM_ADMIN_PORT = 28101, 28002
PORTS = (
    f"the admin API of metasrv has port {ADMIN_PORT} unless it is configured otherwise, that of upstream "
    f"{UPSTREAM_ADMIN_PORT}; --admin-api-address names another address"
)
TIMEOUT_SECONDS = 10.0
LINES_SILENT_SECONDS_MAX = 5.0
"""A node that streams says something every two seconds."""
TOKEN_VARIABLE = "METASRV_ADMIN_TOKEN"  # noqa: S105 - the name of the variable
HINTS = {
    401: f"; metactl takes a token from {TOKEN_VARIABLE} or --admin-token-file, a certificate from --admin-tls-cert-file",
}
"""What metactl adds to the server's sentence, by status code."""
TOKEN_FILE_SIZE_BYTES_MAX = 64 * 1024
BODY_SIZE_BYTES_MAX = 64 * 1024 * 1024
PIECE_SIZE_BYTES = 64 * 1024

TRANSFER_WAIT_SECONDS_DEFAULT = 10
_POLL_SECONDS = 0.1

_TRANSFER = ("from", "to", "voter_ids")
_STATUS = ("voters", "leader")
_FEATURES = ("features", "enabled")
USERS_STAY = (
    "users that there are stay and keep their rights; until the feature is on again they cannot be changed or removed, "
    "and the token key cannot be rotated"
)


class AdminError(MetasrvError):
    """The admin API refused; the text is what upstream's tool says."""

    def __init__(self, code: int, body: str) -> None:
        super().__init__(f"status code: {code}, msg: {body}{HINTS.get(code, '')}")
        self.code = code


class AdminClient:
    """Asks one node's admin API."""

    def __init__(
        self,
        address: str,
        token: str | None = None,
        tls_ca_file: str | None = None,
        certificate: tuple[str, str] | None = None,
    ) -> None:
        """`address` is `host:port`, or a URL with `http://` or `https://`, or several of them with commas between.

        `certificate` are two files, with its key.
        """
        self._places = [_place(text.strip(), tls_ca_file) for text in address.split(",")]
        """Asked in turn, until one can be connected to; that one is asked from then on."""
        self._tls_ca_file = tls_ca_file
        self._certificate = certificate
        if certificate is not None and not all(place.tls for place in self._places):
            raise InvalidRequestError("only TLS has client certificates: give --admin-tls-ca-file or an https:// address")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def text(self, path: str, **query: object) -> str:
        """The body of a 200; raises AdminError for another status, NotDoneError when nothing answers."""
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given, quote_via=quote)}" if given else path
        return self._answer("GET", target, None, self._headers)

    def profile(self, path: str, timeout_seconds: float, **query: object) -> tuple[bytes, Message]:
        """Body and headers of a 200, which may take longer than other answers. Raises as `text`.

        What has the node profiled is a POST: a node may be configured to take nothing else.
        """
        given = {name: value for name, value in query.items() if value is not None}
        method = "POST" if path.startswith("/debug/") else "GET"
        headers = {**self._headers, "X-Metasrv-Action": "metactl"}
        return self._exchange(method, f"{path}?{urlencode(given)}", None, headers, timeout_seconds)

    def post(self, path: str, body: object, **query: object) -> str:
        """Send JSON; the body of a 200. Raises as `text`."""
        return self._act("POST", path, json.dumps(body).encode(), query)

    def put(self, path: str, body: object) -> str:
        """Send JSON; the body of a 200. Raises as `text`."""
        return self._act("PUT", path, json.dumps(body).encode(), {})

    def download(
        self, target: str, write: Callable[[bytes], object], size_bytes_max: int, timeout_seconds: float
    ) -> None:
        """Hand the body of a 200 on as it comes, waiting for each piece. Raises as `text`, and what `write` raises."""
        connection = self._connected()
        address = self._places[0].address
        connection.timeout = timeout_seconds
        if connection.sock is not None:
            connection.sock.settimeout(timeout_seconds)
        try:
            connection.request("GET", target, None, {**self._headers, "X-Metasrv-Action": "metactl"})
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise AdminError(response.status, _said(response.read(BODY_SIZE_BYTES_MAX).decode(errors="replace")))
            pieces = _pieces(response)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NotDoneError(f"the admin API at {address} does not answer: {error}") from error
        except AdminError:
            connection.close()
            raise
        try:
            size_bytes = 0
            for piece in pieces:
                size_bytes += len(piece)
                if size_bytes > size_bytes_max:
                    raise NotDoneError(f"the answer of {address} has more than {size_bytes_max} bytes")
                write(piece)
        finally:
            connection.close()

    def delete(self, path: str, **query: object) -> str:
        """The body of a 200. Raises as `text`."""
        return self._act("DELETE", path, None, query)

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of a 200 that has no end, as they come; ends with it, and when the node stops.

        Raises as `text`, also when the node is silent for `LINES_SILENT_SECONDS_MAX`, or a line is too long.
        """
        connection = self._connected()
        address = self._places[0].address
        try:
            connection.request("GET", path, None, self._headers)
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise AdminError(response.status, _said(response.read(BODY_SIZE_BYTES_MAX).decode("utf-8", "replace")))
            if connection.sock is not None:
                connection.sock.settimeout(LINES_SILENT_SECONDS_MAX)
            while line := response.readline(TOP_LINE_SIZE_BYTES_MAX + 1):
                if len(line) > TOP_LINE_SIZE_BYTES_MAX:
                    raise NotDoneError(f"a line from {address} has more than {TOP_LINE_SIZE_BYTES_MAX} bytes")
                yield line
        except ConnectionRefusedError as error:
            raise NotDoneError(f"nothing listens at {address}: {PORTS}") from error
        except (OSError, http.client.HTTPException) as error:
            raise NotDoneError(f"the admin API at {address} does not answer: {error}") from error
        finally:
            connection.close()

    def _act(self, method: str, path: str, sent: bytes | None, query: dict[str, object]) -> str:
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given, quote_via=quote)}" if given else path
        return self._answer(method, target, sent, {**self._headers, "X-Metasrv-Action": "metactl"})

    def _answer(self, method: str, target: str, sent: bytes | None, headers: dict[str, str]) -> str:
        return self._exchange(method, target, sent, headers)[0].decode("utf-8", "replace")

    def _exchange(
        self,
        method: str,
        target: str,
        sent: bytes | None,
        headers: dict[str, str],
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> tuple[bytes, Message]:
        connection = self._connected()
        if timeout_seconds != TIMEOUT_SECONDS:
            connection.timeout = timeout_seconds
            if connection.sock is not None:
                connection.sock.settimeout(timeout_seconds)
        address = self._places[0].address
        try:
            connection.request(method, target, sent, headers)
            response = connection.getresponse()
            body = response.read(BODY_SIZE_BYTES_MAX)
        except ConnectionRefusedError as error:
            raise NotDoneError(f"nothing listens at {address}: {PORTS}") from error
        except (OSError, http.client.HTTPException) as error:
            raise NotDoneError(f"the admin API at {address} does not answer: {error}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise AdminError(response.status, _said(body.decode("utf-8", "replace")))
        return body, response.headers

    def _connected(self) -> http.client.HTTPConnection:
        """A connection to the first address; of several, to one that takes it and is asked first from then on."""
        failures = []
        for _ in self._places:
            try:
                connection = self._connection()
            except OSError as error:  # ssl.SSLError is one
                raise NotDoneError(f"a file of a certificate or key cannot be used: {error}") from error
            if len(self._places) == 1:
                return connection
            try:
                connection.connect()
            except OSError as error:
                connection.close()
                failures.append(f"{self._places[0].address}: {error}")
                self._places.append(self._places.pop(0))
                continue
            return connection
        raise NotDoneError(f"no endpoint can be connected to: {'; '.join(failures)}")

    def json(self, path: str, members: tuple[str, ...], **query: object) -> dict[str, Any]:
        """The body of a 200, a JSON object with these members."""
        body = self.text(path, **query)
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not all(member in answer for member in members):
            address = self._places[0].address
            raise NotDoneError(f"the server at {address} is not a node's admin API: it answered something else")
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        place = self._places[0]
        if not place.tls:
            return http.client.HTTPConnection(place.host, place.port, timeout=TIMEOUT_SECONDS)
        context = ssl.create_default_context(cafile=self._tls_ca_file)
        # Python 3.13 asks for extensions that many authorities do not write. Whom to trust does not depend on the Python.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self._certificate is not None:
            context.load_cert_chain(*self._certificate)
        return http.client.HTTPSConnection(place.host, place.port, timeout=TIMEOUT_SECONDS, context=context)


def _said(body: str) -> str:
    """What a refusal says: bare text, or the sentence of a problem in JSON (RFC 9457)."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return body
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return detail if isinstance(detail, str) else body


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body, piece by piece. Raises NotDoneError when it ends early."""
    while True:
        try:
            piece = response.read1(PIECE_SIZE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise NotDoneError(f"the answer ended early: {error or type(error).__name__}") from error
        if not piece:
            return
        yield piece


class _Place(NamedTuple):
    """Where an admin API is."""

    address: str
    host: str
    port: int
    tls: bool


def _place(address: str, tls_ca_file: str | None) -> _Place:
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        port = parts.port
    except ValueError as error:
        raise InvalidRequestError(f"{address!r} is not host:port: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise InvalidRequestError(f"{address!r} is not host:port")
    return _Place(address, parts.hostname, port, parts.scheme == "https" or tls_ca_file is not None)


def client_of(arguments: argparse.Namespace) -> AdminClient:
    """A client of the address in `--admin-api-address`."""
    return made(arguments.admin_api_address, arguments)


def made(address: str, arguments: argparse.Namespace, token: str | None = None) -> AdminClient:
    """A client of `address`, with the token or certificate that the flags name; `token` precedes the environment's."""
    files = arguments.admin_tls_cert_file, arguments.admin_tls_key_file
    if (files[0] is None) != (files[1] is None):
        raise InvalidRequestError("--admin-tls-cert-file and --admin-tls-key-file go together")
    token = token or os.environ.get(TOKEN_VARIABLE) or getattr(arguments, "context_token", None)
    if arguments.admin_token_file:
        token = _token_in(arguments.admin_token_file)
    certificate = None if files[0] is None else files
    return AdminClient(address, token, arguments.admin_tls_ca_file, certificate)


def _token_in(path: str) -> str:
    """The token that a file has, and nothing else."""
    try:
        with open(path, "rb") as stream:
            words = stream.read(TOKEN_FILE_SIZE_BYTES_MAX).decode("ascii").split()
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"--admin-token-file {path} cannot be read: {error}") from error
    if len(words) != 1:
        raise InvalidRequestError(f"--admin-token-file {path} must have one token, it has {len(words)} words")
    return words[0]


# ----------------------------------------------------------------------------- commands


def transfer_leader(arguments: argparse.Namespace) -> None:
    """Ask for a transfer, only to a voter: the route answers 200 to any id, and then nothing happens."""
    client = client_of(arguments)
    if arguments.to is not None:
        _require_voter(client, arguments.to)
    answer = client.json("/v1/ctrl/trigger_transfer_leader", _TRANSFER, to=arguments.to)
    show(f"triggered leader transfer from {answer['from']} to {answer['to']}.")
    show(f"voter ids: {answer['voter_ids']}", flush=True)
    if arguments.wait is not None:
        _wait_for_leader(client, int(answer["to"]), arguments.wait)
        show(f"node {answer['to']} leads.")


def _require_voter(client: AdminClient, node_id: int) -> None:
    voter_ids = sorted(int(voter["name"]) for voter in client.json("/v1/cluster/status", _STATUS)["voters"])
    if node_id not in voter_ids:
        raise InvalidRequestError(f"node {node_id} is no voter, so it cannot lead; voter ids: {voter_ids}")


def _wait_for_leader(client: AdminClient, node_id: int, timeout_seconds: int) -> None:
    """Return when the node that was asked says that `node_id` leads. Raises NotDoneError when it does not in time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        leader = client.json("/v1/cluster/status", _STATUS)["leader"]
        if leader is not None and int(leader["name"]) == node_id:
            return
        if time.monotonic() >= deadline:
            known = "no leader is known" if leader is None else f"node {leader['name']} leads"
            raise NotDoneError(f"node {node_id} does not lead after {timeout_seconds} s: {known}")
        time.sleep(_POLL_SECONDS)


def trigger_snapshot(arguments: argparse.Namespace) -> None:
    client_of(arguments).text("/v1/ctrl/trigger_snapshot")
    show("triggered snapshot successfully.")


def list_features(arguments: argparse.Namespace) -> None:
    show_text(pretty_json(client_of(arguments).json("/v1/features/list", _FEATURES)))


def set_feature(arguments: argparse.Namespace) -> None:
    """Turn a feature on or off. What an `off` leaves behind is said on stderr: stdout is what upstream prints."""
    query = {"feature": arguments.feature, "enable": arguments.enable, **({"force": "true"} if arguments.force else {})}
    answer = client_of(arguments).json("/v1/features/set", _FEATURES, **query)
    show("set-feature: Done; features:")
    show_text(pretty_json(answer))
    if arguments.feature == USERS_FEATURE and arguments.enable == "false":
        note(USERS_STAY)


def metrics(arguments: argparse.Namespace) -> None:
    show_text(client_of(arguments).text("/v1/metrics"))
