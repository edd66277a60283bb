"""How descriptors are shared out, and what is said of few."""

from __future__ import annotations

import resource

import pytest

from metasrv.model.limits import ADMIN_CONNECTIONS_MAX, GRPC_CONNECTIONS_MAX, OPEN_FILES_RESERVED, OPEN_FILES_WANTED
from metasrv.process.open_files import admin_connections_max, client_connections_max, open_files_warning, raise_open_files


class System:
    """The limits of a process, as the system keeps them."""

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = (soft, hard)

    def getrlimit(self, kind: int) -> tuple[int, int]:
        assert kind == resource.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, kind: int, limits: tuple[int, int]) -> None:
        assert kind == resource.RLIMIT_NOFILE
        assert limits[1] == self.limits[1], "the hard limit can never be raised again"
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [
        (1024, 4096, 4096),
        (1024, 1_048_576, OPEN_FILES_WANTED),
        (1024, resource.RLIM_INFINITY, OPEN_FILES_WANTED),
        (100_000, 1_048_576, 100_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 2**31),
    ],
)
def test_the_limit_is_raised_as_far_as_it_is_wanted_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, after: int
) -> None:
    system = System(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", system.setrlimit)
    assert raise_open_files() == after


def test_clients_get_what_the_node_does_not_need() -> None:
    assert client_connections_max(OPEN_FILES_WANTED) == GRPC_CONNECTIONS_MAX
    assert client_connections_max(4096) == 4096 - OPEN_FILES_RESERVED
    assert client_connections_max(1024) == 512
    assert admin_connections_max(OPEN_FILES_WANTED) == ADMIN_CONNECTIONS_MAX
    assert admin_connections_max(1024) == 128


def test_a_low_limit_is_worth_a_sentence() -> None:
    assert open_files_warning(OPEN_FILES_WANTED) is None
    assert open_files_warning(1024) == (
        "this process may have 1024 files and connections open, so clients get 512 connections; "
        "raise the limit (LimitNOFILE, ulimit -n) to 65536"
    )
