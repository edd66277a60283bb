"""`metactl cert generate`: what the certificates say, and that an authority is kept, replaced and never lost."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from metasrv.cli import ctl
from metasrv.process.certificates import Certificate, certificate_in, expiry_of


def run(directory: Path, *arguments: str) -> int:
    return ctl.main(["cert", "generate", str(directory), *arguments])


def read(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def said_by(path: Path) -> Certificate:
    [certificate] = read(path)
    return certificate_in(certificate.public_bytes(Encoding.DER))


def test_nodes_are_for_both_ends_and_clients_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = "meta-1=meta-1.example.com,10.0.0.1,::1"
    assert run(tmp_path / "new", "--node", hosts, "--node", "two.example.com", "--client", "operate") == 0
    directory = tmp_path / "new"
    assert capsys.readouterr().out.split() == [
        str(directory / f"{name}{part}.pem")
        for name in ("ca", "meta-1", "two.example.com", "operate")
        for part in ("-key", "")
    ]
    node = said_by(directory / "meta-1.pem")
    assert node == Certificate("meta-1", ("meta-1.example.com",), ("10.0.0.1", "::1"), True, True)
    assert said_by(directory / "two.example.com.pem").host_names == ("two.example.com",)
    assert said_by(directory / "operate.pem") == Certificate("operate", (), (), False, True)
    assert 364 < (expiry_of(str(directory / "meta-1.pem")) - time.time()) / 86_400 < 366
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.stem.endswith("-key") else 0o644)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_the_authority_is_kept_and_certificates_are_replaced(tmp_path: Path) -> None:
    assert run(tmp_path, "--node", "a", "--days", "1") == 0
    authority, first = (tmp_path / "ca.pem").read_bytes(), read(tmp_path / "a.pem")[0]
    assert run(tmp_path, "--node", "a") == 0
    [second] = read(tmp_path / "a.pem")
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert second.serial_number != first.serial_number
    second.verify_directly_issued_by(read(tmp_path / "ca.pem")[0])


def test_a_new_authority_signs_and_the_old_one_stays_trusted(tmp_path: Path) -> None:
    run(tmp_path, "--node", "a")
    [old] = read(tmp_path / "ca.pem")
    assert run(tmp_path, "--new-authority") == 0
    new, kept = read(tmp_path / "ca.pem")
    assert kept == old
    read(tmp_path / "a.pem")[0].verify_directly_issued_by(old)
    run(tmp_path, "--node", "a")
    read(tmp_path / "a.pem")[0].verify_directly_issued_by(new)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to make"),
        (["--node", "../a"], "'../a' cannot be the name of a certificate"),
        (["--client", "ca"], "'ca' cannot be the name of a certificate"),
        (["--node", "a=two words"], "'two words' is neither a host name nor an address"),
        (["--node", "a="], "'' is neither a host name nor an address"),
        (["--node", "a=b", "--node", "a=c"], "--node a is given twice"),
        (["--node", "a", "--client", "a"], "a name is given twice"),
        (["--node", "a", "--days", "36501"], "at most 36500"),
    ],
)
def test_wrong_requests_make_nothing(
    tmp_path: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *arguments) == 1
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_authority_without_its_key_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--node", "a")
    (tmp_path / "ca-key.pem").unlink()
    before = (tmp_path / "ca.pem").read_bytes()
    assert run(tmp_path, "--node", "b") == 1
    assert "ca-key.pem is missing" in capsys.readouterr().err
    assert (tmp_path / "ca.pem").read_bytes() == before
    (tmp_path / "ca-key.pem").write_bytes((tmp_path / "a-key.pem").read_bytes())
    assert run(tmp_path, "--node", "b") == 1
    assert "is not the key of the first certificate" in capsys.readouterr().err
