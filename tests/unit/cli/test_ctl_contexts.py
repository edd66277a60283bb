"""metactl's contexts: what of the file takes effect, what wins over it, and which files are refused."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from metasrv.cli import contexts, ctl, ctl_admin, ctl_endpoints
from metasrv.model.errors import InvalidRequestError

FILE = """# kept
current = "a"
[contexts.a]
endpoints = ["10.0.0.1:28101", "10.0.0.2:28101"]
token_file = "a.token"
tls_ca_file = "/etc/ca.pem"
grpc_endpoints = ["10.0.0.1:9191"]
grpc_user = "app"
[contexts.b]
endpoints = ["10.9.0.1:28101"]
token = "planted-token"
grpc_password = "planted-password"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "metactl.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    (tmp_path / "a.token").write_text("the-token-of-a\n")
    (tmp_path / "a.token").chmod(0o600)
    monkeypatch.setenv("METACTL_CONFIG", str(path))
    for name in ("METACTL_CONTEXT", "METASRV_ADMIN_TOKEN", "METASRV_GRPC_PASSWORD", "METASRV_GRPC_USER"):
        monkeypatch.delenv(name, raising=False)
    return path


def completed(*arguments: str) -> argparse.Namespace:
    namespace = ctl.build_parser().parse_args(arguments)
    contexts.complete(namespace)
    return namespace


def test_the_current_context_gives_addresses_and_credentials(file: Path) -> None:
    admin, client = completed("member", "list"), completed("status")
    assert admin.admin_api_address == "10.0.0.1:28101,10.0.0.2:28101"
    assert (admin.admin_token_file, admin.admin_tls_ca_file) == (str(file.parent / "a.token"), "/etc/ca.pem")
    assert (client.grpc_api_address, client.grpc_user) == ("10.0.0.1:9191", "app")


def test_a_flag_wins_over_the_variable_and_that_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METACTL_CONTEXT", "b")
    assert completed("metrics").admin_api_address == "10.9.0.1:28101"
    assert completed("metrics", "--context", "a").admin_api_address.startswith("10.0.0.1")
    assert completed("--context", "a", "metrics").admin_api_address.startswith("10.0.0.1")
    monkeypatch.setenv("METASRV_ADMIN_TOKEN", "from-the-environment")
    assert completed("--context", "a", "metrics").admin_token_file is None
    assert completed("metrics", "--admin-token-file", "mine").admin_token_file == "mine"


def test_an_address_on_the_command_line_gets_no_credentials_of_a_context(file: Path) -> None:
    other = completed("metrics", "--admin-api-address", "10.1.1.1:1")
    assert (other.admin_token_file, other.admin_tls_ca_file, getattr(other, "context_token", None)) == (None, None, None)
    named = completed("metrics", "--admin-api-address", "https://10.0.0.3:1", "--context", "b")
    assert (named.admin_api_address, named.context_token) == ("https://10.0.0.3:1", "planted-token")
    headers = ctl_admin.client_of(named)._headers
    assert headers == {"Authorization": "Bearer planted-token"}


def test_secrets_are_never_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["config", "view"], ["context", "show", "b"], ["context", "list", "-o", "json"]):
        assert ctl.main(arguments) == 0
        out = capsys.readouterr().out
        assert "planted" not in out
        assert "10.9.0.1:28101" in out


def test_the_file_keeps_everything_but_the_current_context(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["context", "use", "b"]) == 0
    assert file.read_text() == FILE.replace('current = "a"', 'current = "b"')
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(FILE.replace('current = "a"\n', ""))
    assert ctl.main(["context", "use", "a"]) == 0
    assert file.read_text() == 'current = "a"\n' + FILE.replace('current = "a"\n', "")
    assert ctl.main(["context", "use", "c"]) == 1
    assert "there is no context 'c'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "text", "sentence"),
    [
        (0o644, FILE, "has secrets and is open to other users (mode 0644): chmod 600"),
        (0o660, 'current = "a"\n', "can be written by other users (mode 0660)"),
        (0o600, "[contexts.a]\nendpoint = 'x'\n", "`endpoint` of context 'a' is not known"),
        (0o600, "[contexts.a]\nendpoints = 'x'\n", "`endpoints` of context 'a' is a list of host:port"),
        (0o600, "[contexts.a]\ntoken = 3\n", "`token` of context 'a' is a text"),
        (0o600, "contexts = 3\n", "`contexts` has a table for each context"),
        (0o600, "curent = 'a'\n", "'curent' is no key of it"),
        (0o600, "[", "cannot be used: "),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(file: Path, mode: int, text: str, sentence: str) -> None:
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(InvalidRequestError) as caught:
        completed("metrics")
    assert sentence in str(caught.value)


def test_a_loose_token_file_is_warned_of(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "a.token").chmod(0o644)
    completed("metrics")
    assert "a.token is open to other users (mode 0644)" in capsys.readouterr().err


def test_without_a_file_the_defaults_hold_and_a_named_context_is_missed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METACTL_CONFIG", str(file.parent / "none.toml"))
    assert completed("metrics").admin_api_address == "127.0.0.1:28101"
    with pytest.raises(InvalidRequestError, match=r"there is no context 'a' in .*; contexts: none"):
        completed("metrics", "--context", "a")
    assert completed("context", "list").command


def test_commands_that_ask_nobody_need_no_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("broken")
    assert ctl.main(["completion", "bash"]) == 0
    assert ctl.main(["metrics"]) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_the_file_is_in_the_home_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METACTL_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert contexts.file_path() == "/x/metactl.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert contexts.file_path() == "/home/someone/.config/metactl.toml"


# ----------------------------------------------------------------------------- what is done with an overview


def member(node_id: int, **fields: Any) -> dict[str, Any]:
    given = {"id": node_id, "role": "voter", "reachable": True, "ready": True, "not_ready": None, "error": None, "lag": 0}
    return {**given, "warnings": None, "started_at_ms": 0, "raft_address": "h:1", **fields}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, ""),
        ({"reachable": False, "error": "it is gone", "ready": None}, "it is gone"),
        ({"ready": False, "not_ready": "no leader is known"}, "no leader is known"),
        ({"ready": None, "error": "older"}, "its release does not say whether it is ready"),
        ({"lag": 65}, "it lags by 65 entries"),
        ({"lag": 64}, ""),
    ],
)
def test_a_member_is_healthy_when_it_is_ready_and_level(fields: dict[str, Any], problem: str) -> None:
    assert ctl_endpoints.member_problem(member(1, **fields)) == problem


def test_cells_are_short() -> None:
    assert [ctl_endpoints.milliseconds(value) for value in (None, 12, 61_000)] == [None, "12ms", "0:01:01"]
    assert ctl_endpoints.certificates({}) is None
