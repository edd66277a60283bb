"""The texts in which a configuration is shown: `--cmd show-config`, `--cmd ver`, `/v1/config`, the start banner.

Secrets are `***` in all of them. Pure; prints nothing itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from metasrv import __version__
from metasrv.config.load import LoadedConfig
from metasrv.config.model import Config
from metasrv.config.validate import is_loopback
from metasrv.model.types import DATA_VERSION, Endpoint

RAFT_FEATURES = "read-index, durable-votes, learners, leader-transfer, snapshots"


def config_text(config: Config) -> str:
    """The effective configuration as pretty JSON."""
    return json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False)


def show_config_text(loaded: LoadedConfig) -> str:
    """`config:` and the effective configuration, `sources:` and where each value came from."""
    sources = json.dumps(dict(loaded.sources), indent=2, ensure_ascii=False)
    return f"config:\n{config_text(loaded.config)}\nsources:\n{sources}"


def version_text(config: Config) -> str:
    """What `--cmd ver` prints (docs/contract/admin-api.md section 3.2)."""
    return (
        f"version: {__version__}\n"
        f"min-compatible-client-version: {config.grpc_min_client_version}\n"
        f"data-version: {DATA_VERSION}"
    )


def start_warnings(config: Config) -> list[str]:
    """Sentences about settings that work but that an operator should know of; one log line each."""
    raft = config.raft_config
    warnings = []
    if config.ignored_keys:
        keys = ", ".join(config.ignored_keys)
        warnings.append(f"these configuration keys have no meaning here and are ignored: {keys}")
    exposed = not is_loopback(raft.raft_listen_host) and not raft.raft_tls_enabled
    if exposed and raft.raft_secret is None:
        warnings.append("insecure_raft is on: whoever reaches the raft port can act as a member")
    elif exposed and not raft.raft_secret_strict:
        warnings.append(
            "raft_secret_strict is off: peers that prove no secret are let in; set it to true once every node has it"
        )
    reachable = not is_loopback(config.grpc_endpoint.addr)
    if (reachable or config.grpc_password is not None) and not config.grpc_tokens_for_all:
        warnings.append(
            "grpc_require_token is not all: whoever reaches the gRPC port can watch and export every key without a token"
        )
    return warnings


def start_mode_text(config: Config) -> str:
    """How this node gets into its cluster."""
    raft = config.raft_config
    if raft.single:
        if raft.join:
            return f"single and join: begin a cluster if {', '.join(raft.join)} know of none, else join theirs"
        return "single: begin a cluster of one node if there is none yet"
    role = "learner" if raft.learner else "voter"
    return f"join {', '.join(raft.join)} as a {role} if not yet a member"


def banner_text(config: Config, listeners: Mapping[str, Endpoint]) -> str:
    """What a node prints at its start (docs/contract/admin-api.md section 5).

    `listeners` are bound addresses by service name.
    """
    raft = config.raft_config
    file, stderr = config.log.file, config.log.stderr
    file_text = f"{file.dir}, level {file.level}, {file.format}" if file.on else "off"
    stderr_text = f"level {stderr.level}, {stderr.format}" if stderr.on else "off"
    grpc = listeners.get("grpc", config.grpc_endpoint)
    grpc_advertise = (
        "none" if config.grpc_api_advertise_host is None else str(Endpoint(config.grpc_api_advertise_host, grpc.port))
    )
    raft_listener = listeners.get("raft", raft.raft_listen_endpoint)
    return "\n".join(
        (
            "Databend Metasrv",
            "",
            f"Version: {__version__}",
            f"Data version: {DATA_VERSION}",
            f"Raft features: {RAFT_FEATURES}",
            "",
            "On disk:",
            f"    Data: {raft.raft_dir}",
            "Log:",
            f"    File: {file_text}",
            f"    Stderr: {stderr_text}",
            f"Raft  Id: {raft.id}; Cluster: {raft.cluster_name}",
            f"      Mode: {start_mode_text(config)}",
            f"HTTP API listen at: {listeners.get('admin', config.admin_endpoint)}",
            *([f"Probes listen at: {listeners.get('health', config.health_endpoint)}"] if config.health_endpoint else []),
            f"gRPC API listen at: {grpc} advertise: {grpc_advertise}",
            f"Raft API listen at: {raft_listener} advertise: {Endpoint(raft.raft_advertise_host, raft_listener.port)}",
            "",
        )
    )
