"""Makes an authority and the certificates of nodes and clients, for clusters that have no authority of their own.

Files in one directory: `ca.pem` and `ca-key.pem`, and `NAME.pem` with `NAME-key.pem` for each certificate. Each file is
replaced as a whole, so a node that looks at it never reads half of one. Knows no command line. Runs in a short process.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from metasrv.model.errors import InvalidRequestError

AUTHORITY = "ca"
AUTHORITY_DAYS = 3650
BEFORE = timedelta(hours=1)
"""Certificates begin this long ago, for machines whose clocks are behind."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A name is a common name and a part of file names."""
HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
"""The first label may be `*`; other alphabets come in their encoded form (`xn--…`)."""


@dataclass(frozen=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def generate(
    directory: Path, nodes: Mapping[str, Sequence[str]], clients: Sequence[str], days: int, *, new_authority: bool = False
) -> list[Path]:
    """Make what is asked for; returns the files that were written, in order.

    `nodes` maps a name to the hosts of its certificate. The authority is made when there is none; with `new_authority`
    another one is made, and the earlier ones stay in `ca.pem`, to be trusted while certificates are replaced.
    Raises InvalidRequestError for wrong names and for an authority that cannot be used, OSError for the disk.
    """
    for name in (*nodes, *clients):
        if not NAME.fullmatch(name) or name == AUTHORITY:
            raise InvalidRequestError(f"{name!r} cannot be the name of a certificate")
    if len({*nodes, *clients}) < len(nodes) + len(clients):
        raise InvalidRequestError("a name is given twice; each certificate has one of its own")
    hosts = {name: [_host(text) for text in given] for name, given in nodes.items()}
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    written: list[Path] = []
    authority = _authority(directory, written, anew=new_authority)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    for name, names in hosts.items():
        _certify(directory, authority, name, names, both, days, written)
    for name in clients:
        _certify(directory, authority, name, [], [ExtendedKeyUsageOID.CLIENT_AUTH], days, written)
    return written


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError as error:
        if not HOST_NAME.fullmatch(text):
            raise InvalidRequestError(f"{text!r} is neither a host name nor an address") from error
        return x509.DNSName(text)


def _authority(directory: Path, written: list[Path], *, anew: bool) -> _Authority:
    certificate_path, key_path = _paths(directory, AUTHORITY)
    present = [path.exists() for path in (certificate_path, key_path)]
    if any(present) and not all(present):
        missing = key_path if present[0] else certificate_path
        raise InvalidRequestError(f"{missing} is missing; without it the authority in {directory} cannot sign")
    trusted: list[x509.Certificate] = []
    if all(present):
        try:
            trusted = x509.load_pem_x509_certificates(certificate_path.read_bytes())
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise InvalidRequestError(f"the authority in {directory} cannot be used: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != trusted[0].public_key():
            raise InvalidRequestError(f"{key_path} is not the key of the first certificate in {certificate_path}")
        if not anew:
            return _Authority(key, trusted[0])
    new_key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    subject = _name(f"metasrv authority {serial:x}"[:40])
    builder = _builder(subject, subject, new_key, AUTHORITY_DAYS, serial)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    certificate = builder.sign(new_key, hashes.SHA256())
    _write(key_path, _key_bytes(new_key), written)
    _write(certificate_path, b"".join(map(_certificate_bytes, (certificate, *trusted))), written)
    return _Authority(new_key, certificate)


def _certify(
    directory: Path,
    authority: _Authority,
    name: str,
    hosts: Sequence[x509.GeneralName],
    usages: Sequence[x509.ObjectIdentifier],
    days: int,
    written: list[Path],
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    builder = _builder(_name(name), issuer.subject, key, days, x509.random_serial_number())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = builder.add_extension(signer, critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    certificate_path, key_path = _paths(directory, name)
    _write(key_path, _key_bytes(key), written)
    _write(certificate_path, _certificate_bytes(builder.sign(authority.key, hashes.SHA256())), written)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int, serial: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _paths(directory: Path, name: str) -> tuple[Path, Path]:
    return directory / f"{name}.pem", directory / f"{name}-key.pem"


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _certificate_bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes, written: list[Path]) -> None:
    """Put a whole new file in place; keys are for their owner alone."""
    mode = 0o600 if path.stem.endswith("-key") else 0o644
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, path)
    written.append(path)
