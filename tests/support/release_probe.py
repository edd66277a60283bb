"""What a release writes, knows and reads, found out from its code; run with an earlier release, it says the same of that.

Writes real files where it can. As a program it prints JSON, by the names in `metasrv/model/releases.py`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
from contextlib import closing
from typing import Any, get_args

from metasrv.backup import encryption, lines
from metasrv.grpc_api import export_lines
from metasrv.model import commands, entries, migration, summary, types, users
from metasrv.model.wire import unpack
from metasrv.process.data_directory import DataDirectory
from metasrv.protocol import versions
from metasrv.raft import forwarding
from metasrv.raft.log.files import open_log
from metasrv.raft.peers import handshake
from metasrv.state import first_format, format, state_file


def written() -> dict[str, list[str]]:
    """By the name of the format's member."""
    with tempfile.TemporaryDirectory() as place:
        directory = DataDirectory.open(os.path.join(place, "data"), 1)
        directory.complete(None)
        directory.close()
        with open(os.path.join(place, "data", "node.json"), encoding="utf-8") as file:
            identity = json.load(file)
        open_log(os.path.join(place, "raft.db"), [(entries.encode_noop_entry(1), 1, 0)]).mark.close()
        state_file.create_file(os.path.join(place, "state.db"))
        log_version, log_vacuum = pragmas(os.path.join(place, "raft.db"))
        state_version, _ = pragmas(os.path.join(place, "state.db"))
    archive_head = json.loads(encryption.Encryptor(encryption.ArchiveKey(bytes(32), "")).head.splitlines()[1])
    return {
        "DIRECTORY": [str(identity["format"])],
        "LOG": [f"{log_version} (vacuum)" if log_vacuum else str(log_version)],
        "ENTRY": [str(entries.encode_noop_entry(1)[1])],
        "STATE": [str(state_version)],
        "SNAPSHOT": [str(format.FORMAT_VERSION)],
        "USER": [str(unpack(users.user_out(users.User("a", None, "")))[0])],
        "MIGRATION": [str(unpack(migration.migration_out(migration.Migration("a", 1)))[0])],
        "PEERS": [str(handshake.PROTOCOL_VERSION)],
        "REQUESTS": [str(forwarding.REQUEST_VERSION)],
        "SUMMARY": [str(summary.SUMMARY_VERSION)],
        "EXPORT": [types.DATA_VERSION],
        "ARCHIVE": [str(export_lines.ARCHIVE_FORMAT), str(export_lines.ARCHIVE_FORMAT_WITH_SECRETS)],
        "ENCRYPTED": [str(archive_head["format"])],
        "SERVER": [str(versions.SERVER_VERSION)],
        "CLIENT": [str(versions.SERVER_VERSION)],
    }


def also_read() -> dict[str, list[str]]:
    """Besides what is written; the oldest on the other side where a protocol is concerned."""
    first = str(first_format.FIRST_FORMAT_VERSION)
    summaries = [str(version) for version in getattr(summary, "_FIELDS_OF_VERSION", ())]
    return {
        "SUMMARY": summaries,
        "STATE": [first],
        "SNAPSHOT": [first],
        "EXPORT": list(lines.VERSIONS),
        "SERVER": [str(versions.MIN_CLIENT_VERSION)],
        "CLIENT": [str(versions.MIN_SERVER_VERSION)],
    }


def pragmas(path: str) -> tuple[int, int]:
    with closing(sqlite3.connect(path)) as connection:
        values = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "auto_vacuum")]
    return values[0], values[1]


def probe() -> dict[str, Any]:
    return {
        "written": written(),
        "also_read": also_read(),
        "commands": sorted(kind.__name__ for kind in get_args(commands.Command)),
        "operations": sorted(kind.__name__ for kind in get_args(commands.TransactionOperation)),
        "features": sorted(commands.KNOWN_FEATURES),
    }


if __name__ == "__main__":
    json.dump(probe(), sys.stdout)
