"""The effective configuration: frozen models, a field per key, with the defaults of docs/contract/admin-api.md section 3.

Types and ranges only: `validate.py` checks keys against each other and against the disk, `load.py` gathers the values.
Knows no TOML and no flags. Every description here is also the help text of the key's flag. Secrets print as `***` in
every text form. Pure; runs anywhere.
"""

from __future__ import annotations

import socket
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, SecretStr, field_validator

from metasrv.config.admin_tokens import Scope, parse_scope
from metasrv.config.gateway_count import GatewayCount
from metasrv.config.sections import MASK, SIZE_BYTES_MAX, BackupConfig, ConfigModel, LogConfig, TracingConfig
from metasrv.model.errors import InvalidRequestError
from metasrv.model.limits import (
    CONTINUOUS_PROFILE_HERTZ_MAX,
    GRPC_MESSAGE_SIZE_BYTES_DEFAULT,
    MIB,
    TOKEN_LIFETIME_SECONDS_MAX,
)
from metasrv.model.passwords import PREFIX as PASSWORD_HASH_PREFIX
from metasrv.model.passwords import check_hash
from metasrv.model.types import Endpoint

HEARTBEAT_INTERVAL_MS_MIN = 20
HEARTBEAT_INTERVAL_MS_MAX = 60_000
NODE_ID_MAX = 2**63 - 1
"""Ids are kept in SQLite's signed integers."""
GRPC_MESSAGE_SIZE_BYTES_MIN = 1024
GRPC_MESSAGE_SIZE_BYTES_MAX = 2**31 - 1  # gRPC counts message sizes in signed 32 bits
DURATION_MS_MAX = 24 * 3600 * 1000


class SecretText(SecretStr):
    """A secret; `get_secret_value()` is the only way to its text."""

    def __str__(self) -> str:
        return MASK

    __repr__ = __str__


Secret = Annotated[SecretText, PlainSerializer(lambda _: MASK, return_type=str, when_used="json")]
Port = Annotated[int, Field(ge=0, le=65535)]
Milliseconds = Annotated[int, Field(ge=1, le=DURATION_MS_MAX)]


class RaftConfig(ConfigModel):
    """`[raft_config]`: this node among its peers, its data, its timing."""

    id: int = Field(
        default=0, ge=0, le=NODE_ID_MAX, description="Node id; after the first start it must be the stored one."
    )
    raft_listen_host: str = Field(
        default="127.0.0.1", min_length=1, description="Host or address to listen on for peers."
    )
    raft_advertise_host: str = Field(
        default_factory=socket.gethostname, min_length=1, description="Host by which peers reach this node."
    )
    raft_api_port: Port = Field(default=28004, description="Port for peers.")
    raft_dir: str = Field(default="./.databend/meta", min_length=1, description="Directory for log, state and snapshots.")
    single: bool = Field(
        default=False,
        description="Begin a cluster: at once, or with `join` once all of those nodes know of none. No effect with data.",
    )
    join: tuple[str, ...] = Field(
        default=(),
        description="Raft addresses `host:port` of members to join through. With data: where members may be that moved.",
    )
    learner: bool = Field(default=False, description="Join without a vote.")
    leave_via: tuple[str, ...] = Field(
        default=(), description="Ask these raft addresses to remove `leave_id`, then exit."
    )
    leave_id: int | None = Field(default=None, ge=0, le=NODE_ID_MAX, description="Node to remove from the cluster.")
    cluster_name: str = Field(default="foo_cluster", description="A label.")
    heartbeat_interval: int = Field(
        default=500,
        ge=HEARTBEAT_INTERVAL_MS_MIN,
        le=HEARTBEAT_INTERVAL_MS_MAX,
        description="Milliseconds between a leader's heartbeats; elections start after 2 to 3 of them are missed.",
    )
    install_snapshot_timeout: Milliseconds = Field(default=4000, description="Milliseconds to wait for a snapshot chunk.")
    wait_leader_timeout: Milliseconds = Field(
        default=180_000, description="Milliseconds to wait for a leader at the start."
    )
    clock_offset_max_ms: Milliseconds = Field(
        default=1_000,
        description="Milliseconds by which members' clocks may differ; beyond, readiness warns and a leader hands over.",
    )
    snapshot_logs_since_last: int = Field(
        default=1024, ge=1, le=SIZE_BYTES_MAX, description="Applied log entries after which the log is compacted."
    )
    max_applied_log_to_keep: int = Field(
        default=1000, ge=0, le=SIZE_BYTES_MAX, description="Applied log entries that compaction leaves."
    )
    quota_bytes: int = Field(
        default=0,
        ge=0,
        le=SIZE_BYTES_MAX,
        description="Bytes that all keys and values may take together, 0 for any number; the leader's is the cluster's.",
    )
    snapshot_chunk_size: int = Field(
        default=4 * MIB, ge=1, le=SIZE_BYTES_MAX, description="Bytes of one snapshot chunk sent to a peer."
    )
    raft_secret: Secret | None = Field(
        default=None, description="Secret shared by all nodes; prefer the file or environment."
    )
    raft_accepted_secrets: tuple[Secret, ...] = Field(
        default=(), description="Further secrets to accept and prove while a secret is adopted or replaced."
    )
    raft_secret_strict: bool = Field(
        default=True, description="Refuse peers that prove no secret; turn it off only while the secret is rolled out."
    )
    insecure_raft: bool = Field(default=False, description="Let anyone who reaches the raft port act as a peer.")
    raft_tls_ca: str = Field(default="", description="PEM file of the authority that signed every peer's certificate.")
    raft_tls_cert: str = Field(default="", description="PEM file of this node's certificate for peers.")
    raft_tls_key: str = Field(default="", description="PEM file of that certificate's key.")
    raft_tls_allowed_names: tuple[str, ...] = Field(
        default=(),
        description="Names of which a peer's certificate must have one, instead of the host that the peer advertises.",
    )
    raft_tls_operators: tuple[str, ...] = Field(
        default=(), description="Common names of certificates that may ask for a leave without `raft_secret`."
    )

    @field_validator("raft_secret")
    @classmethod
    def _empty_secret_is_none(cls, secret: SecretText | None) -> SecretText | None:
        return secret if secret is not None and secret.get_secret_value() else None

    @field_validator("join", "leave_via")
    @classmethod
    def _addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            Endpoint.parse(address)
        return addresses

    @property
    def raft_listen_endpoint(self) -> Endpoint:
        """Where this node listens for peers."""
        return Endpoint(self.raft_listen_host, self.raft_api_port)

    @property
    def raft_advertise_endpoint(self) -> Endpoint:
        """Where peers reach this node."""
        return Endpoint(self.raft_advertise_host, self.raft_api_port)

    @property
    def election_timeout_min_ms(self) -> int:
        """A follower waits at least this long for a leader."""
        return 2 * self.heartbeat_interval

    @property
    def election_timeout_max_ms(self) -> int:
        """A follower waits less than this long for a leader."""
        return 3 * self.heartbeat_interval

    @property
    def raft_tls_enabled(self) -> bool:
        """Whether peers speak mutual TLS."""
        return bool(self.raft_tls_ca and self.raft_tls_cert and self.raft_tls_key)

    @property
    def is_leave_request(self) -> bool:
        """Whether this process only asks for a node's removal and exits (docs/contract/admin-api.md section 5)."""
        return bool(self.leave_via) and self.leave_id is not None


class Config(ConfigModel):
    """Everything a node is told, from all sources together."""

    admin_api_address: str = Field(default="127.0.0.1:28101", description="`ip:port` of the HTTP admin API.")
    health_api_address: str = Field(
        default="", description="`ip:port` of a further listener that answers only probes; without it they are there too."
    )
    admin_tls_server_cert: str = Field(default="", description="PEM file of the admin API's certificate.")
    admin_tls_server_key: str = Field(default="", description="PEM file of that certificate's key.")
    admin_allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Further names that the Host header may have, as of a balancer; `.example.org` allows all below it.",
    )
    admin_get_actions: bool = Field(
        default=True, description="Let GET start snapshots, transfers and profiles, as upstream does; POST always may."
    )
    admin_key_browser: bool = Field(
        default=False, description="Let those with the scope `read` look at keys and values in the console."
    )
    continuous_profile_hertz: int = Field(
        default=1,
        ge=0,
        le=CONTINUOUS_PROFILE_HERTZ_MAX,
        description="How often a second this node looks at its threads, for the last ten minutes; 0 for never.",
    )
    admin_token: Secret | None = Field(
        default=None, description="Token that admin requests may carry, with the scope `operate`; prefer the file."
    )
    admin_tokens_file: str = Field(
        default="",
        description="File of lines `name:scope:token`, each a token that is valid; a scope is `read` or `operate`.",
    )
    admin_tls_client_ca_file: str = Field(
        default="", description="PEM file of the authority that signed certificates of admin clients."
    )
    admin_tls_client_names: tuple[str, ...] = Field(
        default=(), description="Common names of such certificates with their scopes, as `name:read` or `name:operate`."
    )
    admin_open_routes: tuple[Literal["probes", "metrics", "status", "config"], ...] = Field(
        default=("probes", "metrics", "status", "config"),
        description="Reads that need neither token nor certificate: any of `probes`, `metrics`, `status`, `config`.",
    )
    grpc_api_address: str = Field(default="127.0.0.1:9191", description="`ip:port` of the gRPC API for clients.")
    grpc_api_advertise_host: str | None = Field(default=None, description="Host by which clients reach the gRPC API.")
    grpc_tls_server_cert: str = Field(default="", description="PEM file of the gRPC API's certificate.")
    grpc_tls_server_key: str = Field(default="", description="PEM file of that certificate's key.")
    grpc_tls_client_ca_file: str = Field(
        default="", description="PEM file of the authority of clients' certificates; their common name is the user."
    )
    grpc_tls_crl_file: str = Field(default="", description="PEM file of that authority's list of revoked certificates.")
    grpc_tls_ciphers: str = Field(
        default="", description="Ciphers of TLS 1.2 in OpenSSL's form; empty: ECDHE with AES-GCM or ChaCha20."
    )
    grpc_api_max_message_size: int = Field(
        default=GRPC_MESSAGE_SIZE_BYTES_DEFAULT,
        ge=GRPC_MESSAGE_SIZE_BYTES_MIN,
        le=GRPC_MESSAGE_SIZE_BYTES_MAX,
        description="Bytes of the largest gRPC message.",
    )
    grpc_password: Secret | None = Field(
        default=None,
        description="Password that clients give as user root, or its hash (`metactl hash-password`); prefer the file.",
    )
    grpc_token_lifetime_seconds: int = Field(
        default=24 * 3600,
        ge=10,
        le=TOKEN_LIFETIME_SECONDS_MAX,
        description="How long a token is good where a password is asked for; clients then make another handshake.",
    )
    grpc_require_token: Literal["", "upstream", "all"] = Field(
        default="",
        description="Methods that need a handshake's token: those of upstream, or `all`; empty: all with a password.",
    )
    grpc_gateways: GatewayCount = Field(
        default="0", description="Processes that serve clients for this node, at most 16; 0: the node does; or `auto`."
    )
    gateway_nodes: tuple[str, ...] = Field(
        default=(), description="Raft addresses `host:port` of nodes that `metasrv gateway` serves for, tried in turn."
    )
    grpc_min_client_version: str = Field(
        default="1.2.676",
        pattern=r"^[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}$",
        description="Oldest client version that may connect.",
    )
    grpc_announced_version: str = Field(
        default="260629.2.0",
        pattern=r"^[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}$",
        description="Server version that clients are told; they refuse servers that are too old for them.",
    )
    file_group: str = Field(
        default="",
        description="Group, by name or number, that keeps its rights to `raft_dir` and the log directory (fsGroup).",
    )
    slow_request_ms: int = Field(
        default=1000,
        ge=0,
        le=DURATION_MS_MAX,
        description="Milliseconds after which a request of a client gets a line in the log; 0 for none.",
    )
    log: LogConfig = LogConfig()
    tracing: TracingConfig = TracingConfig()
    backup: BackupConfig = BackupConfig()
    raft_config: RaftConfig = Field(default_factory=lambda: RaftConfig())
    ignored_keys: tuple[str, ...] = Field(default=(), exclude=True)
    """Given keys of upstream releases that mean nothing here, so that one log line can name them."""

    @field_validator("admin_token", "grpc_password")
    @classmethod
    def _empty_secret_is_none(cls, secret: SecretText | None) -> SecretText | None:
        return secret if secret is not None and secret.get_secret_value() else None

    @field_validator("grpc_password")
    @classmethod
    def _stored_password(cls, secret: SecretText | None) -> SecretText | None:
        if secret is not None and secret.get_secret_value().startswith(PASSWORD_HASH_PREFIX):
            try:
                check_hash(secret.get_secret_value())
            except InvalidRequestError as error:
                raise ValueError(str(error)) from error
        return secret

    @field_validator("gateway_nodes")
    @classmethod
    def _addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            Endpoint.parse(address)
        return addresses

    @field_validator("admin_tls_client_names")
    @classmethod
    def _names_with_scopes(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for text in names:
            name, _, scope = text.rpartition(":")
            if not name:
                raise ValueError(f"{text!r} is not `name:read` or `name:operate`")
            parse_scope(scope)
        return names

    @field_validator("grpc_api_advertise_host")
    @classmethod
    def _empty_host_is_none(cls, host: str | None) -> str | None:
        return host or None

    @property
    def admin_endpoint(self) -> Endpoint:
        """Where the admin API listens."""
        return Endpoint.parse(self.admin_api_address)

    @property
    def health_endpoint(self) -> Endpoint | None:
        """Where only probes are answered; None without such a listener."""
        return Endpoint.parse(self.health_api_address) if self.health_api_address else None

    @property
    def admin_certificate_scopes(self) -> dict[str, Scope]:
        """The scope of each common name that is known; of a name that is given twice, the last one."""
        pairs = (text.rpartition(":") for text in self.admin_tls_client_names)
        return {name: parse_scope(scope) for name, _, scope in pairs}

    @property
    def grpc_endpoint(self) -> Endpoint:
        """Where the gRPC API listens."""
        return Endpoint.parse(self.grpc_api_address)

    @property
    def grpc_tokens_for_all(self) -> bool:
        """Whether every method but Handshake needs a token."""
        required = self.grpc_require_token
        return self.grpc_password is not None if not required else required == "all"

    @property
    def grpc_api_advertise_address(self) -> str | None:
        """What clients dial, `host:port`; None without an advertise host."""
        if self.grpc_api_advertise_host is None:
            return None
        return str(Endpoint(self.grpc_api_advertise_host, self.grpc_endpoint.port))

    def secret_values(self) -> tuple[str, ...]:
        """Every configured secret in plain text, so that they can be removed from texts."""
        raft = self.raft_config
        secrets = (self.admin_token, self.grpc_password, raft.raft_secret, *raft.raft_accepted_secrets)
        return tuple(secret.get_secret_value() for secret in secrets if secret is not None)
