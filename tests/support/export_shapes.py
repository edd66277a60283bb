"""What each line of an export in upstream's form has, as shapes of parsed lines (docs/contract/grpc.md section g)."""

from __future__ import annotations


def is_log_id(value: object) -> bool:
    return shaped(value, {"leader_id": {"term": int, "node_id": int}, "index": int})


def shaped(value: object, shape: object) -> bool:
    """Whether a JSON value has exactly these members, of these kinds; a callable decides by itself."""
    if isinstance(shape, dict):
        same = isinstance(value, dict) and value.keys() == shape.keys()
        return same and all(shaped(value[name], each) for name, each in shape.items())  # type: ignore[index]
    if isinstance(shape, type):
        return type(value) is shape
    return bool(shape(value)) if callable(shape) else value == shape


def is_byte_array(value: object) -> bool:
    return isinstance(value, list) and all(type(byte) is int and 0 <= byte < 256 for byte in value)


def is_metadata(value: object) -> bool:
    known = {"expire_at", "proposed_at_ms"}
    return isinstance(value, dict) and value.keys() <= known and all(type(number) is int for number in value.values())


def is_text_or_nothing(value: object) -> bool:
    return value is None or isinstance(value, str)


STATE = "state_machine/0"


def first_lines(node_id: int) -> tuple[tuple[str, object], ...]:
    """The lines that docs/contract/grpc.md section g numbers 1 to 9, of a cluster of this node alone."""
    membership = {"configs": [[node_id]], "nodes": {str(node_id): {}}}
    last_membership = {"Membership": {"log_id": is_log_id, "membership": membership}}
    endpoint = {"addr": str, "port": int}
    node = {"name": str(node_id), "endpoint": endpoint, "grpc_api_advertise_address": is_text_or_nothing}
    return (
        ("header", {"DataHeader": {"key": "header", "value": {"version": "V004"}}}),
        ("raft_log", {"NodeId": node_id}),
        ("raft_log", {"Vote": {"leader_id": {"term": int, "node_id": int}, "committed": True}}),
        ("raft_log", {"Committed": is_log_id}),
        ("raft_log", {"Purged": lambda value: value is None or is_log_id(value)}),
        (STATE, {"Sequences": {"key": "generic-kv", "value": int}}),
        (STATE, {"StateMachineMeta": {"key": "LastApplied", "value": {"LogId": is_log_id}}}),
        (STATE, {"StateMachineMeta": {"key": "LastMembership", "value": last_membership}}),
        (STATE, {"Nodes": {"key": node_id, "value": node}}),
    )


EXPIRE = {"Expire": {"key": {"time_ms": int, "seq": int}, "value": {"seq": int, "key": str}}}
RECORD = {"GenericKV": {"key": str, "value": {"seq": int, "meta": is_metadata, "data": is_byte_array}}}
