"""Which keys take effect without a restart, and what of a node is loaded anew when its files change.

The configuration goes first: what it names decides which files the ports load. Each port adds its own part
(`NodeContext.reloader`), which reads `NodeContext.config`. Runs on the event loop; files are read in helper threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from metasrv.config.model import Config
from metasrv.model.errors import ConfigError
from metasrv.node.context import NodeContext
from metasrv.process.certificates import expiry_of
from metasrv.process.reloading import Reloadable
from metasrv.raft.peers.security import PeerSecurity

logger = logging.getLogger(__name__)

RELOADED_KEYS = (
    "admin_tls_server_cert",
    "admin_tls_server_key",
    "admin_tls_client_ca_file",
    "admin_tls_client_names",
    "admin_token",
    "admin_tokens_file",
    "admin_open_routes",
    "grpc_tls_server_cert",
    "grpc_tls_server_key",
    "grpc_tls_client_ca_file",
    "grpc_tls_crl_file",
    "grpc_tls_ciphers",
    "grpc_password",
    "slow_request_ms",
)
RELOADED_RAFT_KEYS = (
    "raft_secret",
    "raft_accepted_secrets",
    "raft_secret_strict",
    "raft_tls_ca",
    "raft_tls_cert",
    "raft_tls_key",
    "raft_tls_allowed_names",
    "raft_tls_operators",
    "quota_bytes",
)


@dataclass(frozen=True)
class ConfigSource:
    """Where the configuration came from, and how to read it again with the same variables and flags."""

    path: str | None
    read: Callable[[], Config]
    """Raises ConfigError."""


class RaftCredentials(NamedTuple):
    """What the raft port proves and demands, and until when its certificate holds."""

    security: PeerSecurity
    expires_at: float | None


def merged(current: Config, read: Config) -> tuple[Config, list[str]]:
    """The current configuration with what can be reloaded of the new one, and the other keys in which they differ."""
    changes = {key: getattr(read, key) for key in RELOADED_KEYS}
    raft_changes = {key: getattr(read.raft_config, key) for key in RELOADED_RAFT_KEYS}
    raft = current.raft_config.model_copy(update=raft_changes)
    result = current.model_copy(update={**changes, "raft_config": raft})
    parts = [("", result, read), ("raft_config.", result.raft_config, read.raft_config)]
    waiting = [
        prefix + name
        for prefix, ours, theirs in parts
        for name in type(ours).model_fields
        if name not in {"raft_config", "ignored_keys"} and getattr(ours, name) != getattr(theirs, name)
    ]
    return result, waiting


def watch_configuration(context: NodeContext, source: ConfigSource) -> None:
    """Let changed keys of the configuration file take effect, those that can."""
    paths = () if source.path is None else (source.path,)

    def swap(read: Config) -> None:
        context.config, waiting = merged(context.config, read)
        if waiting:
            logger.warning("changed in the configuration, but in force only after a restart: %s", ", ".join(waiting))

    context.reloader.add(Reloadable("configuration", lambda: paths, source.read, swap))
    context.config_paths = paths


def watch_raft(context: NodeContext, secure: Callable[[PeerSecurity], None]) -> None:
    """Let changed secrets and certificates of the raft port take effect. Raises ConfigError if they cannot be used."""

    def paths() -> Sequence[str]:
        raft = context.config.raft_config
        return (*context.config_paths, *filter(None, (raft.raft_tls_ca, raft.raft_tls_cert, raft.raft_tls_key)))

    def load() -> RaftCredentials:
        raft = context.config.raft_config
        security = PeerSecurity.from_config(raft)
        if (security.server_context is not None) is not had_tls:
            raise ConfigError(["turning TLS between nodes on or off takes a restart of each node"])
        return RaftCredentials(security, expiry_of(raft.raft_tls_cert) if had_tls else None)

    def swap(loaded: RaftCredentials) -> None:
        secure(loaded.security)
        if loaded.expires_at is not None:
            context.metrics.certificate_expires("raft", loaded.expires_at)

    had_tls = context.config.raft_config.raft_tls_enabled
    context.reloader.add(Reloadable("raft", paths, load, swap))
    swap(load())
