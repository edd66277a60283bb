"""What a bad round leaves behind for its investigation: history, pictures, watches, the nodes' output.

Writes files; knows nothing of how they came about.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from metasrv.testing.history import to_lines
from metasrv.testing.processes import ProcessCluster
from verification.chaos import Round
from verification.nemesis.gateway_faults import GATEWAYS_VARIABLE, REMOTE_VARIABLE
from verification.timeline import timeline_html


def replay_command(one: Round) -> str:
    """The command that inflicts the same fault again, with the same choices."""
    arguments = f'--first-round {one.seed} --fault "{one.fault}" --nodes {one.nodes} --clients {one.clients}'
    gateways = os.environ.get(GATEWAYS_VARIABLE, "0")
    arguments += f" --gateways {gateways}" if gateways != "0" else ""
    remote = os.environ.get(REMOTE_VARIABLE, "0")
    arguments += f" --remote-gateways {remote}" if remote != "0" else ""
    return f"make chaos ROUNDS=1 ARGS='{arguments}'"


def write_evidence(directory: Path, one: Round, cluster: ProcessCluster) -> Path:
    """Write everything known about a round into a new directory; returns it."""
    target = directory / f"round-{one.seed}-{''.join(c if c.isalnum() else '-' for c in one.fault)}"
    target.mkdir(parents=True, exist_ok=True)
    summary = [f"fault: {one.fault}", f"again: {replay_command(one)}", f"nodes' files: {cluster.directory}"]
    if one.failure is not None:
        summary += ["", "The round could not be finished:", one.failure]
    summary += ["", f"{len(one.problems)} broken promises", *one.problems]
    (target / "summary.txt").write_text("\n".join(summary) + "\n", encoding="utf-8")
    (target / "history.jsonl").write_text("\n".join(to_lines(one.record.operations)) + "\n", encoding="utf-8")
    for number, violation in enumerate(one.violations, 1):
        (target / f"violation-{number}.html").write_text(timeline_html(violation), encoding="utf-8")
    _write_watches(target / "watches.jsonl", one)
    for node_id, node in cluster.nodes.items():
        if node.console.exists():
            shutil.copyfile(node.console, target / f"node{node_id}.log")
    return target


def _write_watches(path: Path, one: Round) -> None:
    with path.open("w", encoding="utf-8") as file:
        for stream in one.streams:
            existing = {key: seq for key, (seq, _) in stream.existing_records.items()}
            head = {"node": stream.node_id, "existing": existing, "end": stream.end}
            file.write(json.dumps(head) + "\n")
            for change in stream.changes:
                file.write(json.dumps([change.key, change.prev_seq, change.seq, change.data.decode()]) + "\n")
