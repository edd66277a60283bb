"""Which keys of a changed configuration take effect at once, and what happens to the others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.config.load import load_config
from metasrv.config.model import Config
from metasrv.model.errors import ConfigError
from metasrv.node.context import NodeContext
from metasrv.node.reloads import RELOADED_KEYS, RELOADED_RAFT_KEYS, ConfigSource, merged, watch_configuration, watch_raft
from metasrv.raft.peers.security import PeerSecurity
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status
from tests.support.paths import ROOT


class Bench:
    """A node whose configuration is one file; `variables` as in its environment."""

    def __init__(self, directory: Path, machine: StateMachine, **variables: str) -> None:
        self.file = directory / "node.toml"
        self.variables = variables
        self.secured: list[PeerSecurity] = []
        self.write()
        self.context: NodeContext = fake_context(machine, self.read(), leader_status())[0]
        watch_configuration(self.context, ConfigSource(str(self.file), self.read))
        watch_raft(self.context, self.secured.append)

    def read(self) -> Config:
        return load_config(str(self.file), self.variables, {}).config

    def write(self, own: str = "", raft: str = "") -> None:
        self.file.write_text(f"{own}\n[raft_config]\nid = 1\nsingle = true\n{raft}\n")

    async def changed(self, own: str = "", raft: str = "") -> None:
        self.write(own, raft)
        await self.context.reloader.look(everything=True)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[StateMachine]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    yield machine
    machine.close()


async def test_secrets_and_tokens_take_effect(tmp_path: Path, machine: StateMachine) -> None:
    bench = Bench(tmp_path, machine)
    await bench.changed('admin_token = "token"\ngrpc_password = "word"', 'raft_secret = "s"\nraft_secret_strict = false')
    config = bench.context.config
    assert config.admin_token is not None
    assert config.admin_token.get_secret_value() == "token"
    assert config.grpc_password is not None
    assert config.grpc_password.get_secret_value() == "word"
    assert bench.secured[-1] == PeerSecurity(b"s", strict=False)
    await bench.changed(raft='raft_accepted_secrets = ["t"]')
    assert bench.secured[-1] == PeerSecurity(None, (b"t",))
    assert bench.context.config.admin_token is None


async def test_other_keys_are_named_and_wait_for_a_restart(
    tmp_path: Path, machine: StateMachine, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, machine)
    await bench.changed('grpc_announced_version = "2.0.0"', 'heartbeat_interval = 77\nraft_secret = "s"')
    assert bench.context.config.raft_config.heartbeat_interval == 500
    assert bench.secured[-1].secret == b"s"
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line.endswith("only after a restart: grpc_announced_version, raft_config.heartbeat_interval")


async def test_what_comes_from_a_variable_wins_over_a_changed_file(tmp_path: Path, machine: StateMachine) -> None:
    bench = Bench(tmp_path, machine, METASRV_RAFT_SECRET="of the variable")
    await bench.changed(raft='raft_secret = "of the file"')
    assert bench.secured[-1].secret == b"of the variable"


async def test_a_file_that_cannot_be_used_changes_nothing(
    tmp_path: Path, machine: StateMachine, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, machine)
    await bench.changed('admin_token = "token"')
    for own in ("this is not TOML", 'admin_tls_server_cert = "/nowhere.pem"', "admin_token = 5"):
        await bench.changed(own)
        assert bench.context.config.admin_token is not None
    failures = bench.context.metrics.security.reloads.values[("configuration", "failure")]
    assert failures == 3
    assert bench.context.metrics.security.reload_failed["configuration"]
    assert caplog.text.count("configuration: what the files hold now cannot be used") == 3


async def test_tls_between_nodes_cannot_be_turned_on_in_passing(
    tmp_path: Path, machine: StateMachine, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, machine)
    secured = len(bench.secured)
    (tmp_path / "any.pem").write_text("nothing")
    keys = "\n".join(f'raft_tls_{part} = "{tmp_path / "any.pem"}"' for part in ("ca", "cert", "key"))
    await bench.changed(raft=keys)
    assert len(bench.secured) == secured
    assert "raft: what the files hold now cannot be used" in caplog.text


def test_certificates_that_cannot_be_used_stop_the_start(tmp_path: Path, machine: StateMachine) -> None:
    bench = Bench(tmp_path, machine)
    (tmp_path / "any.pem").write_text("nothing")
    update = dict.fromkeys(("raft_tls_ca", "raft_tls_cert", "raft_tls_key"), str(tmp_path / "any.pem"))
    raft = bench.context.config.raft_config.model_copy(update=update)
    bench.context.config = bench.context.config.model_copy(update={"raft_config": raft})
    with pytest.raises(ConfigError, match="raft_tls_ca"):
        watch_raft(bench.context, bench.secured.append)


def test_the_page_names_every_key_that_is_reloaded() -> None:
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    _, _, section = page.partition("### What takes effect without a restart")
    assert [key for key in (*RELOADED_KEYS, *RELOADED_RAFT_KEYS) if f"`{key}`" not in section] == []


def test_nothing_changes_without_a_change() -> None:
    assert merged(Config(), Config()) == (Config(), [])
