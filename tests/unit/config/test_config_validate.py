"""What keys have to do with each other: start mode, exposure, TLS files (docs/contract/admin-api.md section 3.4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metasrv.config.model import Config, SecretText
from metasrv.config.validate import cautions, cross_problems, is_loopback
from metasrv.model.limits import RAFT_SECRETS_MAX

NO_START_MODE = "at least one of `single` and `join` needs to be enabled"
SINGLE_LEARNER = "`single` and `learner` exclude each other: a node that begins a cluster votes; use `join`"


def problems(top: dict[str, Any] | None = None, **raft: Any) -> list[str]:
    config = Config.model_validate({**(top or {}), "raft_config": raft})
    return cross_problems(config, frozenset())


@pytest.mark.parametrize(
    ("raft", "expected"),
    [
        ({"single": True}, []),
        ({"join": ("other:28103",)}, []),
        ({}, [NO_START_MODE]),
        ({"single": True, "join": ("other:28103",)}, []),
        ({"leave_via": ("other:28103",), "leave_id": 3}, []),
        ({"join": ("other:28103",), "learner": True}, []),
        ({"single": True, "learner": True}, [SINGLE_LEARNER]),
        ({"single": True, "join": ("other:28103",), "learner": True}, [SINGLE_LEARNER]),
    ],
)
def test_start_mode(raft: dict[str, Any], expected: list[str]) -> None:
    assert problems(**raft) == expected


def test_join_must_not_name_the_own_listener() -> None:
    own: dict[str, Any] = {"raft_listen_host": "127.0.0.1", "raft_api_port": 28103}
    join = ("other:28103", "127.0.0.1:28103")
    assert problems(**own, join=join) == ["--join must not be set to itself"]
    assert problems(**own, join=("127.0.0.1:28104", "localhost:28103")) == []
    assert problems(**own, join=join, leave_via=("other:28103",), leave_id=1) == []


@pytest.mark.parametrize(
    ("host", "is_good"),
    [
        ("0.0.0.0", False),
        ("::", False),
        ("[::]", False),
        ("0", False),
        ("0:0:0:0:0:0:0:0", False),
        ("10.0.0.1", True),
        ("::1", True),
        ("node0.example", True),
    ],
)
def test_a_host_that_is_only_good_to_listen_on_is_not_advertised(host: str, is_good: bool) -> None:
    raft = Config.model_validate({"raft_config": {"single": True, "raft_advertise_host": host}})
    grpc = Config.model_validate({"grpc_api_advertise_host": host, "raft_config": {"single": True}})
    for config, name in ((raft, "raft_advertise_host"), (grpc, "grpc_api_advertise_host")):
        found = cautions(config, frozenset())
        assert [caution.partition(",")[0] for caution in found] == ([] if is_good else [f"`{name}` is {host}"])


@pytest.mark.parametrize(
    ("listen", "join", "is_good"),
    [
        ("127.0.0.1", ("node1.example:28103",), False),
        ("127.0.0.1", ("NODE1.example:28103", "localhost:28103"), False),
        ("0.0.0.0", ("127.0.0.1:28103", "0.0.0.0:28103"), False),
        ("::", ("[::1]:28103",), False),
        ("127.0.0.1", ("node1.example:28103", "node2.example:28103"), True),
        ("127.0.0.1", ("node1.example:28104",), True),
        ("10.0.0.1", ("127.0.0.1:28103",), True),
    ],
)
def test_a_join_that_names_only_the_node_itself(listen: str, join: tuple[str, ...], is_good: bool) -> None:
    raft = {"raft_listen_host": listen, "raft_advertise_host": "node1.example", "raft_api_port": 28103, "join": join}
    found = cautions(Config.model_validate({"raft_config": raft}), frozenset())
    assert [caution.partition(" itself")[0] for caution in found] == ([] if is_good else ["`join` names only this node"])


def test_leave_via_without_a_node_that_shall_leave() -> None:
    for given in ({"single": True}, {"join": ("other:28103",)}, {}):
        assert problems(**given, leave_via=("other:28103",)) == [
            "`leave_via` names nodes to ask but `leave_id` does not say which node shall leave; give both or neither"
        ]


def test_leave_id_without_anybody_to_ask() -> None:
    assert problems(single=True, leave_id=3) == [
        "`leave_id` is 3 but `leave_via` names no node to ask; give both or neither"
    ]


@pytest.mark.parametrize("address", ["localhost:9191", "127.0.0.1", "127.0.0.1:65536", ":9191", "1.2.3:80", ""])
def test_addresses_must_be_ip_and_port(address: str) -> None:
    sentence = f"invalid socket address syntax while parsing {address}"
    assert problems({"grpc_api_address": address}, single=True) == [sentence]
    assert problems({"admin_api_address": address}, single=True) == [sentence]


def test_ipv6_addresses_and_port_zero_are_fine() -> None:
    assert problems({"grpc_api_address": "[::1]:9191", "admin_api_address": "[::]:0"}, single=True) == []
    zero = {"grpc_api_address": "127.0.0.1:0", "admin_api_address": "127.0.0.1:0"}
    assert problems(zero, single=True, raft_api_port=0) == []


def test_the_listener_of_probes_is_an_address_or_nothing() -> None:
    assert problems({"health_api_address": "0.0.0.0:28102"}, single=True) == []
    assert problems({"health_api_address": "28102"}, single=True) == ["invalid socket address syntax while parsing 28102"]
    assert problems({"health_api_address": "0.0.0.0:9191"}, single=True) == [
        "`grpc_api_address` and `health_api_address` are both 0.0.0.0:9191; each listener needs a port of its own"
    ]


def test_listeners_need_ports_of_their_own() -> None:
    assert problems({"admin_api_address": "127.0.0.1:9191"}, single=True) == [
        "`admin_api_address` and `grpc_api_address` are both 127.0.0.1:9191; each listener needs a port of its own"
    ]
    assert len(problems({"grpc_api_address": "0.0.0.0:28103"}, single=True, raft_api_port=28103)) == 1
    assert problems({"grpc_api_address": "127.0.0.2:28103"}, single=True, raft_api_port=28103) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST."])
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)
    assert problems(single=True, raft_listen_host=host) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "meta-1.example.com"])
def test_an_exposed_raft_port_needs_one_of_three_ways(host: str, tmp_path: Path) -> None:
    (sentence,) = problems(single=True, raft_listen_host=host)
    assert sentence.startswith(f"`raft_listen_host` {host} can be reached from other machines")
    assert all(way in sentence for way in ("`raft_secret`", "`raft_tls_ca`", "`raft_tls_key`", "--insecure-raft"))
    pem = tmp_path / "any.pem"
    pem.touch()
    assert problems(single=True, raft_listen_host=host, raft_secret="x") == []
    assert problems(single=True, raft_listen_host=host, insecure_raft=True) == []
    tls: dict[str, Any] = dict.fromkeys(("raft_tls_ca", "raft_tls_cert", "raft_tls_key"), str(pem))
    assert problems(single=True, raft_listen_host=host, **tls) == []
    # A process that only asks for a removal listens to nobody.
    assert problems(raft_listen_host=host, leave_via=("other:1",), leave_id=2) == []


def test_secrets_that_can_not_work() -> None:
    assert problems(single=True, raft_accepted_secrets=("x",)) == []  # the first step of adopting a secret
    many = tuple(map(str, range(RAFT_SECRETS_MAX)))
    assert problems(single=True, raft_accepted_secrets=many) == []
    assert problems(single=True, raft_secret="x", raft_accepted_secrets=many) == [
        f"`raft_secret` and `raft_accepted_secrets` are {RAFT_SECRETS_MAX + 1} secrets; a node holds at most "
        f"{RAFT_SECRETS_MAX}"
    ]
    assert problems(single=True, raft_secret="x", raft_accepted_secrets=("",)) == [
        "`raft_accepted_secrets` holds an empty secret"
    ]


@pytest.mark.parametrize("name", ["admin", "grpc"])
def test_certificate_and_key_come_in_pairs_and_are_readable(name: str, tmp_path: Path) -> None:
    cert, key = f"{name}_tls_server_cert", f"{name}_tls_server_key"
    good = tmp_path / "good.pem"
    good.touch()
    missing = tmp_path / "missing.pem"
    assert problems({cert: str(good), key: str(good)}, single=True) == []
    assert problems({cert: str(good)}, single=True) == [f"`{cert}` is set but `{key}` is not"]
    assert problems({cert: str(good), key: str(missing)}, single=True) == [
        f"`{key}`: {missing} cannot be read: No such file or directory"
    ]
    assert "is not a path" in problems({cert: "\0", key: str(good)}, single=True)[0]


def test_client_certificates_need_an_authority_names_and_tls(tmp_path: Path) -> None:
    good = str(tmp_path / "good.pem")
    Path(good).touch()
    tls = {"admin_tls_server_cert": good, "admin_tls_server_key": good}
    clients = {"admin_tls_client_ca_file": good, "admin_tls_client_names": ("ops:operate",)}
    assert problems({**tls, **clients}, single=True) == []
    assert problems({**tls, "admin_tls_client_ca_file": good}, single=True) == [
        "`admin_tls_client_ca_file` is set but `admin_tls_client_names` is not"
    ]
    assert problems({**tls, "admin_tls_client_names": ("ops:operate",)}, single=True) == [
        "`admin_tls_client_names` is set but `admin_tls_client_ca_file` is not"
    ]
    assert problems(clients, single=True) == [
        "`admin_tls_client_ca_file` is set but `admin_tls_server_cert` is not: only TLS has client certificates"
    ]
    assert "cannot be read" in problems({**tls, **clients, "admin_tls_client_ca_file": good + "x"}, single=True)[0]


def test_routes_are_closed_only_where_something_opens_them(tmp_path: Path) -> None:
    closed = {"admin_open_routes": ("probes",)}
    assert problems(closed, single=True)[0].startswith("`admin_open_routes` closes routes, but nothing opens them")
    assert problems({**closed, "admin_token": SecretText("x")}, single=True) == []
    tokens = tmp_path / "tokens"
    tokens.write_text("ops:operate:0123456789abcdef")
    assert problems({**closed, "admin_tokens_file": str(tokens)}, single=True) == []
    tokens.write_text("ops")
    assert problems({"admin_tokens_file": str(tokens)}, single=True) == [
        f"`admin_tokens_file`: {tokens} line 1: a line is `name:scope:token`, and a scope is read or operate"
    ]


def test_certificates_of_clients_need_tls_and_their_list_needs_the_authority(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.touch()
    server = {"grpc_tls_server_cert": str(pem), "grpc_tls_server_key": str(pem)}
    authority, crl = {"grpc_tls_client_ca_file": str(pem)}, {"grpc_tls_crl_file": str(pem)}
    assert problems({**server, **authority, **crl}, single=True) == []
    assert problems(authority, single=True) == ["`grpc_tls_client_ca_file` is set but `grpc_tls_server_cert` is not"]
    assert problems({**server, **crl}, single=True) == ["`grpc_tls_crl_file` is set but `grpc_tls_client_ca_file` is not"]
    assert problems({**server, "grpc_tls_client_ca_file": str(tmp_path)}, single=True) == [
        f"`grpc_tls_client_ca_file`: {tmp_path} cannot be read: Is a directory"
    ]


def test_raft_tls_needs_all_three_files(tmp_path: Path) -> None:
    assert problems(single=True, raft_tls_ca=str(tmp_path)) == [
        "`raft_tls_ca` is set but `raft_tls_cert` and `raft_tls_key` are not",
        f"`raft_tls_ca`: {tmp_path} cannot be read: Is a directory",
    ]


def test_checks_of_doubtful_keys_are_not_made() -> None:
    config = Config()
    assert cross_problems(config, frozenset()) == [NO_START_MODE]
    assert cross_problems(config, frozenset({"raft_config.join"})) == []
