"""The model of docs/scaling.md: it says again what was measured, and what it says of other machines is plausible."""

from __future__ import annotations

import pytest

from benchmarks.scaling_model import (
    Costs,
    Line,
    Point,
    capacity,
    fit,
    follower_us,
    gateways_max,
    idle_watchers,
    leader_us,
    main,
    read_points,
    solve,
    told_per_second,
    total,
)
from metasrv.model.limits import GATEWAYS_MAX

TOLERANCE = 0.20
POINTS, WATCHED = read_points()
SMALL = [point for point in POINTS if point.keys == 1]
"""The state of the others is large; docs/scaling.md says why they are left out."""
COSTS = Costs((100.0, 800.0, 50.0, 10.0), (20.0, 500.0, 5.0), (50.0, 300.0), (900.0, 10.0))


def name(point: Point) -> str:
    return f"{point.kind} {point.nodes} nodes {point.clients} clients {point.value_bytes} bytes"


@pytest.mark.parametrize("point", SMALL, ids=name)
def test_the_leader_of_a_measured_load_is_met(point: Point) -> None:
    assert leader_us(fit(POINTS, WATCHED), point) == pytest.approx(point.leader_us, rel=TOLERANCE)


@pytest.mark.parametrize("point", [point for point in SMALL if point.kind == "write" and point.nodes > 1], ids=name)
def test_a_follower_of_a_measured_load_is_met(point: Point) -> None:
    assert follower_us(fit(POINTS, WATCHED), point) == pytest.approx(point.follower_us, rel=TOLERANCE)


@pytest.mark.parametrize(("watchers", "measured_us"), WATCHED)
def test_a_measured_number_of_watchers_is_met(watchers: int, measured_us: float) -> None:
    costs = fit(POINTS, WATCHED)
    assert total(costs.watch, (1.0, float(watchers))) == pytest.approx(measured_us, rel=TOLERANCE)


def test_clusters_that_it_was_not_told_of_are_met() -> None:
    """Fitted to one and three nodes it says what five cost, to a quarter."""
    costs = fit([point for point in POINTS if point.nodes != 5], WATCHED)
    five = [point for point in SMALL if point.nodes == 5]
    assert len(five) == 3
    for point in five:
        assert leader_us(costs, point) == pytest.approx(point.leader_us, rel=0.25)


def test_costs_that_made_the_points_are_found_again() -> None:
    points = []
    for nodes, batch, value_bytes in ((1, 1, 256), (3, 1, 256), (3, 10, 256), (3, 30, 4096), (5, 20, 32768)):
        point = Point("write", nodes, 1, value_bytes, 1, 0.0, float(batch), 0.0, 0.0)
        points.append(point._replace(leader_us=leader_us(COSTS, point), follower_us=follower_us(COSTS, point)))
    for clients in (1, 16, 64):
        point = Point("read", 3, clients, 256, 1, 0.0, 0.0, 0.0, 0.0)
        points.append(point._replace(leader_us=leader_us(COSTS, point)))
    found = fit(points, [(0, 900.0), (1000, 10_900.0)])
    for costs, expected in zip(found, COSTS, strict=True):
        assert costs == pytest.approx(expected, rel=1e-6)


def test_no_cost_is_negative() -> None:
    first, second = solve([Line((1.0, 1.0), 10.0), Line((1.0, 2.0), 9.0), Line((1.0, 3.0), 8.0)])
    assert second == 0.0
    assert 8.0 < first < 10.0


def test_more_cores_never_carry_less() -> None:
    for kind in ("write", "read"):
        carried = [capacity(COSTS, kind, cores).per_second for cores in range(1, 40)]
        assert carried == sorted(carried)
    assert [told_per_second(COSTS, cores) for cores in (2, 8)] == pytest.approx([100_000, 600_000])


def test_two_cores_have_no_gateways_and_many_have_no_more_than_a_node_takes() -> None:
    assert [gateways_max(cores) for cores in (1, 2, 3, 8, 64)] == [0, 0, 1, 6, GATEWAYS_MAX]
    assert capacity(COSTS, "write", 2).bound_by == "the node's core"
    assert capacity(COSTS, "read", 4).bound_by == "the gateways"


def test_values_and_nodes_cost_more() -> None:
    assert capacity(COSTS, "write", 8, value_bytes=32_768).per_second < capacity(COSTS, "write", 8).per_second / 2
    assert capacity(COSTS, "write", 8, nodes=7).per_second < capacity(COSTS, "write", 8, nodes=3).per_second


def test_memory_carries_watchers_once_the_node_has_its_own() -> None:
    assert idle_watchers(100) == 0
    assert idle_watchers(70 + 128 + 64) == pytest.approx(10_000, abs=1)


def test_it_prints_a_row_for_each_point_and_the_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("| write", "| read")) for line in lines) == len(POINTS)
    assert any(line.startswith("32 cores, writes of 256 clients: ") for line in lines)
