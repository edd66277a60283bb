"""Every command and operation is answered as the tables say, and a missing part stops the import."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from metasrv.model import command_table as table
from metasrv.model import commands as c
from metasrv.model.errors import InvariantError
from metasrv.state.command_rules import COMMAND_RULES, validate_command
from metasrv.state.operations import OPERATION_RULES
from metasrv.state.rules import Rule, check_rules
from tests.support.paths import PRODUCT
from tests.support.state_bench import Bench
from tests.support.wire_samples import COMMANDS, OPERATIONS


@pytest.mark.parametrize(
    ("module", "declared"),
    [("state/command_rules.py", "COMMANDS"), ("state/operations.py", "OPERATIONS")],
)
def test_a_request_without_a_rule_stops_the_import(module: str, declared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Rename(c.Get):
        """Declared in the table of the model, and forgotten in the table of rules."""

    requests = getattr(table, declared)
    added = table.Request(requests[0].row._replace(kind=Rename), requests[0].answer)
    monkeypatch.setattr(table, declared, (*requests, added))
    what = declared.lower().removesuffix("s")
    with pytest.raises(InvariantError, match=f"{what} Rename has no rule in {module}"):
        runpy.run_path(str(PRODUCT / module))


@pytest.mark.parametrize("part", ["validate", "apply"])
@pytest.mark.parametrize("place", range(len(COMMAND_RULES)))
def test_a_rule_without_a_part_is_named(place: int, part: str) -> None:
    rules: list[Rule[Any, Any]] = list(COMMAND_RULES)
    nothing: dict[str, Any] = {part: None}
    rules[place] = rules[place]._replace(**nothing)
    name = rules[place].request.kind.__name__
    with pytest.raises(InvariantError, match=f"command {name} has no {part} in rules.py"):
        check_rules("command", table.COMMANDS, rules, "rules.py")


@pytest.mark.parametrize(("requests", "rules"), [(table.COMMANDS, COMMAND_RULES), (table.OPERATIONS, OPERATION_RULES)])
def test_a_rule_that_stands_twice_is_named(requests: Sequence[Any], rules: Sequence[Any]) -> None:
    name = rules[0].request.kind.__name__
    with pytest.raises(InvariantError, match=f"request {name} has more than one rule"):
        check_rules("request", requests, [*rules, rules[0]], "rules.py")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reply_is_the_declared_one(name: str, tmp_path: Path) -> None:
    command = COMMANDS[name]
    validate_command(command)
    bench = Bench(tmp_path)
    (reply,) = bench.apply(command)
    bench.machine.close()
    (declared,) = [request.answer.kind for request in table.COMMANDS if request.kind is type(command)]
    assert type(reply) is declared


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_response_is_the_declared_one(name: str, tmp_path: Path) -> None:
    operation = OPERATIONS[name]
    bench = Bench(tmp_path)
    (response,) = bench.run(operation)
    bench.machine.close()
    (declared,) = [request.answer.kind for request in table.OPERATIONS if request.kind is type(operation)]
    assert type(response) is declared
