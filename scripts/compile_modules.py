"""Compile the modules named in `modules.txt` of the current directory with mypyc, beside their sources.

A setup script for setuptools: `scripts/compiled_wheel.py` runs it with `build_ext --inplace` in a copy of the package,
with `mypy.toml` beside it. The sources are compiled as they stand.
"""

from __future__ import annotations

import re
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

from scripts.compiled_wheel import MODULES_NAME, MYPY_NAME, named_modules

GROUP = "metasrv"
"""The shared library that holds all modules is called `metasrv__mypyc`."""
GENERATED = Path("build")
KEYWORD = re.compile(r"\b__thread\b")
"""mypyc writes an attribute `_thread` as `__thread`, a word of C."""


def main() -> None:
    options = [f"--config-file={MYPY_NAME}"]
    extensions = mypycify(
        [*options, *named_modules(Path(MODULES_NAME))],
        group_name=GROUP,
        opt_level="2",
        debug_level="0",
        target_dir=str(GENERATED),
    )
    for path in GENERATED.glob("__native*"):
        text = path.read_text(encoding="utf-8")
        path.write_text(KEYWORD.sub("__thread_attribute", text), encoding="utf-8")
    setup(name="metasrv-modules", packages=[], py_modules=[], ext_modules=extensions)


main()
