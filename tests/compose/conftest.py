"""Fixtures for real containers: skipped with the reason where there are none, and everything removed afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from verification.compose import ComposeCluster, why_no_containers
from verification.compose_image import BUILD_SECONDS, IMAGE, ROOT, make_image


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Containers are slow, and share one engine: one worker runs them all."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "compose"):
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS + 300))
            item.add_marker(pytest.mark.xdist_group("compose"))


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The image under test, from this tree."""
    reason = why_no_containers()
    if reason is not None:
        pytest.skip(reason)
    name = make_image()
    yield name
    if name == IMAGE:
        subprocess.run(["docker", "image", "rm", "--force", IMAGE], capture_output=True, check=False)


@pytest.fixture(scope="module")
def project(image: str) -> Iterator[ComposeCluster]:
    """Three nodes that no test of this module has started yet."""
    cluster = ComposeCluster(ROOT, image)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(project: ComposeCluster) -> ComposeCluster:
    """Three nodes up and ready, whatever the test before did."""
    project.up()
    project.wait_until_whole()
    return project
