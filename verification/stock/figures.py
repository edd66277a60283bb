"""The figures of many histories of one fault kind, for plain pysyncobj and for metasrv."""

from __future__ import annotations

from dataclasses import dataclass, replace

from verification.simulation.history import run_history
from verification.simulation.plan import Plan, make_plan
from verification.stock.history import run_stock_history

HEADER = (
    "| fault | engine | histories | acknowledged writes | of these lost | doubled | refused, yet done "
    "| stale or contradictory reads | replicas differ | stuck | nodes that could not start |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(slots=True)
class StockFigures:
    """Sums over the histories of one fault kind with plain pysyncobj."""

    kind: str
    histories: int = 0
    acknowledged: int = 0
    lost: int = 0
    lost_in: int = 0
    doubled: int = 0
    denied: int = 0
    contradictory: int = 0
    diverged: int = 0
    stuck: int = 0
    refusals: int = 0
    first_wrong: int | None = None
    """A seed that shows something wrong."""

    def row(self) -> str:
        lost = f"{self.lost} ({self.lost_in} histories)" if self.lost else "0"
        return (
            f"| {self.kind} | pysyncobj | {self.histories} | {self.acknowledged} | {lost} | {self.doubled}"
            f" | {self.denied} | {self.contradictory} | {self.diverged} | {self.stuck} | {self.refusals} |"
        )


@dataclass(slots=True)
class OwnFigures:
    """The same for metasrv; a violation is one of any of the simulator's invariants."""

    kind: str
    histories: int = 0
    acknowledged: int = 0
    violations: int = 0
    first_wrong: int | None = None
    """A seed that shows a violation."""

    def row(self) -> str:
        rest = " | 0" * 7 if not self.violations else f" | {self.violations} histories with violations" + " | ?" * 6
        return f"| {self.kind} | metasrv | {self.histories} | {self.acknowledged}{rest} |"


def plan_of_kind(seed: int, kind: str) -> Plan:
    """The seed's plan with every fault of one kind; `as planned` keeps its own mix."""
    plan = make_plan(seed)
    if kind == AS_PLANNED:
        return plan
    return replace(plan, faults=tuple(replace(fault, kind=kind) for fault in plan.faults))


AS_PLANNED = "as planned"


def stock_figures(kind: str, first_seed: int, histories: int, use_batch: bool) -> StockFigures:
    figures = StockFigures(kind)
    for seed in range(first_seed, first_seed + histories):
        outcome = run_stock_history(plan_of_kind(seed, kind), use_batch=use_batch)
        figures.histories += 1
        figures.acknowledged += outcome.acknowledged
        figures.lost += len(outcome.lost)
        figures.lost_in += bool(outcome.lost)
        figures.doubled += len(outcome.doubled)
        figures.denied += len(outcome.denied)
        figures.contradictory += outcome.not_linearizable
        figures.diverged += outcome.diverged
        figures.stuck += bool(outcome.stuck)
        figures.refusals += outcome.refusals
        if outcome.wrong and figures.first_wrong is None:
            figures.first_wrong = seed
    return figures


def own_figures(kind: str, first_seed: int, histories: int) -> OwnFigures:
    figures = OwnFigures(kind)
    for seed in range(first_seed, first_seed + histories):
        outcome = run_history(plan_of_kind(seed, kind))
        figures.histories += 1
        figures.acknowledged += outcome.done
        figures.violations += bool(outcome.violations)
        if outcome.violations and figures.first_wrong is None:
            figures.first_wrong = seed
    return figures
