"""docker-compose.yml without an engine: only what Compose 1.29 and v2 both know, and nodes that differ in a number."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

FILE = ROOT / "docker-compose.yml"
BOTH_KNOW = {
    *("cap_add", "cap_drop", "command", "cpus", "entrypoint", "environment", "healthcheck", "hostname", "image"),
    *("logging", "mem_limit", "network_mode", "networks", "pid", "pids_limit", "ports", "profiles", "read_only"),
    *("restart", "security_opt", "stop_grace_period", "tmpfs", "user", "volumes"),
}
"""Keys of a service in the Compose specification that docker-compose 1.29 reads with the same meaning."""
PROFILES = {"five", "observability", "profiling", "chaos"}


def compose_file() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose_file()["services"]
    return found


def test_only_keys_that_both_generations_know() -> None:
    assert {key for key in compose_file() if not key.startswith("x-")} == {"services", "networks", "volumes"}
    for name, service in services().items():
        assert service.keys() <= BOTH_KNOW, name


def test_the_nodes_differ_in_their_number_only() -> None:
    nodes = {name: service for name, service in services().items() if re.fullmatch(r"meta\d", name)}
    assert sorted(nodes) == [f"meta{number}" for number in range(1, 6)]
    shapes = []
    for name, service in nodes.items():
        number = name[-1]
        own = {key: value for key, value in service.items() if key != "profiles"}
        environment = dict(own["environment"])
        assert environment.pop("METASRV_ID") == int(number)
        peers = environment.pop("METASRV_JOIN").split(",")
        assert peers == [f"meta{other}:28103" for other in (1, 2, 3) if str(other) != number]
        assert (environment.pop("METASRV_BEGINS_CLUSTER", None) == "true") == (number == "1")
        text = repr({**own, "environment": environment})
        text = re.sub(rf"meta{number}|_{number}\b|:-919{number}|:-28{number}01", "N", text)
        shapes.append(text)
        assert ("profiles" in service) == (int(number) > 3)
    assert len(set(shapes)) == 1, "\n".join(shapes)


def test_nothing_depends_on_an_order_and_everything_is_limited() -> None:
    for name, service in services().items():
        assert "depends_on" not in service
        assert set(service.get("profiles", [])) <= PROFILES
        assert "ALL" in service["cap_drop"]
        if name.startswith("meta"):
            assert {"mem_limit", "cpus", "pids_limit", "healthcheck", "restart"} <= service.keys()


@pytest.mark.parametrize("name", ["meta1", "prometheus", "grafana"])
def test_what_is_published_is_published_on_loopback_unless_somebody_says_otherwise(name: str) -> None:
    ports = services()[name]["ports"]
    assert ports
    assert all(port.startswith("${METASRV_HOST_ADDRESS:-127.0.0.1}:") for port in ports)


def test_only_the_profiler_gets_a_capability() -> None:
    granted = {name for name, service in services().items() if service.get("cap_add")}
    assert granted == {"profile1", "profile2", "profile3"}
    assert all(services()[name]["cap_add"] == ["SYS_PTRACE"] for name in granted)
