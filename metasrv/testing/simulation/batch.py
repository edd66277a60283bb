"""Many histories in worker processes.

In a module of its own, because a worker that is started afresh can import nothing from a package's `__main__`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

from metasrv.testing.simulation.history import Outcome, run_history
from metasrv.testing.simulation.plan import make_plan

_CHUNK = 25


def run_seeds(first: int, count: int) -> list[Outcome]:
    """In a worker: histories of consecutive seeds."""
    logging.disable(logging.CRITICAL)
    return [run_history(make_plan(seed)) for seed in range(first, first + count)]


def run_many(first_seed: int, histories: int, workers: int) -> Iterator[Outcome]:
    """Outcomes as they come."""
    chunks = [
        (seed, min(_CHUNK, first_seed + histories - seed)) for seed in range(first_seed, first_seed + histories, _CHUNK)
    ]
    if workers <= 1:
        for seed, count in chunks:
            yield from run_seeds(seed, count)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        waiting = iter(chunks)
        running: set[Future[list[Outcome]]] = {
            pool.submit(run_seeds, *chunk) for chunk, _ in zip(waiting, range(workers * 2), strict=False)
        }
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for chunk, _ in zip(waiting, done, strict=False):
                running.add(pool.submit(run_seeds, *chunk))
            for future in done:
                yield from future.result()
    finally:
        pool.shutdown(cancel_futures=True)
