"""A node of a release that is yet to come: it knows one feature more than this one, and is the same otherwise."""

from __future__ import annotations

import sys

from metasrv.cli.node_process import NodeProgram
from metasrv.model import commands
from tests.support.paths import ROOT

FEATURE = "of-a-release-to-come"
PROGRAM = NodeProgram((sys.executable, "-m", "tests.support.newer_node"), {"PYTHONPATH": str(ROOT)})


def main() -> int:
    # Before the modules that take the names from there are loaded.
    commands.KNOWN_FEATURES = (*commands.KNOWN_FEATURES, FEATURE)  # type: ignore[assignment]
    from metasrv.cli.server import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
