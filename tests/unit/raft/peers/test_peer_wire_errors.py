"""Request errors across the wire: the same class with the same fields, or an unknown outcome."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.model import errors
from metasrv.model.limits import ERROR_TEXT_CHARACTERS_MAX
from metasrv.model.wire import pack
from metasrv.raft.peers.wire_errors import decode_error, encode_error

EXAMPLES = [
    errors.InvalidRequestError("the key is empty"),
    errors.TooLargeError("a value in bytes", 17, 16),
    errors.NotDoneError("not done"),
    errors.NotLeaderError(3),
    errors.NotLeaderError(None, "no leader here"),
    errors.NoLeaderError(),
    errors.OverloadedError("full"),
    errors.StoppingError(),
    errors.UnknownOutcomeError("who knows"),
    errors.MembershipError("refused"),
    errors.ChangeInProgressError(),
    errors.JoinEndedError("removed while it joined"),
    errors.LeaveSelfError(1),
    errors.PeerUnreachableError("node 2 is not connected"),
    errors.ViewLostError("the view was given up"),
    errors.WriteRefusedError("the cluster is read-only"),
    errors.DamagedCopyError(),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was(error: Any) -> None:
    arrived = decode_error(encode_error(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_every_request_error_class_is_an_example() -> Any:
    def subclasses(kind: type) -> set[type]:
        return {kind}.union(*map(subclasses, kind.__subclasses__()))

    defined = {kind for kind in subclasses(errors.RequestError) if kind.__module__ == errors.__name__}
    assert defined - {type(example) for example in EXAMPLES} == {errors.RequestError}


def test_a_class_that_is_not_in_the_table_goes_as_its_nearest_base() -> None:
    class BusyError(errors.OverloadedError):
        pass

    assert type(decode_error(encode_error(BusyError("busy")))) is errors.OverloadedError


@pytest.mark.parametrize(
    "error", [RuntimeError("boom"), errors.CodecError("bad"), KeyError("x"), errors.RequestError("?")]
)
def test_any_other_error_is_an_unknown_outcome_that_names_it(error: Any) -> None:
    arrived = decode_error(encode_error(error))
    assert type(arrived) is errors.UnknownOutcomeError
    assert type(error).__name__ in str(arrived)


def test_an_error_without_text_and_one_that_is_not_unicode() -> None:
    assert str(decode_error(encode_error(errors.NotDoneError()))) == "NotDoneError"
    assert str(decode_error(encode_error(errors.NotDoneError("key \ud800")))) == "key \\ud800"


def test_a_text_at_the_limit_is_kept_and_one_past_it_is_cut() -> None:
    kept, cut = ("x" * size for size in (ERROR_TEXT_CHARACTERS_MAX, ERROR_TEXT_CHARACTERS_MAX + 1))
    assert str(decode_error(encode_error(errors.NotDoneError(kept)))) == kept
    assert str(decode_error(encode_error(errors.NotDoneError(cut)))) == kept


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        pack(None),
        pack((99, "text", ())),
        pack((-1, "text", ())),
        pack((3, 4, ())),
        pack((4, "text", ("no number",))),
        pack((4, "text", (1, 2, 3))),
        pack((2, "text", ())),
        pack((11, "text", (None,))),
        pack((3, "text", 7)),
    ],
)
def test_what_is_not_understood_is_an_unknown_outcome(data: Any) -> None:
    assert type(decode_error(data)) is errors.UnknownOutcomeError


@given(st.binary(max_size=200))
def test_random_bytes_never_raise(data: Any) -> None:
    assert isinstance(decode_error(data), errors.RequestError)
