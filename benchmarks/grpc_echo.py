"""What a call costs before anything is done: metasrv's gRPC server beside grpcio's, one method that echoes its request.

The reason for `metasrv/grpc_api/http2/` (ARCHITECTURE.md section 6). `python -m benchmarks.grpc_echo`; each server runs
in a process of its own on uvloop, and the load generator shares the machine with it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
from typing import Any

import grpc
import uvloop

from benchmarks.load import Target, drive
from benchmarks.process_usage import processor_seconds
from benchmarks.programs import MissingProgramsError, require
from metasrv.grpc_api.http2.route import Route
from metasrv.grpc_api.http2.server import GrpcServer
from metasrv.grpc_api.listening import open_sockets
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.types import Endpoint
from metasrv.process.accepting import AcceptingSocket

HOST = "127.0.0.1"
MESSAGE_SIZE_BYTES = 300
SERVERS = ("grpcio", "metasrv")


async def answer(data: bytes, call: Any) -> bytes:
    del call
    return data


async def serve(name: str) -> None:
    """Serve `/t.T/Echo` until the process is ended; prints the port."""
    if name == "grpcio":
        theirs = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(answer)
        theirs.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Echo": handler}),))
        port = theirs.add_insecure_port(f"{HOST}:0")
        await theirs.start()
    else:
        routes = {"/t.T/Echo": Route(answer, single_request=True, single_reply=True)}
        metrics = MetricsRegistry("", "")
        ours = GrpcServer(
            routes,
            metrics,
            message_size_bytes_max=2**20,
            streams_max=100,
            calls_max=10_000,
            connections_max=1000,
            held_size_bytes_max=2**30,
            refusal_metadata=(),
        )
        sockets = await open_sockets(Endpoint(HOST, 0))
        port = sockets[0].getsockname()[1]
        ours.start(sockets, lambda listening, make: AcceptingSocket("grpc", listening, make, lambda: None, metrics))
    print(port, flush=True)
    await asyncio.Event().wait()


def measure(name: str, clients: int, requests: int) -> tuple[float, float]:
    """Calls per second, and microseconds of the server's processor per call."""
    command = [sys.executable, "-m", "benchmarks.grpc_echo", "--serve", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            target = Target(
                Endpoint(HOST, int(process.stdout.readline())), "/t.T/Echo", os.urandom(MESSAGE_SIZE_BYTES), {}
            )
            drive(target, clients, requests // 10)
            before = processor_seconds(process.pid)
            measurement = drive(target, clients, requests)
            used = processor_seconds(process.pid) - before
        finally:
            process.kill()
    return measurement.per_second, used / requests * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpc_echo", description=__doc__)
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve(arguments.serve))
        return 0
    try:
        require()
    except MissingProgramsError as error:
        print(error, file=sys.stderr)
        return 1
    for clients in arguments.clients:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in SERVERS}
        for _ in range(arguments.repetitions):
            for name in SERVERS:  # alternate, so that a slow phase of the machine hits both
                found[name].append(measure(name, clients, arguments.requests))
        for name, results in found.items():
            per_second, microseconds = (statistics.median(column) for column in zip(*results, strict=True))
            print(f"{clients:5} clients  {name:8} {per_second:8.0f} calls/s {microseconds:6.0f} µs of processor a call")
    return 0


if __name__ == "__main__":
    sys.exit(main())
