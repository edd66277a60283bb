"""What every thread and every task of this process is doing at this moment, as text: names and places, never values.

For diagnostics of a node that hangs or waits. Must not know who asks. Runs on any thread; the tasks are those of the
running loop, so they are asked for on it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from types import FrameType

from metasrv.model.limits import DIAGNOSTICS_STACK_FRAMES_MAX, DIAGNOSTICS_TASKS_MAX
from metasrv.profiling.stacks import relative_path


def thread_stacks() -> str:
    """The stack of every thread, the newest call first, as `faulthandler` has it."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines: list[str] = []
    for ident, frame in sys._current_frames().items():
        here = " (this one takes the stacks)" if ident == threading.get_ident() else ""
        lines.append(f"Thread {names.get(ident, 'unknown to Python')}{here}:")
        lines += [f"  {place}" for place in _places(frame)]
        lines.append("")
    return "\n".join(lines)


def task_names() -> str:
    """The tasks of the running loop by name, with where each waits; the same ones once, with their number."""
    tasks = list(asyncio.all_tasks())
    counted = Counter(map(_task_line, tasks[:DIAGNOSTICS_TASKS_MAX]))
    lines = [f"{len(tasks)} tasks"]
    lines += [f"{count:5} × {line}" for line, count in sorted(counted.items())]
    if len(tasks) > DIAGNOSTICS_TASKS_MAX:
        lines.append(f"and {len(tasks) - DIAGNOSTICS_TASKS_MAX} more")
    return "\n".join(lines) + "\n"


def _task_line(task: asyncio.Task[object]) -> str:
    frames = task.get_stack(limit=1)
    where = f" at {_place(frames[-1])}" if frames else ""
    name = task.get_name()
    # Tasks that nobody named are called Task-1, Task-2 and so on.
    return f"{'task' if name.startswith('Task-') else name}{where}"


def _places(frame: FrameType | None) -> Iterator[str]:
    left = DIAGNOSTICS_STACK_FRAMES_MAX
    while frame is not None and left:
        yield _place(frame)
        frame, left = frame.f_back, left - 1
    if frame is not None:
        yield "…"


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({relative_path(code.co_filename)}:{frame.f_lineno or code.co_firstlineno})"
