"""`metasrv downgrade-check`: whether an earlier release can open a node's directory and take part in its cluster.

Compares what the directory holds (`looking.py`) with what each release knows (`model/releases.py`). Changes nothing. Says
what to do about each obstacle, or that there is no way back. Runs in a program of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from metasrv.backup.looking import Seen
from metasrv.model.commands import LIMITS_FEATURE, MIGRATION_FEATURE, USERS_FEATURE
from metasrv.model.errors import DataDamagedError
from metasrv.model.releases import FEATURES, THIS, Format, Release
from metasrv.model.types import NO_LIMITS
from metasrv.model.users import NAME_PREFIX
from metasrv.state.registry import Registry

KEEP_A_COPY = (
    "no way back with this directory: put back a copy from before the upgrade, or restore an export into an empty "
    "directory of that release (docs/runbooks/upgrade.md)"
)


class Answer(IntEnum):
    """Whether the release can take the directory over; also the exit code."""

    YES = 0
    DAMAGED = DataDamagedError.exit_code
    """Something cannot be read: it is damaged, or of a release that this one does not know."""
    NOT_YET = 11
    """Something has to be done first; the findings say what."""
    NO_WAY_BACK = 12


class Finding(NamedTuple):
    """One thing that was compared."""

    part: str
    text: str
    answer: Answer = Answer.YES
    helps: str = ""

    def lines(self) -> Iterator[str]:
        mark = {Answer.YES: "", Answer.DAMAGED: "UNREADABLE: "}.get(self.answer, "OBSTACLE: ")
        yield f"{self.part}: {mark}{self.text}"
        if self.helps:
            yield f"  what helps: {self.helps}"


def overall(findings: list[Finding]) -> Answer:
    """What cannot be read counts most: nothing that is said of the rest can be relied on."""
    answers = {finding.answer for finding in findings}
    order = (Answer.DAMAGED, Answer.NO_WAY_BACK, Answer.NOT_YET)
    return next((answer for answer in order if answer in answers), Answer.YES)


def conclusion(answer: Answer, to: Release) -> str:
    return {
        Answer.YES: f"yes: {to.name} can open this directory and take part in the cluster",
        Answer.DAMAGED: f"unknown: not all of this directory can be read by this release, {THIS.name}",
        Answer.NOT_YET: f"not yet: do what helps, then ask again, before {to.name} is started on this directory",
        Answer.NO_WAY_BACK: f"no way back: {to.name} cannot open this directory",
    }[answer]


def findings_for(seen: Seen, to: Release) -> list[Finding]:
    """Everything that was compared, in the order in which a node would meet it."""
    return [
        *_identity(seen),
        *_formats(seen, to),
        *_features(seen, to),
        *_commands(seen, to),
        *_between_nodes(to),
    ]


def _identity(seen: Seen) -> Iterator[Finding]:
    identity = seen.identity
    yield Finding("identity", f"node {identity.node_id} of cluster {identity.cluster_id}")
    if identity.removed is not None:
        yield Finding(
            "membership",
            f"it is no longer a member, in any release: {identity.removed}",
            Answer.NO_WAY_BACK,
            "the node joins again with an empty directory (docs/runbooks/removed-node.md)",
        )
    if seen.damage:
        yield Finding("note", f"the state is known to be damaged: {seen.damage}", Answer.DAMAGED, "see `metasrv check`")

    if seen.replacing:
        yield Finding(
            "state",
            "a snapshot was chosen to take its place, and the last stop came in between",
            Answer.NOT_YET,
            "start this release, which puts it there, and ask again",
        )


# ----------------------------------------------------------------------------- formats


def _formats(seen: Seen, to: Release) -> Iterator[Finding]:
    found = [(Format.DIRECTORY, THIS.formats[Format.DIRECTORY].writes[0])]
    found += [(Format.LOG, seen.log_version), (Format.STATE, seen.state_version)]
    for kind, version in found:
        yield _readable(str(kind), kind, version, to)
    for name, version in seen.snapshot_versions.items():
        one = _readable(f"snapshot {name}", Format.SNAPSHOT, version, to)
        if one.answer is Answer.NO_WAY_BACK:
            one = one._replace(answer=Answer.NOT_YET, helps="remove the file once that release is to start here")
        yield one
    kind = Format.ENTRY
    if seen.unreadable:
        more = "" if len(seen.unreadable) == 1 else f"; and {len(seen.unreadable) - 1} more"
        yield Finding(str(kind), f"{seen.unreadable[0]}{more}", Answer.DAMAGED, "ask the release that wrote it")
    else:
        part = f"log entries {seen.first_index} to {seen.last_index}"
        yield _readable(part, kind, THIS.formats[kind].writes[0], to)


def _readable(part: str, kind: Format, version: str, to: Release) -> Finding:
    """Whether the release reads this version. One that this release does not know was written by a later one."""
    if version not in THIS.formats[kind].reads:
        text = f"format {version} is not known to this release, {THIS.name}, which reads {_or(THIS, kind)}"
        return Finding(part, text, Answer.DAMAGED, "ask the release that wrote it, or see `metasrv check`")
    if version in to.formats[kind].reads:
        return Finding(part, f"format {version}, which {to.name} reads")
    text = f"format {version}; {to.name} reads {_or(to, kind)}"
    return Finding(part, text, Answer.NO_WAY_BACK, KEEP_A_COPY)


def _or(release: Release, kind: Format) -> str:
    return " or ".join(release.formats[kind].reads) or "none"


# ----------------------------------------------------------------------------- features


_REMAINS: Mapping[str, Callable[[Registry], str]] = MappingProxyType(
    {
        "dummy": lambda _registry: "",
        "dummy_feature2": lambda _registry: "",
        # Users that nobody uses do no harm there.
        USERS_FEATURE: lambda _registry: "",
        MIGRATION_FEATURE: lambda registry: "records of another cluster are being moved here" * registry.is_migrating,
        LIMITS_FEATURE: lambda registry: (
            "" if registry.limits == NO_LIMITS else "the cluster is read-only or has a quota, which that release ignores"
        ),
    }
)
"""What a feature left in the state that another release would misunderstand, also when it is off; empty: nothing."""


def features_on(seen: Seen) -> set[str]:
    """Those of the state, and what the entries behind it turn on or off: they may be committed."""
    on = set(seen.registry.features)
    for entry in seen.entries:
        if entry.log_index > seen.applied.index:
            for name, enable in entry.switched:
                on = on | {name} if enable else on - {name}
    return on


def _features(seen: Seen, to: Release) -> Iterator[Finding]:
    on = features_on(seen)
    known = sorted(on & to.features)
    yield Finding("features", f"on and known to {to.name}: {', '.join(known) or 'none'}")
    way_back = {feature.name: feature.way_back for feature in FEATURES}
    for name in sorted(on - to.features):
        turn_off = f"`metactl set-feature --feature {name} --enable false` on the leader"
        if name not in way_back:
            turn_off += ", with the release that brought it: this one does not know what it leaves behind"
        helps = "; ".join(text for text in (way_back.get(name), turn_off) if text)
        yield Finding(f"feature {name}", f"it is on, and {to.name} does not know it", Answer.NOT_YET, helps)
    for name, remains in _REMAINS.items():
        left = "" if name in to.features else remains(seen.registry)
        if left:
            yield Finding(f"feature {name}", left, Answer.NOT_YET, way_back[name])
    users = sum(name.startswith(NAME_PREFIX) for name in seen.registry.secrets)
    if users and USERS_FEATURE not in to.features:
        yield Finding("users", f"{users} stay in the state; with {to.name} only root logs in")


# ----------------------------------------------------------------------------- commands


def _commands(seen: Seen, to: Release) -> Iterator[Finding]:
    readable = to.commands | to.operations
    waiting: dict[str, int] = {}
    kept: dict[str, int] = {}
    for entry in seen.entries:
        applied = entry.log_index <= seen.applied.index
        if applied and entry.log_index == seen.first_index:
            continue  # the last one that was purged: its place is kept, and it is sent to nobody
        for name in entry.names - readable:
            (kept if applied else waiting).setdefault(name, entry.log_index)
    brought_by = {name: feature.name for feature in FEATURES for name in feature.commands}
    for name, index in waiting.items():
        text = f"entry {index} is not applied yet and has a {name}, which {to.name} cannot read: it would stop there"
        first = f"turn `{brought_by[name]}` off, " if name in brought_by else ""
        helps = f"{first}let this release apply the entry (start the node), then `metactl compact` on every node"
        yield Finding("log", text, Answer.NOT_YET, helps)
    for name, index in kept.items():
        text = f"entry {index} has a {name}, which {to.name} cannot read: a member that lags would stop there"
        helps = "`metactl compact` on every node once all are level"
        yield Finding("log", text, Answer.NOT_YET, helps)
    if not waiting and not kept:
        yield Finding("log", f"{len(seen.entries)} entries with commands, all known to {to.name}")


# ----------------------------------------------------------------------------- between nodes


def _between_nodes(to: Release) -> Iterator[Finding]:
    for kind in (Format.PEERS, Format.REQUESTS):
        ours, theirs = set(THIS.formats[kind].reads), set(to.formats[kind].reads)
        shared = sorted(ours & theirs)
        if shared:
            yield Finding(str(kind), f"version {shared[-1]}, spoken by both")
        else:
            text = f"this release speaks {_or(THIS, kind)}, {to.name} {_or(to, kind)}: they refuse each other"
            yield Finding(str(kind), text, Answer.NOT_YET, "stop all nodes, then start all of them with that release")
