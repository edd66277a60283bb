"""Print how this interpreter was built, `optimised` or `plain`: with profile-guided optimisation or without.

A plain one takes half as long again for a node's work (benchmarks/interpreter_speed.py), and is what version managers
build by default. Read from what the build recorded and never timed, so that the same interpreters always get the same
answer. Debian and Ubuntu optimise theirs and take the flags out of that record, so a Python below /usr counts as
optimised: it is a distribution's. Standard library only, any Python 3.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Mapping

OPTIMISED = "optimised"
PLAIN = "plain"
DISTRIBUTION_PREFIX = "/usr"
CONFIGURED = "--enable-optimizations"
COMPILED = "-fprofile-use"
FLAGS = ("PY_CFLAGS", "PY_CORE_CFLAGS", "CFLAGS", "OPT")
"""What the interpreter itself was compiled with. PGO_PROF_USE_FLAG is set whether it was used or not."""


def built(variables: Mapping[str, object], base_prefix: str) -> str:
    """`OPTIMISED` or `PLAIN`, from sysconfig's variables and the directory the interpreter was installed under."""
    if base_prefix == DISTRIBUTION_PREFIX or CONFIGURED in str(variables.get("CONFIG_ARGS", "")):
        return OPTIMISED
    return OPTIMISED if any(COMPILED in str(variables.get(name, "")) for name in FLAGS) else PLAIN


if __name__ == "__main__":
    sys.stdout.write(built(sysconfig.get_config_vars(), sys.base_prefix) + "\n")
