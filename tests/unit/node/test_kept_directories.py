"""Data directories of released versions are read as the version that wrote them read them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.codec import encode_command
from metasrv.model.entries import RegularEntry, encode_regular_entry
from metasrv.model.errors import DataDamagedError
from metasrv.model.types import Endpoint, LogId
from metasrv.node.opening import OpenedData, open_data
from tests.support.data_directories import ROOT, Kept, contents, kept_directories

KEPT = kept_directories()
SIZE_BYTES_MAX = 300_000


def opened(kept: Kept, tmp_path: Path) -> OpenedData:
    copy = tmp_path / "data"
    if not copy.exists():
        shutil.copytree(kept.path, copy)
    return open_data(str(copy), kept.expected["node_id"], Endpoint("localhost", 1), bootstrap=False)


def test_this_release_is_among_them() -> None:
    assert {"0.2/alone", "0.2/member"} <= {kept.name for kept in KEPT}


@pytest.mark.parametrize("kept", KEPT, ids=[kept.name for kept in KEPT])
def test_a_kept_directory_holds_what_it_held(kept: Kept, tmp_path: Path) -> None:
    data = opened(kept, tmp_path)
    found = contents(data)
    assert found == kept.expected
    assert list(found["records"]) == sorted(kept.expected["records"])
    assert len(found["records"]) > 30
    data.close()


@pytest.mark.parametrize("kept", KEPT, ids=[kept.name for kept in KEPT])
def test_a_kept_directory_is_gone_on_with(kept: Kept, tmp_path: Path) -> None:
    data = opened(kept, tmp_path)
    machine, store = data.machine, data.store
    index, now_ms = machine.last_applied.index + 1, machine.last_time_ms + 5
    put = c.Upsert("new", c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"value")
    store.add(encode_regular_entry(now_ms, 1, [encode_command(put)]), index, store.getCurrentTerm())
    pending = store.take_pending()
    assert pending is not None
    data.writer.write(pending)
    (reply,) = machine.apply_entry(LogId(store.getCurrentTerm(), index, 1), RegularEntry(now_ms, 1, (put,)))
    assert isinstance(reply, c.UpsertReply)
    assert reply.result is not None
    assert reply.result.seq == kept.expected["last_seq"] + 1
    data.close()
    data = opened(kept, tmp_path)
    found = data.machine.get("new", now_ms)
    assert found is not None
    assert found.data == b"value"
    assert data.machine.get("expired", now_ms) is None
    assert data.machine.key_count == len(kept.expected["records"]), "the new record came, the expired one was swept"
    data.close()


@pytest.mark.parametrize("kept", KEPT, ids=[kept.name for kept in KEPT])
def test_a_flipped_bit_in_a_kept_directory_is_noticed(kept: Kept, tmp_path: Path) -> None:
    """So that reading it proves something."""
    shutil.copytree(kept.path, tmp_path / "data")
    (file,) = (tmp_path / "data").rglob("node.json")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataDamagedError):
        opened(kept, tmp_path)


@pytest.mark.parametrize("version", sorted(path for path in ROOT.iterdir() if path.is_dir()), ids=lambda path: path.name)
def test_what_is_kept_of_a_version_is_small(version: Path) -> None:
    files = [file for file in version.rglob("*") if file.is_file()]
    assert 0 < sum(file.stat().st_size for file in files) < SIZE_BYTES_MAX
    assert "LOCK" not in {file.name for file in files}
