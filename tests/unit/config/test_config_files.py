"""The files in conf/ load and hold the documented numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from metasrv.config.keys import KEYS
from metasrv.config.load import check_config_file, load_config
from metasrv.model.errors import ConfigError
from metasrv.model.types import Endpoint
from tests.support.paths import CONF


def test_every_file_is_covered_here() -> None:
    assert {path.name for path in CONF.glob("*.toml")} == {
        "gateway.toml", "node1.toml", "node2.toml", "node3.toml", "single.toml", "tls.toml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("node_id", "admin_port", "grpc_port", "raft_port", "join"),
    [
        (1, 28101, 9191, 28103, ("localhost:28104", "localhost:28105")),
        (2, 28201, 9192, 28104, ("localhost:28103", "localhost:28105")),
        (3, 28301, 9193, 28105, ("localhost:28103", "localhost:28104")),
    ],
)
def test_cluster_of_three(node_id: int, admin_port: int, grpc_port: int, raft_port: int, join: tuple[str, ...]) -> None:
    config = load_config(str(CONF / f"node{node_id}.toml"), {}, {}).config
    raft = config.raft_config
    assert raft.id == node_id
    assert config.admin_endpoint == Endpoint("127.0.0.1", admin_port)
    assert config.grpc_endpoint == Endpoint("127.0.0.1", grpc_port)
    assert config.grpc_api_advertise_address == f"127.0.0.1:{grpc_port}"
    assert raft.raft_listen_endpoint == Endpoint("127.0.0.1", raft_port)
    assert raft.raft_advertise_endpoint == Endpoint("localhost", raft_port)
    assert (raft.single, raft.join) == (node_id == 1, join)
    assert raft.raft_dir == f"./.metasrv/node{node_id}/data"
    assert config.log.file.dir == f"./.metasrv/node{node_id}/logs"
    assert raft.heartbeat_interval == 200
    assert config.ignored_keys == ()


def test_single() -> None:
    config = load_config(str(CONF / "single.toml"), {}, {}).config
    assert (config.raft_config.id, config.raft_config.single) == (1, True)
    assert config.admin_endpoint == Endpoint("127.0.0.1", 28101)
    assert config.raft_config.raft_advertise_endpoint == Endpoint("localhost", 28103)


def test_tls_loads_once_its_files_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(CONF / "tls.toml")
    assert len(check_config_file(file)) == 7
    directory = tmp_path / ".metasrv" / "tls"
    directory.mkdir(parents=True)
    for name in ("ca", "node", "node-key"):
        (directory / f"{name}.pem").touch()
    assert check_config_file(file) == []


def test_tls_shows_every_security_key() -> None:
    text = (CONF / "tls.toml").read_text(encoding="utf-8")
    words = ("tls", "secret", "insecure", "token", "password")
    keys = [path.rpartition(".")[2] for path, key in KEYS.items() if not key.ignored and any(w in path for w in words)]
    assert len(keys) == 24
    assert [key for key in keys if f"{key} = " not in text] == []


def test_tls_is_good_with_every_shown_key_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / ".metasrv" / "tls"
    directory.mkdir(parents=True)
    for name in ("admin-clients", "clients-ca", "clients-crl", "ca", "node", "node-key"):
        (directory / f"{name}.pem").touch()
    (directory / "admin-tokens").write_text("prometheus:read:0123456789abcdef\n")
    lines = (CONF / "tls.toml").read_text(encoding="utf-8").splitlines()
    used = [line.removeprefix("# ") if line.startswith("# ") and " = " in line else line for line in lines]
    file = tmp_path / "all.toml"
    file.write_text("\n".join(used), encoding="utf-8")
    config = load_config(str(file), {}, {}).config
    assert len(config.secret_values()) == 4
    assert config.raft_config.raft_secret_strict


def test_the_configuration_of_a_gateway_names_the_cluster_of_three_and_no_data() -> None:
    file = str(CONF / "gateway.toml")
    assert check_config_file(file) == []
    config = load_config(file, {}, {}).config
    assert config.gateway_nodes == ("localhost:28103", "localhost:28104", "localhost:28105")
    assert not config.raft_config.single
    assert config.raft_config.join == ()
    problem = "`gateway_nodes` is for `metasrv gateway`, which is no member: leave out `single` and `join`"
    with pytest.raises(ConfigError, match=problem):
        load_config(file, {}, {"raft_config.single": "true"})
