"""docker-compose.yml and the Dockerfile without an engine.

The file has only what Compose 1.29 and v2 both know, the nodes differ in a number, and one service builds the image.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from metasrv import __version__
from tests.support.paths import ROOT

FILE = ROOT / "docker-compose.yml"
BOTH_KNOW = {
    *("build", "cap_add", "cap_drop", "command", "cpus", "entrypoint", "environment", "healthcheck", "hostname", "image"),
    *("logging", "mem_limit", "network_mode", "networks", "pid", "pids_limit", "ports", "profiles", "read_only"),
    *("restart", "security_opt", "stop_grace_period", "tmpfs", "user", "volumes"),
}
"""Keys of a service in the Compose specification that docker-compose 1.29 reads with the same meaning."""
ONLY_V2_HEEDS = {"pull_policy"}
"""Keys that docker-compose 1.29 accepts and passes over."""
BUILD_BOTH_KNOW = {"context", "args", "network"}
"""Keys of a build; secrets are not among them, nor is anything else that needs BuildKit."""
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
        assert service.keys() <= BOTH_KNOW | ONLY_V2_HEEDS, name
        assert service.get("build", {}).keys() <= BUILD_BOTH_KNOW, name


def test_the_nodes_differ_in_their_number_only() -> None:
    nodes = {name: service for name, service in services().items() if re.fullmatch(r"meta\d", name)}
    assert sorted(nodes) == [f"meta{number}" for number in range(1, 6)]
    shapes = []
    for name, service in nodes.items():
        number = name[-1]
        own = {key: value for key, value in service.items() if key not in {"profiles", "build"}}
        environment = dict(own["environment"])
        assert environment.pop("METASRV_ID") == int(number)
        peers = environment.pop("METASRV_JOIN").split(",")
        assert peers == [f"meta{other}:28103" for other in (1, 2, 3) if str(other) != number]
        assert (environment.pop("METASRV_SINGLE", None) == "true") == (number == "1")
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


# ----------------------------------------------------------------------------- the build


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def declared_arguments() -> dict[str, str]:
    """The arguments of the Dockerfile and their defaults."""
    return dict(re.findall(r"^ARG (\w+)=(.*)$", dockerfile(), re.MULTILINE))


def test_one_service_builds_what_all_of_them_run() -> None:
    """Two builds with one name at the same time fail in current versions of Compose."""
    own = {name: one for name, one in services().items() if name not in {"prometheus", "grafana"}}
    assert {one["image"] for one in own.values()} == {"${METASRV_IMAGE:-metasrv}"}
    assert [name for name, service in services().items() if "build" in service] == ["meta1"]
    assert {name for name, one in own.items() if one.get("pull_policy") == "never"} == own.keys()


def test_the_build_is_told_what_the_dockerfile_asks_for() -> None:
    arguments = services()["meta1"]["build"]["args"]
    assert arguments.keys() <= declared_arguments().keys()
    defaults = {}
    for name, value in arguments.items():
        found = re.fullmatch(r"\$\{METASRV_\w+:-(.*)\}", value)
        assert found is not None, name
        defaults[name] = found[1]
    assert defaults == {name: declared_arguments()[name] for name in arguments}
    assert declared_arguments()["INSTALL_FROM"] == "index"


def test_the_image_says_which_version_it_holds() -> None:
    assert declared_arguments()["METASRV_VERSION"] == __version__


def test_the_dockerfile_builds_without_buildkit() -> None:
    """The engine of Debian 12 and docker-compose 1.29 have the older builder only."""
    assert "--mount" not in dockerfile()
    assert "<<" not in dockerfile()


def test_what_the_dockerfile_copies_is_let_into_the_build() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile(), re.MULTILINE)
        for source in line.split()[:-1]
    }
    optional = {"docker/wheel[s]"}
    assert optional < copied
    assert let_in == {*(copied - optional), "docker/wheels"}
    assert all((ROOT / source).exists() for source in copied - optional)
