"""Encrypts an archive as it is written and decrypts it as it is read, in chunks; `--encrypt-with` and `[backup]`.

    metasrv-encrypted-archive\\n
    {"format":1,"cipher":"chacha20-poly1305","chunk_size":65536,"key":"scrypt" or "raw","salt":…,…}\\n
    chunks: 65,536 bytes each and a tag of 16 bytes; the last one may be shorter, and is marked as the last

The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015): the nonce of a chunk is its number and whether it
is the last, and the two lines above are authenticated with each. So nothing can be changed, left out, moved or cut off
without being noticed. Each file has a key of its own, derived from the given one with the salt. Knows no archive. Runs
in a helper thread or a program of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from base64 import b64decode, b64encode
from typing import Any, BinaryIO, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from metasrv.model.errors import BackupError
from metasrv.model.limits import BACKUP_KEY_FILE_SIZE_BYTES_MAX

MAGIC = b"metasrv-encrypted-archive\n"
CHUNK_SIZE_BYTES = 64 * 1024
KEY_SIZE_BYTES = 32
PASSPHRASE_CHARACTERS_MIN = 12
SCRYPT_COST = 2**15
"""Takes 32 MiB and a tenth of a second."""
_SCRYPT_COST_MAX = 2**20
_SCRYPT_BLOCK_SIZE, _SCRYPT_MEMORY_BYTES_MAX = 8, 2**31 - 1
_TAG_SIZE_BYTES = 16
_SALT_SIZE_BYTES = 16
_HEAD_SIZE_BYTES_MAX = 4096
_INFO = b"metasrv archive"


class ArchiveKey(NamedTuple):
    """What a file holds: 32 bytes are a key, anything else a passphrase."""

    secret: bytes
    path: str

    @property
    def kind(self) -> str:
        return "raw" if len(self.secret) == KEY_SIZE_BYTES else "scrypt"


def load_key(path: str) -> ArchiveKey:
    """The key in a file: exactly 32 bytes, or a line of text. Raises BackupError."""
    try:
        with open(path, "rb") as file:
            secret = file.read(BACKUP_KEY_FILE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise BackupError(f"the key of the archive, {path}, cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # the path holds a zero character
        raise BackupError(f"the key of the archive, {path!r}, cannot be read: {error}") from error
    if len(secret) > BACKUP_KEY_FILE_SIZE_BYTES_MAX:
        raise BackupError(f"{path} is no key: it has more than {BACKUP_KEY_FILE_SIZE_BYTES_MAX} bytes")
    if len(secret) != KEY_SIZE_BYTES:
        secret = secret.strip()
        if len(secret) < PASSPHRASE_CHARACTERS_MIN:
            raise BackupError(
                f"{path} is no key: it has neither {KEY_SIZE_BYTES} bytes nor a passphrase of at least "
                f"{PASSPHRASE_CHARACTERS_MIN} characters; `openssl rand -hex 32 >FILE` makes one"
            )
    return ArchiveKey(secret, path)


class Encryptor:
    """Turns what is written into an encrypted archive."""

    def __init__(self, key: ArchiveKey) -> None:
        salt = os.urandom(_SALT_SIZE_BYTES)
        head: dict[str, Any] = {
            "format": 1,
            "cipher": "chacha20-poly1305",
            "chunk_size": CHUNK_SIZE_BYTES,
            "key": key.kind,
            "salt": b64encode(salt).decode(),
        }
        if key.kind == "scrypt":
            head["cost"] = SCRYPT_COST
        self.head = MAGIC + json.dumps(head, separators=(",", ":")).encode() + b"\n"
        """Stands before everything else."""
        self._cipher = ChaCha20Poly1305(_file_key(key, salt, SCRYPT_COST))
        self._waiting = bytearray()
        self._number = 0

    def update(self, data: bytes) -> bytes:
        """What is to be written now; a rest waits for more."""
        self._waiting += data
        done = []
        while len(self._waiting) > CHUNK_SIZE_BYTES:  # one that is exactly full may be the last
            done.append(self._sealed(bytes(self._waiting[:CHUNK_SIZE_BYTES]), last=False))
            del self._waiting[:CHUNK_SIZE_BYTES]
        return b"".join(done)

    def finish(self) -> bytes:
        """The last chunk."""
        return self._sealed(bytes(self._waiting), last=True)

    def _sealed(self, chunk: bytes, *, last: bool) -> bytes:
        self._number += 1
        return self._cipher.encrypt(_nonce(self._number, last), chunk, self.head)


class Encrypted:
    """A file whose content is encrypted on its way; `finish` before it is closed."""

    def __init__(self, file: BinaryIO, key: ArchiveKey) -> None:
        self._file, self._encryptor = file, Encryptor(key)
        file.write(self._encryptor.head)

    def write(self, data: bytes, /) -> None:
        self._file.write(self._encryptor.update(data))

    def finish(self) -> None:
        self._file.write(self._encryptor.finish())


class _Decrypting(io.RawIOBase):
    """The archive in an encrypted file, chunk by chunk; the file is past its first line."""

    def __init__(self, file: BinaryIO, key: ArchiveKey, name: str) -> None:
        self._file, self._name = file, name
        line = file.readline(_HEAD_SIZE_BYTES_MAX)
        self._head = MAGIC + line
        try:
            head = json.loads(line)
            if head["format"] != 1 or head["cipher"] != "chacha20-poly1305":
                raise BackupError(f"{name}: it is encrypted in a way that this version of metactl does not know")
            self._chunk_size = int(head["chunk_size"])
            salt, kind, cost = b64decode(head["salt"]), head["key"], int(head.get("cost", SCRYPT_COST))
            if not 0 < self._chunk_size <= 2**24 or not 2 <= cost <= _SCRYPT_COST_MAX or cost & (cost - 1):
                raise ValueError("a number is out of range")
        except (ValueError, TypeError, KeyError) as error:
            raise BackupError(f"{name}: the line that says how it is encrypted is damaged: {error!r}") from error
        if kind != key.kind:
            wanted = f"a key of {KEY_SIZE_BYTES} bytes" if kind == "raw" else "a passphrase"
            raise BackupError(f"{name}: it was encrypted with {wanted}, and {key.path} holds another kind of key")
        self._cipher = ChaCha20Poly1305(_file_key(key, salt, cost))
        self._next = self._sealed_chunk()
        self._number = 0
        self._open = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._open:
            if self._next is None:
                return 0
            self._open = memoryview(self._opened())
        taken = min(len(buffer), len(self._open))
        buffer[:taken] = self._open[:taken]
        self._open = self._open[taken:]
        return taken

    def _opened(self) -> bytes:
        sealed, self._next = self._next or b"", self._sealed_chunk()
        last = not self._next
        if last:
            self._next = None
        self._number += 1
        try:
            return self._cipher.decrypt(_nonce(self._number, last), sealed, self._head)
        except InvalidTag as error:
            where = f"{self._name}: chunk {self._number}"
            if self._number == 1 and not last:
                raise BackupError(f"{where} cannot be decrypted: another key, or it is damaged") from error
            if last:
                why = "the archive was cut off, it is damaged" + (
                    ", or the key is another one" if self._number == 1 else ""
                )
                raise BackupError(f"{where}, the last one, cannot be decrypted: {why}") from error
            raise BackupError(f"{where} cannot be decrypted: the archive is damaged") from error

    def _sealed_chunk(self) -> bytes | None:
        wanted = self._chunk_size + _TAG_SIZE_BYTES
        parts: list[bytes] = []
        while wanted and (part := self._file.read(wanted)):
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)


def opened_archive_in(file: BinaryIO, key: ArchiveKey | None, name: str) -> tuple[BinaryIO, bool]:
    """The lines of an archive that may be encrypted, and whether it is. Raises BackupError, OSError.

    A key for an archive that is not encrypted is an error: whoever gives one relies on it.
    """
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file, CHUNK_SIZE_BYTES)  # type: ignore[type-var]
    encrypted = buffered.peek(len(MAGIC))[: len(MAGIC)] == MAGIC
    if encrypted and key is None:
        raise BackupError(f"{name}: it is encrypted; `--decrypt-with FILE` names the file with its key")
    if key is None:
        return buffered, False
    if not encrypted:
        raise BackupError(f"{name}: it is not encrypted, so anybody may have changed it; leave --decrypt-with out")
    buffered.read(len(MAGIC))
    return io.BufferedReader(_Decrypting(buffered, key, name), CHUNK_SIZE_BYTES), True


def _file_key(key: ArchiveKey, salt: bytes, cost: int) -> bytes:
    if key.kind == "raw":
        return HKDF(algorithm=SHA256(), length=KEY_SIZE_BYTES, salt=salt, info=_INFO).derive(key.secret)
    return hashlib.scrypt(
        key.secret,
        salt=salt,
        n=cost,
        r=_SCRYPT_BLOCK_SIZE,
        p=1,
        maxmem=_SCRYPT_MEMORY_BYTES_MAX,
        dklen=KEY_SIZE_BYTES,
    )


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes((last,))
