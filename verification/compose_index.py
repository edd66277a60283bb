"""This machine's package index as a build in a container has to be told: the variables of docker-compose.yml.

pip's own settings on this machine are the source, so nothing about a registry stands in the project. By hand:

    eval "$(python -m verification.compose_index BASE)" && docker-compose up -d
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from pip._internal.models.index import PyPI  # the index that pip uses when no setting names one

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
COMMAND_SECONDS = 60
CONNECT_SECONDS = 20
TRUSTED_FILE = "/etc/ssl/certs/ca-certificates.crt"
CONNECT = f"import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), {CONNECT_SECONDS}).close()"
VARIABLES = {
    "index-url": "METASRV_PIP_INDEX_URL",
    "extra-index-url": "METASRV_PIP_EXTRA_INDEX_URL",
    "trusted-host": "METASRV_PIP_TRUSTED_HOST",
    "timeout": "METASRV_PIP_DEFAULT_TIMEOUT",
    "default-timeout": "METASRV_PIP_DEFAULT_TIMEOUT",
}
"""pip's name of a setting, and the variable that docker-compose.yml reads it from."""


def index_settings(base: str) -> dict[str, str]:
    """The variables with which an image is built here from `base`; what the environment sets already is left out."""
    found = {VARIABLES[name]: value for name, value in pip_settings().items() if name in VARIABLES}
    certificates = certificates_missing_in(base)
    if certificates:
        found["METASRV_INDEX_CERTIFICATES"] = "\n".join(certificates)
    return {name: value for name, value in found.items() if name not in os.environ}


def pip_settings() -> dict[str, str]:
    """pip's settings by name; lists are joined by spaces, and the environment wins over files."""
    command = (sys.executable, "-m", "pip", "config", "list")
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS).stdout
    return settings_in(said)


def settings_in(said: str) -> dict[str, str]:
    """What `pip config list` printed, by name."""
    found: dict[str, dict[str, str]] = {"global": {}, ":env:": {}}
    for line in said.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in found:
            found[section][name] = " ".join(str(ast.literal_eval(value)).split())
    return {**found["global"], **found[":env:"]}


def certificates_missing_in(base: str) -> list[str]:
    """The certificates that pip trusts on this machine and that an image does not have, in PEM format."""
    trusted = Path(pip_settings().get("cert", TRUSTED_FILE))
    if not trusted.is_file():
        return []
    command = ("docker", "run", "--rm", "--entrypoint", "cat", base, TRUSTED_FILE)
    there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS).stdout
    known = set(CERTIFICATE.findall(there))
    return [one for one in CERTIFICATE.findall(trusted.read_text()) if one not in known]


def why_no_index(base: str) -> str | None:
    """Why a build cannot fetch packages: no connection from a container to the index. None when it can."""
    address = urlsplit(os.environ.get("METASRV_PIP_INDEX_URL") or pip_settings().get("index-url") or PyPI.simple_url)
    port = address.port or {"http": 80}.get(address.scheme, 443)
    network = os.environ.get("METASRV_BUILD_NETWORK", "default")
    container = ("docker", "run", "--rm", "--network", network, "--entrypoint", "python3", base)
    command = (*container, "-c", CONNECT, str(address.hostname), str(port))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
    if done.returncode == 0:
        return None
    reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
    return f"a build here cannot fetch packages, as a container does not reach the package index: {reason[0]}"


if __name__ == "__main__":
    for variable, text in {"METASRV_BASE": sys.argv[1], **index_settings(sys.argv[1])}.items():
        print(f"export {variable}={shlex.quote(text)}")
