"""Imports point one way, and each foreign library stays in its place (architecture.md section 3)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import metasrv

ROOT = Path(metasrv.__file__).parent

LAYERS = [
    {
        "__init__",
        "errors",
        "limits",
        "types",
        "commands",
        "clock",
        "observer",
        "build_info",
        "service_manager",
        "listening_socket",
        "open_files",
    },
    {"wire", "codec", "entries"},
    {"config", "data_directory"},
    {"logs", "logs_file"},
    {"state"},
    {"consensus"},
    {"raft"},
    {"metrics", "profiling", "health", "context"},
    {"opening", "joining", "node"},
    {"admin", "grpc_api"},
    {"client"},
    {"cli"},
    {"testing"},
]
"""From the bottom up: a part may import parts of its own layer and of lower ones."""

CONFINED = {
    "pysyncobj": {"raft", "testing"},
    "fastapi": {"admin"},
    "starlette": {"admin"},
    "uvicorn": {"admin"},
    "grpc": {"grpc_api", "client", "testing", "cli"},
    "hpack": {"grpc_api"},
    "prometheus_client": {"metrics"},
    "memray": {"profiling"},
    "pickle": set(),
    "marshal": set(),
    "shelve": set(),
}
"""Libraries, and the parts that may import them."""


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Full names of everything a module imports, also inside functions and under TYPE_CHECKING."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def layer_of(part: str) -> int:
    for number, layer in enumerate(LAYERS):
        if part in layer:
            return number
    raise AssertionError(f"metasrv/{part} has no layer; give it one in LAYERS")


def test_every_part_has_exactly_one_layer() -> None:
    named = [part for layer in LAYERS for part in layer]
    assert len(named) == len(set(named))
    for path in modules():
        layer_of(part_of(path))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_points_back(path: Path) -> None:
    own = layer_of(part_of(path))
    for name in imported_modules(path):
        if name.startswith("metasrv."):
            part = name.split(".")[1]
            if (ROOT / part).is_dir() or (ROOT / f"{part}.py").exists():
                assert layer_of(part) <= own, f"{part_of(path)} imports {name}, which stands above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_foreign_libraries_stay_in_their_place(path: Path) -> None:
    for name in imported_modules(path):
        allowed = CONFINED.get(name.split(".")[0])
        if allowed is not None:
            assert part_of(path) in allowed, f"{name} may be imported by {sorted(allowed) or 'nothing'} only"
            if name.startswith("pysyncobj") and part_of(path) == "testing":
                assert path.parent == ROOT / "testing" / "stock", "only the comparison with plain pysyncobj imports it"


def test_the_tests_would_notice(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("def f():\n    from metasrv.raft.engine import Engine\n    import pysyncobj.node\n")
    assert {"metasrv.raft.engine", "pysyncobj.node"} <= imported_modules(sample)
    assert layer_of("raft") > layer_of("state")
