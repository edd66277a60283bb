"""The parser of command lines: its help and version say so when standard output does not take them.

Newer Pythons' own parser hides such an error: a script would take the empty help of a full disk for an answer. Knows no
command and no flag.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Parser(argparse.ArgumentParser):
    """A parser whose `print_help` raises OSError."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        if file is None:
            _print(self.format_help())
        else:
            file.write(self.format_help())


class ShowVersion(argparse.Action):
    """A flag that prints the text in `const` and ends the program with SystemExit(0). Raises OSError."""

    def __init__(self, option_strings: Sequence[str], dest: str, const: str, default: Any = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, const=const, help="show the version and end")

    def __call__(self, parser: argparse.ArgumentParser, *_given: Any) -> None:
        _print(f"{self.const}\n")
        parser.exit()


def _print(text: str) -> None:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    sys.stdout.write(text)
    sys.stdout.flush()
