"""Imports point one way and never in a circle, and each foreign library stays in its room (ARCHITECTURE.md section 2)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from tests.support.paths import PRODUCT, ROOT, VERIFICATION
from tests.support.trees import tree_of_module

ROOMS = (
    "metasrv.model",
    "metasrv.protocol",
    "metasrv.config",
    "metasrv.process",
    "metasrv.tracing",
    "metasrv.state",
    "metasrv.consensus",
    "metasrv.raft.observer",
    "metasrv.raft.log",
    "metasrv.raft.core",
    "metasrv.raft.peers",
    "metasrv.raft",
    "metasrv.metrics",
    "metasrv.profiling",
    "metasrv.node",
    "metasrv.console",
    "metasrv.grpc_api.http2",
    "metasrv.grpc_api",
    "metasrv.gateway",
    "metasrv.admin",
    "metasrv.backup",
    "metasrv.client",
    "metasrv.migration",
    "metasrv.cli",
    "metasrv.testing",
    "verification",
)
"""From the bottom up: a room may import what stands in it and in the rooms before it."""

ONLY = {
    "metasrv.protocol": set(),
    "metasrv.tracing": {"metasrv.model", "metasrv.config"},
    "metasrv.raft.log": {"metasrv.model", "metasrv.process"},
    "metasrv.metrics": {"metasrv.model", "metasrv.protocol", "metasrv.process"},
    "metasrv.profiling": {"metasrv.model", "metasrv.process"},
    "metasrv.grpc_api.http2": set(),
    "metasrv.client": {"metasrv.model", "metasrv.protocol"},
}
"""Rooms that may import less than the order allows: only these others."""

CONFINED = {
    "pysyncobj": {"metasrv.raft.core", "metasrv.raft.log.store", "verification.stock"},
    "fastapi": {"metasrv.admin"},
    "starlette": {"metasrv.admin"},
    "uvicorn": {"metasrv.admin", "verification.fuzz"},
    "grpc": {"metasrv.protocol", "metasrv.client", "metasrv.testing", "verification"},
    "google": {"metasrv.protocol", "metasrv.grpc_api", "metasrv.client", "verification.fuzz"},
    "hpack": {"metasrv.grpc_api.http2", "verification.fuzz"},
    "prometheus_client": {"metasrv.metrics", "metasrv.client"},
    "cryptography": {"metasrv.process.certificates", "metasrv.cli.certificates", "metasrv.backup.encryption"},
    "boto3": {"metasrv.backup.bucket"},
    "botocore": {"metasrv.backup.bucket"},
    "urllib3": {"metasrv.backup.bucket"},
    "memray": {"metasrv.profiling"},
    "opentelemetry": {"metasrv.tracing.spans", "metasrv.client.spans"},
    "rich": {"metasrv.cli.top"},
    "lupa": {"metasrv.cli.scripting.runtime"},
    "pickle": set(),
    "marshal": set(),
    "shelve": set(),
}
"""Libraries, and the packages that may import them."""


def modules() -> dict[str, Path]:
    """Every module of the product and of the verification tools by its dotted name."""
    found = {}
    for path in sorted([*PRODUCT.rglob("*.py"), *VERIFICATION.rglob("*.py")]):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imported_names(path: Path) -> set[str]:
    """Full names of everything a module imports, also inside functions and under TYPE_CHECKING."""
    names: set[str] = set()
    for node in ast.walk(tree_of_module(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def module_of(name: str, known: Collection[str]) -> str | None:
    """The module that an imported name is, or stands in; None when it is none of `known`."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def imported_modules(sources: Mapping[str, Path]) -> dict[str, set[str]]:
    """For each of our own modules the others that it imports.

    Imports inside functions and under TYPE_CHECKING count: a module that needs another one's names needs the other one
    to be understood. What Python loads on the way to a submodule, its packages, does not count.
    """
    graph = {}
    for name, path in sources.items():
        found = {module_of(imported, sources) for imported in imported_names(path)}
        graph[name] = {module for module in found if module is not None}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, on whatever way; a module that imports itself is one, too."""
    reachable: dict[str, set[str]] = {}
    for name in graph:
        seen: set[str] = set()
        ahead = list(graph[name])
        while ahead:
            module = ahead.pop()
            if module not in seen:
                seen.add(module)
                ahead.extend(graph[module])
        reachable[name] = seen
    groups = {frozenset(other for other in reachable[name] if name in reachable[other]) for name in graph}
    return sorted(sorted(group) for group in groups if group)


def room_of(name: str) -> str:
    """The innermost room that a module, or a name in one, belongs to."""
    rooms = [room for room in ROOMS if is_within(name, room)]
    assert rooms, f"{name} belongs to no room; give it one in ROOMS"
    return max(rooms, key=len)


def wrong_import(importer: str, imported: str) -> str | None:
    """What is wrong with one import between our own modules, or None."""
    own, other = room_of(importer), room_of(imported)
    if ROOMS.index(other) > ROOMS.index(own):
        return f"{importer} imports {imported}, which stands above it"
    if own in ONLY and other != own and other not in ONLY[own]:
        return f"{importer} imports {imported}; {own} may import only {sorted(ONLY[own]) or 'itself'}"
    return None


def test_no_import_points_back() -> None:
    problems = []
    for name, path in modules().items():
        if name == "metasrv":
            continue
        for imported in imported_names(path):
            own = is_within(imported, "metasrv") or is_within(imported, "verification")
            if own and imported not in {"metasrv", "metasrv.__version__"}:
                problems.append(wrong_import(name, imported))
    assert [problem for problem in problems if problem] == []


OUTSIDE_THE_CORE = {"asyncio", "threading", "socket", "selectors", "subprocess", "sqlite3", "os", "time", "concurrent"}


def test_the_consensus_core_has_no_loop_thread_timer_socket_or_file() -> None:
    """Only the driver, which takes its steps, has them; `log/storage_thread.py` is the driver's as well."""
    known = modules()
    prefix = "metasrv.raft.core."
    core = {name for name in known if name.startswith(prefix)} - {f"{prefix}driver", f"{prefix}patience"}
    problems = []
    for name in sorted(core):
        for imported in imported_names(known[name]):
            outside = imported.split(".")[0] in OUTSIDE_THE_CORE or is_within(imported, "metasrv.raft.log.storage_thread")
            if outside or is_within(imported, f"{prefix}driver"):
                problems.append(f"{name} imports {imported}")
    assert f"{prefix}step" in core
    assert problems == []


def test_no_modules_import_each_other() -> None:
    assert circles(imported_modules(modules())) == []


def test_foreign_libraries_stay_in_their_room() -> None:
    problems = []
    for name, path in modules().items():
        for imported in imported_names(path):
            allowed = CONFINED.get(imported.split(".")[0])
            if allowed is not None and not any(is_within(name, package) for package in allowed):
                problems.append(f"{name} imports {imported}; only {sorted(allowed) or 'nothing'} may")
    assert problems == []


@pytest.mark.program
def test_the_client_library_loads_no_server() -> None:
    program = "import sys, metasrv.client; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    names = loaded.stdout.split()
    foreign = {
        "fastapi",
        "starlette",
        "uvicorn",
        "pysyncobj",
        "hpack",
        "prometheus_client",
        "uvloop",
        "sqlite3",
        "memray",
    }
    assert foreign.isdisjoint(names)
    rooms = {".".join(name.split(".")[:2]) for name in names if name.startswith("metasrv.")}
    assert rooms == {"metasrv.client", "metasrv.model", "metasrv.protocol"}


@pytest.mark.program
def test_the_server_side_of_http2_loads_nothing_but_itself_and_header_compression() -> None:
    program = "import sys, metasrv.grpc_api.http2.server; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    names = loaded.stdout.split()
    own = [name for name in names if is_within(name, "metasrv")]
    room = "metasrv.grpc_api.http2"
    assert f"{room}.server" in own
    assert [name for name in own if not is_within(name, room) and name not in {"metasrv", "metasrv.grpc_api"}] == []
    libraries = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"metasrv"}
    assert {"grpc", "google", "msgpack", "pydantic"}.isdisjoint(libraries)
    assert "hpack" in libraries


def test_circles_would_be_noticed(tmp_path: Path) -> None:
    """Three modules, with an import inside a function and one for types only; and a module that imports itself."""
    sources = {
        "p": "from p.one import a\n",
        "p.one": "from p import two\n",
        "p.two": "def f():\n    import p.three\n",
        "p.three": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.one import Name\n",
        "p.aside": "import p.one, json\n",
        "p.itself": "from p.itself import a\n",
    }
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    graph = imported_modules({name: tmp_path / name for name in sources})
    assert graph["p"] == graph["p.aside"] == {"p.one"}
    assert circles(graph) == [["p.itself"], ["p.one", "p.three", "p.two"]]
    graph["p.three"].clear()
    graph["p.itself"].clear()
    assert circles(graph) == []


def test_wrong_imports_would_be_noticed(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("def f():\n    from metasrv.raft.core import engine\n    import pysyncobj.node\n")
    assert imported_names(sample) == {"metasrv.raft.core.engine", "pysyncobj.node"}
    assert wrong_import("metasrv.state.machine", "metasrv.raft.core.engine") is not None
    assert wrong_import("metasrv.raft.core.engine", "metasrv.raft.peers.frames.Frame") is not None
    assert wrong_import("metasrv.client.caller", "metasrv.state.machine") is not None
    assert wrong_import("metasrv.grpc_api.http2.call", "metasrv.grpc_api.failures.NOT_DONE_METADATA") is not None
    assert wrong_import("metasrv.grpc_api.http2.call", "metasrv.model.errors") is not None
    assert wrong_import("metasrv.raft.replica", "metasrv.raft.core.engine.Engine") is None
