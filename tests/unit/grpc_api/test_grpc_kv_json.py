"""The JSON of KvApi and KvReadV1 (docs/contract/grpc.md section c)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.grpc_api.kv_json import (
    GetKeys,
    ListPrefix,
    parse_read,
    parse_write,
    record_tree,
    upsert_reply_text,
)
from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import KVMeta, SeqV


def upsert(**fields: Any) -> c.Upsert:
    body = {"key": "k", "seq": "Any", "value": {"Update": [1, 2]}, "value_meta": None, **fields}
    return parse_write(json.dumps({"UpsertKV": body}))


def test_upserts() -> None:
    anything = c.MatchSeq(c.MatchKind.ANY)
    assert upsert() == c.Upsert("k", anything, c.Operation.UPDATE, b"\x01\x02")
    assert upsert(seq={"Exact": 5}).match == c.MatchSeq(c.MatchKind.EXACT, 5)
    assert upsert(seq={"GE": 1}).match == c.MatchSeq(c.MatchKind.GREATER_EQUAL, 1)
    assert upsert(value="Delete").operation is c.Operation.DELETE
    assert upsert(value="AsIs").operation is c.Operation.AS_IS
    assert upsert(value_meta={"expire_at": 7}).expire_at == 7
    assert upsert(value_meta={"expire_at": None, "ttl": {"millis": 9}}).ttl_ms == 9
    assert upsert(value_meta={}).expire_at is None


def test_unknown_members_are_ignored_and_absent_options_are_null() -> None:
    text = '{"UpsertKV":{"key":"k","seq":"Any","value":"Delete","later":1}}'
    assert parse_write(text) == c.Upsert("k", c.MatchSeq(c.MatchKind.ANY), c.Operation.DELETE)


def test_reads() -> None:
    assert parse_read('{"GetKV":{"key":"k"}}') == GetKeys(["k"], False)
    assert parse_read('{"GetKV": {"key": "k"}}') == GetKeys(["k"], False)
    assert parse_read('{"GetKV":{"key":"\\u0041\\n\\"é"}}') == GetKeys(['A\n"é'], False)
    assert parse_read('{"GetKV":{"key":""}}') == GetKeys([""], False)
    assert parse_read('{"MGetKV":{"keys":["b","a","b"]}}') == GetKeys(["b", "a", "b"], True)
    assert parse_read('{"MGetKV":{"keys":[]}}') == GetKeys([], True)
    assert parse_read('{"ListKV":{"prefix":""}}') == ListPrefix("")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '"GetKV"',
        '{"GetKV":null}',
        '{"GetKV":{}}',
        '{"GetKV":{"key":1}}',
        '{"GetKV":{"key":"a\nb"}}',
        '{"GetKV":{"key":"a"}}}',
        '{"GetKV":{"key":"\\ud800"}}',
        '{"MGetKV":{"keys":"a"}}',
        '{"MGetKV":{"keys":[null]}}',
        '{"ListKV":[]}',
        '{"ListKV":["a","b"]}',
        '{"ListKV":{"prefix":"a","prefix":"a"}}',
        '{"ListKV":{"prefix":"a"},"ListKV":{"prefix":"a"}}',
        '{"ListKV":{"prefix":"a","later":NaN}}',
        '{"ListKV":{"prefix":"a","later":-Infinity}}',
        '{"ListKV":{"prefix":"a","\\ud800":1}}',
        '{"GetKV":{"key":"a"},"ListKV":{"prefix":"b"}}',
        '{"UpsertKV":{}}',
        "[" * 100_000,
        "1" * 5000,
    ],
)
def test_other_reads_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_read(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"key": None},
        {"seq": None},
        {"seq": "Exact"},
        {"seq": {"Exact": -1}},
        {"seq": {"Exact": 2**64}},
        {"seq": {"Exact": True}},
        {"seq": {"Any": 1}},
        {"value": "Update"},
        {"value": {"Update": [256]}},
        {"value": {"Update": [-1]}},
        {"value": {"Update": ["1"]}},
        {"value": {"Update": [True]}},
        {"value": {"Update": "text"}},
        {"value_meta": []},
        {"value_meta": {"ttl": 5}},
        {"value_meta": {"expire_at": 1.5}},
        {"value_meta": {"ttl": {"millis": None}}},
    ],
)
def test_other_upserts_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        upsert(**fields)


@pytest.mark.parametrize(
    "body",
    [
        '{"key":"k","seq":{"Exact":-0},"value":"Delete"}',
        '{"key":"k","seq":{"GE":-0},"value":"Delete"}',
        '{"key":"k","seq":"Any","value":{"Update":[1,-0]}}',
        '{"key":"k","seq":"Any","value":"Delete","value_meta":{"expire_at":-0}}',
        '{"key":"k","seq":"Any","value":"Delete","value_meta":{"ttl":{"millis":-0}}}',
        '{"key":"k","seq":{"Exact":1,"Exact":1},"value":"Delete"}',
        '{"key":"k","key":"k","seq":"Any","value":"Delete"}',
        '{"key":"k","seq":"Any","value":"Delete","value_meta":{"ttl":{"millis":1,"millis":1}}}',
        '["k","Any","Delete"]',
        '["k","Any","Delete",null,null]',
        '["k","Any","Delete",[7]]',
        '["k","Any","Delete",[null,[]]]',
    ],
)
def test_what_serde_refuses_is_refused(body: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_write(f'{{"UpsertKV":{body}}}')


@pytest.mark.parametrize("ignored", ["-0", "1" * 5000, '{"a":1,"a":2}', '[-0,1e999,"-0"]', '"\\ud800"'])
def test_what_serde_reads_past_is_read_past(ignored: str) -> None:
    text = f'{{"ListKV":{{"prefix":"-0","later":{ignored},"later":{ignored}}}}}'
    assert parse_read(text) == ListPrefix("-0")


def test_a_struct_may_be_an_array_of_its_members() -> None:
    assert parse_write('{"UpsertKV":["k",{"GE":1},{"Update":[7]},[9,[5]]]}') == upsert(
        seq={"GE": 1}, value={"Update": [7]}, value_meta={"expire_at": 9, "ttl": {"millis": 5}}
    )
    assert parse_write('{"UpsertKV":["k","Any","Delete",null]}') == upsert(value="Delete")
    assert parse_read('{"GetKV":["k"]}') == GetKeys(["k"], False)
    assert parse_read('{"MGetKV":[["a","b"]]}') == GetKeys(["a", "b"], True)
    assert parse_read('{"ListKV":["p"]}') == ListPrefix("p")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["UpsertKV", "GetKV", "MGetKV", "ListKV", "key", "keys", "prefix", "seq", "value", "ttl"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON.map(json.dumps) | st.text(max_size=40))
def test_anything_is_understood_or_refused(text: str) -> None:
    for parse in (parse_read, parse_write):
        try:
            understood = isinstance(parse(text), c.Upsert | GetKeys | ListPrefix)
        except InvalidRequestError:
            understood = True
        assert understood


def test_replies() -> None:
    record = SeqV(3, b"\x00\xff", KVMeta(None, 9))
    assert upsert_reply_text(c.UpsertReply(None, record)) == (
        '{"ident":null,"prev":null,"result":{"seq":3,"meta":{"proposed_at_ms":9},"data":[0,255]}}'
    )
    assert record_tree(SeqV(1, b"", KVMeta())) == {"seq": 1, "meta": {}, "data": []}
    assert record_tree(SeqV(1, b"", None)) == {"seq": 1, "meta": None, "data": []}
