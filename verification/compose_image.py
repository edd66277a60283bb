"""The image under test: the one that METASRV_COMPOSE_IMAGE names, else built from this tree."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from verification.compose import run_command

ROOT = Path(__file__).resolve().parents[1]
BUILD_SECONDS = 900.0
IMAGE = "metasrv-compose-test"


def make_image() -> str:
    """The image's name. docker/build.sh makes the base from Debian's packages where none can be pulled."""
    given = os.environ.get("METASRV_COMPOSE_IMAGE")
    if given:
        return given
    environment = {"PYTHON": sys.executable, **os.environ, "METASRV_IMAGE": IMAGE}
    run_command("docker/build.sh", directory=ROOT, environment=environment, seconds=BUILD_SECONDS)
    return IMAGE
