"""Syntax trees of modules, for the tests about the source itself."""

from __future__ import annotations

import ast
import gc
from pathlib import Path


def tree_of_module(path: Path) -> ast.Module:
    """Parse without a collection of garbage in the middle.

    A collection may have a forgotten task log its traceback, for which Python 3.11 parses as well. Its parser cannot be
    entered twice ("AST constructor recursion depth mismatch").
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))
    finally:
        if collecting:
            gc.enable()
