"""A short pass over every fuzz target: its seeds, what is kept for it, and inputs that a seed number decides.

`make fuzz` runs the same targets for long, guided by coverage (docs/fuzzing.md).
"""

from __future__ import annotations

import random

import pytest

from verification.fuzz.catalogue import CORPUS, TARGETS, kept_inputs, load_target
from verification.fuzz.guided import CrashError, run_guided, run_once
from verification.fuzz.mutation import mutated
from verification.fuzz.target import LoggedError, Target, no_logged_errors

SEED = 1
INPUTS = {
    "admin_http": 60,
    "configuration": 60,
    "snapshot_files": 80,
    "backup_files": 60,
    "log_files": 150,
    "raft_frames": 200,
}
INPUTS_DEFAULT = 300


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_is_a_surprise(name: str) -> None:
    target, ran = load_target(name), 0
    source = random.Random(SEED)
    for data in target.seeds:
        run_once(target, data)
        ran += 1
    for _ in range(INPUTS.get(name, INPUTS_DEFAULT)):
        run_once(target, mutated(source, target.seeds, target.input_size_bytes_max))
        ran += 1
    assert ran == len(target.seeds) + INPUTS.get(name, INPUTS_DEFAULT)


def test_every_directory_of_kept_inputs_has_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
    assert kept_inputs("raft_messages")


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = (random.Random(SEED) for _ in range(2))
    corpus = [b"", b"abc" * 20]
    made = [mutated(first, corpus, 50) for _ in range(200)]
    assert made == [mutated(second, corpus, 50) for _ in range(200)]
    assert len(set(made)) > 100
    assert max(map(len, made)) <= 50


def test_a_logged_error_is_a_finding() -> None:
    import logging

    def refuse() -> None:
        with no_logged_errors():
            logging.getLogger("metasrv.x").error("it failed")

    with pytest.raises(LoggedError, match="it failed"):
        refuse()
    with no_logged_errors():
        logging.getLogger("metasrv.x").warning("a client was cut off")


def test_a_crash_names_the_input() -> None:
    def run(data: bytes) -> None:
        if b"!" in data:
            raise ValueError("surprise")

    with pytest.raises(CrashError) as caught:
        run_once(Target("target", run, ()), b"a!")
    assert caught.value.data == b"a!"
    run_once(Target("target", run, ()), b"a")


def test_the_small_engine_finds_what_lies_behind_several_conditions() -> None:
    """It has to keep the inputs that come nearer: the chance for all three at once is one in sixteen millions."""
    from metasrv.model.entries import decode_entry
    from metasrv.model.errors import CodecError

    reached: list[bytes] = []

    def run(data: bytes) -> None:
        try:
            decode_entry(data)
        except CodecError:
            return
        reached.append(data)
        raise AssertionError("found")

    with pytest.raises(CrashError):
        run_guided(Target("entries", run, (b"\x07\x07\x07",)), 60.0, SEED)
    assert reached
