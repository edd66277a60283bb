"""Driving a gRPC method with h2load, and reading what it measured.

h2load sends one fixed body again and again and sees only HTTP codes, so the caller checks by the server's own counter
that every request was a write.
"""

from __future__ import annotations

import re
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metasrv.model.types import Endpoint

VALUE_SIZE_BYTES = 256
KEY = "benchmark/key"
TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Target:
    """A unary method and the one message that is sent to it."""

    endpoint: Endpoint
    path: str
    message: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run: requests per second, and latencies in milliseconds."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


class LoadError(Exception):
    """h2load did not do what was asked; the text says why."""


def drive(target: Target, clients: int, requests: int) -> Measurement:
    """Send `requests` requests over `clients` connections, one in flight on each."""
    with tempfile.TemporaryDirectory(prefix="metasrv-bench-") as name:
        body, log = Path(name) / "body", Path(name) / "log"
        body.write_bytes(struct.pack(">BI", 0, len(target.message)) + target.message)
        command = ["h2load", f"--clients={clients}", "--max-concurrent-streams=1", f"--requests={requests}"]
        command += [f"--data={body}", f"--log-file={log}", "--threads=1"]
        for header, value in {"content-type": "application/grpc", "te": "trailers", **target.headers}.items():
            command += ["--header", f"{header}: {value}"]
        command.append(f"http://{target.endpoint}{target.path}")
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        done = re.search(r"finished in .*?, ([\d.]+) req/s", answer.stdout)
        succeeded = re.search(r"(\d+) succeeded", answer.stdout)
        if answer.returncode or done is None or succeeded is None or int(succeeded[1]) != requests:
            raise LoadError(f"h2load against {target.endpoint}:\n{answer.stdout}{answer.stderr}")
        latencies = sorted(int(line.split("\t")[2]) / 1000 for line in log.read_text().splitlines())
    percentiles = statistics.quantiles(latencies, n=100)
    return Measurement(requests, float(done[1]), percentiles[49], percentiles[98])
