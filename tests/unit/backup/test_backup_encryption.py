"""Encrypted archives: what goes in comes out, and nothing else is taken for it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from metasrv.backup.encryption import CHUNK_SIZE_BYTES, MAGIC, ArchiveKey, Encryptor, load_key, opened_archive_in
from metasrv.model.errors import BackupError
from metasrv.model.limits import BACKUP_KEY_FILE_SIZE_BYTES_MAX

RAW = ArchiveKey(bytes(range(32)), "raw.key")
PASSPHRASE = ArchiveKey(b"correct horse battery staple", "words.key")
TAG_SIZE_BYTES = 16


def encrypted(data: bytes, key: ArchiveKey = RAW, step: int = 10_000) -> bytes:
    encryptor = Encryptor(key)
    parts = [encryptor.head]
    parts += [encryptor.update(data[start : start + step]) for start in range(0, len(data), step)]
    return b"".join([*parts, encryptor.finish()])


def decrypted(data: bytes, key: ArchiveKey | None = RAW) -> bytes:
    file, is_encrypted = opened_archive_in(io.BufferedReader(io.BytesIO(data)), key, "the backup")
    assert is_encrypted == (key is not None)
    return file.read()


@pytest.mark.parametrize("key", [RAW, PASSPHRASE])
@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_SIZE_BYTES - 1, CHUNK_SIZE_BYTES, CHUNK_SIZE_BYTES + 1, 3 * CHUNK_SIZE_BYTES]
)
def test_what_was_encrypted_is_decrypted(key: ArchiveKey, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    sealed = encrypted(data, key)
    assert sealed.startswith(MAGIC)
    assert len(data) < 100 or data[:100] not in sealed
    assert decrypted(sealed, key) == data


def test_two_archives_of_the_same_differ_everywhere() -> None:
    first, second = encrypted(b"x" * 1000), encrypted(b"x" * 1000)
    assert first[-1000:] != second[-1000:]


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_an_archive_that_was_cut_off_between_chunks_is_noticed(chunks: int) -> None:
    sealed = encrypted(bytes(4 * CHUNK_SIZE_BYTES - 7))
    head_size = sealed.index(b"\n", len(MAGIC)) + 1
    cut = sealed[: head_size + chunks * (CHUNK_SIZE_BYTES + TAG_SIZE_BYTES)]
    with pytest.raises(BackupError, match="the last one, cannot be decrypted: the archive was cut off"):
        decrypted(cut)


@pytest.mark.parametrize("where", ["head", "chunk", "last", "swapped", "appended"])
def test_every_change_is_noticed(where: str) -> None:
    sealed = bytearray(encrypted(bytes(2 * CHUNK_SIZE_BYTES + 100)))
    head_size = sealed.index(b"\n", len(MAGIC)) + 1
    size = CHUNK_SIZE_BYTES + TAG_SIZE_BYTES
    if where == "head":
        sealed[:head_size] = sealed[:head_size].replace(b'"format":1', b'"format": 1')
    elif where == "chunk":
        sealed[head_size + 5] ^= 1
    elif where == "last":
        sealed[-1] ^= 1
    elif where == "swapped":
        first, second = sealed[head_size : head_size + size], sealed[head_size + size : head_size + 2 * size]
        sealed[head_size : head_size + 2 * size] = second + first
    else:
        sealed += b"more"
    with pytest.raises(BackupError, match="cannot be decrypted"):
        decrypted(bytes(sealed))


def test_the_wrong_key_the_wrong_kind_of_key_and_no_key_are_sentences() -> None:
    sealed = encrypted(b"data")
    with pytest.raises(BackupError, match="the key is another one"):
        decrypted(sealed, ArchiveKey(bytes(32), "other.key"))
    with pytest.raises(BackupError, match=r"encrypted with a key of 32 bytes, and words\.key holds another kind"):
        decrypted(sealed, PASSPHRASE)
    with pytest.raises(BackupError, match="it is encrypted; `--decrypt-with FILE`"):
        decrypted(sealed, None)
    with pytest.raises(BackupError, match="it is not encrypted, so anybody may have changed it"):
        decrypted(b"[]\n")
    assert decrypted(b"[]\n", None) == b"[]\n"


@pytest.mark.parametrize(
    "head",
    [
        {"format": 2, "cipher": "chacha20-poly1305"},
        {"format": 1, "cipher": "none"},
        {"format": 1, "cipher": "chacha20-poly1305", "chunk_size": 0, "salt": "", "key": "raw"},
        {"format": 1, "cipher": "chacha20-poly1305", "chunk_size": 1, "salt": "", "key": "scrypt", "cost": 2**40},
        {},
    ],
)
def test_a_head_that_asks_for_too_much_is_refused(head: dict[str, object]) -> None:
    with pytest.raises(BackupError, match=r"does not know|is damaged"):
        decrypted(MAGIC + json.dumps(head).encode() + b"\n" + bytes(100))


def test_a_key_file_has_32_bytes_or_a_passphrase(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(bytes(32))
    assert load_key(str(file)).kind == "raw"
    file.write_text("correct horse battery staple\n")
    assert load_key(str(file)) == ArchiveKey(b"correct horse battery staple", str(file))
    for content in (b"", b"short\n", b"x" * (BACKUP_KEY_FILE_SIZE_BYTES_MAX + 1)):
        file.write_bytes(content)
        with pytest.raises(BackupError, match="is no key"):
            load_key(str(file))
    with pytest.raises(BackupError, match=r"cannot be read: No such file or directory$"):
        load_key(str(tmp_path / "none"))
    with pytest.raises(BackupError, match=r"cannot be read: embedded null byte$"):
        load_key("a\0b")
