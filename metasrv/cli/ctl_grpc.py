"""metactl's commands over the client API: status, members, keys, watch, export.

Runs in the foreground of a short process, over the blocking client.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator

from metasrv.cli.output import debug_record, record_json, status_lines, upsert_line, watch_line
from metasrv.cli.terminal import note, opened_for_writing, show
from metasrv.client import Client
from metasrv.model.errors import InvalidRequestError, RequestError
from metasrv.model.limits import KEY_SIZE_BYTES_MAX
from metasrv.model.types import Endpoint
from metasrv.state.format import prefix_end

USER_VARIABLE = "METASRV_GRPC_USER"
PASSWORD_VARIABLE = "METASRV_GRPC_PASSWORD"  # noqa: S105 - the name of the variable
PASSWORD_WITHOUT_ANY = "xxx"  # noqa: S105 - what upstream's tool sends, where passwords are not checked
PROGRESS_LINES = 10_000
LAST_KEY = "\U0010ffff" * (KEY_SIZE_BYTES_MAX // 4)
"""The end of a range that has none: no key sorts above it."""


def client_of(arguments: argparse.Namespace) -> Client:
    """A client of the addresses in `--grpc-api-address`, several of them separated by commas."""
    addresses = [address.strip() for address in arguments.grpc_api_address.split(",") if address.strip()]
    if not addresses:
        raise InvalidRequestError("--grpc-api-address names no address")
    for address in addresses:
        try:
            Endpoint.parse(address)
        except ValueError as error:
            raise InvalidRequestError(f"--grpc-api-address: {error}") from error
    try:
        return Client(
            addresses,
            username=arguments.grpc_user,
            password=os.environ.get(PASSWORD_VARIABLE)
            or getattr(arguments, "context_password", None)
            or PASSWORD_WITHOUT_ANY,
            tls_ca_file=arguments.grpc_tls_ca_file,
            tls_server_name=arguments.grpc_tls_server_name,
            tls_cert_file=arguments.grpc_tls_cert_file,
            tls_key_file=arguments.grpc_tls_key_file,
        )
    except OSError as error:
        raise InvalidRequestError(f"{error.filename}: {error.strerror}") from error


# ----------------------------------------------------------------------------- cluster


def status(arguments: argparse.Namespace) -> None:
    with client_of(arguments) as client:
        for line in status_lines(client.cluster_status()):
            show(line)


def member_list(arguments: argparse.Namespace) -> None:
    with client_of(arguments) as client:
        for address in client.member_list():
            show(address)


# ----------------------------------------------------------------------------- keys


def get(arguments: argparse.Namespace) -> None:
    with client_of(arguments) as client:
        show(record_json(client.get(arguments.key)))


def upsert(arguments: argparse.Namespace) -> None:
    with client_of(arguments) as client:
        # Bytes that are not UTF-8 arrive from the shell as surrogates; this gives them back as they were.
        reply = client.upsert(arguments.key, os.fsencode(arguments.value))
        show(upsert_line(reply.prev, reply.result))


def watch(arguments: argparse.Namespace) -> None:
    end = prefix_end(arguments.prefix) or LAST_KEY
    with client_of(arguments) as client:
        for event in client.watch(arguments.prefix, end, initial_flush=True):
            show(watch_line(event), flush=True)


def keys_layout(arguments: argparse.Namespace) -> None:
    found = False
    with client_of(arguments) as client:
        for prefix, count in client.keys_layout(arguments.depth):
            show(f"{prefix} {count}")
            found = True
    if not found:
        note("the node has no snapshot; `metactl trigger-snapshot` makes it write one")


def bench_client_num_conn(arguments: argparse.Namespace) -> None:
    """Open connections one by one and keep them all."""
    address, number = arguments.grpc_api_address, arguments.num
    show(f"loop: connect to metasrv {address}, get_kv('foo'), do not drop the connection, num={number}")
    with contextlib.ExitStack() as clients:
        for i in range(1, number + 1):
            client = clients.enter_context(client_of(arguments))
            try:
                result = f"Ok({debug_record(client.get('foo'))})"
            except RequestError as error:
                result = f"Err({error})"
            show(f"{i}-th: get_kv(foo): {result}")
        show(f"bench completed: {number} connections created")


# ----------------------------------------------------------------------------- export


def export(arguments: argparse.Namespace) -> None:
    """The state of a running node, as lines of JSON."""
    note(f"export from the node at {arguments.grpc_api_address}")
    with client_of(arguments) as client:
        write_lines(client.export(arguments.chunk_size), arguments.db)


def write_lines(lines: Iterator[str], path: str) -> None:
    """Write to stdout or to a file."""
    if not path:
        for number, line in enumerate(lines, 1):
            show(line)
            _progress(number)
        return
    number = 0
    with opened_for_writing(path) as file:
        for number, line in enumerate(lines, 1):
            file.write(line + "\n")
            _progress(number)
    note(f"exported {number} lines to {path}")


def _progress(number: int) -> None:
    if number % PROGRESS_LINES == 0:
        note(f"exported {number} lines")
