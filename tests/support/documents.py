"""The blocks of commands in the pages for operators, and somebody who runs them at the machines of real nodes.

A block is fenced as `sh`, followed by the names of the scenarios that it is a step of; or a comment before it says why it
is not run. Pages write addresses and paths as one would meet them: node N is at 10.0.0.N, that of a cluster to move to at
10.0.1.N, its files are in /etc/metasrv and /var/lib/metasrv. `Operator` puts those of the test in their places, and
programs named metasrv, metactl and systemctl on the path.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from metasrv.testing.processes import ProcessCluster
from tests.support.paths import ROOT

_RUNBOOKS = sorted(f"docs/runbooks/{path.name}" for path in (ROOT / "docs/runbooks").glob("*.md"))
PAGES = ("docs/operating.md", "docs/upgrading.md", *_RUNBOOKS)
TIMEOUT_SECONDS = 60.0
NEW_PORT = "28203"
"""The port that the page moves a node to."""
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?P<rest>.*)$")
_REASON = re.compile(r"<!-- not tried here: (?P<reason>.{20,}) -->")
_COMMAND = re.compile(r"^(?: {4,}|\t)(?:\$ )?(?:[A-Z_]+=\S+ )?(?:metasrv|metactl|curl|systemctl|openssl|rm|mv|mkdir) ")


class Block(NamedTuple):
    """One block of commands."""

    page: str
    line: int
    scenarios: tuple[str, ...]
    reason: str
    """Why it is not run; empty if it is."""
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_in(page: str, text: str) -> list[Block]:
    """Every block fenced as `sh`, in the order of the page."""
    found: list[Block] = []
    lines = text.splitlines()
    position = 0
    while position < len(lines):
        opened = _FENCE.match(lines[position])
        position += 1
        if opened is None:
            continue
        start = position
        while position < len(lines) and lines[position].strip() != "```":
            position += 1
        if opened["language"] == "sh":
            reason = _REASON.search(lines[start - 2]) if start >= 2 else None
            body = [line.removeprefix(opened["indent"]) for line in lines[start:position]]
            found.append(
                Block(page, start, tuple(opened["rest"].split()), reason["reason"] if reason else "", "\n".join(body))
            )
        position += 1
    return found


def commands_outside(page: str, text: str) -> list[str]:
    """Places of commands in indented blocks, which nothing would run."""
    fenced = False
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().startswith("```"):
            fenced = not fenced
        elif not fenced and _COMMAND.match(line):
            found.append(f"{page}:{number}")
    return found


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_in(page, (ROOT / page).read_text(encoding="utf-8"))]


class Running:
    """A step that was begun: what it has printed so far, and its end."""

    def __init__(self, block: Block, text: str, process: asyncio.subprocess.Process) -> None:
        self._block, self._text, self._process = block, text, process
        self._printed = bytearray()
        self._reading = asyncio.create_task(self._read())

    @property
    def printed(self) -> str:
        return self._printed.decode("utf-8", "replace")

    async def wait_for(self, text: str) -> None:
        """Until it has printed this."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while text not in self.printed:
                assert not self._reading.done(), f"{self._block.place} ended without {text!r}:\n{self.printed}"
                await asyncio.sleep(0.05)

    async def interrupt(self) -> str:
        """Press Control-C; what it printed."""
        os.killpg(self._process.pid, signal.SIGINT)
        return await self.end(code=130)

    async def end(self, code: int = 0, seconds: float = TIMEOUT_SECONDS) -> str:
        """Wait until it ends; what it printed."""
        try:
            await asyncio.wait_for(asyncio.shield(self._reading), seconds)
        finally:
            self.kill()
        found = await self._process.wait()
        assert found == code, f"{self._block.place} ended with {found}:\n{self._text}\n---\n{self.printed}"
        return self.printed

    def kill(self) -> None:
        """End it, and what it left in the background."""
        self._reading.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while part := await self._process.stdout.read(65536):
            self._printed += part
        await self._process.wait()


class Operator:
    """Runs the steps of one scenario, each at the machine of a node. An async context manager."""

    def __init__(
        self,
        cluster: ProcessCluster,
        scenario: str,
        wrapper: Sequence[str] = (),
        *,
        target: ProcessCluster | None = None,
    ) -> None:
        """`wrapper` goes before every program that runs on a machine, nodes included; `target` is at 10.0.1.N."""
        self.cluster = cluster
        self._target = target
        self.wrapper = wrapper
        self._steps = [block for block in all_blocks() if scenario in block.scenarios]
        self._ran: set[int] = set()
        self.root = cluster.directory / "machines"
        self.etc, self.backup = self.root / "etc", self.root / "backup"
        self.new_port = 0
        self._begun: list[Running] = []
        self.variables: dict[str, str] = {}
        """Those of the operator: secrets that pages do not write."""

    async def __aenter__(self) -> Operator:
        for folder in (self.etc, self.backup, self.root / "bin"):
            folder.mkdir(parents=True, exist_ok=True)
        self._write_programs()
        self._server = await asyncio.start_unix_server(self._serve_systemctl, str(self.root / "systemctl"))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._server.close()
        for running in self._begun:
            running.kill()
        if kind is None:
            left = [block.place for number, block in enumerate(self._steps) if number not in self._ran]
            assert left == [], f"steps that nobody ran: {left}"

    async def run(self, step: int, node_id: int = 1, changed: tuple[str, str] = ("", "")) -> str:
        """Run a step, counted from 1 in the order of the page, at the machine of a node; what it printed.

        `changed` is a text of it, and what the page says to write there on this machine instead.
        """
        return await (await self.begin(step, node_id, changed)).end()

    async def begin(self, step: int, node_id: int = 1, changed: tuple[str, str] = ("", "")) -> Running:
        """As `run`, without waiting for its end."""
        block = self._steps[step - 1]
        self._ran.add(step - 1)
        assert changed[0] in block.text
        text = self.placed(block.text.replace(*changed) if changed[0] else block.text, node_id)
        return await self._begin(block, text, node_id)

    async def begin_all(self, before: str, changed: Mapping[str, str]) -> Running:
        """Run all steps, one after the other, in one shell in a directory of its own; `before` prepares the shell."""
        text = before + "".join(f"{block.text}\n" for block in self._steps)
        self._ran.update(range(len(self._steps)))
        for wanted, instead in changed.items():
            assert wanted in text
            text = text.replace(wanted, instead)
        return await self._begin(self._steps[0], self.placed(text, 1), 1)

    async def _begin(self, block: Block, text: str, node_id: int) -> Running:
        node = self.cluster.nodes[node_id]
        environment = {
            **os.environ,
            **self.variables,
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "THIS_NODE": str(node_id),
            "THIS_GRPC": str(node.grpc),
            "THIS_ADMIN": str(node.admin),
        }
        process = await asyncio.create_subprocess_exec(
            *self.wrapper,
            *("bash", "-euo", "pipefail", "-c", text),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=self.root,
            start_new_session=True,
        )
        self._begun.append(Running(block, text, process))
        return self._begun[-1]

    def placed(self, text: str, node_id: int) -> str:
        """The commands with the addresses and paths of the test."""
        node = self.cluster.nodes[node_id]
        places = {
            "/etc/metasrv/metasrv.toml": str(node.config_file),
            "/var/lib/metasrv": str(node.raft_dir),
            "/etc/metasrv": str(self.etc),
            "/backup": str(self.backup),
            "127.0.0.1:28101": str(node.admin),
            "127.0.0.1:9191": str(node.grpc),
            NEW_PORT: str(self.new_port),
        }
        for network, cluster in (("10.0.0", self.cluster), ("10.0.1", self._target)):
            for number, other in ({} if cluster is None else cluster.nodes).items():
                places[f"{network}.{number}:28103"] = str(other.raft)
                places[f"{network}.{number}:28101"] = str(other.admin)
                places[f"{network}.{number}:9191"] = str(other.grpc)
        longest_first = sorted(places, key=len, reverse=True)
        pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, longest_first))})")
        placed = pattern.sub(lambda found: places[found[0]], text)
        assert re.search(r"10\.0\.[01]\.", placed) is None, f"an address of no node: {placed}"
        return placed

    # ------------------------------------------------------------------------- programs

    def _write_programs(self) -> None:
        python = sys.executable
        self._write("metasrv", f'exec {python} -m metasrv.cli.server "$@"')
        program = (
            "import os, sys; from metasrv.cli import ctl_flags as flags; "
            'flags.GRPC_ADDRESS_DEFAULT = flags.NotGiven(os.environ["THIS_GRPC"]); '
            'flags.ADMIN_ADDRESS_DEFAULT = flags.NotGiven(os.environ["THIS_ADMIN"]); '
            "from metasrv.cli import ctl; sys.exit(ctl.main())"
        )
        self._write("metactl", f"exec {python} -c '{program}' \"$@\"")
        asking = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
            's.sendall((" ".join(sys.argv[2:]) + "\\n").encode()); answer = s.makefile().read(); '
            "sys.stderr.write(answer); sys.exit(bool(answer))"
        )
        self._write("systemctl", f'exec {python} -c \'{asking}\' {self.root / "systemctl"} "$THIS_NODE" "$@"')

    def _write(self, name: str, text: str) -> None:
        file = self.root / "bin" / name
        file.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        file.chmod(0o755)

    async def _serve_systemctl(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Stop and start a node as its service manager does: `start` ends when it is ready."""
        answer = ""
        try:
            node_id, verb, unit = (await reader.readline()).decode().split()
            if unit != "metasrv" or verb not in ("start", "stop", "restart"):
                raise AssertionError(f"systemctl {verb} {unit} is not known here")
            await self._manage(int(node_id), verb)
        except (AssertionError, ValueError, OSError) as error:
            answer = f"{error}\n"
        writer.write(answer.encode())
        await writer.drain()
        writer.close()

    async def _manage(self, node_id: int, verb: str) -> None:
        node = self.cluster.nodes[node_id]
        if verb in ("stop", "restart") and node.is_running:
            code = await self.cluster.stop(node_id)
            assert code == 0, f"node {node_id} ended with {code}"
        if verb in ("start", "restart"):
            self.cluster.start(node_id, wrapper=self.wrapper)
            await self.cluster.wait_for_ready(node_id)
