"""The lines of an export into a file, as they come. Runs on the event loop of a program of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TextIO

from metasrv.model.errors import BackupError

_OWN_LINE = '["archive",'
"""How the first line of an archive begins. It is left out, because the last one does not come over the wire."""


async def write_lines(messages: AsyncIterator[Sequence[str]], path: str) -> None:
    """Write every line. Raises BackupError when the file cannot be written, and whatever `messages` raises."""

    def opened() -> TextIO:
        return open(path, "w", encoding="utf-8", newline="\n")

    try:
        with await asyncio.to_thread(opened) as file:
            async for lines in messages:
                file.write("".join(f"{line}\n" for line in lines if not line.startswith(_OWN_LINE)))
    except OSError as error:
        raise BackupError(f"{path} cannot be written: {error.strerror}") from error
