"""TLS contexts of the listeners: from settings to a context, which may be made again at any time.

TLS 1.2 or later, and only ciphers with forward secrecy: who records the traffic and gets the key later can read nothing.
Knows no port and no configuration; the keys in its sentences are those of `TlsSettings.names`. Reads files, so the event
loop calls it at the start, and a thread later.
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from metasrv.model.errors import ConfigError
from metasrv.process.certificates import no_pass_phrase

FORWARD_SECRET_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # noqa: S105 - names of ciphers
"""Ciphers of TLS 1.2, in OpenSSL's form; every cipher of TLS 1.3 has forward secrecy, and none of them can be chosen."""
_FORWARD_SECRET_EXCHANGES = frozenset({"kx-ecdhe", "kx-dhe", "kx-any"})


class TlsSettings(NamedTuple):
    """PEM files and ciphers; an empty text is none."""

    certificate: str
    key: str
    client_authority: str = ""
    """Signs the certificates that clients may show."""
    revoked: str = ""
    """The authority's list of revoked certificates; only together with it."""
    ciphers: str = ""
    """Those of TLS 1.2, instead of `FORWARD_SECRET_CIPHERS`."""
    names: tuple[str, str, str, str, str] = ("certificate", "key", "client authority", "revoked", "ciphers")
    """What the settings above are called where an operator sets them."""


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """The context of a listener.

    Raises ConfigError for files that cannot be read, and ssl.SSLError or ValueError for unusable ones.
    With a client authority a client may show a certificate: one that is not good ends its connection, none is fine.
    """
    problems = []
    for name, path in zip(settings.names[:4], settings[:4], strict=True):
        try:
            if path:
                with open(path, "rb"):
                    pass
        except OSError as error:
            problems.append(f"{name}: {path} cannot be read: {error.strerror}")
    if problems:
        raise ConfigError(problems)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    restrict(context, settings.ciphers, settings.names[4])
    context.load_cert_chain(settings.certificate, settings.key, password=no_pass_phrase)
    if settings.client_authority:
        context.load_verify_locations(cafile=settings.client_authority)
        context.verify_mode = ssl.CERT_OPTIONAL
        # A session that is taken up again would be let in by what its certificate was when it began.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    if settings.revoked:
        context.load_verify_locations(cafile=settings.revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def restrict(context: ssl.SSLContext, ciphers: str = "", name: str = "ciphers") -> None:
    """Allow TLS 1.2 or later, and forward secrecy only; raises ConfigError for ciphers that are unknown or lack it."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.set_ciphers(ciphers or FORWARD_SECRET_CIPHERS)
    except ssl.SSLError as error:
        raise ConfigError([f"{name}: {ciphers!r} names no cipher that OpenSSL knows"]) from error
    offered: list[dict[str, Any]] = list(context.get_ciphers())  # type: ignore[arg-type]
    weak = [str(cipher["name"]) for cipher in offered if cipher.get("kea") not in _FORWARD_SECRET_EXCHANGES]
    weak += [str(cipher["name"]) for cipher in offered if cipher.get("auth") == "auth-null"]
    if weak:
        raise ConfigError([f"{name}: {', '.join(weak)} would be offered, without forward secrecy or a certificate"])


def common_name(certificate: Any) -> str | None:
    """The common name in what `getpeercert` gives; None without a certificate, or unless it has exactly one."""
    subject = certificate.get("subject", ()) if isinstance(certificate, dict) else ()
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else None
