"""Build the compiled wheel: the ordinary wheel, with its hot modules as extension modules beside their sources.

Takes the wheel that the project's own build backend makes, compiles what `scripts/compiled_modules.txt` names with mypyc
in a temporary copy, and packs the result with the tag of this Python and this platform. Needs a C compiler, the headers
of this Python, and mypy with all that metasrv needs to run, because types are looked up there. Where pip finds both
wheels it takes the compiled one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = ROOT / "scripts" / "compiled_modules.txt"
MODULES_NAME = "modules.txt"
MYPY_NAME = "mypy.toml"
"""pyproject.toml under a name that setuptools does not read."""


def named_modules(path: Path = MODULES) -> list[str]:
    """The paths of the modules to compile, without the comments."""
    lines = map(str.strip, path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def tag() -> str:
    """The tag of what is compiled here, `cp311-cp311-linux_x86_64`."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{python}-{python}-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def why_not() -> str | None:
    """What this machine lacks to compile, in a sentence without its end; None if nothing."""
    if shutil.which("cc") is None:
        return "there is no C compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "the headers of this Python are missing (python3-dev on Debian)"
    return None


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a program; what it prints is shown only if it fails. Raises CalledProcessError."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise subprocess.CalledProcessError(done.returncode, command)


def pure_wheel(directory: Path) -> Path:
    """The wheel of the project's own build backend."""
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", str(directory))
    run(sys.executable, "-m", "pip", "wheel", *options, str(ROOT))
    [wheel] = directory.glob("metasrv-*.whl")
    return wheel


def compile_in(work: Path, package: Path) -> list[Path]:
    """Compile a copy of the package below `work`; the extension modules, relative to `work`."""
    shutil.copytree(package, work / package.name)
    shutil.copy(ROOT / "pyproject.toml", work / MYPY_NAME)
    shutil.copy(MODULES, work / MODULES_NAME)
    script = ROOT / "scripts" / "compile_modules.py"
    run(sys.executable, str(script), "build_ext", "--inplace", cwd=work)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return [path.relative_to(work) for path in work.rglob(f"*{suffix}") if "build" not in path.relative_to(work).parts]


def mark_as_compiled(unpacked: Path) -> None:
    """Say in the wheel's own description that it fits this Python and platform alone."""
    [description] = unpacked.glob("*.dist-info/WHEEL")
    lines = description.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("Tag:", "Root-Is-Purelib:")) and line]
    description.write_text("\n".join([*kept, "Root-Is-Purelib: false", f"Tag: {tag()}", ""]), encoding="utf-8")


def build(output: Path) -> Path:
    """Build the compiled wheel into `output`; its path."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="metasrv-compiled-") as directory:
        work = Path(directory)
        run(sys.executable, "-m", "wheel", "unpack", "--dest", str(work / "unpacked"), str(pure_wheel(work / "pure")))
        [unpacked] = (work / "unpacked").iterdir()
        (work / "compiled").mkdir()
        made = compile_in(work / "compiled", unpacked / "metasrv")
        for path in made:
            shutil.copy(work / "compiled" / path, unpacked / path)
        mark_as_compiled(unpacked)
        run(sys.executable, "-m", "wheel", "pack", "--dest-dir", str(output.resolve()), str(unpacked))
        return output / f"{unpacked.name}-{tag()}.whl"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compiled_wheel", description="Build the compiled wheel.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where the wheel goes (default: dist)")
    options = parser.parse_args(arguments)
    missing = why_not()
    if missing is not None:
        sys.stderr.write(f"The compiled wheel was not built: {missing}.\n")
        return 1
    try:
        wheel = build(options.output)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"The compiled wheel was not built: {error}.\n")
        return 1
    print(f"{wheel}: {len(named_modules())} modules compiled, {wheel.stat().st_size} bytes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
