"""Every limit of `model/limits.py` is used by the product and named in a test."""

from __future__ import annotations

import ast
from pathlib import Path

from metasrv.model import limits
from tests.support.paths import PRODUCT, TESTS
from tests.support.trees import tree_of_module

LIMITS = PRODUCT / "model" / "limits.py"
UNITS = {"MIB"}


def declared() -> set[str]:
    return {name for name in vars(limits) if name.isupper()} - UNITS


def names_in(path: Path) -> set[str]:
    """Names that a module reads, attributes included, and the last part of dotted texts that tests patch."""
    found = set()
    for node in ast.walk(tree_of_module(path)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value.rpartition(".")[2])
    return found


def names_below(folder: Path, without: Path) -> set[str]:
    return set().union(*(names_in(path) for path in folder.rglob("*.py") if path != without))


def test_every_limit_is_used_by_the_product() -> None:
    assert sorted(declared() - names_below(PRODUCT, LIMITS)) == []


def test_every_limit_is_named_in_a_test() -> None:
    assert sorted(declared() - names_below(TESTS, Path(__file__))) == []


def test_an_unused_limit_would_be_noticed(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""USED_NOWHERE_MAX"""\nimport limits\nprint(limits.A_MAX, B_MAX)\npatch("x.C_MAX", 1)\n')
    assert {"A_MAX", "B_MAX", "C_MAX"} <= names_in(module)
    assert declared() - names_in(module)
