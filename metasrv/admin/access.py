"""Who may do what on the admin port: scopes of tokens and of client certificates, and what is open without either.

Reads need the scope `read`, what changes or profiles the node needs `operate`. Must not know HTTP answers; `guard.py`
makes them. Nothing is asked for while no token and no certificate is configured. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from metasrv.admin.actions import DIAGNOSTICS_PATH, changes_members, sets_log_level
from metasrv.admin.control import CONTROL_PATHS
from metasrv.admin.pages import is_page
from metasrv.admin.problem import KEY_PATH, KEYS_PATH, PROFILE_PATH, SLOW_WRITES_PATH
from metasrv.config.admin_tokens import Scope, Token, Tokens, load
from metasrv.config.model import Config

DEBUG_PREFIX = "/debug/"
PROBE_PATHS = frozenset({"/livez", "/readyz", "/v1/health"})
METRICS_PATHS = frozenset({"/metrics", "/v1/metrics"})
CONFIG_PATH = "/v1/config"
KEY_PATHS = frozenset({KEYS_PATH, KEY_PATH, SLOW_WRITES_PATH})
"""What clients have stored: never open, whatever `admin_open_routes` says, where anything is asked for."""
PROFILE_PREFIX = f"{PROFILE_PATH}/"
"""What the program was doing: never open either."""
CERTIFICATE_NAME = "metasrv.certificate_name"
"""Where `connection.py` puts the common name of a verified client certificate, among a request's extensions."""


class Caller(NamedTuple):
    """Who sent a request, as far as that is proven."""

    token: str | None
    """Name of the token, not its text."""
    certificate: str | None
    """Common name of a certificate whose authority is trusted."""
    scope: Scope | None
    """None when neither is known here."""

    def described(self) -> str:
        """For sentences: `the token ops`."""
        return f"the token {self.token}" if self.token else f"the certificate of {self.certificate}"


class WrongTokenError(Exception):
    """A request carries a token that is not valid, or credentials of another kind."""


class Access:
    """What a configuration and its tokens allow."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError for a file of tokens that cannot be used."""
        self.use(config, tokens_of(config))

    def use(self, config: Config, tokens: Tokens) -> None:
        """Let this configuration and its tokens decide from now on, for open connections as well."""
        self._open = frozenset(config.admin_open_routes)
        self._certificates = config.admin_certificate_scopes
        self._tokens = tokens

    def needed(self, method: str, path: str) -> Scope | None:
        """The scope that a request needs; None when everybody may send it."""
        if is_page(path) or not (self._tokens or self._certificates):
            return None
        if is_protected(method, path):
            return Scope.OPERATE
        if path in KEY_PATHS or path.startswith(PROFILE_PREFIX):
            return Scope.READ
        return None if _group_of(path) in self._open else Scope.READ

    def caller(self, headers: Mapping[bytes, bytes], extensions: Mapping[str, Any]) -> Caller:
        """Who sent it. Raises WrongTokenError for a token that is not valid, whatever else the request has."""
        certificate: str | None = extensions.get(CERTIFICATE_NAME)
        token = self._token(headers.get(b"authorization"))
        scopes = [self._certificates[certificate]] if certificate in self._certificates else []
        if token is not None:
            scopes.append(token.scope)
        widest = Scope.OPERATE if Scope.OPERATE in scopes else Scope.READ if scopes else None
        return Caller(token.name if token is not None else None, certificate, widest)

    def _token(self, header: bytes | None) -> Token | None:
        if header is None or not self._tokens:
            return None
        scheme, _, given = header.partition(b" ")
        token = self._tokens.find(given.strip())
        if scheme.lower() != b"bearer" or token is None:
            raise WrongTokenError
        return token


def tokens_of(config: Config) -> Tokens:
    """Every token that is valid with this configuration; reads the file of tokens. Raises ConfigError."""
    path, secret = config.admin_tokens_file, config.admin_token
    tokens = load(path) if path else Tokens()
    return tokens if secret is None else tokens.with_configured(secret.get_secret_value())


def is_protected(method: str, path: str) -> bool:
    """Whether the request changes the node or its cluster, or profiles it."""
    if path in CONTROL_PATHS or path == DIAGNOSTICS_PATH or path.startswith(DEBUG_PREFIX):
        return True
    return changes_members(method, path) or sets_log_level(method, path)


def _group_of(path: str) -> str:
    """The member of `admin_open_routes` that a read belongs to; paths that no route takes count as `status`."""
    if path in PROBE_PATHS or path.startswith(("/livez/", "/readyz/")):
        return "probes"
    if path in METRICS_PATHS:
        return "metrics"
    return "config" if path == CONFIG_PATH else "status"
