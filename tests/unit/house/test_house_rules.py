"""House rules that a person forgets and a test does not: sizes, docstrings, swallowed exceptions, unfinished work.

One test a rule; each names every place that breaks it.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.support.paths import PRODUCT, ROOT, TESTS, VERIFICATION
from tests.support.trees import tree_of_module

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")


@cache
def source_modules() -> tuple[Path, ...]:
    """The product and its verification tools, without generated code."""
    paths = sorted([*PRODUCT.rglob("*.py"), *VERIFICATION.rglob("*.py")])
    return tuple(path for path in paths if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")))


@cache
def modules_of_tests() -> tuple[Path, ...]:
    return tuple(sorted(TESTS.rglob("test_*.py")))


@cache
def tree_of(path: Path) -> ast.Module:
    return tree_of_module(path)


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(path)))


def place(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in nodes_of(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def is_swallowed(handler: ast.ExceptHandler) -> bool:
    return all(isinstance(statement, ast.Pass) for statement in handler.body)


def asserts_something(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    source = ast.dump(function)
    return "Assert(" in source or "raises" in source or "assert_" in source


def test_modules_are_short() -> None:
    assert [place(path) for path in source_modules() if len(path.read_text().splitlines()) > MODULE_LINES_MAX] == []


def test_functions_are_short() -> None:
    long = [
        f"{place(path, function.lineno)} {function.name}: {length_of(function)} lines"
        for path in source_modules()
        for function in functions(path)
        if length_of(function) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_modules_say_what_they_are_for() -> None:
    def is_empty_package(path: Path) -> bool:
        return path.name == "__init__.py" and not path.read_text(encoding="utf-8").strip()

    silent = [
        place(path) for path in source_modules() if not is_empty_package(path) and not ast.get_docstring(tree_of(path))
    ]
    assert silent == []


def test_no_exception_is_swallowed_without_a_word() -> None:
    swallowed = [
        place(path, node.lineno)
        for path in source_modules()
        for node in nodes_of(path)
        if isinstance(node, ast.ExceptHandler) and is_swallowed(node)
    ]
    assert swallowed == []


def test_nothing_is_left_unfinished() -> None:
    unfinished = [
        place(path, number)
        for path in source_modules()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert unfinished == []


def test_every_test_asserts_something() -> None:
    empty = [
        place(path, function.lineno)
        for path in modules_of_tests()
        for function in functions(path)
        if function.name.startswith("test_") and not asserts_something(function)
    ]
    assert empty == []


def test_test_modules_have_unique_names() -> None:
    names = [path.name for path in modules_of_tests()]
    assert sorted(set(names)) == sorted(names)


def test_broken_rules_would_be_noticed() -> None:
    tree = ast.parse("def test_it():\n    try:\n        f()\n    except OSError:\n        pass\n")
    assert [is_swallowed(node) for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)] == [True]
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    assert length_of(function) == 5
    assert not asserts_something(function)
