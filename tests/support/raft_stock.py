"""Plain pysyncobj, for tests that show which of its defects is answered here."""

from __future__ import annotations

from typing import Any

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj import syncobj as engine_module
from pysyncobj.node import Node as EngineNode


class _Silent(engine_module.Transport):  # type: ignore[misc]  # pysyncobj has no types
    def send(self, node: object, message: object) -> bool:
        return True


def stock_engine(*entries: tuple[bytes, int, int]) -> tuple[Any, EngineNode]:
    """Node 2 of three, with entries in its log, and the node that will claim to lead."""
    stock = SyncObj(
        EngineNode("2"),
        [EngineNode("1"), EngineNode("3")],
        SyncObjConf(autoTick=False),
        nodeClass=EngineNode,
        transport=_Silent(None, None, []),
    )
    for entry in entries:
        stock._SyncObj__raftLog.add(*entry)
    return stock, EngineNode("1")
