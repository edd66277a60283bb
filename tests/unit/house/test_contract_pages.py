"""The tables of docs/contract against what is served: messages, routes, fields, metrics, keys, commands."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.admin.app import create_app
from metasrv.admin.schemas import NodeSchema, StatusSchema
from metasrv.cli.ctl import build_parser
from metasrv.config.keys import KEYS, SHORTHANDS
from metasrv.config.model import Config, RaftConfig
from metasrv.grpc_api.dispatch import LEADER_ONLY
from metasrv.metrics.page import client_families, legacy_families, network_families, server_families
from metasrv.metrics.registry import MetricsRegistry
from metasrv.protocol.methods import METHODS
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, sample_status
from tests.support.paths import ROOT

ADMIN = (ROOT / "docs/contract/admin-api.md").read_text(encoding="utf-8")
GRPC = (ROOT / "docs/contract/grpc.md").read_text(encoding="utf-8")
LABELS = frozenset({"id", "addr", "to", "from", "other", "func", "metasrv", ""})
SUBSYSTEMS = {"2.2": "server", "2.3": "raft_network", "2.4": "raft_storage", "2.5": "meta_network"}


def text_of(page: str, number: str) -> str:
    """One section without the sections below it."""
    match = re.search(rf"^#+ {re.escape(number)}\.? .*?(?=^#+ |\Z)", page, re.MULTILINE | re.DOTALL)
    assert match is not None, number
    return match[0]


def rows(page: str, number: str) -> Iterator[list[str]]:
    """The cells of the tables of one section, without titles and rules."""
    lines = [line for line in text_of(page, number).splitlines() if line.startswith("|")]
    titles = {position - 1 for position, line in enumerate(lines) if line.startswith("|---")}
    for position, line in enumerate(lines):
        if position not in titles and position - 1 not in titles:
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_tables_are_read() -> None:
    assert next(rows(ADMIN, "1.1"))[0] == "`/v1/health`"
    assert len(list(rows(GRPC, "d.7"))) >= 10


# ----------------------------------------------------------------------------- gRPC


def test_the_messages_have_the_numbers_of_the_schema() -> None:
    described: dict[str, set[tuple[int, str]]] = {}
    message = ""
    fields_of_messages = [cells for cells in [*rows(GRPC, "a.2"), *rows(GRPC, "a.3")] if len(cells) == 4]
    for name, numbers, fields, _ in fields_of_messages:
        message = name.split(" ")[0].rstrip(",") or message
        known = described.setdefault(message, set())
        if numbers != "-" and "reserved" not in fields:
            pairs = zip(numbers.replace("*", "").split(" / "), fields.split(" / "), strict=True)
            known |= {(int(number), field) for number, field in pairs}
    assert len(described) > 35
    for name, fields_described in described.items():
        descriptor = pb.DESCRIPTOR.message_types_by_name[name]
        assert {(field.number, field.name) for field in descriptor.fields} == fields_described, name


@pytest.mark.parametrize("name", ["ClusterStatus", "RaftLogStatus"])
def test_the_status_messages_have_the_numbers_of_the_schema(name: str) -> None:
    (text,) = re.findall(rf"^{name}: (.*?)\.\n\n", text_of(GRPC, "a.4"), re.MULTILINE | re.DOTALL)
    found = {(int(number), field) for number, field in re.findall(r"(\d+)\s+([a-z_]+)", text)}
    assert found == {(field.number, field.name) for field in pb.DESCRIPTOR.message_types_by_name[name].fields}


def test_the_methods_are_those_of_the_service() -> None:
    described = {cells[0]: cells for cells in rows(GRPC, "a.1")}
    assert described.keys() == {method.name for method in METHODS}
    for method in METHODS:
        _, request, reply, kind, token, on_follower, _ = described[method.name]
        assert request.removeprefix("stream ") == method.request.DESCRIPTOR.name
        assert reply.removeprefix("stream ") == method.reply.DESCRIPTOR.name
        assert kind.replace(" ", "-") == method.kind.value
        assert token == ("yes" if method.token else "no")
        assert on_follower.startswith("UNAVAILABLE") == (method in LEADER_ONLY)
    needed = next(cells[1] for cells in rows(GRPC, "b.5") if cells[0] == "needed by")
    assert set(needed.split(", ")) == {method.name for method in METHODS if method.token}


# ----------------------------------------------------------------------------- admin API


def test_the_routes_are_those_of_the_application(tmp_path: Path) -> None:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    context, _ = fake_context(machine, Config(raft_config=RaftConfig(raft_dir=str(tmp_path))), sample_status())
    served = set(create_app(context).openapi()["paths"])
    machine.close()
    described = {path for cells in rows(ADMIN, "1.1") for path in names_in(cells[0])}
    assert described == served | {"/openapi.json"}


def test_nodes_and_status_have_the_fields_that_are_served() -> None:
    for number, schema in (("1.2", NodeSchema), ("1.3", StatusSchema)):
        described = [name for cells in rows(ADMIN, number) for name in names_in(cells[0])]
        assert sorted(described) == sorted(schema.model_fields), number


def test_the_metrics_are_those_of_the_page() -> None:
    registry = MetricsRegistry("1.2.3", "abcdef0")
    client, peers, work, status = registry.client, registry.peers, registry.work, sample_status()
    families = [
        *legacy_families(client, status),
        *server_families(client, status, 0, "1.2.3", "abcdef0"),
        *network_families(peers, work, status),
        *client_families(client),
    ]
    for number, subsystem in SUBSYSTEMS.items():
        names = (re.split(r"[{(]", name)[0] for name in names_in(text_of(ADMIN, number)))
        described = {name.removesuffix("_total") for name in names if re.fullmatch(r"[a-z_]+", name)}
        prefix = f"metasrv_{subsystem}_"
        served = {family.name.removeprefix(prefix) for family in families if family.name.startswith(prefix)}
        served = {name.removesuffix("_total") for name in served}
        assert served <= described, number
        assert described - LABELS <= served | {prefix}, number


# ----------------------------------------------------------------------------- configuration and command line


def test_the_keys_are_those_of_the_configuration() -> None:
    keys = {path for path, key in KEYS.items() if not key.ignored}
    top = {name for cells in rows(ADMIN, "3.2") for name in names_in(cells[0])} - {
        "begin_cluster",
        "cmd",
        "config_file",
        "-c",
    }
    described = {name for name in top if not name.startswith("[")}
    assert described == {path for path in keys if "." not in path}
    assert set(SHORTHANDS) <= described
    raft = {name for cells in rows(ADMIN, "3.3") for name in names_in(cells[0])}
    assert raft == {path.removeprefix("raft_config.") for path in keys if path.startswith("raft_config.")}
    backup = {name for cells in rows(ADMIN, "3.5") for name in names_in(cells[0])}
    assert backup == {path.removeprefix("backup.") for path in keys if path.startswith("backup.")}
    (file,) = (cells for cells in rows(ADMIN, "3.2") if cells[0] == "`[log.file]`")
    assert {f"log.file.{name}" for name in re.findall(r"`([a-z_]+)` ", file[2])} == {
        path for path in keys if path.startswith("log.file.")
    }


def test_the_commands_are_those_of_metactl() -> None:
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert {name for cells in rows(ADMIN, "4") for name in names_in(cells[0])} == set(commands.choices)
