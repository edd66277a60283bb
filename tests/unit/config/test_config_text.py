"""The texts in which a configuration is shown."""

from __future__ import annotations

import json

from metasrv import __version__
from metasrv.config.load import load_config
from metasrv.config.model import Config
from metasrv.config.text import banner_text, config_text, show_config_text, start_warnings, version_text
from metasrv.model.types import Endpoint


def test_show_config_holds_values_and_sources_without_secrets() -> None:
    loaded = load_config(None, {"METASRV_RAFT_SECRET": "planted"}, {"raft_config.single": "true"})
    text = show_config_text(loaded)
    assert "planted" not in text
    assert text.startswith("config:\n{")
    values, _, sources = text.removeprefix("config:\n").partition("\nsources:\n")
    assert json.loads(values)["raft_config"]["raft_secret"] == "***"
    assert json.loads(values)["raft_config"]["single"] is True
    assert json.loads(sources)["raft_config.raft_secret"] == "environment METASRV_RAFT_SECRET"
    assert json.loads(values) == json.loads(config_text(loaded.config))


def test_version() -> None:
    assert version_text(Config()) == (
        f"version: {__version__}\nmin-compatible-client-version: 1.2.676\ndata-version: V004"
    )


def test_warnings_name_ignored_keys_and_open_ports() -> None:
    assert start_warnings(Config()) == []
    assert start_warnings(Config(ignored_keys=("raft_config.no_sync", "config_id"))) == [
        "these configuration keys have no meaning here and are ignored: raft_config.no_sync, config_id"
    ]
    exposed = {"raft_listen_host": "10.0.0.1"}
    open_port = Config.model_validate({"raft_config": {**exposed, "insecure_raft": True}})
    assert [warning.partition(" is ")[0] for warning in start_warnings(open_port)] == ["insecure_raft"]
    lax = Config.model_validate({"raft_config": {**exposed, "raft_secret": "x", "raft_secret_strict": False}})
    assert [warning.partition(" is ")[0] for warning in start_warnings(lax)] == ["raft_secret_strict"]
    strict = Config.model_validate({"raft_config": {**exposed, "raft_secret": "x"}})
    assert start_warnings(strict) == []
    for settings, warned in (
        ({}, True),
        ({"grpc_require_token": "upstream", "grpc_password": "x"}, True),
        ({"grpc_require_token": "all"}, False),
        ({"grpc_password": "x"}, False),
    ):
        reachable = Config.model_validate({"grpc_api_address": "0.0.0.0:9191", **settings}, strict=False)
        assert [warning.partition(" is ")[0] for warning in start_warnings(reachable)] == ["grpc_require_token"] * warned
    # On loopback other programs of the machine reach the port; who sets a password means them, too.
    local = Config.model_validate({"grpc_require_token": "upstream", "grpc_password": "x"}, strict=False)
    assert [warning.partition(" is ")[0] for warning in start_warnings(local)] == ["grpc_require_token"]


def test_banner_names_bound_addresses() -> None:
    config = Config.model_validate(
        {
            "grpc_api_advertise_host": "client.example",
            "raft_config": {"id": 7, "raft_advertise_host": "peer.example", "join": ("a:1",), "learner": True},
        }
    )
    lines = banner_text(config, {"grpc": Endpoint("127.0.0.1", 4444)}).splitlines()
    assert "Raft  Id: 7; Cluster: foo_cluster" in lines
    assert "      Mode: join a:1 as a learner if not yet a member" in lines
    assert lines[-3:] == [
        "HTTP API listen at: 127.0.0.1:28101",
        "gRPC API listen at: 127.0.0.1:4444 advertise: client.example:4444",
        "Raft API listen at: 127.0.0.1:28004 advertise: peer.example:28004",
    ]


def test_banner_names_the_listener_of_probes_where_there_is_one() -> None:
    lines = banner_text(Config(health_api_address="127.0.0.1:0"), {"health": Endpoint("127.0.0.1", 555)}).splitlines()
    assert lines[-3] == "Probes listen at: 127.0.0.1:555"
    assert not any(line.startswith("Probes") for line in banner_text(Config(), {}).splitlines())
