"""Print the `dev` dependency group of pyproject.toml, one requirement per line.

For pip before 25.1, which cannot read dependency groups. Standard library only.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def main() -> int:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    sys.stdout.writelines(f"{requirement}\n" for requirement in project["dependency-groups"]["dev"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
