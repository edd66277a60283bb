"""Write docs/reference/: admin API (as text and in OpenAPI), client library, configuration and metrics.

All from what the program itself declares.

`make reference` runs it; `--check` writes nothing and exits with 1 when a page is out of date, as the tests do. Examples
are the answers of the real application for the sample node of `metasrv.testing.fake_node`; no server is started.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import metasrv.client  # noqa: E402
from metasrv.admin.app import create_app  # noqa: E402
from metasrv.admin.description import EXAMPLES_FILE, description, operations  # noqa: E402
from metasrv.config.keys import KEYS, Kind  # noqa: E402
from metasrv.config.levels import parse_level  # noqa: E402
from metasrv.config.model import Config, RaftConfig  # noqa: E402
from metasrv.metrics.exposition import Family  # noqa: E402
from metasrv.metrics.registry import MetricsRegistry  # noqa: E402
from metasrv.model.failure_reasons import FailureReason  # noqa: E402
from metasrv.model.loop_work import LoopWork  # noqa: E402
from metasrv.process.log_levels import LogLevels  # noqa: E402
from metasrv.protocol.methods import TRANSACTION  # noqa: E402
from metasrv.state.machine import StateMachine  # noqa: E402
from metasrv.testing.fake_node import fake_context, leader_status  # noqa: E402
from scripts.client_reference import client_page  # noqa: E402

FOLDER = ROOT / "docs" / "reference"
HEADER = "<!-- Made by `make reference` from the program; edit the program, not this page. -->\n"
EXAMPLE_LINES_MAX = 14
EXAMPLE_WIDTH_MAX = 110
EXAMPLES = {
    "/livez": "/livez?verbose",
    "/livez/{check}": "/livez/loop",
    "/readyz": "/readyz?verbose",
    "/readyz/{check}": "/readyz/leader",
    "/v1/ctrl/trigger_transfer_leader": "/v1/ctrl/trigger_transfer_leader?to=2",
    "/v1/features/set": "/v1/features/set?feature=dummy&enable=true",
    "/v1/runbooks/{slug}": "/v1/runbooks/no-leader",
    "/debug/pprof/profile": "/debug/pprof/profile?seconds=10&format=svg",
    "/debug/mem/pprof/profile": "/debug/mem/pprof/profile?seconds=10&format=folded",
}
CHANGES = {
    ("post", "/v1/cluster/members"): ("/v1/cluster/members", {"raft_address": "10.0.0.4:28103"}),
    ("delete", "/v1/cluster/members/{node_id}"): ("/v1/cluster/members/3", None),
    ("post", "/v1/cluster/members/{node_id}/promote"): ("/v1/cluster/members/2/promote", None),
    ("post", "/v1/cluster/members/{node_id}/replace"): ("/v1/cluster/members/3/replace", None),
    ("put", "/v1/log-levels"): ("/v1/log-levels", {"logger": "metasrv.admin", "level": "debug", "seconds": 60}),
}
"""Examples of routes that take no GET: the address and the body."""
NOT_ASKED = {
    "/debug/pprof/profile": "profile",
    "/debug/mem/pprof/profile": "profile",
    "/debug/home": "home.html",
    "/v1/console": "state.json",
    "/v1/console/history": "history.json",
    "/v1/console/stream": "lines.json",
    "/v1/events": "events.json",
    "/v1/log-levels": "levels.json",
    "/v1/diagnostics": "node1.tar.gz",
    "/v1/runbooks/{slug}": "runbook.txt",
}
"""Routes whose answer is a file or a page, is long, or does not end; with the name of a file for it."""
BRIEFLY = frozenset({"/v1/console", "/v1/console/history", "/v1/events", "/v1/runbooks/{slug}"})
"""Those of them that have an example in the description, cut short."""
ACTION = {"X-Metasrv-Action": "curl"}


class ExampleLog:
    """The log of a node that logs from Info on."""

    def __init__(self) -> None:
        self._changed: dict[str, str] = {}

    def set_level(self, logger_name: str, level: str | None) -> None:
        self._changed[logger_name] = level or "info"

    def level_of(self, logger_name: str) -> int:
        return parse_level(self._changed.get(logger_name, "info"))

    def configured_level_of(self, logger_name: str) -> int:
        del logger_name
        return parse_level("info")

    def configured_names(self) -> set[str]:
        return {""}

    def recent_lines(self) -> list[str]:
        return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is out of date")
    options = parser.parse_args()
    stale = []
    for name, text in pages().items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(str(path.relative_to(ROOT)))
            if not options.check:
                FOLDER.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for path_name in stale:
        print(f"{path_name} {'is out of date: run make reference' if options.check else 'written'}")
    return 1 if options.check and stale else 0


def pages() -> dict[str, str]:
    """Every page by its path from the root."""
    with tempfile.TemporaryDirectory(prefix="metasrv-reference-") as directory:
        machine = StateMachine.open(str(Path(directory) / "state.db"))
        try:
            raft = RaftConfig(id=1, raft_advertise_host="localhost", raft_api_port=28103, raft_dir=directory, single=True)
            context, _ = fake_context(machine, Config(raft_config=raft), leader_status())
            context.log_levels = LogLevels(ExampleLog(), context.clock, context.events)
            app = create_app(context)
            admin = "\n".join(asyncio.run(admin_page(app)))
            examples = asyncio.run(answers(app))
            described = description(app, examples)
        finally:
            machine.close()
    return {
        "docs/reference/admin-api.md": admin + "\n",
        "docs/reference/client.md": "\n".join(client_page(metasrv.client, HEADER)) + "\n",
        "docs/reference/openapi.json": _json_text(described),
        f"metasrv/admin/{EXAMPLES_FILE}": _json_text(examples),
        "docs/reference/configuration.md": "\n".join(configuration_page()) + "\n",
        "docs/reference/metrics.md": "\n".join(metrics_page()) + "\n",
    }


# ----------------------------------------------------------------------------- admin API


async def admin_page(app: FastAPI) -> list[str]:
    description = app.openapi()
    lines = [HEADER, "# Admin API: every route", "", description["info"]["description"], ""]
    lines += [
        "The description in OpenAPI is [openapi.json](openapi.json), and at `/openapi.json` of every node.",
        "Every route also answers 405 for a method it does not take,",
        "and 413 for a body that is too large. Where tokens or client certificates are configured, routes that change or",
        "profile the node answer 401 without one, and 403 to one whose scope is too small.",
        "docs/contract/admin-api.md is the contract with Databend's tools, field by field.",
    ]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        area = None
        for path, operations in description["paths"].items():
            for method, operation in operations.items():
                if operation["tags"][0] != area:
                    area = operation["tags"][0]
                    lines += ["", f"## {area.capitalize()}"]
                lines += ["", f"### {method.upper()} {path}", ""]
                lines += _operation_lines(operation)
                if (method, path) in CHANGES:
                    lines += await _change_lines(client, method, *CHANGES[method, path])
                else:
                    lines += await _example_lines(client, path)
    return lines


async def answers(app: FastAPI) -> dict[str, Any]:
    """An example of the answer of each route, by method and path; lists are cut after their first two members."""
    found = {}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path, method, _ in operations(app.openapi()):
            if (method, path) in CHANGES:
                url, body = CHANGES[method, path]
                answer = await client.request(method, url, json=body, headers=ACTION)
            elif method == "get" and (path not in NOT_ASKED or path in BRIEFLY):
                answer = await client.get(EXAMPLES.get(path, path))
            else:
                continue
            if answer.status_code != 200:
                continue
            text = _stable(answer.text)
            if answer.headers["content-type"].startswith("application/json"):
                found[f"{method} {path}"] = _shortened(json.loads(text))
            else:
                found[f"{method} {path}"] = "\n".join(text.splitlines()[:EXAMPLE_LINES_MAX]) + "\n"
    return found


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(member) for name, member in value.items()}
    return [_shortened(member) for member in value[:2]] if isinstance(value, list) else value


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _operation_lines(operation: dict[str, Any]) -> Iterator[str]:
    text = operation.get("description", "").strip()
    yield f"{text} A former name." if operation.get("deprecated") else text
    parameters = operation.get("parameters", [])
    if parameters:
        yield from ("", "| parameter | in | values | meaning |", "|---|---|---|---|")
        for parameter in parameters:
            values = _values(parameter["schema"])
            yield f"| `{parameter['name']}` | {parameter['in']} | {values} | {parameter.get('description', '')} |"
    yield from ("", "| code | meaning |", "|---|---|")
    for code, answer in sorted(operation["responses"].items()):
        meaning = answer["description"]
        yield f"| {code} | {'the answer' if meaning == 'Successful Response' else meaning} |"


def _values(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        text = ", ".join(f"`{value}`" for value in schema["enum"])
    elif schema["type"] == "array":
        text = "text, repeatable"
    elif "minimum" in schema:
        text = f"{schema['minimum']} to {schema['maximum']}"
    else:
        text = {"string": "text", "integer": "a whole number", "boolean": "`true` or `false`"}[schema["type"]]
    return f"{text}; default `{schema['default']}`" if "default" in schema else text


async def _example_lines(client: httpx.AsyncClient, path: str) -> list[str]:
    url = EXAMPLES.get(path, path)
    quoted = f"'http://127.0.0.1:28101{url}'" if "?" in url else f"http://127.0.0.1:28101{url}"
    if path in NOT_ASKED:
        return ["", "```", f"$ curl -s {quoted} -o {NOT_ASKED[path]}", "```"]
    answer = await client.get(url)
    content = _stable(answer.text)
    if answer.headers["content-type"].startswith("application/json"):
        content = json.dumps(json.loads(content), indent=2)
    shown = content.rstrip().splitlines()
    if len(shown) > EXAMPLE_LINES_MAX and not content.startswith("{") and not content.startswith("["):
        shown = [*shown[:EXAMPLE_LINES_MAX], "…"]
    shown = [line if len(line) <= EXAMPLE_WIDTH_MAX else f"{line[:EXAMPLE_WIDTH_MAX]}…" for line in shown]
    status = "" if answer.status_code == 200 else f"   # {answer.status_code}"
    return ["", "```", f"$ curl -s {quoted}{status}", *shown, "```"]


async def _change_lines(client: httpx.AsyncClient, method: str, url: str, body: dict[str, Any] | None) -> list[str]:
    answer = await client.request(method, url, json=body, headers=ACTION)
    sent = "" if body is None else f" -d '{json.dumps(body)}'"
    verb = "" if body is not None and method == "post" else f" -X {method.upper()}"
    shown = _stable(json.dumps(answer.json(), indent=2)).splitlines() if answer.status_code == 200 else [answer.text]
    shown = [line if len(line) <= EXAMPLE_WIDTH_MAX else f"{line[:EXAMPLE_WIDTH_MAX]}…" for line in shown]
    status = "" if answer.status_code == 200 else f"   # {answer.status_code}"
    command = f"$ curl -s{verb} -H 'X-Metasrv-Action: curl'{sent} http://127.0.0.1:28101{url}{status}"
    return ["", "```", command, *shown, "```"]


def _stable(text: str) -> str:
    """Without what differs from one run to the next."""
    for pattern, stable in (
        (r"beat \d+\.\d s ago", "beat 0.1 s ago"),
        (r"\b1[0-9]{12}\b", "1795000000000"),
        (r"\S+/metasrv-reference-\w+", "data"),
        (r"[\d.]+ [KMG]iB left", "7.8 GiB left"),
        (r'"uptime_ms":\d+', '"uptime_ms":60000'),
        (r'("id": ?"\d+-)[0-9a-f]{8}-', r"\g<1>5f2c9a01-"),
    ):
        text = re.sub(pattern, stable, text)
    return text


# ----------------------------------------------------------------------------- configuration


def configuration_page() -> Iterator[str]:
    yield from (
        HEADER,
        "# Configuration: every key",
        "",
        "A value comes from the first of these that gives it: the command line, the environment, the file, the default.",
        "`metasrv --cmd show-config` prints what holds. Keys of Databend's own files that mean nothing here are accepted",
        "and named in one log line; they are at the end. A secret prints as `***` everywhere.",
    )
    section = None
    for key in KEYS.values():
        if key.ignored:
            continue
        own = key.path.rpartition(".")[0]
        if own != section:
            section = own
            title = f"`[{section}]`" if section else "Top of the file"
            yield from ("", f"## {title}", "", "| key | flag and variable | default | meaning |", "|---|---|---|---|")
        variable = f"<br>`{key.environment_variable}`" if key.environment_variable else ""
        name = key.path.rpartition(".")[2]
        yield f"| `{name}` | `{key.flag}`{variable} | {_default(key.path, key.kind)} | {key.description} |"
    ignored = ", ".join(f"`{key.path}`" for key in KEYS.values() if key.ignored)
    yield from ("", "## Accepted and ignored", "", f"{ignored}.")


def _default(path: str, kind: Kind) -> str:
    model: Any = Config
    *sections, name = path.split(".")
    for part in sections:
        model = model.model_fields[part].annotation
    field = model.model_fields.get(name)
    if field is None:
        return ""
    if field.default is PydanticUndefined:
        return "this machine's host name" if name == "raft_advertise_host" else ""
    value = field.default
    if value is None or value in ("", ()):
        return "none"
    if kind is Kind.BOOLEAN:
        return str(value).lower()
    return f"`{value}`"


# ----------------------------------------------------------------------------- metrics


def metrics_page() -> Iterator[str]:
    yield from (
        HEADER,
        "# Metrics: every family",
        "",
        "`GET /v1/metrics` and `GET /metrics` answer them. A counter that existed in Databend's first releases is listed",
        "twice, bare and with `_total`. A family with labels appears with its first label. Sizes are bytes and times are",
        "seconds where the name does not say otherwise.",
        "",
        "| family | type | labels | meaning |",
        "|---|---|---|---|",
    )
    for family in sorted(_families(), key=lambda family: family.name):
        labels = ", ".join(f"`{label}`" for label in _labels(family))
        yield f"| `{family.name}` | {family.kind} | {labels} | {family.help} |"


def _families() -> Iterable[Family]:
    registry = _registry_with_everything()
    return registry.families(leader_status(), 1, registry.process_families())


def _labels(family: Family) -> list[str]:
    names = {name: None for sample in family.samples for name, _ in sample.labels if name not in ("le", "quantile")}
    return list(names)


def _registry_with_everything() -> MetricsRegistry:
    """Each event has been counted once, so that no family lacks its labels."""
    registry = MetricsRegistry("1.2.3", "abcdef0")
    registry.backups_every(3600)  # the families of a node that makes backups
    registry.backup_made(1_000_000, 1.5)
    registry.backup_standing(1.0, failing=False)
    registry.peer_connected(2, "127.0.0.1:28104", True)
    registry.connect_failed(2, "127.0.0.1:28104")
    registry.sent_bytes(2, 1)
    registry.received_bytes("127.0.0.1:28104", 1)
    registry.send_failed(2)
    registry.append_acknowledged(2, 0.001)
    registry.snapshot_sending(2, 1)
    registry.snapshot_receiving(2, 1)
    for success in (True, False):
        registry.snapshot_sent(2, 1.0, success)
        registry.snapshot_received(2, 1.0, success)
        registry.storage_failed("log", write=success)
    registry.rpc_started()
    registry.rpc_finished(FailureReason.NO_LEADER, 0.001, TRANSACTION)
    registry.step_took(LoopWork.RAFT_APPLY, 0.001)
    registry.tls_handshakes("grpc", 1)
    registry.tls_handshake_failed("grpc", "timeout")
    registry.descriptors_short("grpc")
    registry.certificate_expires("grpc", 1.0)
    registry.reloaded("certificates", True)
    registry.admin_request("/v1/health", "GET", 200)
    registry.health_checked("readyz", "leader", True)
    registry.disk_free(1)
    return registry


if __name__ == "__main__":
    sys.exit(main())
