"""Fixtures that several tiers share: clusters of real processes, with their last words when a test fails."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from metasrv.testing.processes import ProcessCluster

pytest.register_assert_rewrite("tests.support")

os.environ["METACTL_CONFIG"] = os.devnull  # also for child processes: nobody's own contexts take part

StartCluster = Callable[..., "ProcessCluster"]
RecordProperty = Callable[[str, object], None]
_FAILED = pytest.StashKey[bool]()

settings.register_profile("metasrv", deadline=None)  # on a busy machine any example may take a quarter of a second
settings.load_profile("metasrv")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-examples", type=int, default=25, help="random requests a method in the gRPC fuzz tests")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests measured, through `record_property("measured", text)`; reaches here from parallel workers too."""
    measured = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        if report.when == "call"
        for name, text in report.user_properties
        if name == "measured"
    ]
    if measured:
        terminalreporter.section("measured")
        for line in measured:
            terminalreporter.line(line)


@pytest.fixture
async def start_cluster(request: pytest.FixtureRequest) -> AsyncIterator[StartCluster]:
    """A factory of clusters that end with the test; `start_cluster(size, settings={...})`, nothing started yet."""
    from metasrv.testing.processes import ProcessCluster  # here, so that unit tests need not load it

    clusters: list[ProcessCluster] = []

    def make(size: int = 3, **arguments: Any) -> ProcessCluster:
        clusters.append(ProcessCluster(size, **arguments))
        return clusters[-1]

    yield make
    failed = request.node.stash.get(_FAILED, True)
    for cluster in clusters:
        if failed:
            print(f"files are kept in {cluster.directory}\n{cluster.logs(lines=60)}")
        cluster.close(keep_files=failed)


@pytest.fixture
async def cluster(start_cluster: StartCluster) -> ProcessCluster:
    """Three nodes that agree on a leader."""
    started = start_cluster(3)
    await started.boot()
    return started
