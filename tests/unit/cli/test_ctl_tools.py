"""metactl's tools as commands: what they print, where it goes, and their exit codes."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path

import pytest

from metasrv.cli import ctl
from metasrv.model.types import Endpoint
from metasrv.node.opening import open_data

EXPORT = """["header",{"DataHeader":{"key":"header","value":{"version":"V004"}}}]
["state_machine/0",{"GenericKV":{"key":"__fd_users/a/ä","value":{"seq":1,"meta":{},"data":[1]}}}]
["state_machine/0",{"GenericKV":{"key":"__fd_users/b/u","value":{"seq":2,"meta":{},"data":[2]}}}]
"""
REPORT = "filter-tenant: total=3, header=1, raft_log_skipped=0, state_machine=2, kept=1, dropped=1\n"


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))


def test_one_tenant_from_a_file_and_through_pipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "all", tmp_path / "one"
    source.write_text(EXPORT)
    kept = "".join(EXPORT.splitlines(keepends=True)[:2])
    assert ctl.main(["filter-tenant", "--tenant", "a", "--input", str(source), "--output", str(target)]) == 0
    assert target.read_text() == kept
    assert capsys.readouterr().err.endswith(REPORT)
    stdin(monkeypatch, EXPORT)
    assert ctl.main(["filter-tenant", "--tenant", "a"]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (kept, REPORT)


def test_a_filter_that_cannot_decide_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "all", tmp_path / "one"
    source.write_text(EXPORT.replace("__fd_users/b", "own/b"))
    assert ctl.main(["filter-tenant", "--tenant", "a", "--input", str(source), "--output", str(target)]) == 1
    assert "these lines belong to no tenant that is known (1 in all): line 3: own/b/u" in capsys.readouterr().err
    assert not target.exists()
    assert ctl.main(["filter-tenant", "--tenant", "a", "--input", str(tmp_path / "none")]) == 1
    assert "none cannot be read: No such file or directory" in capsys.readouterr().err
    assert ctl.main(["filter-tenant", "--tenant", ""]) == 1
    assert "--tenant is empty" in capsys.readouterr().err


def test_the_log_of_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_data(str(tmp_path), 1, Endpoint("h", 1), bootstrap=True).close()
    assert ctl.main(["dump-raft-log-wal", "--raft-dir", str(tmp_path), "-V", "-R"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["RaftLog:", "ChunkId(00_000_000_000_000_000_000)"]
    assert lines[2].startswith("  R-00000: [000_000_000, ")
    assert ctl.main(["dump-raft-log-wal", "--raft-dir", str(tmp_path / "none")]) == 1
    assert "none is no directory" in capsys.readouterr().err


def test_scripts_from_files_the_command_line_and_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "define.lua"
    file.write_text("#!/usr/bin/env metactl\nfunction hello() print('hällo') end\n")
    before = signal.getsignal(signal.SIGINT)
    assert ctl.main(["lua", "--file", str(file), "--script", "hello()", "--script", "hello()"]) == 0
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().out == "hällo\nhällo\n"
    stdin(monkeypatch, "print(1)\nerror('mine')")
    assert ctl.main(["lua"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("1\n", "Error: stdin:2: mine\n")
    with pytest.raises(SystemExit) as ended:
        ctl.main(["lua", "--script", "print(2) os.exit(4)"])
    assert ended.value.code == 4
    assert capsys.readouterr().out == "2\n"
    assert ctl.main(["lua", "--file", str(tmp_path / "none")]) == 1
    assert "none cannot be read: No such file or directory" in capsys.readouterr().err
    wrong = "local value, problem = metactl.new_grpc_client('nowhere'):get('k') print(value, problem)"
    assert ctl.main(["lua", "--script", wrong]) == 0
    assert capsys.readouterr().out.startswith("nil\tgRPC error: the address: 'nowhere' is not host:port")
