"""The table of releases says what the code does, what earlier releases did, and what docs/upgrading.md says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest

from metasrv import __version__
from metasrv.model.commands import KNOWN_FEATURES
from metasrv.model.releases import FEATURES, LOG_KEEPING_SPACE, RELEASES, THIS, Format, Release, release_named
from tests.support import release_probe
from tests.support.paths import PRODUCT, ROOT, TESTS
from tests.support.releases import PREVIOUS, wheel_of

PROTOCOLS = {Format.SERVER, Format.CLIENT}
KEPT = [release for release in RELEASES if wheel_of(release.name).exists()]
PROMISED = RELEASES[1:]
"""Those that rolling upgrades and rollbacks are promised for: all since the first release."""
NAMED = re.compile(r"^(?:[A-Z]+_|_)*(?:VERSIONS?|FORMAT)(?:_[A-Z_]+)?(?:: [^=]+)? = ", re.MULTILINE)
CONSTANTS = {
    "backup/checking.py": "reads the header of the state",
    "backup/lines.py": Format.EXPORT,
    "backup/places.py": "names of files",
    "client/connection.py": Format.CLIENT,
    "gateway/messages.py": "a gateway on another machine and its node have to be of one version, which both say",
    "grpc_api/export_lines.py": Format.ARCHIVE,
    "model/entries.py": Format.ENTRY,
    "model/migration.py": Format.MIGRATION,
    "model/summary.py": Format.SUMMARY,
    "model/types.py": Format.EXPORT,
    "model/users.py": Format.USER,
    "process/data_directory.py": Format.DIRECTORY,
    "protocol/versions.py": Format.SERVER,
    "raft/forwarding.py": Format.REQUESTS,
    "raft/log/checks.py": "SQLite's own",
    "raft/log/format.py": Format.LOG,
    "raft/peers/handshake.py": Format.PEERS,
    "state/conversion.py": "reads the header of the state",
    "state/first_format.py": Format.STATE,
    "state/format.py": Format.STATE,
    "state/install.py": "SQLite's own",
    "testing/fake_node.py": "an example",
    "testing/node_client.py": Format.CLIENT,
}
"""Modules with a constant that is called a version or a format, and which format's it is, or why none's."""


def differences(release: Release, found: dict[str, Any]) -> list[str]:
    """What the row says otherwise than the probe."""
    differing = []
    for kind in Format:
        versions = release.formats[kind]
        if list(versions.writes) != found["written"][kind.name]:
            differing.append(f"{kind}: writes {found['written'][kind.name]}")
        read = {*found["also_read"].get(kind.name, [])}
        if kind not in PROTOCOLS:
            read |= {*versions.writes, *([LOG_KEEPING_SPACE] if kind is Format.LOG else [])}
        if set(versions.reads) != read:
            differing.append(f"{kind}: reads {sorted(read)}")
    for what in ("commands", "operations", "features"):
        if sorted(getattr(release, what)) != found[what]:
            differing.append(f"{what}: {found[what]}")
    return differing


def test_the_last_row_is_what_this_code_does() -> None:
    assert differences(THIS, release_probe.probe()) == []


def test_a_row_that_is_wrong_would_be_noticed() -> None:
    assert len(differences(RELEASES[0], release_probe.probe())) > 10


def test_the_last_row_is_the_version_of_this_code() -> None:
    assert __version__.partition(".dev")[0] == THIS.name


@pytest.mark.program
@pytest.mark.parametrize("release", KEPT, ids=lambda release: release.name)
def test_the_row_of_an_earlier_release_is_what_its_wheel_does(release: Release) -> None:
    done = subprocess.run(
        [sys.executable, "-P", TESTS / "support" / "release_probe.py"],
        env={**os.environ, "PYTHONPATH": str(wheel_of(release.name))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert differences(release, json.loads(done.stdout)) == []


def test_every_release_but_the_builds_before_the_first_and_this_one_is_kept() -> None:
    assert [release.name for release in KEPT] == [release.name for release in RELEASES[1:-1]]
    assert KEPT[-1].name == PREVIOUS


def test_every_feature_is_described_and_every_command_since_the_first_builds_belongs_to_one() -> None:
    """What a release brings without a feature would stop the nodes of the one before in a mixed cluster."""
    assert tuple(feature.name for feature in FEATURES) == KNOWN_FEATURES
    brought = [command for feature in FEATURES for command in sorted(feature.commands)]
    assert len(brought) == len(set(brought))
    assert THIS.commands - RELEASES[0].commands == set(brought)
    assert THIS.operations == RELEASES[0].operations, "a new operation needs a feature, and a row that names it"


@pytest.mark.parametrize(("before", "after"), list(pairwise(PROMISED)), ids=lambda release: release.name)
def test_a_release_goes_up_and_back(before: Release, after: Release) -> None:
    for kind in set(Format) - PROTOCOLS - {Format.SUMMARY}:  # a summary of another version counts as none
        assert set(before.formats[kind].writes) <= set(after.formats[kind].reads), f"{after.name} cannot read {kind}"
        assert set(after.formats[kind].writes) <= set(before.formats[kind].reads), f"{before.name} cannot read {kind}"
    assert before.commands <= after.commands
    assert before.operations <= after.operations
    assert before.features <= after.features


def test_names_of_releases() -> None:
    assert release_named("0.2.0") == RELEASES[1]
    for unknown in ("", "0.2", "v0.2.0", "0.4.0", "0.3.0.dev0"):
        assert release_named(unknown) is None
    assert len({release.name for release in RELEASES}) == len(RELEASES)


def test_no_module_has_a_version_that_the_table_does_not_know() -> None:
    found = {
        str(path.relative_to(PRODUCT))
        for path in PRODUCT.rglob("*.py")
        if path.parent.name != "proto" and NAMED.search(path.read_text(encoding="utf-8"))
    }
    assert found == CONSTANTS.keys()
    named = {value for value in CONSTANTS.values() if isinstance(value, Format)}
    assert named >= set(Format) - {Format.SNAPSHOT, Format.ENCRYPTED}


# ----------------------------------------------------------------------------- the page


def cell(release: Release, kind: Format) -> str:
    writes, reads = release.formats[kind]
    if not writes:
        return "–"
    if kind in PROTOCOLS:
        return f"{writes[0]}, from {reads[0]}"
    if not reads:
        return f"{', '.join(writes)}; reads none"
    return ", ".join(writes) if reads == writes else f"{', '.join(writes)}; reads {', '.join(reads)}"


def rows() -> list[list[str]]:
    text = (ROOT / "docs/upgrading.md").read_text(encoding="utf-8")
    table = text.partition("## Versions of formats")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[part.strip() for part in line.strip("|").split(" | ")] for line in lines]


def test_the_page_has_the_table() -> None:
    """`cell` above says how a release stands in it."""
    head, _, *body = rows()
    assert head == ["format", *(release.name for release in RELEASES)]
    expected = [[str(kind), *(cell(release, kind) for release in RELEASES)] for kind in Format]
    for what, names in (("commands", "commands"), ("features", "features")):
        counts = [str(len(getattr(release, names))) for release in RELEASES]
        expected.append([f"{what} known", *counts])
    assert body == expected, "\n".join(f"| {' | '.join(row)} |" for row in expected)
