"""What a gateway is told before it serves, and again when the configuration changes: settings and who its node is.

Goes over the inherited socket pair alone, because the settings hold passwords in plain text. Pure.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr

from metasrv.config.model import Config
from metasrv.gateway.messages import Message, Pulse, Registry, checked, pulse_in, registry_in, registry_out
from metasrv.gateway.statuses import status_in, status_out
from metasrv.model.types import RaftStatus
from metasrv.model.wire import integer, mapping, string, unsigned
from metasrv.process.listening_socket import Address


class Place(NamedTuple):
    """A listening socket's family and address."""

    family: int
    address: Address


class Beginning(NamedTuple):
    """The first message of a link."""

    config: Config
    processes: int
    """Gateways of the node."""
    binary_version: str
    commit: str
    state_path: str
    places: tuple[Place, ...]
    """Where to listen."""
    log_level: int
    """Records below it are wanted by no log of the node."""
    status: RaftStatus
    registry: Registry
    pulse: Pulse


def beginning_out(beginning: Beginning) -> Message:
    return (
        config_out(beginning.config),
        beginning.processes,
        beginning.binary_version,
        beginning.commit,
        beginning.state_path,
        beginning.places,
        beginning.log_level,
        status_out(beginning.status),
        registry_out(beginning.registry),
        tuple(beginning.pulse),
    )


def beginning_in(tree: Any) -> Beginning:
    """Raises CodecError."""

    def build() -> Beginning:
        config, processes, version, commit, state_path, places, log_level, status, registry, pulse = tree
        return Beginning(
            config_in(config),
            unsigned(processes),
            string(version),
            string(commit),
            string(state_path),
            tuple(Place(unsigned(family), tuple(address)) for family, address in places),
            integer(log_level),
            status_in(status),
            registry_in(registry),
            pulse_in(pulse),
        )

    return checked(build)


def config_out(config: Config) -> Any:
    """The configuration as a tree, the password of clients in plain text; a gateway has no use for other secrets."""
    raft = config.raft_config.model_copy(update={"raft_secret": None, "raft_accepted_secrets": ()})
    return _plain(config.model_copy(update={"admin_token": None, "raft_config": raft}))


def config_in(tree: Any) -> Config:
    """The configuration of a tree; raises CodecError."""
    return checked(lambda: Config.model_validate(mapping(tree)))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value
