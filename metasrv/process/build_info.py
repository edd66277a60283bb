"""Which build this is: the version and, if the builder provided it, the commit. Pure; runs anywhere."""

from __future__ import annotations

from collections.abc import Mapping

from metasrv import __version__

COMMIT_VARIABLE = "METASRV_COMMIT"
"""The commit this build was made from; set by the container image."""
UNKNOWN_COMMIT = "unknown"


def build_commit(environment: Mapping[str, str]) -> str:
    """The commit, or `UNKNOWN_COMMIT` if the builder provided none."""
    return environment.get(COMMIT_VARIABLE) or UNKNOWN_COMMIT


def binary_version(commit: str) -> str:
    """`0.2.0+1ed2298a0c11`, a version with build metadata; the version alone if the commit is unknown."""
    return __version__ if commit == UNKNOWN_COMMIT else f"{__version__}+{commit}"
