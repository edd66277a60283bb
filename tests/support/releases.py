"""Earlier releases, kept under tests/data/releases: their wheels, to start nodes of them, and what such nodes left."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from metasrv.cli.node_process import NodeProgram
from tests.support.paths import TESTS

RELEASES = TESTS / "data" / "releases"
PREVIOUS = "0.2.0"
"""The release before this one: nodes of it and of this one form one cluster."""
KEPT_SECRETS = {"METASRV_GRPC_PASSWORD": "root of kept data", "METASRV_ADMIN_TOKEN": "token of kept data"}
"""What the nodes of a kept cluster were started with; nothing real has these secrets."""
USER, USER_PASSWORD = "app", "app of kept data"


def wheel_of(release: str) -> Path:
    return RELEASES / f"metasrv-{release}-py3-none-any.whl"


def directories_of(release: str) -> Path:
    return RELEASES / f"metasrv-{release}-directories.tar.gz"


def unpacked(release: str, target: Path) -> NodeProgram:
    """The node of a release, its wheel unpacked into `target`."""
    with zipfile.ZipFile(wheel_of(release)) as wheel:
        wheel.extractall(target)
    return NodeProgram.in_directory(target)


def kept_cluster(release: str, target: Path) -> dict[str, Any]:
    """Unpack the directories of three nodes of a release into `target` as 1, 2 and 3; what they held then."""
    with tarfile.open(directories_of(release)) as archive:
        if hasattr(tarfile, "data_filter"):  # not in every 3.11
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(target)
    expected: dict[str, Any] = json.loads((target / "expected.json").read_text(encoding="utf-8"))
    return expected
