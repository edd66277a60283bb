"""The process of one target under atheris: `python -m verification.fuzz.under_atheris TARGET [options of libFuzzer]`.

Modules of metasrv that are imported from here on are instrumented. It ends with the process.
"""

from __future__ import annotations

import sys

import atheris

from verification.fuzz.catalogue import load_target


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["metasrv"]):
        target = load_target(name)
    atheris.Setup([sys.argv[0], *options, f"-max_len={target.input_size_bytes_max}"], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
