"""What is loaded anew, when, and what stays in force when that fails."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from metasrv.model.errors import ConfigError
from metasrv.process.reloading import Reloadable, Reloader


class Observer:
    def __init__(self) -> None:
        self.outcomes: list[tuple[str, bool]] = []

    def reloaded(self, name: str, succeeded: bool) -> None:
        self.outcomes.append((name, succeeded))


class Bench:
    """One reloadable text of one file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "secret"
        self.path.write_text("one")
        self.observer = Observer()
        self.reloader = Reloader(self.observer)
        self.paths = [str(self.path)]
        self.loads = 0
        self.current = "one"
        self.swapped = asyncio.Event()
        self.reloader.add(Reloadable("secret", lambda: self.paths, self._load, self._swap))

    def _load(self) -> str:
        self.loads += 1
        text = Path(self.paths[0]).read_text()
        if text == "bad":
            raise ConfigError(["it is bad"])
        return text

    def _swap(self, text: str) -> None:
        self.current = text
        self.swapped.set()

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.reloader.look()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_an_unchanged_file_is_not_read(bench: Bench) -> None:
    await bench.look(3)
    assert (bench.loads, bench.observer.outcomes) == (0, [])


async def test_a_change_counts_once_it_has_stayed_the_same(bench: Bench) -> None:
    bench.path.write_text("two, longer")
    await bench.look()
    bench.path.write_text("three, longer still")
    await bench.look()
    assert bench.current == "one", "it may be half of a change"
    await bench.look()
    assert bench.current == "three, longer still"
    await bench.look(3)
    assert (bench.loads, bench.observer.outcomes) == (1, [("secret", True)])


async def test_a_file_of_the_same_size_and_time_that_was_put_in_its_place_counts(bench: Bench, tmp_path: Path) -> None:
    before = bench.path.stat()
    new = tmp_path / "new"
    new.write_text("two")
    os.utime(new, ns=(before.st_mtime_ns, before.st_mtime_ns))
    new.replace(bench.path)
    await bench.look(2)
    assert bench.current == "two"


@pytest.mark.parametrize("harm", ["wrong", "missing", "not UTF-8"])
async def test_what_cannot_be_loaded_leaves_the_old_in_force_with_one_line(
    bench: Bench, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    if harm == "missing":
        bench.path.unlink()
    else:
        bench.path.write_bytes(b"bad" if harm == "wrong" else b"\xff\xfe\xff\xfe")
        os.utime(bench.path, ns=(1, 1))
    await bench.look(5)
    assert bench.current == "one"
    assert bench.observer.outcomes == [("secret", False)]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "secret: what the files hold now cannot be used, and what they held before stays in force" in caplog.text
    bench.path.write_text("mended")
    await bench.look(2)
    assert bench.current == "mended"
    assert bench.observer.outcomes[-1] == ("secret", True)


async def test_other_paths_are_watched_from_then_on(bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("other")
    bench.paths = [str(other)]
    await bench.look(2)
    assert bench.current == "other"
    bench.path.write_text("nobody looks here any more")
    await bench.look(3)
    assert bench.loads == 1


@pytest.mark.virtual_time
async def test_whoever_asks_need_not_wait_and_nobody_has_to_ask(bench: Bench) -> None:
    running = asyncio.create_task(bench.reloader.run())
    bench.path.write_text("two!")
    bench.reloader.ask()
    await bench.swapped.wait()
    assert bench.current == "two!"
    assert asyncio.get_running_loop().time() < 3
    running.cancel()
