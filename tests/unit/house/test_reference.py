"""docs/reference/ says what the program declares: routes, the client library, configuration keys, metric families."""

from __future__ import annotations

import runpy

from tests.support.paths import ROOT

SCRIPT = ROOT / "scripts" / "make_reference.py"


def test_reference_pages_are_up_to_date() -> None:
    pages: dict[str, str] = runpy.run_path(str(SCRIPT))["pages"]()
    assert len(pages) == 6
    for name, text in pages.items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"run make reference ({name})"


def test_every_route_key_and_family_has_its_line() -> None:
    pages: dict[str, str] = runpy.run_path(str(SCRIPT))["pages"]()
    assert "### GET /v1/cluster/status" in pages["docs/reference/admin-api.md"]
    assert '"is_leader": true' in pages["docs/reference/admin-api.md"]
    assert "| 404 | this node is not the leader |" in pages["docs/reference/admin-api.md"]
    assert "### AsyncLock(session, name, value=b'')" in pages["docs/reference/client.md"]
    assert "- `await acquire(*, timeout_ms=None)`: Wait for the lock." in pages["docs/reference/client.md"]
    assert "`METASRV_HEARTBEAT_INTERVAL`" in pages["docs/reference/configuration.md"]
    assert "| `metasrv_raft_network_sent_bytes_total` | counter | `to` |" in pages["docs/reference/metrics.md"]
