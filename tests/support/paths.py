"""Where the repository's files are, for tests that read them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ROOT / "metasrv"
VERIFICATION = ROOT / "verification"
TESTS = ROOT / "tests"
CONF = ROOT / "conf"
