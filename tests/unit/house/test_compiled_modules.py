"""The list of modules for the compiled wheel names modules of the package, and the wheel fits this Python alone."""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.tags import sys_tags

from scripts.compiled_wheel import mark_as_compiled, named_modules, tag
from tests.support.paths import ROOT


def test_each_named_module_is_there_once_and_in_order() -> None:
    names = named_modules()
    assert [name for name in names if not (ROOT / name).is_file()] == []
    assert names == sorted(set(names))


def test_the_wheel_says_that_it_fits_this_python_and_platform_alone(tmp_path: Path) -> None:
    assert tag() in {str(one) for one in sys_tags()}
    description = tmp_path / "metasrv-1.dist-info" / "WHEEL"
    description.parent.mkdir()
    description.write_text("Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    mark_as_compiled(tmp_path)
    assert description.read_text() == f"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: false\nTag: {tag()}\n"
    assert f"cp{sys.version_info.major}{sys.version_info.minor}-" in tag()
