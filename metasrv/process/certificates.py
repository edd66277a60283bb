"""What a certificate says: its names, what it may be used for, when it expires.

The only reader of certificates in a node; TLS itself (chains, signatures, validity) is OpenSSL's work. Knows nothing of
who may do what. Pure, except for `expiry_of`, which reads a file; runs anywhere.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_Extension = TypeVar("_Extension", x509.SubjectAlternativeName, x509.ExtendedKeyUsage)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The part of a certificate that decides who may do what."""

    common_name: str = ""
    host_names: tuple[str, ...] = ()
    """DNS names, in lower case; the first label may be `*`."""
    addresses: tuple[str, ...] = ()
    """IP addresses, in the form of `ipaddress`."""
    for_servers: bool = True
    """Whether its extended key usage allows it to a server; a certificate without that extension may be used for all."""
    for_clients: bool = True

    def names(self, host: str) -> bool:
        """Whether the certificate is for this host name or address. The common name does not count."""
        try:
            return str(ipaddress.ip_address(host)) in self.addresses
        except ValueError:
            name = host.lower().rstrip(".")
        _, dot, domain = name.partition(".")
        return name in self.host_names or (bool(dot) and f"*.{domain}" in self.host_names)

    def has_name(self, pattern: str) -> bool:
        """Whether one of its names is `pattern`; `*.example.org` stands for all names one label below `example.org`."""
        wanted, (first, _, domain) = pattern.lower(), pattern.lower().partition(".")
        if first == "*" and any(name.partition(".")[2] == domain for name in self.host_names):
            return True
        return wanted in self.host_names or pattern in self.addresses

    @property
    def title(self) -> str:
        """Its names, for a log line."""
        return ", ".join((*self.host_names, *self.addresses)) or f"the common name {self.common_name!r} alone"


def certificate_in(encoded: bytes) -> Certificate:
    """What a certificate in DER says. Raises ValueError when it is none, or its extensions are not understood."""
    parsed = x509.load_der_x509_certificate(encoded)
    common_names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    common_name = str(common_names[0].value) if common_names else ""
    names, usages = _extension(parsed, x509.SubjectAlternativeName), _extension(parsed, x509.ExtendedKeyUsage)
    return Certificate(
        common_name,
        () if names is None else tuple(name.lower().rstrip(".") for name in names.get_values_for_type(x509.DNSName)),
        () if names is None else tuple(str(address) for address in names.get_values_for_type(x509.IPAddress)),
        usages is None or ExtendedKeyUsageOID.SERVER_AUTH in usages,
        usages is None or ExtendedKeyUsageOID.CLIENT_AUTH in usages,
    )


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    """One extension of a certificate, or None when it has none of the kind."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def expiry_of(path: str) -> float:
    """When the first certificate of a PEM file expires, in seconds since the epoch. Raises OSError, ValueError."""
    found = x509.load_pem_x509_certificates(Path(path).read_bytes())
    return min(certificate.not_valid_after_utc.timestamp() for certificate in found)


def no_pass_phrase() -> str:
    """Refuse encrypted keys: OpenSSL would ask for the pass phrase on the terminal and wait for ever."""
    raise ValueError("the key is encrypted with a pass phrase, which is not supported")
