"""The pinned pysyncobj has every name that `engine.py` relies on, and behaves as the seams expect."""

from __future__ import annotations

import re
from pathlib import Path

import pysyncobj
import pytest
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj import syncobj as engine_module
from pysyncobj.journal import Journal

import metasrv.raft.core.engine as engine_source
from metasrv.raft.core.engine import ENGINE_PRIVATE_NAMES
from metasrv.raft.log.store import LogStore
from tests.support.raft_bench import make_bench


class _StockTransport(engine_module.Transport):  # type: ignore[misc]  # pysyncobj has no types
    def send(self, node: object, message: object) -> bool:
        return True


@pytest.fixture
def stock() -> SyncObj:
    transport = _StockTransport(None, None, [])
    return SyncObj("a:1", ["b:1"], SyncObjConf(autoTick=False), transport=transport)


def test_the_pinned_version_is_installed() -> None:
    assert pysyncobj.version.VERSION == "0.3.17"


@pytest.mark.parametrize("name", ENGINE_PRIVATE_NAMES)
def test_private_name_exists(stock: SyncObj, name: str) -> None:
    assert hasattr(stock, name)


def test_every_private_name_in_the_source_is_declared() -> None:
    used = set(re.findall(r"_SyncObj__\w+", Path(engine_source.__file__).read_text()))
    assert used == set(ENGINE_PRIVATE_NAMES)


def test_module_level_factories_exist() -> None:
    assert callable(engine_module.createJournal)
    assert callable(engine_module.createPoller)


def test_the_log_implements_the_whole_journal() -> None:
    wanted = [name for name in vars(Journal) if callable(getattr(Journal, name)) and not name.startswith("__init")]
    for name in wanted:
        assert getattr(LogStore, name) is not getattr(Journal, name) or name.startswith("__"), name


def test_construction_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    before = engine_module.createJournal, engine_module.createPoller
    make_bench(tmp_path)
    assert (engine_module.createJournal, engine_module.createPoller) == before
