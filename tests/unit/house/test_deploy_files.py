"""deploy/: the systemd unit and the Kubernetes manifests, checked by their programs, by schemas and against metasrv."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from metasrv.config.model import Config, RaftConfig
from metasrv.model.errors import ConfigError, DataDamagedError, IdentityError, RemovedError
from tests.support.paths import ROOT

UNIT = ROOT / "deploy" / "systemd" / "metasrv.service"
MANIFESTS = ROOT / "deploy" / "kubernetes" / "metasrv.yaml"
KUBERNETES_VERSIONS = ("1.27", "1.31", "1.33")
EXPOSURE_MAX = 2.0
NAME = "app.kubernetes.io/name"


# ----------------------------------------------------------------------------- systemd


def unit_values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def analyze(*arguments: str) -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.program
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """With a program that exists here in place of the installed one; not a word of complaint."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/metasrv/bin/metasrv", sys.executable))
    assert analyze("verify", "--man=no", str(copy)) == ""


@pytest.mark.program
def test_systemd_finds_the_unit_hardened() -> None:
    said = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    found = re.search(r"Overall exposure level for metasrv.service: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= EXPOSURE_MAX


def test_the_unit_fits_the_program() -> None:
    (timeout,) = unit_values("TimeoutStartSec")
    assert int(timeout) * 1000 > RaftConfig().wait_leader_timeout
    (prevented,) = unit_values("RestartPreventExitStatus")
    refusals = (ConfigError, IdentityError, DataDamagedError, RemovedError)
    expected = {error.exit_code for error in refusals}
    assert set(map(int, prevented.split())) == expected
    (kind,) = unit_values("Type")
    assert kind == "notify"
    (user,) = unit_values("User")
    sysusers = (UNIT.parent / "metasrv.sysusers").read_text()
    assert f"\nu {user} " in sysusers


# ----------------------------------------------------------------------------- Kubernetes


def manifests() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for document in yaml.safe_load_all(MANIFESTS.read_text()):
        found.setdefault(document["kind"], []).append(document)
    return found


def stateful_set() -> dict[str, Any]:
    (found,) = manifests()["StatefulSet"]
    return found


def container() -> dict[str, Any]:
    (found,) = stateful_set()["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_takes_the_manifests(version: str) -> None:
    for documents in manifests().values():
        for document in documents:
            assert kubernetes_validate.validate(document, version, strict=True) == version


def test_a_wrong_manifest_would_be_noticed() -> None:
    wrong = stateful_set()
    wrong["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSIONS[0], strict=True)


def test_labels_agree() -> None:
    documents = manifests()
    pod_labels = stateful_set()["spec"]["template"]["metadata"]["labels"]
    selectors = [service["spec"]["selector"] for service in documents["Service"]]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in documents["PodDisruptionBudget"]]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in documents["NetworkPolicy"]]
    selectors.append(stateful_set()["spec"]["selector"]["matchLabels"])
    (rule,) = stateful_set()["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    selectors.append(rule["labelSelector"]["matchLabels"])
    assert selectors == [pod_labels] * len(selectors)
    for document in (one for kind in documents.values() for one in kind):
        assert document["metadata"]["labels"] == {NAME: "metasrv"}


def test_ports_and_probes_agree() -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    config = Config()
    variables = {one["name"]: one.get("value") for one in container()["env"]}
    health = int(variables["METASRV_HEALTH_API_ADDRESS"].rpartition(":")[2])
    own = {"admin": config.admin_endpoint.port, "grpc": config.grpc_endpoint.port}
    assert ports == {**own, "raft": 28103, "health": health}
    for service in manifests()["Service"]:
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    paths = {kind: container()[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert paths["liveness"] == paths["startup"] == {"path": "/livez", "port": "health"}
    assert paths["readiness"] == {"path": "/readyz", "port": "health"}


def test_the_set_fits_the_services_and_the_image() -> None:
    spec = stateful_set()["spec"]
    headless = {one["metadata"]["name"]: one["spec"] for one in manifests()["Service"]}[spec["serviceName"]]
    assert headless["clusterIP"] == "None"
    assert headless["publishNotReadyAddresses"] is True
    environment = {one["name"]: one for one in container()["env"]}
    assert environment["METASRV_PEER_SERVICE"]["value"] == spec["serviceName"]
    assert int(environment["METASRV_REPLICAS"]["value"]) == spec["replicas"]
    (budget,) = manifests()["PodDisruptionBudget"]
    assert budget["spec"]["maxUnavailable"] <= (spec["replicas"] - 1) // 2
    secret = environment["METASRV_RAFT_SECRET"]["valueFrom"]["secretKeyRef"]
    assert f"kubectl create secret generic {secret['name']} --from-literal={secret['key']}=" in MANIFESTS.read_text()
    pod = spec["template"]["spec"]["securityContext"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"USER {pod['runAsUser']}:{pod['runAsGroup']}" in dockerfile
    assert f"docker/stateful.py {container()['command'][0]}" in dockerfile
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert mounts["data"] == "/var/lib/metasrv"
    names = {one["metadata"]["name"] for one in spec["volumeClaimTemplates"]}
    assert set(mounts) == names | {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


# ----------------------------------------------------------------------------- docker/stateful.py


@pytest.fixture
def stateful() -> Any:
    spec = importlib.util.spec_from_file_location("stateful", ROOT / "docker" / "stateful.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_pod_knows_itself_and_the_others_by_its_name(stateful: Any) -> None:
    assert stateful.settings_of("metasrv-1", "peers", 3) == {
        "METASRV_ID": "2",
        "METASRV_RAFT_ADVERTISE_HOST": "metasrv-1.peers",
        "METASRV_GRPC_API_ADVERTISE_HOST": "metasrv-1.peers",
        "METASRV_JOIN": "metasrv-0.peers:28103,metasrv-2.peers:28103",
        "METASRV_SINGLE": "false",
    }
    added_later = stateful.settings_of("meta-srv-4", "peers", 3)["METASRV_JOIN"]
    assert added_later == ",".join(f"meta-srv-{number}.peers:28103" for number in range(4))
    with pytest.raises(ValueError, match="not the name of a pod"):
        stateful.settings_of("laptop", "peers", 3)


def test_the_first_pod_alone_may_begin_the_cluster(stateful: Any) -> None:
    begins = [stateful.settings_of(f"metasrv-{ordinal}", "peers", 3)["METASRV_SINGLE"] for ordinal in range(3)]
    assert begins == ["true", "false", "false"]
    assert stateful.settings_of("metasrv-0", "peers", 3)["METASRV_JOIN"] == "metasrv-1.peers:28103,metasrv-2.peers:28103"
