"""Many histories, in as many processes as there are to be workers.

A module of its own because new processes import it by name, which they can not do with a program's main module.
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
"""Histories of one task of a worker."""


def end_with_parent() -> None:
    """In a worker: a parent that was killed leaves nobody to ask for more, or to end this process."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def run_seeds(first: int, count: int) -> list[Outcome]:
    """In a worker: histories of consecutive seeds."""
    with silenced_logs():
        return [run_history(make_plan(seed)) for seed in range(first, first + count)]


def run_many(first_seed: int, histories: int, workers: int, chunk_size: int = CHUNK) -> Iterator[Outcome]:
    """Outcomes as they come; all of them, unless the caller stops."""
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
