"""A certificate authority for tests, and certificates of nodes, made with the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


class Authority:
    """An authority in a directory of its own; skips the test where there is no openssl program."""

    def __init__(self, directory: Path, *, says_what_for: bool = True) -> None:
        """Older guides make authorities whose certificate does not say what for: `says_what_for` is False."""
        if shutil.which("openssl") is None:
            pytest.skip("certificates are made with the openssl program, which is not installed")
        self.directory = directory
        directory.mkdir()
        signs = [
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        ]  # without it, Python 3.13 takes none of its certificates
        subject = ["-days", "2", "-subj", f"/CN={directory.name}"]
        self._run("req", "-x509", *self._new_key("ca"), "-out", "ca.pem", *subject, *(signs if says_what_for else []))

    def certify(self, name: str, subject_alternative: str = "IP:127.0.0.1", usage: str = "") -> None:
        """Make a key and a certificate with that common name; `usage` is the extended key usage, for all if empty."""
        extensions = f"subjectAltName={subject_alternative}\nauthorityKeyIdentifier=keyid\n" + (
            f"extendedKeyUsage={usage}\n" if usage else ""
        )
        (self.directory / f"{name}.ext").write_text(extensions)
        self._run("req", "-new", *self._new_key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext"]
        self._run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)

    def revoke(self, *names: str) -> str:
        """The path of a list of revoked certificates with these nodes on it."""
        settings = "[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=2\n"
        (self.directory / "ca.cnf").write_text(settings)
        (self.directory / "index.txt").touch()
        own = ["ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem"]
        for name in names:
            self._run(*own, "-revoke", f"{name}.pem")
        self._run(*own, "-gencrl", "-out", "crl.pem")
        return str(self.directory / "crl.pem")

    def files(self, name: str, trusted: Authority | None = None) -> dict[str, str]:
        """The configuration keys of a certified node, which trusts this authority or another one."""
        return {
            "raft_tls_ca": str((trusted or self).directory / "ca.pem"),
            "raft_tls_cert": str(self.directory / f"{name}.pem"),
            "raft_tls_key": str(self.directory / f"{name}.key"),
        }

    def _new_key(self, name: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)
