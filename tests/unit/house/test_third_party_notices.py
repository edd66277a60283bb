"""THIRD-PARTY-NOTICES and its generator: no package is forgotten, none is without its licence."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

NOTICES = ROOT / "THIRD-PARTY-NOTICES"
HEADING = re.compile(r"^={79}\nPackage: (\S+) (\S+)\nLicence: (.+)\n", re.MULTILINE)
TEXT_LENGTH_MIN = 200
"""The shortest licence in use, of two sentences, is longer."""


@pytest.fixture(scope="module")
def generator() -> Any:
    spec = importlib.util.spec_from_file_location("notices", ROOT / "scripts" / "third_party_notices.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


# ----------------------------------------------------------------------------- the file in the repository


def test_every_dependency_is_named_with_a_licence(generator: Any) -> None:
    named = {generator.normalised(name) for name, _, _ in HEADING.findall(NOTICES.read_text())}
    required = {generator.normalised(re.split(r"[^\w.-]", text)[0]) for text in project()["dependencies"]}
    assert len(required) > 10
    assert required <= named, "run `make notices`"
    assert generator.OWN_NAME not in named


def test_every_package_has_a_text_or_says_where_it_stands() -> None:
    _, *sections = NOTICES.read_text().split(f"{'=' * 79}\nPackage: ")
    assert len(sections) == len(HEADING.findall(NOTICES.read_text()))
    for section in sections:
        name, _, body = section.partition("\n--- ")
        for text in f"\n--- {body}".split("\n--- ")[1:]:
            shared = re.search(r"^The same text as (.+) of (\S+), above\.$", text, re.MULTILINE)
            if shared is None:
                assert len(text) > TEXT_LENGTH_MIN, name
            else:
                assert any(other.startswith(f"{shared[2]} ") and f"\n--- {shared[1]}\n" in other for other in sections), (
                    name
                )


def test_the_wheel_carries_it() -> None:
    assert project()["license-files"] == ["LICENSE", NOTICES.name]


# ----------------------------------------------------------------------------- the generator


def install(environment: Path, name: str, *lines: str, **texts: str) -> None:
    """A package as an installer leaves it: metadata, licence files, and the record that names them."""
    site = environment / "lib" / "python3.11" / "site-packages"
    directory = site / f"{name}-1.0.dist-info"
    directory.mkdir(parents=True)
    (directory / "METADATA").write_text("\n".join(("Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *lines)))
    for path, text in texts.items():
        (directory / path).write_text(text)
    (directory / "RECORD").write_text("".join(f"{directory.name}/{path},,\n" for path in ("METADATA", *texts)))


def run(generator: Any, environment: Path, output: Path) -> int:
    code: int = generator.main(["--environment", str(environment), "--output", str(output)])
    return code


def test_packages_stand_in_order_and_a_shared_text_once(generator: Any, tmp_path: Path) -> None:
    install(tmp_path, "beta", "License: MIT", "Project-URL: Source, beta.invalid", LICENSE="one text\n")
    install(tmp_path, "Alpha", "License-Expression: BSD-2-Clause", "Home-page: alpha.invalid", COPYING="one text")
    install(tmp_path, "gamma", "Classifier: License :: OSI Approved :: MIT License", LICENSE="other", NOTICE="told")
    install(tmp_path, "metasrv", LICENSE="not a third party")
    assert run(generator, tmp_path, tmp_path / "out") == 0
    written = (tmp_path / "out").read_text()
    assert HEADING.findall(written) == [
        ("Alpha", "1.0", "BSD-2-Clause"),
        ("beta", "1.0", "MIT"),
        ("gamma", "1.0", "MIT License"),
    ]
    assert written.count("one text") == 1
    assert "--- LICENSE\n\nThe same text as COPYING of Alpha, above.\n" in written
    assert "--- LICENSE\n\nother\n\n--- NOTICE\n\ntold\n" in written
    assert "Home: alpha.invalid" in written
    assert "Home: beta.invalid" in written
    assert "not a third party" not in written


def test_a_package_without_a_licence_text_is_refused(
    generator: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "bare", "License: MIT")
    assert run(generator, tmp_path, tmp_path / "out") == 1
    assert capsys.readouterr().err == "third_party_notices: bare 1.0 carries no licence text\n"
    assert not (tmp_path / "out").exists()


def test_what_is_no_environment_is_refused(generator: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(generator, tmp_path, tmp_path / "out") == 1
    assert f"{tmp_path} is not a virtual environment" in capsys.readouterr().err


def test_a_whole_text_in_the_field_of_the_name_is_no_name(generator: Any) -> None:
    assert (
        generator.licence_name("Permission is hereby\ngranted", ["License :: OSI Approved :: MIT License"])
        == "MIT License"
    )
    assert generator.licence_name("x" * 101, []) == "see below"
