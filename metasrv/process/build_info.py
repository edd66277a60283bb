"""Which build this is: the version, the commit if the builder provided it, and whether it is compiled. Runs anywhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from metasrv import __version__

COMMIT_VARIABLE = "METASRV_COMMIT"
"""The commit this build was made from; set by the container image."""
UNKNOWN_COMMIT = "unknown"
COMPILED_LIBRARY = "metasrv__mypyc"
"""The library beside the package that holds its compiled modules."""


def is_compiled() -> bool:
    """Whether this is the compiled wheel, in which modules of the hot path are machine code."""
    return importlib.util.find_spec(COMPILED_LIBRARY) is not None


def build_commit(environment: Mapping[str, str]) -> str:
    """The commit, or `UNKNOWN_COMMIT` if the builder provided none."""
    return environment.get(COMMIT_VARIABLE) or UNKNOWN_COMMIT


def binary_version(commit: str, *, compiled: bool | None = None) -> str:
    """`0.2.0+1ed2298a0c11`, a version with build metadata; the version alone if the commit is unknown.

    The compiled wheel adds to the metadata: `0.2.0+1ed2298a0c11.compiled`, `0.2.0+compiled`. `compiled` is by default
    what runs here.
    """
    known = [] if commit == UNKNOWN_COMMIT else [commit]
    metadata = [*known, "compiled"] if (is_compiled() if compiled is None else compiled) else known
    return "+".join([__version__, ".".join(metadata)]) if metadata else __version__
