"""The summary of a cluster's diagnostics: who leads, who lags, which checks fail, what happened, as a page of Markdown.

Written for a person who opens the archive first here. What nodes sent may be anything, so what does not have the expected
shape is left out. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from metasrv.cli.ctl_logs import keys_text, size_text
from metasrv.cli.output import time_text

EVENTS_SHOWN = 40
WRITES_SHOWN = 10
FILES = (
    ("about.json", "versions of everything, the machine, its load"),
    ("status.json, nodes.json, members.json", "the cluster as this node knows it"),
    ("checks.json, console.json, events.json", "checks of readiness, problems, what happened"),
    ("log.txt", "the newest lines of its log"),
    ("log-levels.json", "what it logs"),
    ("metrics.txt, history.json", "its metrics, and the last 15 minutes"),
    ("configuration.txt, limits.json", "its configuration without secrets, its limits"),
    ("files.txt", "its data directory, with sizes"),
    ("threads.txt, tasks.txt", "what every thread and task is doing"),
    ("slow-writes.json", "the slowest and the largest writes of its clients"),
    ("cpu-profile.folded", "a profile of its processor time; speedscope.app and FlameGraph read it"),
    ("errors.txt", "what could not be made"),
)


class NodeFiles(NamedTuple):
    """Some files of one node by name, and why there are none or not all."""

    files: Mapping[str, Any]
    failure: str


class Diagnosis(NamedTuple):
    """What the summary is made of."""

    console: Mapping[str, Any]
    """What the node that was asked first shows."""
    events: Sequence[Mapping[str, Any]]
    nodes: Mapping[int, NodeFiles]
    made_at: int
    """Seconds since the epoch, by this machine's clock."""
    version: str
    """metactl's."""
    address: str
    """Where the node is that was asked first."""


def summary(diagnosis: Diagnosis) -> str:
    """The page."""
    parts = (_head, _short, _nodes, _checks, _events, _writes, _missing, _files)
    return "\n".join(line for part in parts for line in part(diagnosis)) + "\n"


def _head(diagnosis: Diagnosis) -> Iterator[str]:
    cluster, first = diagnosis.console["cluster"], _plain(diagnosis.console["answered_by"])
    yield f"# Diagnostics of the cluster {_plain(cluster.get('name'))}"
    yield ""
    yield (
        f"Collected {time_text(diagnosis.made_at * 1000)} by metactl {diagnosis.version} through node {first} at "
        f"{_plain(diagnosis.address)}. Cluster id {_plain(cluster.get('id'))}."
    )
    yield ""


def _short(diagnosis: Diagnosis) -> Iterator[str]:
    cluster = diagnosis.console["cluster"]
    leader = cluster.get("leader_id")
    yield "## In short"
    yield ""
    leads = "No leader is known" if leader is None else f"Node {_plain(leader)} leads"
    yield f"- {leads} in term {_plain(cluster.get('term'))}, as node {_plain(diagnosis.console['answered_by'])} sees it."
    views = {node_id: _leader_of(files) for node_id, files in diagnosis.nodes.items() if "status.json" in files.files}
    for node_id, seen in views.items():
        if seen != leader:
            yield f"- **Node {node_id} sees {'no leader' if seen is None else f'node {seen} lead'}.**"
    yield f"- {_sentence(cluster.get('tolerance_text'))}"
    if cluster.get("read_only"):
        yield f"- **Writes are refused: {_plain(cluster.get('read_only_reason') or 'no reason is given')}.**"
    problems = [problem for problem in diagnosis.console["problems"] if isinstance(problem, dict)]
    for problem in problems:
        runbook = f" Runbook: `{_plain(problem['runbook'])}`." if problem.get("runbook") else ""
        title, severity, text = (_plain(problem.get(name)) for name in ("title", "severity", "text"))
        yield f"- **{title}** ({severity}): {text}{runbook}"
    if not problems:
        yield "- No problem is known."
    yield ""


def _nodes(diagnosis: Diagnosis) -> Iterator[str]:
    yield "## Nodes"
    yield ""
    yield "| node | role | version | term | applied | lag | clock | ready | diagnostics |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for node in diagnosis.console["nodes"]:
        files = diagnosis.nodes.get(node.get("id"))
        ready = {True: "yes", False: "**no**"}.get(node.get("ready"), "unknown")
        if not node.get("reachable"):
            ready = "**unreachable**"
        lag = node.get("lag_entries")
        offset = node.get("clock_offset_ms")
        cells = (
            node.get("id"),
            node.get("role"),
            node.get("version"),
            node.get("term"),
            node.get("applied_index"),
            None if lag is None else f"{lag} entries",
            None if offset is None else f"{offset} ms",
        )
        here = "missing" if files is None or not files.files else "not complete" if files.failure else "complete"
        yield f"| {' | '.join(map(_plain, cells))} | {ready} | {here} |"
    yield ""


def _checks(diagnosis: Diagnosis) -> Iterator[str]:
    yield "## Checks that fail or warn"
    yield ""
    lines = [
        f"- Node {node_id}, `{_plain(check.get('name'))}`{'' if not check.get('passed') else ' (warning)'}: "
        f"{_sentence(check.get('reason'))}"
        for node_id, files in diagnosis.nodes.items()
        for check in _list(files.files.get("checks.json"), "readyz")
        if not check.get("passed") or check.get("warns")
    ]
    yield from lines or ["None, of the nodes that answered."]
    yield ""


def _events(diagnosis: Diagnosis) -> Iterator[str]:
    shown = [event for event in diagnosis.events if isinstance(event, dict)][-EVENTS_SHOWN:]
    yield f"## The last {len(shown)} events"
    yield ""
    if shown:
        yield "| time | node | severity | kind | what |"
        yield "|---|---|---|---|---|"
    for event in shown:
        severity = _plain(event.get("severity"))
        weight = severity if severity == "info" else f"**{severity}**"
        moment = _time(event.get("time_ms"))
        text = _plain(event.get("text"))
        yield f"| {moment} | {_plain(event.get('node_id'))} | {weight} | {_plain(event.get('kind'))} | {text} |"
    yield ""


def _writes(diagnosis: Diagnosis) -> Iterator[str]:
    found = [
        (float(write["milliseconds"]), node_id, write)
        for node_id, files in diagnosis.nodes.items()
        for write in _list(files.files.get("slow-writes.json"), "slowest")
        if isinstance(write.get("milliseconds"), int | float)
    ]
    found.sort(key=lambda entry: -entry[0])
    yield "## The slowest writes of the last minutes"
    yield ""
    if not found:
        yield "None, of the nodes that answered."
    else:
        yield "| took | node | ended | size | method | failed | keys |"
        yield "|---|---|---|---|---|---|---|"
    for milliseconds, node_id, write in found[:WRITES_SHOWN]:
        size = write.get("size_bytes")
        cells = (
            _time(write.get("ended_at_ms")),
            size_text(size) if isinstance(size, int) else None,
            write.get("method"),
            write.get("failure"),
            keys_text(write) if _has_keys(write) else None,
        )
        yield f"| {milliseconds:,.1f} ms | {node_id} | {' | '.join(map(_plain, cells))} |"
    yield ""


def _missing(diagnosis: Diagnosis) -> Iterator[str]:
    failing = {node_id: files.failure for node_id, files in diagnosis.nodes.items() if files.failure}
    errors = {
        node_id: files.files["errors.txt"] for node_id, files in diagnosis.nodes.items() if "errors.txt" in files.files
    }
    if not failing and not errors:
        return
    yield "## What is missing"
    yield ""
    for node_id, failure in failing.items():
        yield f"- Node {node_id}: {_sentence(failure)}"
    for node_id, text in errors.items():
        for line in str(text).splitlines():
            yield f"- Node {node_id}, {_plain(line)}"
    yield ""


def _files(diagnosis: Diagnosis) -> Iterator[str]:
    del diagnosis
    yield "## What is in the directory of each node"
    yield ""
    for names, what in FILES:
        quoted = ", ".join(f"`{name}`" for name in names.split(", "))
        yield f"- {quoted}: {what}"


# ----------------------------------------------------------------------------- what may have any shape


def _leader_of(files: NodeFiles) -> int | None:
    status = files.files["status.json"]
    leader = status.get("leader") if isinstance(status, dict) else None
    name = leader.get("name") if isinstance(leader, dict) else None
    return int(name) if isinstance(name, str) and name.isascii() and name.isdigit() and len(name) < 20 else None


def _list(content: Any, name: str) -> list[dict[str, Any]]:
    found = content.get(name) if isinstance(content, dict) else None
    return [member for member in found if isinstance(member, dict)] if isinstance(found, list) else []


def _has_keys(write: Mapping[str, Any]) -> bool:
    keys, operations = write.get("keys"), write.get("operations")
    return isinstance(keys, list) and all(isinstance(key, str) for key in keys) and isinstance(operations, int)


def _time(time_ms: Any) -> str:
    return time_text(time_ms) if isinstance(time_ms, int) and 0 <= time_ms < 2**47 else "-"


def _plain(value: Any) -> str:
    """One cell or part of a line: no markup, no line break."""
    if value is None or value == "":
        return "-"
    text = "".join(character if character.isprintable() else " " for character in str(value))
    for character in "\\|*_`<>[]#":
        text = text.replace(character, f"\\{character}")
    return text


def _sentence(value: Any) -> str:
    text = _plain(value)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
