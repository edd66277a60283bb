"""Data directories that released versions wrote, kept under tests/data/directories, and what they hold as JSON."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from metasrv.model.types import Endpoint, SeqV
from metasrv.node.opening import OpenedData, open_data
from metasrv.raft.membership_in_force import membership_in_force
from metasrv.state.snapshot import verify_snapshot
from tests.support.paths import TESTS

ROOT = TESTS / "data" / "directories"


class Kept(NamedTuple):
    """One directory of one version."""

    name: str
    path: Path
    """The data directory itself; to be copied, since opening it writes to it."""
    expected: dict[str, Any]
    """Its contents, as the version that wrote it told them."""


def kept_directories() -> list[Kept]:
    files = sorted(ROOT.glob("*/*/expected.json"))
    return [
        Kept(str(file.parent.relative_to(ROOT)), file.parent / "data", json.loads(file.read_text(encoding="utf-8")))
        for file in files
    ]


def contents(data: OpenedData) -> dict[str, Any]:
    """What the files say."""
    machine, identity = data.machine, data.directory.identity
    reader = machine.open_reader()
    records = {key: _shown(record) for key, record in reader.records()}
    reader.close()
    membership = membership_in_force(data.store, machine)
    snapshots = [verify_snapshot(str(path)) for path in Path(data.directory.snapshot_directory).glob("*.snap")]
    return {
        "node_id": identity.node_id,
        "cluster_id": identity.cluster_id,
        "incarnation": identity.incarnation,
        "term": data.store.getCurrentTerm(),
        "log": {"first": data.store.first_index, "last": data.store.last_index},
        "last_applied": list(machine.last_applied),
        "last_seq": machine.last_seq,
        "last_time_ms": machine.last_time_ms,
        "features": list(machine.features),
        "voters": {str(id_): [str(member.endpoint), member.incarnation] for id_, member in membership.voters.items()},
        "nodes": {
            str(id_): [str(node.endpoint), node.grpc_api_addr, node.grpc_api_advertise_address]
            for id_, node in machine.nodes.items()
        },
        "snapshots": [{"last_log_id": list(info.log_id), "keys": info.key_count} for info in snapshots],
        "records": records,
    }


def describe(directory: Path, node_id: int) -> dict[str, Any]:
    """The contents of a copy."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "data"
        shutil.copytree(directory, copy)
        data = open_data(str(copy), node_id, Endpoint("localhost", 1), bootstrap=False)
        try:
            return contents(data)
        finally:
            data.close()


def _shown(record: SeqV) -> dict[str, Any]:
    meta = record.meta
    return {
        "seq": record.seq,
        "hex": record.data.hex(),
        "expire_at": None if meta is None else meta.expire_at,
        "proposed_at_ms": None if meta is None else meta.proposed_at_ms,
    }
