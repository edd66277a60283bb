"""Defaults, ranges and secrets of the configuration models."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from pydantic import ValidationError

from metasrv.config.levels import OFF, TRACE, parse_levels
from metasrv.config.model import Config, RaftConfig
from metasrv.model.limits import GRPC_MESSAGE_SIZE_BYTES_DEFAULT, TOKEN_LIFETIME_SECONDS_MAX
from metasrv.model.passwords import hash_password
from metasrv.model.types import Endpoint


def test_defaults_are_the_documented_ones() -> None:
    config = Config()
    raft = config.raft_config
    assert config.admin_endpoint == Endpoint("127.0.0.1", 28101)
    assert config.grpc_endpoint == Endpoint("127.0.0.1", 9191)
    assert config.grpc_api_advertise_address is None
    assert config.grpc_api_max_message_size == GRPC_MESSAGE_SIZE_BYTES_DEFAULT
    assert config.grpc_min_client_version == "1.2.676"
    assert (config.log.file.on, config.log.file.format, config.log.file.limit) == (True, "json", 48)
    assert config.log.file.max_size == 4_294_967_296
    assert (config.log.stderr.on, config.log.stderr.format) == (False, "text")
    assert raft.raft_listen_endpoint == Endpoint("127.0.0.1", 28004)
    assert raft.raft_advertise_endpoint == Endpoint(socket.gethostname(), 28004)
    assert (raft.id, raft.single, raft.join, raft.learner) == (0, False, (), False)
    assert (raft.heartbeat_interval, raft.wait_leader_timeout, raft.install_snapshot_timeout) == (500, 180_000, 4000)
    assert (raft.snapshot_logs_since_last, raft.max_applied_log_to_keep) == (1024, 1000)
    assert raft.snapshot_chunk_size == 4_194_304
    assert (raft.cluster_name, raft.raft_dir) == ("foo_cluster", "./.databend/meta")


def test_election_timeout_follows_the_heartbeat() -> None:
    raft = RaftConfig(heartbeat_interval=200)
    assert (raft.election_timeout_min_ms, raft.election_timeout_max_ms) == (400, 600)


def test_advertised_addresses() -> None:
    config = Config(grpc_api_address="[::1]:9191", grpc_api_advertise_host="::1")
    assert config.grpc_api_advertise_address == "[::1]:9191"
    assert Config(grpc_api_advertise_host="").grpc_api_advertise_address is None


@pytest.mark.parametrize(
    ("field", "smallest", "largest"),
    [
        ("heartbeat_interval", 20, 60_000),
        ("raft_api_port", 0, 65_535),
        ("id", 0, 2**63 - 1),
        ("wait_leader_timeout", 1, 86_400_000),
        ("install_snapshot_timeout", 1, 86_400_000),
        ("clock_offset_max_ms", 1, 86_400_000),
        ("snapshot_logs_since_last", 1, 2**63 - 1),
        ("max_applied_log_to_keep", 0, 2**63 - 1),
        ("snapshot_chunk_size", 1, 2**63 - 1),
    ],
)
def test_ranges_of_raft_config(field: str, smallest: int, largest: int) -> None:
    for value in (smallest, largest):
        assert getattr(RaftConfig.model_validate({field: value}), field) == value
    for value in (smallest - 1, largest + 1):
        with pytest.raises(ValidationError):
            RaftConfig.model_validate({field: value})


@pytest.mark.parametrize(("size_bytes", "good"), [(1023, False), (1024, True), (2**31 - 1, True), (2**31, False)])
def test_range_of_grpc_message_size(size_bytes: int, good: bool) -> None:
    if good:
        assert Config(grpc_api_max_message_size=size_bytes).grpc_api_max_message_size == size_bytes
    else:
        with pytest.raises(ValidationError):
            Config(grpc_api_max_message_size=size_bytes)


@pytest.mark.parametrize(
    ("seconds", "good"),
    [(9, False), (10, True), (TOKEN_LIFETIME_SECONDS_MAX, True), (TOKEN_LIFETIME_SECONDS_MAX + 1, False)],
)
def test_range_of_the_lifetime_of_tokens(seconds: int, good: bool) -> None:
    if good:
        assert Config(grpc_token_lifetime_seconds=seconds).grpc_token_lifetime_seconds == seconds
    else:
        with pytest.raises(ValidationError):
            Config(grpc_token_lifetime_seconds=seconds)


def test_a_hash_of_the_password_must_be_whole() -> None:
    stored = hash_password("sesame")
    config = Config.model_validate({"grpc_password": stored}, strict=False)
    assert config.grpc_password is not None
    assert config.grpc_password.get_secret_value() == stored
    with pytest.raises(ValidationError, match="a stored password has the form"):
        Config.model_validate({"grpc_password": stored[:-1]}, strict=False)


@pytest.mark.parametrize("values", [{"id": "1"}, {"id": True}, {"single": 1}, {"join": "a:1"}, {"raft_dir": ""}])
def test_types_are_not_guessed(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RaftConfig.model_validate(values)


def test_models_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(RaftConfig(), "id", 3)  # noqa: B010  # the type checker refuses the plain form, which is the point


def test_secrets_never_print() -> None:
    planted = ["planted-admin", "planted-grpc", "planted-raft", "planted-accepted"]
    config = Config.model_validate(
        {
            "admin_token": planted[0],
            "grpc_password": planted[1],
            "raft_config": {"raft_secret": planted[2], "raft_accepted_secrets": (planted[3],)},
        }
    )
    assert sorted(config.secret_values()) == sorted(planted)
    dumped = config.model_dump(mode="json")
    assert dumped["admin_token"] == "***"
    assert dumped["raft_config"]["raft_accepted_secrets"] == ["***"]
    texts = [str(config), repr(config), config.model_dump_json(), json.dumps(dumped), str(config.model_dump())]
    assert not [text for text in texts if "planted" in text]
    assert "***" in repr(config)


def test_a_wrong_secret_is_not_quoted() -> None:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"admin_token": ["planted"]})
    assert "planted" not in str(caught.value)


def test_empty_secrets_count_as_not_set() -> None:
    config = Config.model_validate({"admin_token": "", "grpc_password": "", "raft_config": {"raft_secret": ""}})
    assert (config.admin_token, config.grpc_password, config.raft_config.raft_secret) == (None, None, None)


@pytest.mark.parametrize("version", ["1.2", "1.2.3.4", "v1.2.3", "1.2.x", "1.2.3\n", ""])
def test_malformed_client_version_is_refused(version: str) -> None:
    with pytest.raises(ValidationError):
        Config(grpc_min_client_version=version)


def test_plain_level() -> None:
    levels = parse_levels("INFO")
    assert levels.level_of("anything") == 20


def test_upstream_levels_mean_the_same_here() -> None:
    levels = parse_levels("Warn,databend_=Info,openraft=Debug")
    assert levels.level_of("uvicorn.error") == 30
    assert levels.level_of("metasrv.node.meta_node") == 20
    assert levels.level_of("metasrv.raft.core.engine") == 10
    assert levels.level_of("pysyncobj.syncobj") == 10


def test_longest_prefix_wins_at_dots_only() -> None:
    levels = parse_levels("Error,metasrv=Info,metasrv::raft=Trace,metasrv.admin=off")
    assert levels.level_of("metasrv.raft.core.engine") == TRACE
    assert levels.level_of("metasrv.rafting") == 20
    assert levels.level_of("metasrvx") == 40
    assert levels.level_of("metasrv.admin") == OFF


def test_only_prefixes_leave_the_rest_at_warn() -> None:
    assert parse_levels("metasrv=Debug").level_of("other") == 30


@pytest.mark.parametrize("text", ["", "loud", "Info,Warn", "=Info", "metasrv=", "metasrv=loud", "Info,", "a=b=c"])
def test_malformed_levels_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"level"):
        parse_levels(text)
