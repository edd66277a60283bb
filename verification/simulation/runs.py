"""Many histories in several worker processes.

A module of its own because workers import it by name, which they cannot do with a program's main module.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process

from verification.silence import silenced_logs
from verification.simulation.history import Outcome, run_history
from verification.simulation.plan import make_plan

CHUNK = 25
"""Histories that a worker runs before it reports."""


def end_with_parent() -> None:
    """In a worker: end when the parent does, even if it was killed."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def run_seeds(first: int, count: int) -> list[Outcome]:
    """In a worker: run histories of consecutive seeds."""
    with silenced_logs():
        return [run_history(make_plan(seed)) for seed in range(first, first + count)]


def run_many(first_seed: int, histories: int, workers: int, chunk_size: int = CHUNK) -> Iterator[Outcome]:
    """The outcomes of all histories, as they come."""
    end = first_seed + histories
    chunks = ((seed, min(chunk_size, end - seed)) for seed in range(first_seed, end, chunk_size))
    if workers <= 1:
        for seed, count in chunks:
            yield from run_seeds(seed, count)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent)
    try:
        running: set[Future[list[Outcome]]] = set()
        for _, chunk in zip(range(2 * workers), chunks, strict=False):
            running.add(pool.submit(run_seeds, *chunk))
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for _, chunk in zip(done, chunks, strict=False):
                running.add(pool.submit(run_seeds, *chunk))
            for future in done:
                yield from future.result()
    finally:
        pool.shutdown(cancel_futures=True)
