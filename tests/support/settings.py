"""Further tables in the configuration files of a cluster's nodes, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from metasrv.testing.processes import ProcessCluster


def configure(
    cluster: ProcessCluster, top: Mapping[str, Any], table: str = "", values: Mapping[str, Any] | None = None
) -> None:
    """Put keys before the first table of every node's file, and one more table at its end."""
    before = "".join(f"{key} = {json.dumps(value)}\n" for key, value in top.items())
    after = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (values or {}).items())
    for node in cluster.nodes.values():
        text = node.config_file.read_text(encoding="utf-8")
        node.config_file.write_text(f"{before}{text}{f'[{table}]' if table else ''}\n{after}", encoding="utf-8")
