"""Makes a failing plan smaller: fewer faults, less load, less time, while it still fails.

Leaving something out changes what happens afterwards, so a smaller plan may fail in another way; any violation counts.
The result can be replayed from its text form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

from verification.simulation.history import Outcome, run_history
from verification.simulation.plan import Plan, make_plan

ATTEMPTS_MAX = 150


def shrink(outcome: Outcome, run: Callable[[Plan], Outcome] = run_history) -> Outcome:
    """The outcome of the smallest failing plan found."""
    best, attempts = outcome, ATTEMPTS_MAX
    smaller = True
    while smaller and attempts > 0:
        smaller = False
        for plan in _smaller(best.plan):
            attempts -= 1
            candidate = run(plan)
            if candidate.violations:
                best, smaller = candidate, True
                break
            if attempts <= 0:
                break
    return best


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with something left out, the largest cuts first."""
    faults = plan.faults
    if len(faults) > 3:
        half = len(faults) // 2
        yield replace(plan, faults=faults[:half])
        yield replace(plan, faults=faults[half:])
    for fault in faults:
        yield replace(plan, faults=tuple(other for other in faults if other is not fault))
    last = max((fault.at_seconds for fault in faults), default=0.0)
    if last + 0.2 < plan.seconds * 0.8:
        yield replace(plan, seconds=last + 0.2)
    if plan.operations > 4:
        yield replace(plan, operations=plan.operations // 2)
    if plan.clients > 1:
        yield replace(plan, clients=plan.clients - 1)


def encode_changes(plan: Plan) -> str:
    """What a plan keeps of its seed's own plan, for a command line."""
    return json.dumps(
        {
            "faults": [fault.number for fault in plan.faults],
            "seconds": plan.seconds,
            "operations": plan.operations,
            "clients": plan.clients,
        },
        separators=(",", ":"),
    )


def decode_changes(seed: int, text: str) -> Plan:
    """The seed's plan with only what `encode_changes` kept. Raises ValueError, KeyError."""
    changes, plan = json.loads(text), make_plan(seed)
    kept = set(changes["faults"])
    return replace(
        plan,
        faults=tuple(fault for fault in plan.faults if fault.number in kept),
        seconds=float(changes["seconds"]),
        operations=int(changes["operations"]),
        clients=int(changes["clients"]),
    )
