"""Checks of keys against each other, the disk and the network (docs/contract/admin-api.md section 3.4).

Each check names the keys it reads. It is skipped if one of them is already known to be wrong, because it would blame
another line. Reads files of certificates and tokens, opens no socket. Runs before the event loop.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from metasrv.config.admin_tokens import load
from metasrv.config.groups import group_number
from metasrv.config.model import Config
from metasrv.model.errors import ConfigError
from metasrv.model.limits import RAFT_SECRETS_MAX
from metasrv.model.types import Endpoint

NO_START_MODE = "at least one of `single` and `join` needs to be enabled"
JOIN_ITSELF = "--join must not be set to itself"

Check = Callable[[Config], Iterator[str]]


def cross_problems(config: Config, doubtful: frozenset[str]) -> list[str]:
    """One sentence for each mistake; `doubtful` are paths of keys already known to be wrong."""
    return [
        problem for keys, check in CHECKS if not doubtful.intersection(_full_paths(keys)) for problem in check(config)
    ]


def cautions(config: Config, doubtful: frozenset[str]) -> list[str]:
    """One sentence for each setting that a node can start with, and with which it will hardly do what was meant."""
    return [
        caution for keys, check in CAUTIONS if not doubtful.intersection(_full_paths(keys)) for caution in check(config)
    ]


def is_unspecified(host: str) -> bool:
    """Whether `host` stands for every address of a machine, as `0.0.0.0` does: good to listen on, not to be dialled."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_unspecified
    except ValueError:
        return host == "0"  # the short form that resolvers take for 0.0.0.0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`; names other than localhost count as reachable."""
    if host.lower().rstrip(".") in {"localhost", "localhost.localdomain", "ip6-localhost"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _full_paths(keys: str) -> set[str]:
    """`a b` as key paths; a name with a leading dot is in `[raft_config]`."""
    return {f"raft_config{key}" if key.startswith(".") else key for key in keys.split()}


# ----------------------------------------------------------------------------- addresses


def _check_admin_address(config: Config) -> Iterator[str]:
    yield from _address_problems(config.admin_api_address)


def _check_health_address(config: Config) -> Iterator[str]:
    if config.health_api_address:
        yield from _address_problems(config.health_api_address)


def _check_grpc_address(config: Config) -> Iterator[str]:
    yield from _address_problems(config.grpc_api_address)


def _address_problems(address: str) -> Iterator[str]:
    try:
        ipaddress.ip_address(Endpoint.parse(address).addr)
    except ValueError:
        yield f"invalid socket address syntax while parsing {address}"


def _check_listeners_differ(config: Config) -> Iterator[str]:
    try:
        listeners = [
            ("admin_api_address", config.admin_endpoint),
            ("grpc_api_address", config.grpc_endpoint),
            ("raft_listen_host and raft_api_port", config.raft_config.raft_listen_endpoint),
        ]
        if config.health_endpoint is not None:
            listeners.append(("health_api_address", config.health_endpoint))
    except ValueError:
        return  # the check of that address reports it
    for position, (name, endpoint) in enumerate(listeners):
        for other_name, other in listeners[position + 1 :]:
            if endpoint.port == other.port != 0 and _hosts_overlap(endpoint.addr, other.addr):
                yield f"`{name}` and `{other_name}` are both {other}; each listener needs a port of its own"


def _hosts_overlap(host: str, other: str) -> bool:
    return host == other or is_unspecified(host) or is_unspecified(other)


def _check_advertised_hosts(config: Config) -> Iterator[str]:
    advertised = {
        "raft_advertise_host": (config.raft_config.raft_advertise_host, "other nodes"),
        "grpc_api_advertise_host": (config.grpc_api_advertise_host or "", "clients"),
    }
    for name, (host, who) in advertised.items():
        if is_unspecified(host):
            yield (
                f"`{name}` is {host}, which is an address to listen on: {who} on another machine would reach themselves "
                "there; set it to a name or an address by which they reach this node"
            )


# ----------------------------------------------------------------------------- how the node starts


def _check_start_mode(config: Config) -> Iterator[str]:
    raft = config.raft_config
    if config.gateway_nodes:
        if raft.single or raft.join:
            yield "`gateway_nodes` is for `metasrv gateway`, which is no member: leave out `single` and `join`"
        return
    if not raft.leave_via and not raft.single and not raft.join:
        yield NO_START_MODE
    if not raft.leave_via and raft.single and raft.learner:
        yield "`single` and `learner` exclude each other: a node that begins a cluster votes; use `join`"


def _check_join(config: Config) -> Iterator[str]:
    raft = config.raft_config
    if not raft.leave_via and raft.raft_listen_endpoint in {Endpoint.parse(address) for address in raft.join}:
        yield JOIN_ITSELF


def _check_join_of_others(config: Config) -> Iterator[str]:
    raft = config.raft_config
    if raft.join and not raft.leave_via and all(_is_own(Endpoint.parse(address), config) for address in raft.join):
        yield (
            f"`join` names only this node itself ({', '.join(raft.join)}), so there is nobody to ask; name another node, "
            "or leave `join` out and set `single = true` to begin a cluster of one"
        )


def _is_own(address: Endpoint, config: Config) -> bool:
    """Whether whoever dials `address` from this machine reaches this node's raft port."""
    raft = config.raft_config
    if address.port != raft.raft_api_port:
        return False
    if address.addr.lower() in {raft.raft_listen_host.lower(), raft.raft_advertise_host.lower()}:
        return True
    this_machine = is_loopback(address.addr) or is_unspecified(address.addr)
    return this_machine and (is_loopback(raft.raft_listen_host) or is_unspecified(raft.raft_listen_host))


def _check_leave(config: Config) -> Iterator[str]:
    raft = config.raft_config
    if raft.leave_id is not None and not raft.leave_via:
        yield f"`leave_id` is {raft.leave_id} but `leave_via` names no node to ask; give both or neither"
    if raft.leave_via and raft.leave_id is None:
        yield "`leave_via` names nodes to ask but `leave_id` does not say which node shall leave; give both or neither"


# ----------------------------------------------------------------------------- security


def _check_raft_exposure(config: Config) -> Iterator[str]:
    raft = config.raft_config
    if is_loopback(raft.raft_listen_host) or raft.is_leave_request:
        return
    if raft.raft_secret is None and not raft.raft_tls_enabled and not raft.insecure_raft:
        yield (
            f"`raft_listen_host` {raft.raft_listen_host} can be reached from other machines, and whoever reaches it "
            "could act as a member: set `raft_secret`, or set `raft_tls_ca`, `raft_tls_cert` and `raft_tls_key`, or "
            "accept the risk with `insecure_raft = true` (--insecure-raft)"
        )


def _check_secrets(config: Config) -> Iterator[str]:
    raft = config.raft_config
    held = len(raft.raft_accepted_secrets) + (raft.raft_secret is not None)
    if held > RAFT_SECRETS_MAX:
        yield f"`raft_secret` and `raft_accepted_secrets` are {held} secrets; a node holds at most {RAFT_SECRETS_MAX}"
    if any(not secret.get_secret_value() for secret in raft.raft_accepted_secrets):
        yield "`raft_accepted_secrets` holds an empty secret"


def _check_admin_tls(config: Config) -> Iterator[str]:
    yield from _pem_problems(
        {
            "admin_tls_server_cert": config.admin_tls_server_cert,
            "admin_tls_server_key": config.admin_tls_server_key,
        }
    )


def _check_admin_clients(config: Config) -> Iterator[str]:
    authority, names = config.admin_tls_client_ca_file, config.admin_tls_client_names
    if bool(authority) != bool(names):
        given, missing = ("admin_tls_client_ca_file", "admin_tls_client_names")[:: 1 if authority else -1]
        yield f"`{given}` is set but `{missing}` is not"
    elif authority and not config.admin_tls_server_cert:
        yield "`admin_tls_client_ca_file` is set but `admin_tls_server_cert` is not: only TLS has client certificates"
    yield from _pem_problems({"admin_tls_client_ca_file": authority} if authority else {})


def _check_admin_tokens(config: Config) -> Iterator[str]:
    if config.admin_tokens_file:
        try:
            load(config.admin_tokens_file)
        except ConfigError as error:
            yield from error.problems
    elif config.admin_token is None and not config.admin_tls_client_names and len(set(config.admin_open_routes)) < 4:
        yield (
            "`admin_open_routes` closes routes, but nothing opens them: set `admin_tokens_file`, `admin_token` or "
            "`admin_tls_client_ca_file` with `admin_tls_client_names`"
        )


def _check_grpc_tls(config: Config) -> Iterator[str]:
    yield from _pem_problems(
        {
            "grpc_tls_server_cert": config.grpc_tls_server_cert,
            "grpc_tls_server_key": config.grpc_tls_server_key,
        }
    )
    for name, path, needs, given in (
        (
            "grpc_tls_client_ca_file",
            config.grpc_tls_client_ca_file,
            "grpc_tls_server_cert",
            config.grpc_tls_server_cert,
        ),
        ("grpc_tls_crl_file", config.grpc_tls_crl_file, "grpc_tls_client_ca_file", config.grpc_tls_client_ca_file),
    ):
        if path:
            yield from _pem_problems({name: path})
            if not given:
                yield f"`{name}` is set but `{needs}` is not"


def _check_raft_tls(config: Config) -> Iterator[str]:
    raft = config.raft_config
    yield from _pem_problems(
        {
            "raft_tls_ca": raft.raft_tls_ca,
            "raft_tls_cert": raft.raft_tls_cert,
            "raft_tls_key": raft.raft_tls_key,
        }
    )


def _check_file_group(config: Config) -> Iterator[str]:
    try:
        group_number(config.file_group)
    except ConfigError as error:
        yield from error.problems


def _check_backup(config: Config) -> Iterator[str]:
    backup = config.backup
    if not backup.every_seconds:
        return
    if bool(backup.directory) == bool(backup.bucket):
        yield "`backup.every_seconds` is set, so one of `backup.directory` and `backup.bucket` has to be, and only one"
    if backup.bucket and find_spec("boto3") is None:
        yield "`backup.bucket` needs the package boto3: pip install 'metasrv[s3]'"
    if backup.endpoint and not backup.endpoint.startswith(("http://", "https://")):
        yield f"`backup.endpoint` is {backup.endpoint}, and not a URL with http:// or https://"
    for name, path in (
        ("backup.credentials_file", backup.credentials_file),
        ("backup.encrypt_with", backup.encrypt_with),
    ):
        yield from _pem_problems({name: path} if path else {})


def _pem_problems(files: dict[str, str]) -> Iterator[str]:
    """All of the files must be given or none, and each must be readable."""
    given = {name: path for name, path in files.items() if path}
    missing = [f"`{name}`" for name in files if name not in given]
    if given and missing:
        verb = "is" if len(missing) == 1 else "are"
        yield f"{' and '.join(f'`{name}`' for name in given)} is set but {' and '.join(missing)} {verb} not"
    for name, path in given.items():
        try:
            with open(path, "rb") as stream:
                stream.read(1)
        except OSError as error:
            yield f"`{name}`: {path} cannot be read: {error.strerror}"
        except ValueError as error:  # a null character in the path
            yield f"`{name}`: {path!r} is not a path: {error}"


CHECKS: tuple[tuple[str, Check], ...] = (
    ("admin_api_address", _check_admin_address),
    ("grpc_api_address", _check_grpc_address),
    ("health_api_address", _check_health_address),
    ("admin_api_address grpc_api_address health_api_address .raft_listen_host .raft_api_port", _check_listeners_differ),
    ("gateway_nodes .single .join .leave_via", _check_start_mode),
    (".join .raft_listen_host .raft_api_port .leave_via", _check_join),
    (".leave_id .leave_via", _check_leave),
    (
        ".raft_listen_host .raft_secret .raft_tls_ca .raft_tls_cert .raft_tls_key .insecure_raft .leave_id .leave_via",
        _check_raft_exposure,
    ),
    (".raft_secret .raft_accepted_secrets .raft_secret_strict", _check_secrets),
    ("admin_tls_server_cert admin_tls_server_key", _check_admin_tls),
    ("admin_tls_client_ca_file admin_tls_client_names admin_tls_server_cert", _check_admin_clients),
    ("admin_tokens_file admin_token admin_tls_client_names admin_open_routes", _check_admin_tokens),
    ("grpc_tls_server_cert grpc_tls_server_key grpc_tls_client_ca_file grpc_tls_crl_file", _check_grpc_tls),
    (".raft_tls_ca .raft_tls_cert .raft_tls_key", _check_raft_tls),
    ("file_group", _check_file_group),
    (
        "backup.every_seconds backup.directory backup.bucket backup.endpoint backup.credentials_file backup.encrypt_with",
        _check_backup,
    ),
)
"""The keys that a check reads, and the check."""

CAUTIONS: tuple[tuple[str, Check], ...] = (
    (".raft_advertise_host grpc_api_advertise_host", _check_advertised_hosts),
    (".join .raft_listen_host .raft_advertise_host .raft_api_port .leave_via", _check_join_of_others),
)
"""The same for what only `config check` refuses: a member that has been running with it starts again."""
