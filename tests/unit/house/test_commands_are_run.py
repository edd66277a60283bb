"""Every command of metactl and metasrv is run as a program, against real nodes, by a test of `make test`.

Found in the source of those tests: calls of what starts the program, and the pages whose commands they run. A test that
calls the command's function in its own process does not count, nor does one that is left to `make test-long`.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

from metasrv.cli import ctl, options
from tests.support.documents import all_blocks
from tests.support.paths import ROOT
from tests.support.trees import tree_of_module

CLUSTER_TESTS = sorted((ROOT / "tests/cluster").glob("test_*.py"))
STARTERS = frozenset({"tests.support.metactl", "tests.support.secured_cluster"})
"""Modules whose functions `metactl` and `metasrv` start the program."""
MODULES = {"metasrv.cli.ctl": "metactl", "metasrv.cli.server": "metasrv"}
METHODS = {"ctl": "metactl"}
"""Methods that run the programs under Databend's names."""
CLASSES = {"Migrating": ("metactl", "migrate"), "RemoteGatewayProcess": ("metasrv", "gateway")}
Words = tuple[str, ...]


def commands_of(program: str, parser: argparse.ArgumentParser) -> Iterator[Words]:
    """Each command without further commands below it."""

    def below(parser: argparse.ArgumentParser, words: Words) -> Iterator[Words]:
        groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not groups:
            yield words
        for group in groups:
            for name, command in group.choices.items():
                yield from below(command, (*words, name))

    return below(parser, (program,))


def all_commands() -> set[Words]:
    return {*commands_of("metactl", ctl.build_parser()), *commands_of("metasrv", options.build_parser())}


# ----------------------------------------------------------------------------- what tests run


def is_long(function: ast.AST) -> bool:
    decorators = getattr(function, "decorator_list", [])
    return any(ast.unparse(decorator) == "pytest.mark.long" for decorator in decorators)


def nodes_of_short_tests(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those of tests that `make test` leaves out."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not is_long(child):
            yield from nodes_of_short_tests(child)


def texts(arguments: list[ast.expr]) -> Iterator[str]:
    """The arguments up to the first that is no literal text."""
    for argument in arguments:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value
        elif isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Tuple):
            yield from texts(argument.value.elts)
        else:
            return


def run_in(tree: ast.Module) -> Iterator[Words]:
    """The beginnings of the command lines that a module's short tests start, and ("scenario", name) of pages."""
    starters = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module in STARTERS
        for alias in node.names
    }
    for node in nodes_of_short_tests(tree):
        if isinstance(node, ast.List):
            words = [element.value for element in node.elts if isinstance(element, ast.Constant)]
            for module, program in MODULES.items():
                if module in words:
                    yield program, *map(str, words[words.index(module) + 1 :])
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in starters:
            yield called.id, *texts(node.args)
        elif isinstance(called, ast.Name) and called.id in CLASSES:
            yield CLASSES[called.id]
        elif isinstance(called, ast.Name) and called.id == "Operator":
            yield "scenario", *texts(node.args[1:2])
        elif isinstance(called, ast.Attribute) and called.attr in METHODS:
            yield METHODS[called.attr], *texts(node.args)


def all_that_is_run(files: list[Path]) -> set[Words]:
    found = {words for file in files for words in run_in(tree_of_module(file))}
    scenarios = {words[1] for words in found if words[0] == "scenario" and len(words) > 1}
    for block in all_blocks():
        if scenarios.intersection(block.scenarios):
            lines = block.text.replace("\\\n", " ")
            found |= {tuple(line.split()) for line in re.findall(r"\b(?:metactl|metasrv) .*", lines)}
    return found


def not_run(commands: set[Words], run: set[Words]) -> list[str]:
    return sorted(" ".join(words) for words in commands if not any(line[: len(words)] == words for line in run))


# ----------------------------------------------------------------------------- the tests


def test_every_command_is_run_as_a_program_against_real_nodes() -> None:
    commands = all_commands()
    assert len(commands) > 60
    assert not_run(commands, all_that_is_run(CLUSTER_TESTS)) == []


def test_a_command_that_only_a_long_test_or_the_tests_own_process_runs_would_be_noticed() -> None:
    source = """
from tests.support.metactl import metactl
async def test_one(): await metactl(*("snapshot", "save"), file)
@pytest.mark.long
async def test_two(): await metactl("compact")
def test_three(other): other("top", "--once"); ctl.main(["events"])
def test_four(programs): programs.ctl("lua"); subprocess.run([sys.executable, "-m", "metasrv.cli.ctl", "status", a])
def test_five(): Operator(cluster, "lost-node")
"""
    run = set(run_in(ast.parse(source)))
    expected = {
        ("metactl", "snapshot", "save"),
        ("metactl", "lua"),
        ("metactl", "status"),
        ("scenario", "lost-node"),
    }
    assert expected <= run
    unrun = {("metactl", "compact"), ("metactl", "top"), ("metactl", "events"), ("metactl", "snapshot", "inspect")}
    assert not_run(unrun, run) == ["metactl compact", "metactl events", "metactl snapshot inspect", "metactl top"]
