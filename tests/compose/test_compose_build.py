"""`docker-compose up` alone: no image is there, so it is built from a package index, and three nodes start from it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

from metasrv import __version__
from scripts.bill_of_materials import normalised
from verification.compose import ComposeCluster, compose_command, run_command, why_no_containers
from verification.compose_image import BUILD_SECONDS, ROOT
from verification.compose_index import index_settings, why_no_index

IMAGE = f"metasrv-compose-built-{os.getpid()}"
COMMIT = "abcdef012345"
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
ONLY_WHILE_BUILDING = ("/installer", "/source", "/wheels", "/etc/pip.conf")
NAMES_AND_VERSIONS = """
from importlib.metadata import distributions
for one in distributions():
    print(one.metadata["Name"], one.version)
"""


@pytest.fixture(scope="module")
def built() -> Iterator[ComposeCluster]:
    """Three nodes from an image that the same command has built."""
    reason = why_no_containers()
    if reason is not None:
        pytest.skip(reason)
    base = run_command("docker/find_base.sh", PYTHON_VERSION, directory=ROOT, seconds=BUILD_SECONDS).strip()
    reason = why_no_index(base)
    if reason is not None:
        pytest.skip(reason)
    cluster = ComposeCluster(ROOT, IMAGE, METASRV_BASE=base, METASRV_COMMIT=COMMIT)
    cluster.environment.update(index_settings(base))
    try:
        command = (*(compose_command() or ()), "up", "-d")
        run_command(*command, directory=ROOT, environment=cluster.environment, seconds=BUILD_SECONDS)
        yield cluster
    finally:
        cluster.close()
        subprocess.run(["docker", "image", "rm", "--force", IMAGE], capture_output=True, check=False)


@pytest.mark.essential
def test_one_command_builds_the_image_and_starts_three_nodes(built: ComposeCluster) -> None:
    leader = built.wait_until_whole()
    for node_id in built.ids:
        status = built.status(node_id)
        assert status is not None
        assert status["id"] == node_id
        assert status["binary_version"] == f"{__version__}+{COMMIT}"
    others = [node_id for node_id in built.ids if node_id != leader]
    with built.blocking_client(leader) as client:
        client.upsert("before", b"kept")

    built.compose("kill", f"meta{leader}")
    assert built.wait_for_leader(*others) in others
    with built.blocking_client(*others) as client:
        record = client.get("before")
        assert record is not None
        assert record.data == b"kept"
        client.upsert("without-one", b"also kept")

    built.up()
    built.wait_until_whole()
    with built.blocking_client(leader) as client:
        record = client.get("without-one")
    assert record is not None
    assert record.data == b"also kept"


@pytest.mark.essential
def test_the_image_carries_the_licences_of_all_that_is_in_it(built: ComposeCluster) -> None:
    built.wait_until_ready(1)
    notices = built.execute(1, "cat", "/usr/share/doc/metasrv/THIRD-PARTY-NOTICES")
    installed = set(built.execute(1, "python", "-I", "-c", NAMES_AND_VERSIONS).splitlines())
    assert set(re.findall(r"^Package: (.*)$", notices, re.MULTILINE)) == installed - {f"metasrv {__version__}"}
    directory = "/opt/metasrv/lib/python3*/site-packages/metasrv-*.dist-info/licenses"
    assert built.execute(1, "sh", "-c", f"ls {directory}").split() == ["LICENSE", "THIRD-PARTY-NOTICES"]
    assert built.execute(1, "cat", "/usr/share/doc/metasrv/LICENSE") == (ROOT / "LICENSE").read_text()
    assert len(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]) < len(installed)


@pytest.mark.essential
def test_the_image_carries_a_bill_of_materials(built: ComposeCluster) -> None:
    built.wait_until_ready(1)
    document = json.loads(built.execute(1, "cat", "/usr/share/doc/metasrv/sbom.cdx.json"))
    named = {f"{one['name']} {one['version']}" for one in (*document["components"], document["metadata"]["component"])}
    installed = built.execute(1, "python", "-I", "-c", NAMES_AND_VERSIONS).splitlines()
    assert named == {f"{normalised(name)} {version}" for name, version in map(str.split, installed)}


@pytest.mark.essential
def test_the_image_keeps_nothing_of_the_build(built: ComposeCluster) -> None:
    """No pip, no compiler, no setting of pip: neither in a file nor in what the engine says of the image."""
    built.wait_until_ready(1)
    assert built.execute(1, "sh", "-c", "command -v cc gcc g++ make pip pip3 || true") == ""
    assert built.execute(1, "sh", "-c", f"ls -d {' '.join(ONLY_WHILE_BUILDING)} 2>/dev/null || true") == ""
    labels = json.loads(built.docker("image", "inspect", "--format", "{{json .Config.Labels}}", IMAGE))
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.revision"] == COMMIT
    told = built.docker("image", "inspect", IMAGE) + built.docker("history", "--no-trunc", IMAGE)
    assert COMMIT in told
    for secret in ("PIP_", "INDEX_CERTIFICATES", "BEGIN CERTIFICATE"):
        assert secret not in told
