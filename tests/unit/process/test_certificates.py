"""Which hosts a certificate is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from metasrv.process.certificates import Certificate, certificate_in, expiry_of, no_pass_phrase

CERTIFICATE = Certificate("a.example", ("one.example", "*.meta.example"), ("10.0.0.1", "::1"))


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("one.example", True),
        ("ONE.example.", True),
        ("x.meta.example", True),
        ("*.meta.example", True),
        ("x.y.meta.example", False),
        ("meta.example", False),
        ("a.example", False),
        ("10.0.0.1", True),
        ("0:0:0:0:0:0:0:1", True),
        ("10.0.0.2", False),
        ("", False),
        ("example", False),
    ],
)
def test_hosts(host: str, named: bool) -> None:
    assert CERTIFICATE.names(host) is named


@pytest.mark.parametrize(
    ("pattern", "has"),
    [
        ("one.example", True),
        ("*.example", True),
        ("*.meta.example", True),
        ("x.meta.example", False),
        ("*.other.example", False),
        ("10.0.0.1", True),
        ("*", False),
        ("", False),
    ],
)
def test_allowed_names(pattern: str, has: bool) -> None:
    assert CERTIFICATE.has_name(pattern) is has


def test_a_certificate_without_names_is_called_by_its_common_name() -> None:
    assert Certificate("operate").title == "the common name 'operate' alone"
    assert not Certificate("operate").names("operate")


def test_what_is_no_certificate_raises_value_error(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(ValueError, match=r"."):
        certificate_in(b"nothing")
    with pytest.raises(ValueError, match=r"."):
        expiry_of(str(tmp_path / "bad.pem"))
    with pytest.raises(ValueError, match="pass phrase"):
        no_pass_phrase()
