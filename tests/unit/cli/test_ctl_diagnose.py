"""`metactl diagnose` over made-up nodes: what it writes, what it refuses of hostile ones, and its summary."""

from __future__ import annotations

import argparse
import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metasrv.cli import ctl_diagnose
from metasrv.cli.ctl_diagnose import diagnose
from metasrv.cli.diagnosis_summary import Diagnosis, NodeFiles, summary
from metasrv.cli.terminal import opened_archive
from metasrv.model.errors import InvalidRequestError, NotDoneError, StorageError
from metasrv.model.limits import (
    DIAGNOSTICS_BUNDLE_SIZE_BYTES_MAX,
    DIAGNOSTICS_FILE_SIZE_BYTES_MAX,
    DIAGNOSTICS_FILES_OF_BUNDLE_MAX,
    DIAGNOSTICS_PROFILE_SECONDS_MAX,
)

STATUS = b'{"leader": {"name": "1"}}'
CHECKS = b'{"readyz": [{"name": "disk", "passed": false, "reason": "the disk is full"}]}'
WRITES = b"""{"slowest": [{"milliseconds": 812.5, "ended_at_ms": 1795808654885, "size_bytes": 2048,
"method": "Transaction", "failure": "timeout", "keys": ["a|b"], "operations": 3}]}"""


def node(node_id: int, **changes: Any) -> dict[str, Any]:
    known = {"id": node_id, "role": "follower", "version": "0.3", "term": 7, "applied_index": 90, "lag_entries": 3}
    return {
        **known,
        "clock_offset_ms": 1,
        "ready": True,
        "reachable": True,
        "admin_url": f"http://n{node_id}:1",
        **changes,
    }


CONSOLE: dict[str, Any] = {
    "answered_by": 1,
    "cluster": {"name": "orders", "id": "c0ffee", "leader_id": 1, "term": 7, "tolerance_text": "one node may fail"},
    "nodes": [node(1, role="leader", lag_entries=0), node(2)],
    "problems": [],
}
EVENT = {"time_ms": 1_795_808_654_885, "node_id": 2, "severity": "warning", "kind": "election", "text": "a | b\nc"}


def bundle(*files: tuple[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda _: None) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            change(member)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


GOOD = bundle(("status.json", STATUS), ("checks.json", CHECKS), ("slow-writes.json", WRITES), ("log.txt", b"lines\n"))


class FakeClient:
    def __init__(self, console: dict[str, Any], answer: bytes | Exception) -> None:
        self.console, self.answer = console, answer
        self.targets: list[str] = []

    def json(self, path: str, _members: tuple[str, ...], **_query: Any) -> dict[str, Any]:
        return self.console if path == "/v1/console" else {"events": [EVENT], "missing_nodes": []}

    def download(self, target: str, write: Callable[[bytes], object], size_max: int, seconds: float) -> None:
        assert (size_max, seconds) == (DIAGNOSTICS_BUNDLE_SIZE_BYTES_MAX, 32.0)
        self.targets.append(target)
        if isinstance(self.answer, Exception):
            raise self.answer
        write(self.answer)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Runs it against two nodes; returns the archive's place."""

    def go(first: bytes | Exception = GOOD, second: bytes | Exception = GOOD, **console: Any) -> Path:
        clients = {"first": FakeClient({**CONSOLE, **console}, first), "http://n2:1": FakeClient({}, second)}
        monkeypatch.setattr(ctl_diagnose, "client_of", lambda _: clients["first"])
        monkeypatch.setattr(ctl_diagnose, "made", lambda address, _: clients[address])
        path = tmp_path / "bundle.tar.gz"
        diagnose(argparse.Namespace(output=str(path), seconds=2, admin_api_address="n1:1"))
        assert clients["first"].targets == ["/v1/diagnostics?seconds=2"]
        return path

    return go


def read(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert all(member.isreg() and member.name.startswith("metasrv-diagnostics-") for member in members)
        files = {member.name.partition("/")[2]: archive.extractfile(member) for member in members}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def test_every_node_has_its_directory(run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = run()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    names = {"status.json", "checks.json", "slow-writes.json", "log.txt"}
    files = read(path)
    assert files.keys() == {
        *("summary.md", "console.json", "events.json"),
        *(f"node-{node_id}/{name}" for node_id in (1, 2) for name in names),
    }
    text = files["summary.md"]
    for words in (
        "Node 1 leads in term 7, as node 1 sees it.",
        "- One node may fail.",
        "| 1 | leader | 0.3 | 7 | 90 | 0 entries | 1 ms | yes | complete |",
        "- Node 2, `disk`: The disk is full.",
        r"| 2026-11-27T19:44:14.885Z | 2 | **warning** | election | a \| b c |",
        r"| 812.5 ms | 1 | 2026-11-27T19:44:14.885Z | 2.0 KiB | Transaction | timeout | a\|b and 2 more |",
    ):
        assert words in text
    assert "What is missing" not in text
    assert f"wrote {path}, the diagnostics of nodes 1, 2; begin with" in capsys.readouterr().out


def test_a_node_that_gives_nothing_is_named(run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    files = read(run(second=NotDoneError("the admin API at n2:1 does not answer: timed out")))
    assert not any(name.startswith("node-2/") for name in files)
    assert "- Node 2: The admin API at n2:1 does not answer: timed out." in files["summary.md"]
    assert "| 2 | follower | 0.3 | 7 | 90 | 3 entries | 1 ms | yes | missing |" in files["summary.md"]
    assert "node 2: the admin API at n2:1 does not answer" in capsys.readouterr().err


def test_a_node_whose_address_was_never_known(run: Callable[..., Path]) -> None:
    files = read(run(nodes=[node(1), node(2, reachable=False, admin_url=None, ready=None)]))
    assert "- Node 2: It does not answer node 1, which never learned where its admin API is." in files["summary.md"]
    assert "| **unreachable** | missing |" in files["summary.md"]


def test_nothing_at_all_is_a_failure(run: Callable[..., Path], tmp_path: Path) -> None:
    refused = NotDoneError("status code: 403, msg: no")
    with pytest.raises(NotDoneError, match="no node gives its diagnostics: node 1: status code: 403, msg: no; node 2"):
        run(first=refused, second=refused)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        (GOOD[: len(GOOD) // 2], "its bundle is not complete"),
        (b"no archive", "its bundle is not complete"),
        (b"", "its bundle is not complete"),
        (bundle(("../../etc/passwd", b"x")), "'../../etc/passwd' is not the name of a file"),
        (bundle(("/etc/passwd", b"x")), "'/etc/passwd' is not the name of a file"),
        (bundle((".hidden", b"x")), "'.hidden' is not the name of a file"),
        (bundle(("x" * 65, b"x")), "is not the name of a file"),
        (bundle(("a\n# forged", b"x")), "is not the name of a file"),
        (bundle(("link", b""), change=lambda member: setattr(member, "type", tarfile.SYMTYPE)), "'link' is not the name"),
        (
            bundle(*((f"f{number}", b"") for number in range(DIAGNOSTICS_FILES_OF_BUNDLE_MAX + 1))),
            "it has more than 64 files",
        ),
    ],
    ids=("cut", "none", "empty", "above", "absolute", "hidden", "long", "lines", "link", "many"),
)
def test_what_a_node_sends_is_not_trusted(run: Callable[..., Path], sent: bytes, sentence: str) -> None:
    files = read(run(second=sent))
    assert sentence.lower() in files["summary.md"].replace("\\", "").lower()
    assert "node-1/log.txt" in files
    assert all("/" not in name.partition("/")[2] for name in files)


def test_a_bundle_that_unpacks_to_too_much_is_cut(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert DIAGNOSTICS_FILE_SIZE_BYTES_MAX <= DIAGNOSTICS_BUNDLE_SIZE_BYTES_MAX
    monkeypatch.setattr(ctl_diagnose, "DIAGNOSTICS_FILE_SIZE_BYTES_MAX", 1_000)
    files = read(run(second=bundle(("zeros", b"0" * 100_000))))
    assert len(files["node-2/zeros"]) == 1_000


def test_a_full_disk_leaves_nothing(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ctl_diagnose, "_write", full)
    with pytest.raises(StorageError, match=r"bundle.tar.gz could not be written: No space left on device"):
        run()
    assert list(tmp_path.iterdir()) == []


def test_a_device_or_a_pipe_is_not_replaced_by_an_archive(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(StorageError, match="is not a file: a device, a pipe or a directory"), opened_archive(str(pipe)):
        pass
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_the_profile_has_a_longest_time() -> None:
    with pytest.raises(InvalidRequestError, match="--seconds is at most 60"):
        diagnose(argparse.Namespace(seconds=DIAGNOSTICS_PROFILE_SECONDS_MAX + 1))


@pytest.mark.parametrize("junk", [None, 7, "text", [], [1], {"readyz": [1], "slowest": [{"milliseconds": "1"}]}])
def test_the_summary_stands_whatever_nodes_sent(junk: Any) -> None:
    names = ("about.json", "status.json", "checks.json", "slow-writes.json")
    console = {**CONSOLE, "problems": [{"title": "<b>", "text": "x\n# y", "runbook": "no-leader"}, junk], "nodes": [{}]}
    text = summary(Diagnosis(console, [{}], {1: NodeFiles(dict.fromkeys(names, junk), "")}, 0, "0.3", "n1"))
    assert "\n# y" not in text
    assert "<b>" not in text.replace("\\<", "")
    assert "Runbook: `no-leader`." in text
