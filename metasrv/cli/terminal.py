"""How metactl writes: to files and pipes what it was given, byte for byte; to a terminal what a person can read.

Keys and values may hold any text, also sequences that move a terminal's cursor, set its title or type into it. So
control characters are shown escaped there, and characters that its encoding lacks as well. Knows no command.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import unicodedata
from collections.abc import Iterator
from typing import BinaryIO, Literal, TextIO

from metasrv.model.errors import StorageError
from metasrv.process.operating_system import sync_directory, sync_file
from metasrv.process.private_files import open_private

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that a terminal obeys instead of showing: controls, directions of text, line breaks."""
_ARCHIVE_BUFFER_SIZE_BYTES = 1024 * 1024
_OWN_OUTPUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


class OutputError(StorageError):
    """Standard output does not take what a command was asked for."""


def prepare_streams() -> None:
    """Make both streams take any text: pipes and files get UTF-8 whatever the locale, a terminal its own encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def show(line: str, *, flush: bool = False) -> None:
    """Print one line to standard output; on a terminal, line breaks in it are escaped too. Raises OSError."""
    output = _standard_output()
    output.write((visible(line) if output.isatty() else line) + "\n")
    if flush:
        output.flush()


def show_text(text: str) -> None:
    """Print a text of several lines. Raises OSError."""
    for line in text.split("\n"):
        show(line)


def show_bytes(data: bytes) -> None:
    """Print bytes as they are; on a terminal, text of several lines. Raises OSError."""
    output = _standard_output()
    if output.isatty():
        lines = data.decode("utf-8", "backslashreplace").split("\n")
        output.write("\n".join(map(visible, lines)))
    else:
        output.flush()
        output.buffer.write(data)


def note(text: str) -> None:
    """Print to standard error, if anybody is there to read it."""
    if sys.stderr is None:
        return
    lines = [visible(line) for line in text.split("\n")] if sys.stderr.isatty() else [text]
    with contextlib.suppress(OSError, ValueError):
        print("\n".join(lines), file=sys.stderr, flush=True)


def finish_output() -> None:
    """Hand over what is buffered. Raises OSError."""
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_output() -> None:
    """Let nothing more be written, not even at exit: the reader has gone, or the disk is full."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def visible(text: str) -> str:
    """The text with every character escaped that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _INVISIBLE else character
        for character in text
    )


def _standard_output() -> TextIO:
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    return sys.stdout


# ----------------------------------------------------------------------------- files


@contextlib.contextmanager
def opened_for_writing(path: str) -> Iterator[TextIO]:
    """A text file that gets its name once it is complete and on disk; a device or a pipe is written to as it is.

    Raises StorageError.
    """
    if path in _OWN_OUTPUT:
        yield _standard_output()
        return
    try:
        mode = _written_through(path)
        if mode is not None:
            with open(path, mode, encoding="utf-8") as stream:
                yield stream
            return
        with _draft(path) as descriptor, open(descriptor, "w", encoding="utf-8", closefd=False) as file:
            yield file
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror}") from error


@contextlib.contextmanager
def opened_archive(path: str) -> Iterator[BinaryIO]:
    """A file for its owner alone, which gets its name once it is complete and on disk. Raises StorageError."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise StorageError(f"{path} is not a file: a device, a pipe or a directory is not replaced by an archive")
    try:
        with (
            _draft(path) as descriptor,
            open(descriptor, "wb", buffering=_ARCHIVE_BUFFER_SIZE_BYTES, closefd=False) as file,
        ):
            yield file
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror}") from error


@contextlib.contextmanager
def _draft(path: str) -> Iterator[int]:
    """The descriptor of a new file, for its owner alone, that takes the place of `path` once it is on disk."""
    place = os.path.realpath(path)
    draft = f"{place}.part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)  # a crash left it, or somebody put it there: it is not written through
    try:
        descriptor = open_private(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        try:
            yield descriptor
            sync_file(descriptor)
        finally:
            os.close(descriptor)
        os.replace(draft, place)
        sync_directory(os.path.dirname(place))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def _written_through(path: str) -> Literal["w", "a"] | None:
    """How to open a device, a pipe or another descriptor of this process, none of which may be replaced; else None."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return "w"
    return "a" if os.path.abspath(path).startswith(("/dev/fd/", "/proc/")) else None
