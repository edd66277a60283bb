"""Which Docker engines the tests with containers can use, where one answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from verification.compose import why_no_containers


@pytest.fixture
def an_engine_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("verification.compose._succeeds", lambda *_command: True)


@pytest.mark.parametrize("host", ["", "unix:///run/docker.sock", "tcp://127.0.0.1:2375", "tcp://localhost:2375"])
def test_an_engine_of_this_machine_is_used(an_engine_answers: None, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert why_no_containers() is None


@pytest.mark.parametrize("host", ["tcp://docker:2375", "ssh://user@engine.example"])
def test_ports_of_another_machine_are_not_waited_for(
    an_engine_answers: None, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert "another machine's" in (why_no_containers() or "")
