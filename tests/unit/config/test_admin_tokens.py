"""The file of tokens: its lines, its limits, and that no sentence shows a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from metasrv.config import admin_tokens
from metasrv.config.admin_tokens import Scope, Tokens, load
from metasrv.model.errors import ConfigError
from metasrv.model.limits import (
    ADMIN_TOKEN_CHARACTERS_MIN,
    ADMIN_TOKENS_FILE_SIZE_BYTES_MAX,
    ADMIN_TOKENS_MAX,
)

OLD, NEW, OPS = "old-0123456789abcdef", "new-0123456789abcdef", "ops:0123:456789abcdef"


def load_text(tmp_path: Path, text: str) -> Tokens:
    file = tmp_path / "tokens"
    file.write_text(text, encoding="utf-8")
    return load(str(file))


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    return [problem.replace(str(tmp_path), "") for problem in caught.value.problems]


def test_every_line_is_a_token_and_one_name_may_have_several(tmp_path: Path) -> None:
    tokens = load_text(tmp_path, f"# rotation\n\n  prom:read:{OLD}\nprom:read:{NEW}\r\nops:operate:{OPS}\n")
    found = [tokens.find(text.encode()) for text in (OLD, NEW, OPS)]
    assert [(token.name, token.scope) for token in found if token] == [
        ("prom", Scope.READ),
        ("prom", Scope.READ),
        ("ops", Scope.OPERATE),
    ]
    assert tokens.find(b"") is None
    assert tokens.find(OLD.encode() + b"x") is None
    assert OLD not in repr(vars(tokens))


def test_a_file_that_is_read_again_replaces_what_was_valid(tmp_path: Path) -> None:
    assert load_text(tmp_path, f"prom:read:{OLD}").find(OLD.encode()) is not None
    assert load_text(tmp_path, f"prom:read:{NEW}").find(OLD.encode()) is None


def test_all_tokens_are_compared_whatever_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    tokens = load_text(tmp_path, f"a:read:{OLD}\nb:read:{NEW}\nc:operate:{OPS}")
    monkeypatch.setattr(admin_tokens, "compare_digest", counted)
    for given in (OLD, OPS, "wrong"):
        compared.clear()
        tokens.find(given.encode())
        assert len(compared) == 3


def test_operating_includes_reading() -> None:
    assert Scope.OPERATE.covers(Scope.READ)
    assert Scope.OPERATE.covers(Scope.OPERATE)
    assert Scope.READ.covers(Scope.READ)
    assert not Scope.READ.covers(Scope.OPERATE)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (OPS, "a line is `name:scope:token`, and a scope is read or operate"),
        (f"prom:write:{OLD}", "a line is `name:scope:token`, and a scope is read or operate"),
        (f"prom:{OLD}", "a line is `name:scope:token`, and a scope is read or operate"),
        (f":read:{OLD}", "a name has 1 to 64 letters, digits or `_.@-`, and is not `admin_token`"),
        (f"admin_token:read:{OLD}", "a name has 1 to 64 letters, digits or `_.@-`, and is not `admin_token`"),
        (f"prom:read:{OLD} x", "the token of prom must have at least 16 characters and no white space"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_without_the_token(tmp_path: Path, line: str, sentence: str) -> None:
    found = problems(tmp_path, f"first:read:{NEW}\n{line}\n")
    assert found == [f"`admin_tokens_file`: /tokens line 2: {sentence}"]
    assert "0123" not in found[0]


def test_one_token_cannot_have_two_names(tmp_path: Path) -> None:
    found = problems(tmp_path, f"a:read:{OLD}\nb:operate:{OLD}")
    assert found == ["`admin_tokens_file`: /tokens line 2: the token of b stands on an earlier line already"]


def test_an_empty_file_opens_nothing(tmp_path: Path) -> None:
    assert problems(tmp_path, "# nothing\n") == [
        "`admin_tokens_file`: /tokens has no token; a line is `name:scope:token`"
    ]


@pytest.mark.parametrize("past", [0, 1])
def test_a_token_has_so_many_characters(tmp_path: Path, past: int) -> None:
    text = "prom:read:" + "x" * (ADMIN_TOKEN_CHARACTERS_MIN - past)
    if past:
        assert "at least 16 characters" in problems(tmp_path, text)[0]
    else:
        assert len(load_text(tmp_path, text)) == 1


@pytest.mark.parametrize("past", [0, 1])
def test_so_many_tokens_are_taken(tmp_path: Path, past: int) -> None:
    text = "\n".join(f"prom:read:{number:020}" for number in range(ADMIN_TOKENS_MAX + past))
    if past:
        assert "has 65 tokens, at most 64 are taken" in problems(tmp_path, text)[0]
    else:
        assert len(load_text(tmp_path, text)) == ADMIN_TOKENS_MAX


@pytest.mark.parametrize("past", [0, 1])
def test_a_file_of_tokens_has_so_many_bytes(tmp_path: Path, past: int) -> None:
    line = f"prom:read:{OLD}\n"
    text = line + "#" * (ADMIN_TOKENS_FILE_SIZE_BYTES_MAX - len(line) + past)
    if past:
        assert "is larger than 65536 bytes" in problems(tmp_path, text)[0]
    else:
        assert len(load_text(tmp_path, text)) == 1


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load(str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="is not a path"):
        load("\0")
    assert "is not ASCII text: byte 10 is wrong" in problems(tmp_path, "prom:read:\xe4")[0]
