"""`make run`: start the nodes of conf/ on this machine, show them, follow them, stop them cleanly.

Prints and runs child processes; asks the nodes over their admin routes, as any operator would. Runs as a program
without an event loop.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from metasrv.cli.node_process import (
    NodeFile,
    fetch_status,
    is_port_free,
    last_lines,
    leader_id_of,
    port_holder,
    reachable,
    read_node_file,
    start_node,
)

DEFAULT_FILES = ["conf/node1.toml", "conf/node2.toml", "conf/node3.toml"]
DEFAULT_DATA = Path(".metasrv")
WAIT_SECONDS_DEFAULT = 60.0
PROMOTION_SECONDS = 5.0
"""How long a joining node may stay a learner before it counts as one that is meant to stay a learner."""
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1
FOLLOW_SECONDS = 0.5
TABLE_TITLES = ("node", "role", "term", "last log", "applied", "admin URL", "gRPC address", "pid")


class RunnerError(Exception):
    """The cluster cannot be started; the text is printed on the terminal."""


@dataclass(slots=True)
class RunningNode:
    """A node of this run."""

    file: NodeFile
    process: subprocess.Popen[bytes]
    console: Path

    @property
    def name(self) -> str:
        return f"node {self.file.node_id}"


class StopRequested(Exception):  # noqa: N818 - a signal, not an error
    """Ctrl-C or SIGTERM arrived."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        files = [read_node_file(Path(path)) for path in options.nodes]
        check_ports(files)
    except (RunnerError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    nodes: list[RunningNode] = []
    try:
        with _stop_signals():
            for file in files:
                nodes.append(_start(file, options.data, options.fresh))
            print(f"Started {len(nodes)} nodes; waiting for a leader ...", flush=True)
            statuses = wait_for_agreement(nodes, options.wait_seconds)
            print_overview(nodes, statuses)
            follow(nodes, statuses)
    except StopRequested:
        print("\nStopping ...", flush=True)
        return stop(nodes)
    except RunnerError as error:
        print(error, file=sys.stderr)
        stop(nodes)
        return 1
    return stop(nodes) or 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make run", description="Start a metasrv cluster on this machine.")
    parser.add_argument("--nodes", nargs="+", default=DEFAULT_FILES, metavar="FILE", help="configuration files")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the nodes' data under DIR instead")
    parser.add_argument("--fresh", action="store_true", help="delete the nodes' data first")
    parser.add_argument("--wait-seconds", type=float, default=WAIT_SECONDS_DEFAULT, help="deadline for a leader")
    return parser.parse_args(arguments)


# ----------------------------------------------------------------------------- start


def check_ports(files: Sequence[NodeFile]) -> None:
    """Raise RunnerError naming every port in use, its purpose, and its holder if /proc shows it."""
    problems = []
    for file in files:
        for endpoint, purpose in file.ports():
            if not is_port_free(endpoint):
                holder = port_holder(endpoint.port)
                by = f" by {holder}" if holder else ""
                problems.append(f"port {endpoint.port} ({purpose} of node {file.node_id}, {file.path}) is in use{by}")
    if problems:
        advice = "Stop the processes that hold them, or change the ports in the configuration files."
        raise RunnerError("\n".join([*problems, advice]))


def _start(file: NodeFile, data: Path | None, fresh: bool) -> RunningNode:
    directory = (data or DEFAULT_DATA) / f"node{file.node_id}"
    raft_dir = file.raft_dir if data is None else directory / "data"
    if fresh:
        shutil.rmtree(raft_dir, ignore_errors=True)
    console = directory / "console.log"
    console.unlink(missing_ok=True)
    arguments = [] if data is None else ["--raft-dir", str(raft_dir), "--log-file-dir", str(directory / "logs")]
    return RunningNode(file, start_node(file.path, console, arguments), console)


def wait_for_agreement(nodes: Sequence[RunningNode], wait_seconds: float) -> list[dict[str, Any]]:
    """Statuses of all nodes once all name the same leader and joining nodes have had time to become voters.

    Raises RunnerError at the deadline or when a node exits.
    """
    deadline = time.monotonic() + wait_seconds
    patient_until: float | None = None
    while True:
        statuses = [fetch_status(node.file.admin) for node in nodes]
        answered = [status for status in statuses if status is not None]
        leaders = {leader_id_of(status) for status in statuses}
        if len(answered) == len(nodes) and len(leaders) == 1 and None not in leaders:
            patient_until = patient_until or time.monotonic() + PROMOTION_SECONDS
            still_learning = any(status["state"] == "Learner" for status in answered)
            if not still_learning or time.monotonic() > patient_until:
                return answered
        for node in nodes:
            if node.process.poll() is not None:
                raise RunnerError(_failure(node, f"exited with code {node.process.returncode} before it was ready"))
        if time.monotonic() > deadline:
            raise RunnerError(_no_agreement(nodes, statuses, wait_seconds))
        time.sleep(POLL_SECONDS)


def _no_agreement(nodes: Sequence[RunningNode], statuses: Sequence[dict[str, Any] | None], wait_seconds: float) -> str:
    said = []
    for node, status in zip(nodes, statuses, strict=True):
        leader = leader_id_of(status)
        opinion = "does not answer" if status is None else f"is {status['state']}, leader {leader or 'unknown'}"
        said.append(f"{node.name} {opinion}")
    silent = next((node for node, status in zip(nodes, statuses, strict=True) if leader_id_of(status) is None), nodes[0])
    text = f"The nodes did not agree on a leader within {wait_seconds:g} s: {'; '.join(said)}."
    return f"{text}\n{_failure(silent, 'is not ready')}"


def _failure(node: RunningNode, what: str) -> str:
    tail = "\n".join(f"    {line}" for line in last_lines(node.console)) or "    (it printed nothing)"
    return f"{node.name} {what}. The last lines of {node.console}:\n{tail}"


# ----------------------------------------------------------------------------- show


def print_overview(nodes: Sequence[RunningNode], statuses: Sequence[dict[str, Any]]) -> None:
    """The table and the lines to try."""
    rows = [TABLE_TITLES, *(_row(node, status) for node, status in zip(nodes, statuses, strict=True))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TABLE_TITLES))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    url = nodes[0].file.admin_url
    print(
        f"""
Console: {url}/ in a browser, or in this terminal: {_tool("metactl")} top --admin-api-address {url}

Try:
  curl -s {url}/v1/cluster/status
  curl -s {url}/v1/cluster/nodes
  curl -s {url}/v1/metrics
  curl -s {url}/readyz?verbose
  curl -s {url}/v1/ctrl/trigger_snapshot
  {_tool("metactl")} upsert --grpc-api-address {reachable(nodes[0].file.grpc)} --key hello --value world
  {_tool("metactl")} get --grpc-api-address {reachable(nodes[-1].file.grpc)} --key hello

Output of the nodes: {", ".join(str(node.console) for node in nodes)}
Ctrl-C stops the cluster; its data stays (make run ARGS=--fresh starts empty).
""",
        flush=True,
    )


def _row(node: RunningNode, status: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(status["id"]),
        status["state"],
        str(status["current_term"]),
        str(status["last_log_index"]),
        str(status["last_applied"]["index"]),
        node.file.admin_url,
        str(reachable(node.file.grpc)),
        str(node.process.pid),
    )


def _tool(name: str) -> str:
    """How to call an installed command from the current directory."""
    path = Path(sys.prefix) / "bin" / name
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return name


# ----------------------------------------------------------------------------- follow and stop


def follow(nodes: Sequence[RunningNode], statuses: Sequence[dict[str, Any]]) -> None:
    """Print what changes until every node has exited; `StopRequested` ends it from outside."""
    shown = {node.file.node_id: _role(status) for node, status in zip(nodes, statuses, strict=True)}
    alive = list(nodes)
    while alive:
        time.sleep(FOLLOW_SECONDS)
        for node in list(alive):
            code = node.process.poll()
            if code is not None:
                alive.remove(node)
                _say(_failure(node, f"exited with code {code}" if code >= 0 else f"was killed by signal {-code}"))
                _say(f"Start it again with: {_tool('python')} -m metasrv.cli.server -c {node.file.path}")
                continue
            role = _role(fetch_status(node.file.admin))
            if role != shown[node.file.node_id]:
                shown[node.file.node_id] = role
                _say(f"{node.name}: {role}")
    _say("All nodes have exited.")


def _role(status: dict[str, Any] | None) -> str:
    if status is None:
        return "does not answer"
    return f"{status['state']}, term {status['current_term']}, leader {leader_id_of(status) or 'unknown'}"


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def stop(nodes: Sequence[RunningNode]) -> int:
    """Send SIGINT to all, give them time to drain, then kill; returns the exit code of the run."""
    for node in nodes:
        if node.process.poll() is None:
            node.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    killed = []
    for node in nodes:
        try:
            node.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            node.process.kill()
            node.process.wait()
            killed.append(node.name)
    if killed:
        print(f"{', '.join(killed)} did not stop within {STOP_SECONDS:g} s; killed.", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `StopRequested`; later ones wait for the clean stop."""

    def handle(number: int, frame: FrameType | None) -> None:
        for stop_signal in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop_signal, signal.SIG_IGN)
        raise StopRequested

    for stop_signal in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop_signal, handle)
    yield


if __name__ == "__main__":
    sys.exit(main())
