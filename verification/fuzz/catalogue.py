"""All targets by name, and the inputs that are kept for each in tests/data/fuzz/."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from verification.fuzz.target import Target

TARGETS = (
    "raft_frames",
    "gateway_frames",
    "raft_messages",
    "http2_bytes",
    "grpc_messages",
    "admin_http",
    "configuration",
    "snapshot_files",
    "log_files",
    "backup_files",
)
CORPUS = Path(__file__).resolve().parents[2] / "tests" / "data" / "fuzz"


def load_target(name: str) -> Target:
    """The target, with what is kept for it among its seeds."""
    target: Target = import_module(f"verification.fuzz.targets.{name}").TARGET
    return target._replace(seeds=(*target.seeds, *kept_inputs(name)))


def kept_inputs(name: str) -> tuple[bytes, ...]:
    """Crashes that were mended, and inputs that reach far, in the order of their names."""
    directory = CORPUS / name
    return tuple(path.read_bytes() for path in sorted(directory.glob("*"))) if directory.is_dir() else ()
