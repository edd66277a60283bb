"""Write a bill of materials in CycloneDX 1.5 (JSON): what is installed in an environment, with versions and licences.

    python scripts/bill_of_materials.py --environment DIRECTORY --output FILE

The image has it as /usr/share/doc/metasrv/sbom.cdx.json. It says the same for the same environment: no time and no random
number stands in it. Needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

OWN_NAME = "metasrv"
LICENCE_LENGTH_MAX = 100
"""Some packages put the whole text into their field `License`."""


def normalised(name: str) -> str:
    """The spelling of a package's name in its address."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(environment: Path) -> list[Distribution]:
    """Every package of a virtual environment, by name. Raises FileNotFoundError for anything else."""
    directories = sorted(environment.glob("lib/python3*/site-packages"))
    if not directories:
        raise FileNotFoundError(f"{environment} is not a virtual environment")
    found = {normalised(one.metadata["Name"]): one for one in distributions(path=[str(path) for path in directories])}
    return [found[name] for name in sorted(found)]


def component(distribution: Distribution) -> dict[str, Any]:
    """One package as CycloneDX has it."""
    name, version = normalised(distribution.metadata["Name"]), distribution.version
    address = f"pkg:pypi/{name}@{version}"
    made: dict[str, Any] = {
        "type": "application" if name == OWN_NAME else "library",
        "bom-ref": address,
        "name": name,
        "version": version,
        "purl": address,
    }
    given = {
        name: distribution.metadata[name] for name in ("License-Expression", "License") if name in distribution.metadata
    }
    expression, text = given.get("License-Expression"), given.get("License", "")
    if expression:
        made["licenses"] = [{"expression": expression}]
    elif text and len(text) <= LICENCE_LENGTH_MAX:
        made["licenses"] = [{"license": {"name": text}}]
    return made


def needed_by(distribution: Distribution, present: set[str]) -> list[str]:
    """The names of installed packages that it asks for without an extra."""
    names = set()
    for requirement in distribution.requires or []:
        found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
        if found and not re.search(r"\bextra\s*==", requirement):
            names.add(normalised(found[0]))
    return sorted(names & present)


def bill(packages: Sequence[Distribution]) -> dict[str, Any]:
    """The whole document. Raises LookupError when metasrv itself is not among the packages."""
    made = {one["name"]: one for one in map(component, packages)}
    if OWN_NAME not in made:
        raise LookupError(f"{OWN_NAME} is not installed there")
    own = made[OWN_NAME]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": [one for name, one in made.items() if name != OWN_NAME],
        "dependencies": [
            {
                "ref": made[normalised(package.metadata["Name"])]["bom-ref"],
                "dependsOn": [made[name]["bom-ref"] for name in needed_by(package, set(made))],
            }
            for package in packages
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        document = bill(installed(options.environment))
    except (FileNotFoundError, LookupError) as error:
        sys.stderr.write(f"bill_of_materials: {error}\n")
        return 1
    options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
