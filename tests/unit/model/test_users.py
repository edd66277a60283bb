"""Users as they are stored, and what their rights cover."""

from __future__ import annotations

import pytest

from metasrv.model.errors import CodecError, InvalidRequestError, TooLargeError
from metasrv.model.limits import USER_NAME_CHARACTERS_MAX, USER_RIGHTS_MAX
from metasrv.model.users import Grant, Right, User, check_user, user_in, user_names, user_out
from metasrv.model.wire import pack

APP = User("app", None, "abc", (Grant(Right.READ, "shared/"), Grant(Right.WRITE, "app/")))


def test_a_user_comes_back_as_it_was_stored() -> None:
    assert user_in("app", user_out(APP)) == APP
    assert repr(user_in("app", user_out(APP))) == repr(APP)
    with_password = APP._replace(stored_password="$scrypt$", grants=())
    assert user_in("app", user_out(with_password)) == with_password


@pytest.mark.parametrize(
    "tree",
    [None, 1, (), (2, None, "abc", ()), (1, b"x", "abc", ()), (1, None, 1, ()), (1, None, "a", ((2, "p"),)),
     (1, None, "a", ((0, b"p"),)), (1, None, "a", 5), (1, None, "a", (), ())],
)  # fmt: skip
def test_anything_else_is_no_user(tree: object) -> None:
    with pytest.raises(CodecError):
        user_in("app", pack(tree))
    with pytest.raises(CodecError):
        user_in("app", b"")


def test_names_are_found_among_the_secrets() -> None:
    assert user_names({"user/b": b"", "grpc-token-key": b"", "user/a": b""}) == ["a", "b"]


@pytest.mark.parametrize(
    ("right", "start", "may"),
    [
        (Right.READ, "shared/x", True),
        (Right.READ, "shared/", True),
        (Right.READ, "shared", False),
        (Right.READ, "", False),
        (Right.WRITE, "shared/x", False),
        (Right.WRITE, "app/x", True),
        (Right.READ, "app/x", True),
        (Right.READ, "App/x", False),
    ],
)
def test_a_right_covers_its_prefix_and_writing_includes_reading(right: Right, start: str, may: bool) -> None:
    assert APP.may(right, start) is may


def test_names_have_a_form_and_a_limit() -> None:
    for fine in ("a", "A.b_c@d-9", "x" * USER_NAME_CHARACTERS_MAX):
        check_user(APP._replace(name=fine))
    for bad in ("", "root", "a/b", "a b", "\u00e9", "a\n"):
        with pytest.raises(InvalidRequestError):
            check_user(APP._replace(name=bad))
    with pytest.raises(TooLargeError):
        check_user(APP._replace(name="x" * (USER_NAME_CHARACTERS_MAX + 1)))


def test_rights_have_a_limit_and_passwords_a_form() -> None:
    rights = tuple(Grant(Right.READ, f"{number}/") for number in range(USER_RIGHTS_MAX))
    check_user(APP._replace(grants=rights))
    with pytest.raises(TooLargeError, match="the rights of user app"):
        check_user(APP._replace(grants=(*rights, Grant(Right.READ, "one more"))))
    with pytest.raises(InvalidRequestError, match="a stored password"):
        check_user(APP._replace(stored_password="plain"))
