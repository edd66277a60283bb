"""The lock files name everything with hashes and agree with pyproject.toml; the bill of materials names what is there."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from scripts.bill_of_materials import bill, installed, main, normalised
from tests.support.paths import ROOT

LOCKS = ("build", "runtime", "development", "audit")
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)(?: ; (.+?))? \\$", re.MULTILINE)
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def pins(name: str) -> dict[str, str]:
    """Versions by package; a package may have one for each platform."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {normalised(package): version for package, version, _ in PIN.findall(text)}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_has_pins_and_hashes_and_nothing_else(name: str) -> None:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    strange = [line for line in lines if not (line.startswith("#") or HASH.match(line) or PIN.match(line))]
    assert strange == []
    without = [
        line for line, after in zip(lines, [*lines[1:], ""], strict=True) if PIN.match(line) and not HASH.match(after)
    ]
    assert without == []
    assert pins(name)


def test_everything_that_the_project_asks_for_is_locked() -> None:
    """`make lock` after a change of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = project["project"]["dependencies"]

    def names(requirements: list[str]) -> set[str]:
        return {normalised(re.split(r"[^A-Za-z0-9._-]", requirement)[0]) for requirement in requirements}

    assert names(needed) <= pins("runtime").keys()
    assert (
        names([*needed, *project["dependency-groups"]["dev"], *project["build-system"]["requires"]])
        <= pins("development").keys()
    )
    assert names(project["build-system"]["requires"]) <= pins("build").keys()
    extras = project["project"]["optional-dependencies"].values()
    assert names([requirement for extra in extras for requirement in extra]) <= pins("development").keys()


def test_one_version_of_each_package_in_all_that_is_installed_together() -> None:
    everything = pins("development")
    for name in ("build", "runtime"):
        assert {package: everything.get(package) for package in pins(name)} == pins(name)


def test_the_consensus_engine_is_pinned_to_the_version_that_is_tested() -> None:
    assert pins("runtime")["pysyncobj"] == "0.3.17"


def test_make_and_the_image_install_with_hashes() -> None:
    for path in ("scripts/make_environment.sh", "Dockerfile", "docker/build.sh"):
        commands = re.findall(r"--requirement \S+", (ROOT / path).read_text(encoding="utf-8"))
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        assert commands
        assert all("--require-hashes" in line for line in lines if "--requirement " in line), path


def test_the_bill_of_materials_names_what_is_installed_here(tmp_path: Path) -> None:
    document = bill(installed(Path(sys.prefix)))
    versions = {one["name"]: one["version"] for one in document["components"]}
    assert versions["pysyncobj"] == "0.3.17"
    assert document["metadata"]["component"]["name"] == "metasrv"
    addresses = {one["bom-ref"] for one in (*document["components"], document["metadata"]["component"])}
    relations = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert relations.keys() == addresses
    assert {needed for all_needed in relations.values() for needed in all_needed} <= addresses
    assert f"pkg:pypi/pysyncobj@{versions['pysyncobj']}" in relations[document["metadata"]["component"]["bom-ref"]]
    assert main(["--environment", sys.prefix, "--output", str(tmp_path / "sbom.json")]) == 0
    assert json.loads((tmp_path / "sbom.json").read_text()) == document


def test_what_is_no_environment_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--environment", str(tmp_path), "--output", str(tmp_path / "sbom.json")]) == 1
    assert "is not a virtual environment" in capsys.readouterr().err
    assert not (tmp_path / "sbom.json").exists()
