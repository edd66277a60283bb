"""One frame of `metactl top`: from what is known, the width and the height, to lines of text with styles.

Every line fits the width, and all together the height where there is one: what matters most comes first, and events take
what is left. Pure; knows neither terminal nor network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from metasrv.cli.top import cells
from metasrv.cli.top.sight import ClusterSight, EventSight, NodeSight, Number, ProblemSight, Sight
from metasrv.cli.top.source import News

CHART_MINUTES = 5
TWO_CHARTS_WIDTH_MIN = 56
LINES_BESIDE_EVENTS_MIN = 3
"""Events that are shown at least, where anything is left to give."""
_LABEL_WIDTH, _VALUE_WIDTH = 11, 8

BAD, DOUBTFUL, GOOD, FAINT, STRONG = "bold red", "yellow", "green", "dim", "bold"


class Column(NamedTuple):
    """A column of the nodes' table."""

    title: str
    cell: Callable[[NodeSight], str]
    importance: int
    """Where the width is short, columns with the largest number go first."""
    sort_key: Callable[[NodeSight], float] | None = None
    """The rows' order by this column, the smallest first."""
    left: bool = False


def _last(value: Number, *, largest_first: bool = True) -> float:
    """What is not known comes first: it is most worth a look."""
    if value is None:
        return float("-inf")
    return -value if largest_first else value


def _ready(node: NodeSight) -> str:
    if not node.reachable:
        return "silent"
    if node.ready is None:
        return cells.UNKNOWN
    return "drained" if node.draining else "yes" if node.ready else "no"


COLUMNS = (
    Column("ID", lambda node: str(node.node_id), 0, lambda node: node.node_id),
    Column("ROLE", lambda node: node.role, 0, lambda node: node.role != "leader", left=True),
    Column("READY", _ready, 0, lambda node: node.ready is True and node.reachable, left=True),
    Column("TERM", lambda node: cells.count(node.term), 2),
    Column("LAG", lambda node: cells.count(node.lag_entries), 1, lambda node: _last(node.lag_entries)),
    Column("HEARD", lambda node: cells.age(node.last_contact_ms), 3, lambda node: _last(node.last_contact_ms)),
    Column("CLOCK", lambda node: cells.offset(node.clock_offset_ms), 5),
    Column("UP", lambda node: cells.duration(node.uptime_ms), 4),
    Column("DATA", lambda node: cells.size(node.database_bytes), 6),
    Column("LOG", lambda node: cells.size(node.log_bytes), 7),
    Column("VERSION", lambda node: node.version.partition("+")[0] or cells.UNKNOWN, 8, left=True),
    Column("GRPC", lambda node: node.grpc_address or cells.UNKNOWN, 9, left=True),
)
SORTS = tuple(column.title for column in COLUMNS if column.sort_key is not None)

Chart = tuple[str, str, Callable[[Number], str]]
CHARTS: tuple[tuple[Chart, Chart], ...] = (
    (("writes/s", "writes_per_second", cells.rate), ("reads/s", "reads_per_second", cells.rate)),
    (("write p50", "write_p50_ms", cells.milliseconds), ("write p99", "write_p99_ms", cells.milliseconds)),
    (("log sync", "sync_ms", cells.milliseconds), ("loop lag", "loop_lag_ms", cells.milliseconds)),
    (("memory", "memory_bytes", cells.size), ("database", "database_bytes", cells.size)),
    (("raft log", "log_bytes", cells.size), ("read p99", "read_p99_ms", cells.milliseconds)),
    (("watchers", "watchers", cells.count), ("connections", "connections", cells.count)),
)


class Look(NamedTuple):
    """How a frame is to look."""

    width: int
    height: int | None = None
    """None: as high as it gets, as in a file."""
    ascii_only: bool = False
    sort: str = SORTS[0]
    paused: bool = False
    keys: bool = False
    """Whether a line at the end names the keys."""


def frame(news: News, look: Look) -> list[Text]:
    """The lines, from the top."""
    sight = news.sight
    head = _head(news, look)
    if sight.cluster is None:
        return _fitted([*head, *_footer(look)], look)
    footer = _footer(look)
    table = _table(sight.cluster, look)
    problems = _problems(sight.cluster.problems, look, with_text=True)
    charts = _charts(sight, look)
    blank = [Text()]
    needed = len(head) + len(table) + len(problems) + len(charts) + len(footer) + 4 + LINES_BESIDE_EVENTS_MIN
    if look.height is not None and needed > look.height:
        blank = []
        needed -= 4
        if needed > look.height:
            problems = _problems(sight.cluster.problems, look, with_text=False)
            needed = len(head) + len(table) + len(problems) + len(charts) + len(footer) + LINES_BESIDE_EVENTS_MIN
            charts = charts[: max(2, len(charts) - max(0, needed - look.height))]
    about = [Text(f"node {sight.cluster.answered_by}, the last {CHART_MINUTES} minutes", FAINT)] if charts else []
    upper = [*head, *blank, *table, *problems, *blank, *(about if blank else []), *charts, *blank]
    left = None if look.height is None else look.height - len(upper) - len(footer)
    lines = [*upper, *_events(sight.events, sight.cluster.now_ms, left)]
    if look.height is not None:
        room = look.height - len(footer)
        lines = [*lines[:room], *[Text()] * (room - len(lines)), *footer]
    else:
        lines += footer
    return _fitted(lines, look)


# ----------------------------------------------------------------------------- head


def _head(news: News, look: Look) -> list[Text]:
    cluster = news.sight.cluster
    if cluster is None:
        lines = [Text("metactl top", STRONG)]
    else:
        leads = ("  no leader", BAD) if cluster.leader_id is None else f"  node {cluster.leader_id} leads"
        left = Text.assemble((cluster.name or "cluster", STRONG), leads, (f"  term {cells.count(cluster.term)}", FAINT))
        now = cells.clock(cluster.now_ms)
        rights = f"node {cluster.answered_by} at {news.address}  {now}", f"{news.address}  {now}", now
        lines = [_spread(left, rights, look.width), _verdict(cluster, look)]
        if cluster.leader_id is not None and cluster.read_only_reason not in (None, cluster.tolerance_text):
            reason = f": {cluster.read_only_reason}" if cluster.read_only_reason else ""
            lines.append(Text(f"writes are refused{reason}", DOUBTFUL))
        if cluster.waiting_for:
            lines.append(
                Text(f"node {cluster.answered_by} waits for {cluster.waiting_for.removeprefix('for ')}", DOUBTFUL)
            )
        if cluster.empty and cluster.leader_id is not None:
            lines.append(Text("there are no keys yet", FAINT))
    if news.trouble:
        lines.append(Text(f"what is shown is old: {news.trouble}", BAD))
    elif news.instead_of:
        lines.append(Text(f"{news.instead_of} gives no answer, {news.address} is asked instead", DOUBTFUL))
    if look.paused:
        lines.append(Text("paused", DOUBTFUL))
    return lines


def _verdict(cluster: ClusterSight, look: Look) -> Text:
    style = GOOD
    if cluster.failures is None:
        style = BAD
    elif (cluster.failures == 0 and cluster.voters > 1) or cluster.problems:
        style = DOUBTFUL
    mark = "*" if look.ascii_only else "●"
    return Text(f"{mark} {cluster.tolerance_text or 'the failure tolerance is not known'}", style)


def _spread(left: Text, rights: Sequence[str], width: int) -> Text:
    """With the first of the texts that fits at the end of the line; none where none does."""
    room = width - left.cell_len - 2
    for right in rights:
        if cell_len(right) <= room:
            return Text.assemble(left, " " * (room + 2 - cell_len(right)), (right, FAINT))
    return left


# ----------------------------------------------------------------------------- nodes


def _table(cluster: ClusterSight, look: Look) -> list[Text]:
    if not cluster.nodes:
        return [Text("no members are known", DOUBTFUL)]
    by = next((column for column in COLUMNS if column.title == look.sort and column.sort_key), COLUMNS[0])
    key = by.sort_key or (lambda node: node.node_id)
    nodes = sorted(cluster.nodes, key=lambda node: (key(node), node.node_id))
    rows = {column: [column.cell(node) for node in nodes] for column in COLUMNS}
    shown, widths = list(COLUMNS), {}
    while True:
        widths = {column: max(cell_len(cell) for cell in (column.title, *rows[column])) for column in shown}
        last = shown[-1]
        if sum(widths.values()) + 2 * (len(shown) - 1) <= look.width or len(shown) <= 1:
            break
        last = max(shown, key=lambda column: column.importance)
        if last.importance == 0:
            break
        shown.remove(last)
    title = Text("  ").join(
        Text(_aligned(column.title, widths[column], column), "bold underline" if column is by else FAINT)
        for column in shown
    )
    lines = [title]
    for at, node in enumerate(nodes):
        style = _row_style(node)
        lines.append(Text("  ".join(_aligned(rows[column][at], widths[column], column) for column in shown), style))
    return lines


def _aligned(cell: str, width: int, column: Column) -> str:
    return set_cell_size(cell, width) if column.left else " " * (width - cell_len(cell)) + cell


def _row_style(node: NodeSight) -> str:
    if not node.reachable or node.role == "removed":
        return BAD
    if node.ready is False or node.ready is None:
        return DOUBTFUL
    return STRONG if node.role == "leader" else ""


# ----------------------------------------------------------------------------- problems


def _problems(problems: Sequence[ProblemSight], look: Look, *, with_text: bool) -> list[Text]:
    lines = []
    for problem in problems:
        style = BAD if problem.critical else DOUBTFUL
        line = Text(f"! {problem.title}", style)
        if problem.runbook:
            line = _spread(line, [f"runbook {problem.runbook}", problem.runbook], look.width)
        lines.append(line)
        if with_text and problem.text:
            lines.append(Text(f"  {problem.text}"))
    return lines


# ----------------------------------------------------------------------------- charts


def _charts(sight: Sight, look: Look) -> list[Text]:
    """Two beside each other, or all below each other."""
    if not sight.series:
        return []
    if look.width >= TWO_CHARTS_WIDTH_MIN:
        width = (look.width - 3) // 2
        return [Text("   ").join(_chart(sight, chart, width, look) for chart in pair) for pair in CHARTS]
    return [_chart(sight, chart, look.width, look) for pair in CHARTS for chart in pair]


def _chart(sight: Sight, chart: Chart, width: int, look: Look) -> Text:
    label, name, shown = chart
    points = sight.series.get(name, ())
    newest = points[-1] if points else None
    window = points[-CHART_MINUTES * 60_000 // max(1, sight.step_ms) :]
    blocks = cells.ASCII_BLOCKS if look.ascii_only else cells.BLOCKS
    drawn = cells.chart(window, width - _LABEL_WIDTH - _VALUE_WIDTH - 1, blocks)
    return Text.assemble(
        (label.ljust(_LABEL_WIDTH), FAINT), (shown(newest).rjust(_VALUE_WIDTH), STRONG), " ", (drawn, "cyan")
    )


# ----------------------------------------------------------------------------- events and keys


def _events(events: Sequence[EventSight], now_ms: int, room: int | None) -> list[Text]:
    """The newest first, as many as there is room for."""
    count = 10 if room is None else max(0, room)
    lines = []
    for event in list(reversed(events))[:count]:
        style = {"critical": BAD, "warning": DOUBTFUL}.get(event.severity, "")
        when = f"{cells.moment(event.time_ms, now_ms)}  node {event.node_id}  "
        lines.append(Text.assemble((when, FAINT), (event.text, style)))
    return lines


def _footer(look: Look) -> list[Text]:
    if not look.keys:
        return []
    arrows = "left/right" if look.ascii_only else "s ← →"
    return [Text(f"q quit   p {'go on' if look.paused else 'pause'}   {arrows} sort: {look.sort.lower()}", FAINT)]


def _fitted(lines: Sequence[Text], look: Look) -> list[Text]:
    """Cut at the width, and at the height; in plain letters where there are no others."""
    fitted = []
    for line in lines if look.height is None else lines[: look.height]:
        if look.ascii_only:
            style, spans = line.style, line.spans
            line = Text(line.plain.encode("ascii", "replace").decode(), style=style, spans=list(spans))
        cut = line.copy()
        cut.truncate(max(1, look.width), overflow="crop" if look.ascii_only else "ellipsis")
        cut.rstrip()
        fitted.append(cut)
    return fitted
