"""House rules that a person forgets and a test does not: sizes, docstrings, swallowed exceptions, unfinished work."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import metasrv

ROOT = Path(metasrv.__file__).parent
TESTS = Path(__file__).parent.parent
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")


def product_modules() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))]


def modules_of_tests() -> list[Path]:
    return sorted(TESTS.rglob("test_*.py"))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_swallowed(handler: ast.ExceptHandler) -> bool:
    return all(isinstance(statement, ast.Pass) for statement in handler.body)


per_module = pytest.mark.parametrize("path", product_modules(), ids=lambda path: str(path.relative_to(ROOT)))
per_test_module = pytest.mark.parametrize("path", modules_of_tests(), ids=lambda path: str(path.relative_to(TESTS)))


@per_module
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES_MAX


@per_module
def test_functions_are_short(path: Path) -> None:
    for function in functions(path):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        assert lines <= FUNCTION_LINES_MAX, f"{function.name} has {lines} lines"


@per_module
def test_modules_say_what_they_are_for(path: Path) -> None:
    is_empty_package = path.name == "__init__.py" and not path.read_text(encoding="utf-8").strip()
    assert is_empty_package or ast.get_docstring(tree_of(path))


@per_module
def test_no_exception_is_swallowed_without_a_word(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            assert not is_swallowed(node), f"line {node.lineno}"


@per_module
def test_nothing_is_left_unfinished(path: Path) -> None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert not UNFINISHED.search(line), f"line {number}: {line.strip()}"


@per_test_module
def test_every_test_asserts_something(path: Path) -> None:
    for function in functions(path):
        if function.name.startswith("test_"):
            source = ast.dump(function)
            assert "Assert(" in source or "raises" in source or "assert_" in source, function.name


def test_test_modules_have_unique_names() -> None:
    names = [path.name for path in modules_of_tests()]
    assert sorted(set(names)) == sorted(names)


def test_a_swallowed_exception_would_be_noticed() -> None:
    tree = ast.parse("try:\n    f()\nexcept OSError:\n    pass\n")
    assert [is_swallowed(node) for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)] == [True]
