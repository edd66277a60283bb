"""The lines of an export: one JSON array each, in the format of data version V004 (docs/contract/grpc.md section g).

Reads one pinned view from first to last; runs in a helper thread or offline. The log is not exported: the view holds
every applied write, and an entry of the log may hold many commands, for which the format has no form.
"""

from __future__ import annotations

import json
from base64 import b64encode
from binascii import b2a_base64
from collections.abc import Iterator
from typing import Any, NamedTuple

from metasrv.grpc_api.context import WholeView
from metasrv.model.types import DATA_VERSION, ZERO_LOG_ID, LogId, Membership, Node, SeqV
from metasrv.protocol.proto import meta_pb2 as pb

HEADER_TREE = "header"
LOG_TREE = "raft_log"
STATE_TREE = "state_machine/0"
ARCHIVE_TREE = "archive"
ARCHIVE_FORMAT = 1
ARCHIVE_FORMAT_WITH_SECRETS = 2
"""The same with lines of kind `Secret`, which a reader of format 1 would not restore."""
SECRETS_NONE = "all values; not the key that signs client tokens, no users, no certificate"
SECRETS_HELD = "all values, the key that signs client tokens, users with the hashes of their passwords; no certificate"
"""What an archive holds that has to be kept from others."""

CHUNK_SIZE_BYTES_TARGET = 1024 * 1024
"""A message that has grown to this size is sent with fewer lines than asked for."""
PAGE_LINES = 64
"""About how many lines the helper thread hands over at once: a millisecond of work."""
ARCHIVE_PAGE_RECORDS = 256
"""The same for an archive, whose lines take a fraction of the time."""

_NUMBERS = tuple(map(str, range(256)))
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class ArchiveHead(NamedTuple):
    """The first line of an archive: what it is a backup of."""

    cluster_id: str | None
    node_id: int | None
    saved_at_ms: int
    """Wall clock."""
    confirmed: bool
    """A quorum confirmed that the node had everything that was acknowledged before."""
    last_log_index: int
    """The end of the node's log."""
    leader_id: int | None
    """Whom the node knew as leader."""
    features: tuple[str, ...]
    """The features that are on, which the other lines do not say."""
    holds_secrets: bool = False
    """Lines with the key of tokens and with users follow."""
    secrets: str = SECRETS_NONE
    """The same in words."""
    format: int = ARCHIVE_FORMAT
    migrating_from: str = ""
    """The cluster whose records were being moved into this one, of which the archive has only some; else empty."""

    def with_secrets(self) -> ArchiveHead:
        """The head of an archive that holds them."""
        return self._replace(holds_secrets=True, secrets=SECRETS_HELD, format=ARCHIVE_FORMAT_WITH_SECRETS)

    def line(self) -> str:
        body = self._asdict()
        if not self.migrating_from:
            del body["migrating_from"]
        return archive_line("Head", body)


def archive_line(kind: str, body: dict[str, Any]) -> str:
    """One of the two lines that make lines of a backup an archive."""
    return _line(ARCHIVE_TREE, kind, body)


def export_lines(view: WholeView, node_id: int, purged: LogId | None, head: ArchiveHead | None = None) -> Iterator[str]:
    """Every line in order: header, log positions, scalars, nodes, expiry index, records.

    `purged` is the last entry that the node's log has no more. With `head` they are those of an archive: values are in
    base64, a third as long.
    """
    if head is not None:
        yield head.line()
        if head.holds_secrets:
            for name, secret in view.secrets.items():
                yield archive_line("Secret", {"name": name, "data": b64encode(secret).decode()})
    applied = None if view.last_applied == ZERO_LOG_ID else log_id_tree(view.last_applied)
    last = view.last_applied
    vote = {"leader_id": {"term": last.term, "node_id": last.node_id}, "committed": True}
    yield _line(HEADER_TREE, "DataHeader", {"key": "header", "value": {"version": DATA_VERSION}})
    yield _line(LOG_TREE, "NodeId", node_id)
    yield _line(LOG_TREE, "Vote", vote)
    yield _line(LOG_TREE, "Committed", applied)
    yield _line(LOG_TREE, "Purged", None if purged is None else log_id_tree(purged))
    yield _line(STATE_TREE, "Sequences", {"key": "generic-kv", "value": view.last_seq})
    if applied is not None:
        yield _line(STATE_TREE, "StateMachineMeta", {"key": "LastApplied", "value": {"LogId": applied}})
    stored = _membership_tree(view.membership_log_id, view.membership)
    yield _line(STATE_TREE, "StateMachineMeta", {"key": "LastMembership", "value": {"Membership": stored}})
    for registered in view.nodes.values():
        yield _line(STATE_TREE, "Nodes", {"key": registered.node_id, "value": _node_tree(registered)})
    for expire_ms, seq, key in view.expire_index():
        yield _line(STATE_TREE, "Expire", {"key": {"time_ms": expire_ms, "seq": seq}, "value": {"seq": seq, "key": key}})
    value_text = _numbers if head is None else _base64
    for key, record in view.records(PAGE_LINES if head is None else ARCHIVE_PAGE_RECORDS):
        yield _record_line(key, record, value_text(record.data))


def export_messages(
    view: WholeView, node_id: int, purged: LogId | None, chunk_lines: int, head: ArchiveHead | None = None
) -> Iterator[list[bytes]]:
    """The lines as encoded ExportedChunk messages of at most `chunk_lines` lines, some messages at a time."""
    page: list[bytes] = []
    chunk: list[str] = []
    page_lines = page_size = chunk_size = 0
    page_lines_max = PAGE_LINES if head is None else ARCHIVE_PAGE_RECORDS
    for line in export_lines(view, node_id, purged, head):
        chunk.append(line)
        chunk_size += len(line)
        if len(chunk) < chunk_lines and chunk_size < CHUNK_SIZE_BYTES_TARGET:
            continue
        page.append(pb.ExportedChunk(data=chunk).SerializeToString())
        page_lines += len(chunk)
        page_size += chunk_size
        chunk, chunk_size = [], 0
        if page_lines >= page_lines_max or page_size >= CHUNK_SIZE_BYTES_TARGET:
            yield page
            page, page_lines, page_size = [], 0, 0
    if chunk:
        page.append(pb.ExportedChunk(data=chunk).SerializeToString())
    if page:
        yield page


def log_id_tree(log_id: LogId) -> dict[str, Any]:
    return {"leader_id": {"term": log_id.term, "node_id": log_id.node_id}, "index": log_id.index}


def _line(tree: str, kind: str, body: Any) -> str:
    return _encode([tree, {kind: body}])


def _record_line(key: str, record: SeqV, value_text: str) -> str:
    meta = ""
    if record.meta is not None:
        meta = ",".join(f'"{name}":{value}' for name, value in record.meta._asdict().items() if value is not None)
    return (
        f'["{STATE_TREE}",{{"GenericKV":{{"key":{_encode(key)},"value":'
        f'{{"seq":{record.seq},"meta":{{{meta}}},"data":{value_text}}}}}}}]'
    )


def _numbers(data: bytes) -> str:
    # The array of bytes is by far the largest part; joining numbers takes a third of the time that the encoder takes.
    return f"[{','.join([_NUMBERS[byte] for byte in data])}]"


def _base64(data: bytes) -> str:
    return f'"{b2a_base64(data, newline=False).decode()}"'


def _membership_tree(log_id: LogId, membership: Membership) -> dict[str, Any]:
    members = sorted({*membership.voters, *membership.learners})
    return {
        "log_id": None if log_id == ZERO_LOG_ID else log_id_tree(log_id),
        "membership": {
            "configs": [sorted(membership.voters)],
            "nodes": {str(node_id): {} for node_id in members},
        },
    }


def _node_tree(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "endpoint": {"addr": node.endpoint.addr, "port": node.endpoint.port},
        "grpc_api_advertise_address": node.grpc_api_advertise_address,
    }
