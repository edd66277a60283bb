"""TLS of the admin port: its certificate and key, and whose client certificates it verifies.

Must not know who may do what (`access.py`), nor how connections are accepted. Reads files; runs in a helper thread as
well.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple

from metasrv.config.model import Config
from metasrv.model.errors import ConfigError
from metasrv.process.certificates import expiry_of
from metasrv.process.tls import TlsSettings, server_context

TLS_KEYS = ("admin_tls_server_cert", "admin_tls_server_key", "admin_tls_client_ca_file")


class ServerTls(NamedTuple):
    """The TLS of the port, and when its certificate expires, in seconds since the epoch."""

    context: ssl.SSLContext
    expires_at: float


def has_tls(config: Config) -> bool:
    """Whether the port speaks TLS with this configuration."""
    return bool(config.admin_tls_server_cert and config.admin_tls_server_key)


def tls_files(config: Config) -> list[str]:
    """The files that `server_tls` reads."""
    return [path for path in (getattr(config, key) for key in TLS_KEYS) if path]


def server_tls(config: Config) -> ServerTls | None:
    """None without a certificate; raises ConfigError for files that cannot be used."""
    if not has_tls(config):
        return None
    certificate, key = config.admin_tls_server_cert, config.admin_tls_server_key
    authority = config.admin_tls_client_ca_file
    # Probes have no certificate: it is asked for, and `access.py` says what needs one.
    settings = TlsSettings(certificate, key, authority, names=(*TLS_KEYS, "revoked", "ciphers"))
    try:
        return ServerTls(server_context(settings), expiry_of(certificate))
    except (OSError, ValueError) as error:
        raise ConfigError(
            [
                f"admin_tls_server_cert {certificate} and admin_tls_server_key {key} cannot be used"
                + (f", or admin_tls_client_ca_file {authority}" if authority else "")
                + f": {error}"
            ]
        ) from error
