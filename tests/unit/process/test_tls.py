"""TLS contexts: what they allow, and what is said of settings that cannot be."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from metasrv.model.errors import ConfigError
from metasrv.process.tls import TlsSettings, common_name, restrict, server_context


def new_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


@pytest.mark.parametrize("ciphers", ["", "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384", "DHE+AESGCM"])
def test_only_ciphers_with_forward_secrecy_are_offered(ciphers: str) -> None:
    context = new_context()
    restrict(context, ciphers)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    old: list[dict[str, Any]] = [c for c in context.get_ciphers() if c["protocol"] != "TLSv1.3"]  # type: ignore[misc]
    assert old
    assert {cipher["kea"] for cipher in old} <= {"kx-ecdhe", "kx-dhe"}


@pytest.mark.parametrize(
    "ciphers", ["AES256-GCM-SHA384", "ECDHE+AESGCM:AES128-SHA", "DEFAULT", "PSK", "aNULL:@SECLEVEL=0"]
)
def test_others_are_refused_by_name(ciphers: str) -> None:
    with pytest.raises(ConfigError, match=r"grpc_tls_ciphers: .* would be offered, without forward secrecy"):
        restrict(new_context(), ciphers, "grpc_tls_ciphers")


def test_unknown_ciphers_are_refused() -> None:
    with pytest.raises(ConfigError, match="grpc_tls_ciphers: 'NONSENSE' names no cipher"):
        restrict(new_context(), "NONSENSE", "grpc_tls_ciphers")


def test_files_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    cert, key, authority, crl = missing = [str(tmp_path / name) for name in ("cert", "key", "ca", "crl")]
    with pytest.raises(ConfigError) as caught:
        server_context(TlsSettings(cert, key, authority, crl, names=("a", "b", "c", "d", "e")))
    assert caught.value.problems == [
        f"{name}: {path} cannot be read: No such file or directory" for name, path in zip("abcd", missing, strict=True)
    ]


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (None, None),
        ({}, None),
        ({"subject": ((("commonName", "app"),),)}, "app"),
        ({"subject": ((("organizationName", "o"),), (("commonName", "app"),))}, "app"),
        ({"subject": ((("commonName", "app"),), (("commonName", "root"),))}, None),
        ({"subject": ((("commonName", "app"), ("commonName", "root")),)}, None),
        ({"subject": ((("organizationName", "root"),),)}, None),
    ],
)
def test_the_common_name_is_the_only_one(certificate: Any, name: str | None) -> None:
    assert common_name(certificate) == name
