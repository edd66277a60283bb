"""Messages that are sent together, and the encoders that share work: the same bytes as protobuf writes one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.grpc_api import changes
from metasrv.grpc_api.batches import BATCH_SIZE_BYTES_MAX, Batch, batches_of
from metasrv.grpc_api.changes import MARKER, EncodedChanges, watch_response
from metasrv.grpc_api.http2.messages import length_prefixed
from metasrv.grpc_api.items import item_batches
from metasrv.grpc_api.replies import record_out
from metasrv.grpc_api.row_items import row_batches
from metasrv.model.types import U64_MAX, KVMeta, SeqV
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.watch import WatchItem

U64 = st.one_of(st.integers(0, 300), st.integers(0, U64_MAX))
METAS = st.none() | st.builds(KVMeta, st.none() | U64, st.none() | U64)
RECORDS = st.builds(SeqV, U64, st.binary(max_size=300), METAS)
SEQS = st.integers(0, 300) | st.integers(16_300, 16_500) | st.integers(0, U64_MAX)
ROWS = st.tuples(st.text(max_size=200), SEQS, st.none() | U64, U64, st.binary(max_size=300))


def plain_item(key: str, record: SeqV | None) -> bytes:
    """As protobuf's own encoder has it, a new message for each record."""
    return pb.StreamItem(key=key, value=record_out(record)).SerializeToString()


def test_batches_hold_all_messages_in_order_and_fit_into_a_frame() -> None:
    messages = [bytes([number % 251]) * (number * 7 % 900) for number in range(200)]
    batches = batches_of(messages)
    assert b"".join(batch.data for batch in batches) == b"".join(map(length_prefixed, messages))
    assert sum(batch.messages for batch in batches) == 200
    assert sum(batch.messages_bytes for batch in batches) == sum(map(len, messages))
    assert all(len(batch.data) <= BATCH_SIZE_BYTES_MAX for batch in batches)
    assert len(batches) <= 1 + sum(map(len, messages)) // (BATCH_SIZE_BYTES_MAX - 1_000)


def test_a_message_larger_than_a_frame_is_a_batch_of_its_own() -> None:
    large = bytes(3 * BATCH_SIZE_BYTES_MAX)
    assert [batch.messages for batch in batches_of([b"a", b"b", large, b"c"])] == [2, 1, 1]
    assert batches_of([]) == []


def test_a_batch_that_is_exactly_full_is_not_split() -> None:
    half = bytes(BATCH_SIZE_BYTES_MAX // 2 - 5)
    assert [batch.messages for batch in batches_of([half, half, b""])] == [2, 1]


@given(st.lists(st.tuples(st.text(max_size=40), st.none() | RECORDS), max_size=12))
def test_a_page_of_items_has_the_bytes_of_protobuf(records: list[tuple[str, SeqV | None]]) -> None:
    expected = b"".join(length_prefixed(plain_item(key, record)) for key, record in records)
    assert b"".join(batch.data for batch in item_batches(records)) == expected


def test_nothing_of_a_record_stays_for_the_next_one() -> None:
    """One message object serves a page: each of these leaves out what the one before it has."""
    metas = (KVMeta(5, 6), KVMeta(None, 6), KVMeta(5, None), KVMeta(None, None), None, KVMeta(None, 6))
    records: list[tuple[str, SeqV | None]] = [(f"k{n}", SeqV(n, b"v" * n, meta)) for n, meta in enumerate(metas)]
    records += [("absent", None), ("", SeqV(0, b"", KVMeta(None, 6)))]
    expected = b"".join(length_prefixed(plain_item(key, record)) for key, record in records)
    assert b"".join(batch.data for batch in item_batches(records)) == expected


def bytes_of_rows(rows: Sequence[tuple[str, int, int | None, int, bytes]]) -> list[Batch]:
    # A number past 2**63 is a text in the file.
    stored = ((seq, expire if expire is None or expire < 2**63 else str(expire)) for _, seq, expire, _, _ in rows)
    return row_batches(
        [
            (key.encode(), seq, expire, proposed, 0, data)
            for (seq, expire), (key, _, _, proposed, data) in zip(stored, rows, strict=True)
        ]
    )


@given(st.lists(ROWS, max_size=12))
def test_rows_have_the_bytes_of_protobuf(rows: list[tuple[str, int, int | None, int, bytes]]) -> None:
    items = (plain_item(key, SeqV(seq, data, KVMeta(expire, at_ms))) for key, seq, expire, at_ms, data in rows)
    assert b"".join(batch.data for batch in bytes_of_rows(rows)) == b"".join(map(length_prefixed, items))


@pytest.mark.parametrize("size_bytes", [0, 1, 90, 127, 128, 129, 16_200, 16_383, 16_384, 20_000, 70_000, 2**21])
def test_batches_of_rows_are_those_of_their_items(size_bytes: int) -> None:
    rows = [(f"key/{number}", 2**14 * number, None, number // 20, bytes(size_bytes)) for number in range(50)]
    items = [plain_item(key, SeqV(seq, data, KVMeta(None, at_ms))) for key, seq, _, at_ms, data in rows]
    assert bytes_of_rows(rows) == batches_of(items)


async def test_a_change_is_encoded_once_for_all_its_watchers(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []

    def counted(item: WatchItem) -> bytes:
        encoded.append(item.key)
        return watch_response(item)

    monkeypatch.setattr(changes, "watch_response", counted)
    shared = EncodedChanges()
    previous, current = SeqV(1, b"a", KVMeta(None, 5)), SeqV(2, b"b", KVMeta(None, 6))
    items = [WatchItem("k", previous, current) for _ in range(50)]
    messages = {shared.message(item) for item in items}
    assert messages == {length_prefixed(watch_response(items[0]))}
    assert encoded == ["k"]
    assert shared.message(WatchItem("k", current, None)) == length_prefixed(watch_response(WatchItem("k", current, None)))
    assert shared.message(WatchItem("l", previous, current)) != messages.pop()
    await asyncio.sleep(0)
    shared.message(items[0])
    assert encoded == ["k", "k", "l", "k"], "nothing is kept once the loop has turned"


async def test_equal_records_of_different_changes_are_not_confused() -> None:
    """Identities are compared, and the records behind them are kept as long: none can get the place of another."""
    shared = EncodedChanges()
    for number in range(500):
        item = WatchItem("k", None, SeqV(number, str(number).encode(), KVMeta(None, number)))
        assert shared.message(item) == length_prefixed(watch_response(item))


async def test_what_is_kept_of_a_turn_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "KEPT_SIZE_BYTES_MAX", 1_000)
    shared = EncodedChanges()
    for number in range(20):
        item = WatchItem(f"k{number}", None, SeqV(1, bytes(300), None))
        assert shared.message(item) == length_prefixed(watch_response(item))
    assert len(shared._kept) == 3


async def test_existing_records_and_the_marker_are_not_kept() -> None:
    shared = EncodedChanges()
    item = WatchItem("k", None, SeqV(1, b"v", None), is_initialization=True)
    assert pb.WatchResponse.FromString(shared.message(item)[5:]).is_initialization
    assert shared.message(WatchItem("", None, None, marker=True)) == MARKER == bytes(5)
    assert not shared._kept


def test_the_size_of_messages_leaves_out_their_prefixes() -> None:
    assert Batch(length_prefixed(b"abc") + length_prefixed(b""), 2).messages_bytes == 3
