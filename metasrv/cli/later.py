"""Commands whose modules are loaded when they run, so that each command starts with no more than it needs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from importlib import import_module

Command = Callable[[argparse.Namespace], None]


@cache
def later_command(module: str, name: str) -> Command:
    """The function `name` of a module of this package."""

    def command(arguments: argparse.Namespace) -> None:
        getattr(import_module(f"metasrv.cli.{module}"), name)(arguments)

    return command
