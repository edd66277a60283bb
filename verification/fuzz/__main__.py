"""`make fuzz MINUTES=…`: each target in a process of its own for its share of the time, one after the other.

Guided by coverage: under atheris where it is installed, else by the small engine in `guided.py`. Inputs that reach
further are kept in `.fuzz/corpus/` for the next run; a crash is written to `.fuzz/crashes/`, and the command
that shows it again is printed. Ends with 1 after a crash.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from verification.fuzz.catalogue import CORPUS, TARGETS, load_target
from verification.fuzz.guided import CrashError, run_guided, run_once

WORK = Path(".fuzz")
INPUT_SECONDS_MAX = 10
MEMORY_MIB_MAX = 2048
STOP_SECONDS = 60
"""Longer than its time a target takes only when it hangs."""
_PROGRESS = re.compile(r"#(\d+)\t.*cov: (\d+) ft: (\d+)")
_DONE = re.compile(r"Done (\d+) runs|stat::number_of_executed_units: *(\d+)")


class Outcome(NamedTuple):
    """What one target's run says of itself."""

    text: str
    crashes: tuple[Path, ...]


def run_under_atheris(name: str, seconds: int, seed: int) -> Outcome:
    """Run libFuzzer in a child process, since it ends its process."""
    corpus, crashes = WORK / "corpus" / name, WORK / "crashes" / name
    for directory in (corpus, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(load_target(name).seeds):
        (corpus / f"seed-{number}").write_bytes(data)
    before = set(crashes.iterdir())
    command = [
        *(sys.executable, "-m", "verification.fuzz.under_atheris", name, str(corpus)),
        *(f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={INPUT_SECONDS_MAX}"),
        *(f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-artifact_prefix={crashes}/", "-print_final_stats=1"),
    ]
    log = crashes.parent / f"{name}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=seconds + STOP_SECONDS
        )
    text = log.read_text(encoding="utf-8", errors="replace")
    progress, finished = _PROGRESS.findall(text), _DONE.findall(text)
    inputs = next((number for pair in reversed(finished) for number in pair if number), "?")
    reached = f"{progress[-1][1]} edges, {progress[-1][2]} features" if progress else "no coverage"
    found = tuple(sorted(set(crashes.iterdir()) - before))
    if done.returncode != 0 and not found:
        return Outcome(f"ended with {done.returncode}, see {log}", (log,))
    return Outcome(f"{inputs} inputs, {reached}", found)


def run_here(name: str, seconds: int, seed: int) -> Outcome:
    """Run the small engine in this process."""
    try:
        figures = run_guided(load_target(name), seconds, seed)
    except CrashError as crash:
        path = WORK / "crashes" / name / f"crash-{abs(hash(crash.data)):x}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(crash.data)
        return Outcome(f"{crash}: {crash.__cause__!r}", (path,))
    return Outcome(f"{figures.inputs} inputs, {figures.lines} lines, {figures.kept} inputs kept", ())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m verification.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together")
    parser.add_argument("--only", choices=TARGETS, action="append", help="this target; may be given several times")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-atheris", action="store_true", help="use the small engine")
    parser.add_argument("--show", type=Path, metavar="INPUT", help="run one input of the target named by --only")
    options = parser.parse_args(arguments)
    names = options.only or list(TARGETS)
    if options.show is not None:
        run_once(load_target(names[0]), options.show.read_bytes())
        print("it is taken")
        return 0
    guided = importlib.util.find_spec("atheris") is not None and not options.without_atheris
    print(f"fuzz: {'under atheris' if guided else 'with the small engine: atheris is not installed, or not wanted'}")
    seconds, crashed = max(1, int(options.minutes * 60 / len(names))), False
    for name in names:
        outcome = (run_under_atheris if guided else run_here)(name, seconds, options.seed)
        print(f"fuzz: {name}: {seconds} s, {outcome.text}, {len(outcome.crashes)} crashes", flush=True)
        for path in outcome.crashes:
            crashed = True
            print(f"fuzz: see python -m verification.fuzz --only {name} --show {path}", flush=True)
    print(f"fuzz: put an input that was mended into {os.path.relpath(CORPUS)}/TARGET/" if crashed else "fuzz: ok")
    return int(crashed)


if __name__ == "__main__":
    sys.exit(main())
