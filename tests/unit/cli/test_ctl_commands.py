"""metactl's command line: flags, defaults, exit codes (docs/contract/admin-api.md section 4)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from metasrv.cli import ctl, ctl_admin, ctl_backup, ctl_certificates, ctl_events, ctl_grpc, ctl_users
from metasrv.cli.ctl_admin import AdminClient, AdminError
from metasrv.model.errors import InvalidRequestError, NotDoneError, StorageError
from metasrv.testing.hand_clock import HandClock

GRPC = "127.0.0.1:9191"
ADMIN = "127.0.0.1:28101"

COMMANDS: list[tuple[list[str], Any, dict[str, Any]]] = [
    (["status"], ctl_grpc.status, {"grpc_api_address": GRPC}),
    (["member-list"], ctl_grpc.member_list, {"grpc_api_address": GRPC}),
    (["get", "--key", "k"], ctl_grpc.get, {"grpc_api_address": GRPC, "key": "k"}),
    (["upsert", "--key", "k", "--value", "v"], ctl_grpc.upsert, {"key": "k", "value": "v"}),
    (["watch", "--prefix", "p"], ctl_grpc.watch, {"prefix": "p"}),
    (["export"], ctl.backup_command("export"), {"chunk_size": 32, "db": ""}),
    (["keys-layout", "--depth", "2"], ctl_grpc.keys_layout, {"depth": 2}),
    (["keys-layout"], ctl_grpc.keys_layout, {"depth": None}),
    (["bench-client-num-conn"], ctl_grpc.bench_client_num_conn, {"num": 10_000}),
    (["transfer-leader"], ctl_admin.transfer_leader, {"admin_api_address": ADMIN, "to": None}),
    (["transfer-leader", "--to", "0"], ctl_admin.transfer_leader, {"to": 0}),
    (["trigger-snapshot"], ctl_admin.trigger_snapshot, {"admin_api_address": "127.0.0.1:28101"}),
    (["events", "--follow"], ctl_events.events, {"admin_api_address": ADMIN, "follow": True, "output": "text"}),
    (["events", "-o", "json", "--node", "2"], ctl_events.events, {"follow": False, "limit": 100, "node": 2}),
    (["list-features"], ctl_admin.list_features, {"admin_api_address": ADMIN}),
    (["set-feature", "--feature", "f", "--enable", "true"], ctl_admin.set_feature, {"enable": "true"}),
    (["import", "--raft-dir", "d"], ctl.backup_command("import_backup"), {"raft_dir": "d", "db": "", "id": None}),
    (
        ["import", "--raft-dir", "d", "--id", "4", "--initial-cluster", "4=h:1", "5=h:2", "--initial-cluster", "6=h:3"],
        ctl.backup_command("import_backup"),
        {"id": 4, "initial_cluster": ["4=h:1", "5=h:2", "6=h:3"]},
    ),
    (["snapshot", "save", "f"], ctl.backup_command("save"), {"file": "f", "local": False, "grpc_api_address": GRPC}),
    (["snapshot", "inspect", "f"], ctl.backup_command("inspect_backup"), {"file": "f"}),
    (
        ["snapshot", "restore", "f", "--raft-dir", "d"],
        ctl.backup_command("restore_backup"),
        {"cluster_token": "", "id": None},
    ),
    (["cert", "generate", "d", "--node", "n"], ctl_certificates.generate, {"days": 365, "node": ["n"], "client": []}),
    (["metrics"], ctl_admin.metrics, {"admin_api_address": ADMIN}),
    (["hash-password"], ctl_users.hash_a_password, {}),
    (["user", "add", "--name", "n"], ctl_users.add, {"admin_api_address": ADMIN, "name": "n", "no_password": False}),
    (["user", "list"], ctl_users.list_users, {"admin_api_address": ADMIN}),
    (["user", "remove", "--name", "n"], ctl_users.remove, {"name": "n"}),
    (["user", "set-password", "--name", "n"], ctl_users.set_password, {"name": "n"}),
    (
        ["user", "grant", "--name", "n", "--right", "read", "--prefix", ""],
        ctl_users.grant,
        {"name": "n", "right": "read", "prefix": ""},
    ),
    (["user", "revoke", "--name", "n", "--prefix", "p"], ctl_users.revoke, {"name": "n", "prefix": "p"}),
    (["user", "end-tokens", "--name", "n"], ctl_users.end_tokens, {"name": "n"}),
    (["user", "rotate-key"], ctl_users.rotate_key, {}),
]


@pytest.mark.parametrize(("arguments", "command", "expected"), COMMANDS, ids=[" ".join(row[0]) for row in COMMANDS])
def test_commands_and_their_defaults(arguments: list[str], command: Any, expected: dict[str, Any]) -> None:
    namespace = vars(ctl.build_parser().parse_args(arguments))
    assert namespace["command"] is command
    assert {name: namespace[name] for name in expected} == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["get"],
        ["upsert", "--key", "k"],
        ["set-feature", "--feature", "f", "--enable", "yes"],
        ["transfer-leader", "--to", "-1"],
        ["keys-layout", "--depth", str(2**32)],
        ["export", "--chunk-size", "0"],
        ["status", "--grpc-api"],
        ["import", "--raft-dir", "d", "--id", str(2**63)],
        ["snapshot", "restore", "f"],
        ["snapshot", "save"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ctl.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_other_commands_do_not_load_the_servers_storage() -> None:
    assert not hasattr(ctl, "ctl_backup")
    assert ctl.backup_command("save").__module__ == ctl.__name__


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main([]) == 0
    assert "transfer-leader" in capsys.readouterr().out


def test_help_is_a_command_and_capital_v_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["help"]) == 0
    assert "transfer-leader" in capsys.readouterr().out
    assert ctl.main(["help", "import"]) == 0
    assert "--initial-cluster" in capsys.readouterr().out
    assert ctl.main(["snapshot"]) == 0
    assert "inspect" in capsys.readouterr().out
    assert ctl.main(["help", "nonsense"]) == 1
    assert "there is no command 'nonsense'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        ctl.main(["-V"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("metactl ")


def test_the_old_import_and_export_flags_with_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    for name in ("export_stopped", "import_backup"):
        monkeypatch.setattr(ctl_backup, name, seen.append)
    assert ctl.main(["--export", "--raft-dir", "d", "--id", "5"]) == 0
    assert ctl.main(["--import", "--raft-dir", "d", "--id", "4", "--db", "f", "--initial-cluster", "4=h:1"]) == 0
    assert (seen[0].raft_dir, seen[0].id, seen[0].db) == ("d", 5, "")
    assert (seen[1].raft_dir, seen[1].id, seen[1].db, seen[1].initial_cluster) == ("d", 4, "f", ["4=h:1"])


def test_the_old_export_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(ctl_grpc, "export", seen.append)
    monkeypatch.setenv("METASRV_GRPC_API_ADDRESS", "h:1")
    assert ctl.main(["--export", "--export-chunk-size", "5", "--db", "f"]) == 0
    assert (seen[0].grpc_api_address, seen[0].chunk_size, seen[0].db) == ("h:1", 5, "f")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (AdminError(404, "not leader\nid=1"), 1, "Error: status code: 404, msg: not leader\nid=1\n"),
        (NotDoneError("nobody there"), 1, "Error: nobody there\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_failures_have_exit_codes(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(arguments: argparse.Namespace) -> None:
        raise error

    monkeypatch.setattr(ctl_admin, "metrics", fail)
    assert ctl.main(["metrics"]) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", text)


STATUS = "/v1/cluster/status"
TRANSFER = "/v1/ctrl/trigger_transfer_leader"
TRANSFERRED = '{"from":0,"to":2,"voter_ids":[0,1,2]}'


def status_led_by(leader: int | None) -> str:
    voters = ",".join(f'{{"name":"{node_id}"}}' for node_id in (0, 1, 2))
    named = "null" if leader is None else f'{{"name":"{leader}"}}'
    return f'{{"voters":[{voters}],"leader":{named}}}'


class FakeAdmin:
    """Answers as a node's admin API would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: str, *statuses: str) -> None:
        """`statuses` are what the status route says, one after the other; the last one stays."""
        self.asked: list[tuple[str, dict[str, object]]] = []
        coming = list(statuses)

        def text(client: AdminClient, path: str, **query: object) -> str:
            self.asked.append((path, {name: value for name, value in query.items() if value is not None}))
            if path == STATUS and coming:
                return coming.pop(0) if len(coming) > 1 else coming[0]
            return answer

        monkeypatch.setattr(AdminClient, "text", text)


def test_admin_commands_print_what_upstream_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = FakeAdmin(monkeypatch, TRANSFERRED, status_led_by(0))
    assert ctl.main(["transfer-leader", "--to", "2"]) == 0
    assert capsys.readouterr().out == "triggered leader transfer from 0 to 2.\nvoter ids: [0, 1, 2]\n"
    assert admin.asked == [(STATUS, {}), (TRANSFER, {"to": 2})]

    FakeAdmin(monkeypatch, "null")
    assert ctl.main(["trigger-snapshot"]) == 0
    assert capsys.readouterr().out == "triggered snapshot successfully.\n"

    admin = FakeAdmin(monkeypatch, '{"features":["dummy"],"enabled":["dummy"]}')
    assert ctl.main(["set-feature", "--feature", "dummy", "--enable", "true"]) == 0
    pretty = '{\n  "features": [\n    "dummy"\n  ],\n  "enabled": [\n    "dummy"\n  ]\n}\n'
    assert capsys.readouterr().out == f"set-feature: Done; features:\n{pretty}"
    assert admin.asked == [("/v1/features/set", {"feature": "dummy", "enable": "true"})]
    assert ctl.main(["list-features"]) == 0
    assert capsys.readouterr().out == pretty


def test_leadership_is_not_asked_for_a_node_that_is_no_voter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = FakeAdmin(monkeypatch, TRANSFERRED, status_led_by(0))
    assert ctl.main(["transfer-leader", "--to", "7"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Error: node 7 is no voter, so it cannot lead; voter ids: [0, 1, 2]\n")
    assert admin.asked == [(STATUS, {})]


def test_a_transfer_that_is_waited_for_ends_when_the_leadership_has_arrived(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeAdmin(monkeypatch, TRANSFERRED, status_led_by(0), status_led_by(None), status_led_by(2))
    monkeypatch.setattr(ctl_admin, "_POLL_SECONDS", 0.0)
    assert ctl.main(["transfer-leader", "--wait"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "node 2 leads."


@pytest.mark.parametrize(("leader", "known"), [(0, "node 0 leads"), (None, "no leader is known")])
def test_a_transfer_that_does_not_arrive_fails_and_says_who_leads(
    leader: int | None, known: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeAdmin(monkeypatch, TRANSFERRED, status_led_by(leader))
    clock = HandClock(step_seconds=0.6)
    monkeypatch.setattr(ctl_admin, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    assert ctl.main(["transfer-leader", "--wait", "1"]) == 1
    assert capsys.readouterr().err == f"Error: node 2 does not lead after 1 s: {known}\n"


@pytest.mark.parametrize("answer", ["", "null", "[]", "{}", '{"from":1}', "<html>"])
def test_another_server_s_answer_is_not_taken_for_a_node_s(
    answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeAdmin(monkeypatch, answer)
    assert ctl.main(["transfer-leader"]) == 1
    assert "is not a node's admin API" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["", "host", "host:x", "ftp://host:1", "http://:1", "host:99999"])
def test_admin_addresses_that_are_none(address: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not host:port"):
        AdminClient(address)


def test_an_export_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "backup"

    def broken() -> Iterator[str]:
        yield "1"
        raise NotDoneError("the node went away")

    with pytest.raises(NotDoneError):
        ctl_grpc.write_lines(broken(), str(target))
    assert not target.exists()
    ctl_grpc.write_lines(iter(["1", "2"]), str(target))
    assert target.read_text() == "1\n2\n"
    with pytest.raises(StorageError, match="could not be written"):
        ctl_grpc.write_lines(iter(["1"]), str(tmp_path / "missing" / "backup"))


def test_a_broken_export_leaves_no_unfinished_file(tmp_path: Path) -> None:
    def broken() -> Iterator[str]:
        yield "1"
        raise NotDoneError("the node went away")

    with pytest.raises(NotDoneError):
        ctl_grpc.write_lines(broken(), str(tmp_path / "backup"))
    assert list(tmp_path.iterdir()) == []


def test_a_refused_connection_names_both_ports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing:
        def request(self, *_: object, **__: object) -> None:
            raise ConnectionRefusedError(111, "Connection refused")

        def close(self) -> None:
            pass

    monkeypatch.setattr(AdminClient, "_connection", lambda client: Refusing())
    assert ctl.main(["trigger-snapshot"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: nothing listens at 127.0.0.1:28101: ")
    assert "port 28101" in error
    assert "upstream 28002" in error


class Answering:
    """A connection to a node that refuses."""

    status = 0
    body = b""
    asked: ClassVar[list[dict[str, str]]] = []

    def request(self, _method: str, _target: str, _body: bytes | None, headers: dict[str, str]) -> None:
        self.asked.append(headers)

    def getresponse(self) -> Answering:
        return self

    def read(self, _size_bytes: int) -> bytes:
        return self.body

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (401, "Error: status code: 401, msg: no; metactl takes a token from METASRV_ADMIN_TOKEN or --admin-token-file"),
        (403, "Error: status code: 403, msg: no\n"),
    ],
)
def test_a_refusal_says_what_is_missing(
    code: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    monkeypatch.setenv("METASRV_ADMIN_TOKEN", "from-the-environment")
    monkeypatch.setattr(Answering, "status", code)
    monkeypatch.setattr(Answering, "body", b"no")
    monkeypatch.setattr(Answering, "asked", [])
    monkeypatch.setattr(AdminClient, "_connection", lambda client: Answering())
    assert ctl.main(["trigger-snapshot"]) == 1
    assert ctl.main(["trigger-snapshot", "--admin-token-file", str(file)]) == 1
    assert capsys.readouterr().err.startswith(sentence)
    assert [headers["Authorization"] for headers in Answering.asked] == [
        "Bearer from-the-environment",
        "Bearer from-the-file",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--admin-tls-cert-file", "a"], "--admin-tls-cert-file and --admin-tls-key-file go together"),
        (["--admin-tls-cert-file", "a", "--admin-tls-key-file", "b"], "only TLS has client certificates"),
        (["--admin-token-file", "/missing"], "--admin-token-file /missing cannot be read"),
        (["--admin-token-file", __file__], "must have one token"),
        (
            ["--admin-api-address", "https://h:1", "--admin-tls-cert-file", "/missing", "--admin-tls-key-file", "b"],
            "a file of a certificate or key cannot be used",
        ),
    ],
)
def test_credentials_that_cannot_be_used_are_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["trigger-snapshot", *arguments]) == 1
    assert sentence in capsys.readouterr().err


def test_no_address_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="names no address"):
        ctl_grpc.client_of(argparse.Namespace(grpc_api_address=" , "))


def test_a_member_without_a_client_address_is_a_blank_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FakeClient:
        def __enter__(self) -> FakeClient:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def member_list(self) -> list[str]:
            return ["127.0.0.1:9191", "", "127.0.0.1:9193"]

    monkeypatch.setattr(ctl_grpc, "client_of", lambda arguments: FakeClient())
    assert ctl.main(["member-list"]) == 0
    assert capsys.readouterr().out == "127.0.0.1:9191\n\n127.0.0.1:9193\n"
