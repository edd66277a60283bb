"""Write THIRD-PARTY-NOTICES: the packages that metasrv needs to run, with their licences.

    make notices                                                   the file in the repository, which the wheel carries
    python scripts/third_party_notices.py --environment DIRECTORY  the same for a virtual environment, as in the image

Reads the metadata and the licence files that installed packages carry. Without an environment it makes one of its own and
installs the dependencies of pyproject.toml there, with the settings of this machine's pip. Fails where a package has no
licence text. Needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OWN_NAME = "metasrv"
LICENCE_NAME = re.compile(r"(un)?licen[cs]e|copying|copyright|notice|authors", re.IGNORECASE)
CODE_SUFFIXES = {".py", ".pyc", ".pyi", ".so"}
LICENCE_LINE_LENGTH_MAX = 100
"""Some packages put the whole text into their field `License`."""
RULE = "=" * 79
INTRODUCTION = """\
metasrv needs the packages below to run. Each is the work of its own authors and comes under its own licence, which
follows its name. The versions are those that were installed when this file was written. metasrv itself is under the
Apache License 2.0, see LICENSE.
"""


class NoticesError(Exception):
    """A package without which the notices would be incomplete; the text says which, and what is wrong."""


class Licence(NamedTuple):
    """One licence file of a package."""

    path: str
    text: str


class Notice(NamedTuple):
    """One package with everything that it says about its licence."""

    name: str
    version: str
    licence: str
    homepage: str
    texts: tuple[Licence, ...]


def normalised(name: str) -> str:
    """The one spelling of a package's name by which two spellings are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


# ----------------------------------------------------------------------------- which packages


def install_dependencies(environment: Path) -> None:
    """Make a virtual environment with what metasrv needs to run and nothing else, not even pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet")
    # Older pips put a package that comes as source in place without its licence file, unless they build a wheel of it.
    for command in (
        (sys.executable, "-m", "venv", "--without-pip", str(environment)),
        (*pip, "--use-pep517", *project["dependencies"]),
    ):
        if subprocess.run(command, check=False).returncode:
            raise NoticesError("the dependencies of pyproject.toml cannot be installed, for the reason above")


def packages_in(environment: Path) -> list[Distribution]:
    """Every package of a virtual environment but metasrv itself."""
    directories = [str(path) for path in environment.glob("lib/python3*/site-packages")]
    if not directories:
        raise NoticesError(f"{environment} is not a virtual environment")
    return [package for package in distributions(path=directories) if normalised(package.metadata["Name"]) != OWN_NAME]


# ----------------------------------------------------------------------------- what each one says


def notice_of(package: Distribution) -> Notice:
    name, metadata = package.metadata["Name"], package.metadata
    texts = tuple(licence_texts(package))
    if not texts:
        raise NoticesError(f"{name} {package.version} carries no licence text")
    return Notice(
        name=name,
        version=package.version,
        licence=licence_name(
            field(package, "License-Expression") or field(package, "License"), metadata.get_all("Classifier") or ()
        ),
        homepage=homepage_of(field(package, "Home-page"), metadata.get_all("Project-URL") or ()),
        texts=texts,
    )


def field(package: Distribution, name: str) -> str:
    """One field of a package's metadata; empty where it is not there."""
    return next(iter(package.metadata.get_all(name) or ()), "")


def licence_texts(package: Distribution) -> Iterator[Licence]:
    """The licence files that the package's record names, in the order of their names."""
    for path in sorted(package.files or (), key=str):
        if not LICENCE_NAME.match(path.name) or path.suffix in CODE_SUFFIXES or ".." in path.parts:
            continue
        located = Path(str(package.locate_file(path)))
        if not located.is_file():
            continue
        text = located.read_text(encoding="utf-8", errors="replace")
        if text.strip():
            inside = re.sub(r"^[^/]*\.dist-info/(licenses/)?", "", path.as_posix())
            lines = (line.rstrip() for line in text.replace("\f", "\n").strip("\ufeff\n").split("\n"))
            yield Licence(inside, "\n".join(lines))


def licence_name(said: str, classifiers: Sequence[str]) -> str:
    """The short name that a package gives its licence."""
    if said and "\n" not in said and len(said) <= LICENCE_LINE_LENGTH_MAX:
        return said
    named = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
    return ", ".join(named) or "see below"


def homepage_of(given: str, urls: Sequence[str]) -> str:
    """The package's own page; empty where it names none."""
    labelled = {label.strip().lower(): url.strip() for label, _, url in (line.partition(",") for line in urls)}
    labels = ("homepage", "home", "source", "source code", "repository", "github")
    return given or next((labelled[label] for label in labels if label in labelled), "")


# ----------------------------------------------------------------------------- the file


def render(notices: Iterable[Notice]) -> str:
    """The whole file; a text that two packages share word for word stands there once."""
    parts = [INTRODUCTION]
    first_place: dict[str, str] = {}
    for notice in sorted(notices, key=lambda one: normalised(one.name)):
        parts.append(f"{RULE}\nPackage: {notice.name} {notice.version}\nLicence: {notice.licence}\n")
        if notice.homepage:
            parts[-1] += f"Home: {notice.homepage}\n"
        for licence in notice.texts:
            here = f"{licence.path} of {notice.name}"
            there = first_place.setdefault(licence.text, here)
            parts.append(f"--- {licence.path}\n")
            parts.append(f"{licence.text}\n" if there == here else f"The same text as {there}, above.\n")
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, help="the virtual environment to name the packages of")
    parser.add_argument("--output", type=Path, default=ROOT / "THIRD-PARTY-NOTICES")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as directory:
            environment = options.environment
            if environment is None:
                environment = Path(directory)
                install_dependencies(environment)
            notices = [notice_of(package) for package in packages_in(environment)]
    except NoticesError as error:
        sys.stderr.write(f"third_party_notices: {error}\n")
        return 1
    options.output.write_text(render(notices), encoding="utf-8")
    sys.stdout.write(f"third_party_notices: {options.output.name} names {len(notices)} packages.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
