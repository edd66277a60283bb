"""A real browser with hostile pages beside a node: none of them reaches an action, a page of the node's own origin may.

The node has an address that is not loopback, in a network namespace of its own, because browsers tell such a server
least: on plain HTTP nothing but the name of the browser may give a page away.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

import pytest

from metasrv.admin.actions import ACTION_PATHS
from tests.support.hostile_pages import (
    ACTIONS,
    ADMIN_PORT,
    ATTACKER,
    HOSTILE_WAYS,
    NODE,
    OWN,
    PAGE_PORT,
    REBOUND_NAME,
    SAME_ORIGIN_WAYS,
)

PROGRAMS = ("chromium", "unshare", "nsenter", "ip")
DEADLINE_SECONDS = 60.0
BROWSER = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-popup-blocking", "--disable-background-networking", "--disable-component-update", "--no-proxy-server"),
    # It is the node that has to refuse, also where a browser does not.
    "--disable-features=LocalNetworkAccessChecks,HttpsUpgrades",
    f"--host-resolver-rules=MAP {REBOUND_NAME} {ATTACKER}",
)
NODE_THAT_AUDITS_EVERY_REFUSAL = """
from metasrv.model import limits

limits.ADMIN_REFUSALS_AUDITED_MAX = 10_000

from metasrv.cli.server import main

raise SystemExit(main())
"""
"""By its lines the test knows what became of each attempt; a node as it comes counts all but the first few."""
CONFIG = f"""
admin_api_address = "{NODE}:{ADMIN_PORT}"
health_api_address = "127.0.0.1:28102"
grpc_api_address = "127.0.0.1:9191"
[log.file]
on = false
[log.stderr]
on = true
level = "INFO"
[raft_config]
id = 1
single = true
raft_advertise_host = "127.0.0.1"
raft_dir = "data"

[backup]
every_seconds = 3600
directory = "backups"
"""

missing = [program for program in PROGRAMS if shutil.which(program) is None]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces"),
]


class Namespace:
    """A network of its own, with processes in it that end with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._enter: tuple[str, ...] = ()
        holder = self.start("holder", "unshare", "--net", "sleep", "600")
        own = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
            if holder.poll() is not None:
                pytest.skip(f"this machine makes no network namespace: {self.output('holder').strip()}")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self._enter = ("nsenter", f"--net=/proc/{holder.pid}/ns/net")
        self.run("ip", "link", "set", "lo", "up")
        for address in (ATTACKER, NODE, OWN):
            self.run("ip", "address", "add", f"{address}/32", "dev", "lo")

    def run(self, *command: str) -> str:
        """Run a command in it; what it prints."""
        ended = subprocess.run((*self._enter, *command), check=True, capture_output=True, timeout=DEADLINE_SECONDS)
        return ended.stdout.decode()

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process in it, with a file for its output."""
        with (self.directory / f"{name}.log").open("wb") as console:
            process = subprocess.Popen(
                (*self._enter, *command), cwd=self.directory, stdout=console, stderr=console, start_new_session=True
            )
        self._processes.append(process)
        return process

    def output(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def wait_for_output(self, name: str, text: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text not in self.output(name):
            assert time.monotonic() < deadline, self.output(name)
            time.sleep(0.05)

    def close(self) -> None:
        """Kill every process, and what it started: each leads a session of its own."""
        for process in reversed(self._processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    made = Namespace(tmp_path)
    yield made
    made.close()


class Attempt(NamedTuple):
    """A request that reached the node from a page."""

    way: str
    path: str
    method: str
    status_code: int


def attempts(console: str) -> list[Attempt]:
    """From the audit lines of a node's log."""
    lines = [json.loads(line[line.index("{") :]) for line in console.splitlines() if '"status_code"' in line]
    return [
        Attempt(parse_qs(line["query"]).get("way", [""])[0], line["path"], line["method"], line["status_code"])
        for line in lines
    ]


def test_the_pages_try_every_action() -> None:
    assert {action.partition("?")[0] for action in ACTIONS} == ACTION_PATHS


def test_no_page_but_the_nodes_own_reaches_an_action(namespace: Namespace) -> None:
    (namespace.directory / "node.toml").write_text(CONFIG)
    root = str(Path(__file__).parents[2])
    python = ("env", f"PYTHONPATH={root}", sys.executable, "-m")
    namespace.start("node", *python[:-1], "-c", NODE_THAT_AUDITS_EVERY_REFUSAL, "-c", "node.toml")
    namespace.start("pages", *python, "tests.support.hostile_pages")
    namespace.wait_for_output("node", "Databend Metasrv started")
    namespace.wait_for_output("pages", "serving")
    profile = f"--user-data-dir={namespace.directory / 'profile'}"
    namespace.start("browser", *BROWSER, profile, f"http://{ATTACKER}:{PAGE_PORT}/page")

    origins = [f"{origin}-{way}" for origin in ("rebound", "own") for way in SAME_ORIGIN_WAYS]
    expected = {(way, path) for way in (*HOSTILE_WAYS, *origins) for path in ACTION_PATHS}
    expected = {
        (way, path)
        for way, path in expected
        if not (way in ("own-fetch-get", "rebound-fetch-get") and path.startswith("/debug/"))
    }
    deadline = time.monotonic() + DEADLINE_SECONDS
    found: list[Attempt] = []
    while late := expected - {(one.way, one.path) for one in found}:
        assert time.monotonic() < deadline, f"{sorted(late)}\n{namespace.output('browser')}"
        time.sleep(0.1)
        found = attempts(namespace.output("node"))

    own = [one for one in found if one.way.startswith("own-")]
    rebound = [one for one in found if one.way.startswith("rebound-")]
    hostile = [one for one in found if one not in own and one not in rebound]
    assert [one for one in hostile if one.status_code != 403] == []
    assert [one for one in hostile if one.way.startswith("headers") and one.method != "OPTIONS"] == []
    assert {one.method for one in hostile} == {"GET", "POST", "OPTIONS"}
    assert [one for one in rebound if one.status_code != 421] == []
    assert [one for one in own if one.status_code != 200] == []
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:28102/readyz').read())"
    assert "ok" in namespace.run(sys.executable, "-c", ask)
