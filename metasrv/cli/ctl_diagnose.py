"""`metactl diagnose`: the diagnostics of every node of a cluster in one archive, with a summary for people.

One node tells where the others are; each is asked for its own bundle, all at once. A node that does not answer is named
in the summary and on stderr. What nodes send is copied, never trusted: names, sizes and numbers are bounded. Runs in the
foreground of a short process, with a thread for each node.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple

from metasrv import __version__
from metasrv.cli.ctl_admin import AdminClient, client_of, made
from metasrv.cli.ctl_flags import Commands, add_admin_command, unsigned
from metasrv.cli.diagnosis_summary import Diagnosis, NodeFiles, summary
from metasrv.cli.terminal import note, opened_archive, show
from metasrv.model.errors import InvalidRequestError, MetasrvError, NotDoneError
from metasrv.model.limits import (
    DIAGNOSTICS_BUNDLE_SIZE_BYTES_MAX,
    DIAGNOSTICS_FILE_SIZE_BYTES_MAX,
    DIAGNOSTICS_FILES_OF_BUNDLE_MAX,
    DIAGNOSTICS_PROFILE_SECONDS_MAX,
)

DIAGNOSTICS_PATH = "/v1/diagnostics"
SECONDS_DEFAULT = 2
ANSWER_SECONDS = 30.0
"""How long a node may be silent while it sends its bundle, beside the seconds of its profile."""
IN_MEMORY_SIZE_BYTES = 8 * 1024 * 1024
"""A larger bundle waits in a temporary file."""
NODES_AT_ONCE = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_READ_BY_SUMMARY = ("about.json", "status.json", "checks.json", "slow-writes.json", "errors.txt")


class _Asked(NamedTuple):
    """One node, and its bundle or why there is none."""

    node: Mapping[str, Any]
    bundle: IO[bytes] | None
    failure: str


class _File(NamedTuple):
    """One file of a bundle."""

    name: str
    data: bytes
    made_at: int


def add_commands(commands: Commands) -> None:
    parser = add_admin_command(commands, "diagnose", diagnose, "collect the diagnostics of every node in one archive")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the archive, a .tar.gz")
    parser.add_argument(
        "--seconds",
        type=unsigned,
        default=SECONDS_DEFAULT,
        metavar="N",
        help=f"length of each node's profile, {SECONDS_DEFAULT} by default; 0 leaves it out",
    )


def diagnose(arguments: argparse.Namespace) -> None:
    """Ask all nodes, then write the archive. Raises NotDoneError when no node gives anything."""
    if arguments.seconds > DIAGNOSTICS_PROFILE_SECONDS_MAX:
        raise InvalidRequestError(f"--seconds is at most {DIAGNOSTICS_PROFILE_SECONDS_MAX}")
    client = client_of(arguments)
    console = client.json("/v1/console", ("nodes", "cluster", "answered_by", "problems"))
    events = client.json("/v1/events", ("events", "missing_nodes"), limit=1_000)
    nodes = [node for node in console["nodes"] if isinstance(node.get("id"), int)]
    note(f"asking {len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}")
    with ThreadPoolExecutor(NODES_AT_ONCE) as threads:
        asked = list(threads.map(lambda node: _ask(arguments, client, console["answered_by"], node), nodes))
    try:
        _write_archive(arguments, console, events["events"], asked)
    finally:
        for one in asked:
            if one.bundle is not None:
                one.bundle.close()


def _write_archive(
    arguments: argparse.Namespace, console: dict[str, Any], events: list[Any], asked: Sequence[_Asked]
) -> None:
    """Everything as one archive, complete or not at all. Raises NotDoneError, StorageError."""
    if not any(one.bundle for one in asked):
        failures = "; ".join(f"node {one.node['id']}: {one.failure}" for one in asked) or "it knows no node"
        raise NotDoneError(f"no node gives its diagnostics: {failures}")
    made_at = int(time.time())
    root = f"metasrv-diagnostics-{datetime.fromtimestamp(made_at, UTC).strftime('%Y%m%dT%H%M%SZ')}"
    with opened_archive(arguments.output) as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        found = {one.node["id"]: _copy(one, root, archive) for one in asked}
        missing = {node_id: files.failure for node_id, files in found.items() if files.failure}
        text = summary(Diagnosis(console, events, found, made_at, __version__, arguments.admin_api_address))
        _write(archive, root, _File("summary.md", text.encode("utf-8", "backslashreplace"), made_at))
        together = {"console.json": console, "events.json": {"events": events}}
        for name, content in together.items():
            _write(archive, root, _File(name, json.dumps(content, indent=1, ensure_ascii=False).encode(), made_at))
    for node_id, failure in missing.items():
        note(f"node {node_id}: {failure}")
    whole = [str(node_id) for node_id in found if node_id not in missing]
    of = f"of {'node' if len(whole) == 1 else 'nodes'} {', '.join(whole)}" if whole else "of no node completely"
    show(f"wrote {arguments.output}, the diagnostics {of}; begin with {root}/summary.md")


def _ask(arguments: argparse.Namespace, first: AdminClient, first_id: int, node: Mapping[str, Any]) -> _Asked:
    """One node's bundle; the node that told of the others is asked where it answered before."""
    address = node.get("admin_url") or node.get("admin_address")
    if node["id"] != first_id and not address:
        return _Asked(node, None, f"it does not answer node {first_id}, which never learned where its admin API is")
    bundle = tempfile.SpooledTemporaryFile(IN_MEMORY_SIZE_BYTES)  # noqa: SIM115 - read later, closed by `diagnose`
    try:
        client = first if node["id"] == first_id else made(str(address), arguments)
        target, timeout_seconds = f"{DIAGNOSTICS_PATH}?seconds={arguments.seconds}", ANSWER_SECONDS + arguments.seconds
        client.download(target, bundle.write, DIAGNOSTICS_BUNDLE_SIZE_BYTES_MAX, timeout_seconds)
        bundle.seek(0)
    except MetasrvError as error:
        failure = str(error)
    except OSError as error:
        failure = f"its bundle cannot be kept meanwhile: {error.strerror or error}"
    else:
        return _Asked(node, bundle, "")
    bundle.close()
    return _Asked(node, None, failure)


def _copy(asked: _Asked, root: str, archive: tarfile.TarFile) -> NodeFiles:
    """Write one node's files below its own directory. Raises OSError when the archive cannot be written."""
    if asked.bundle is None:
        return NodeFiles({}, asked.failure)
    kept: dict[str, Any] = {}
    failure = ""
    files = _files_in(asked.bundle)
    while True:
        try:
            file = next(files)
        except StopIteration:
            break
        except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
            failure = f"its bundle is not complete: {error}"
            break
        _write(archive, f"{root}/node-{asked.node['id']}", file)
        if file.name in _READ_BY_SUMMARY:
            kept[file.name] = _content(file)
    return NodeFiles(kept, failure)


def _files_in(bundle: IO[bytes]) -> Iterator[_File]:
    """The files of a bundle. Raises ValueError for another archive, and as gzip and tarfile do."""
    size_bytes = 0
    # tarfile's own decompression takes a bundle that was cut for one that ends.
    with gzip.GzipFile(fileobj=bundle, mode="rb") as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as found:
        for position, member in enumerate(found):
            if position >= DIAGNOSTICS_FILES_OF_BUNDLE_MAX:
                raise ValueError(f"it has more than {DIAGNOSTICS_FILES_OF_BUNDLE_MAX} files")
            stream = found.extractfile(member) if member.isreg() and _NAME.fullmatch(member.name) else None
            if stream is None:
                raise ValueError(f"{member.name!r:.80} is not the name of a file of a bundle")
            data = stream.read(DIAGNOSTICS_FILE_SIZE_BYTES_MAX)
            size_bytes += len(data)
            if size_bytes > DIAGNOSTICS_BUNDLE_SIZE_BYTES_MAX:
                raise ValueError(f"it has more than {DIAGNOSTICS_BUNDLE_SIZE_BYTES_MAX} bytes")
            yield _File(member.name, data, int(member.mtime))
        while left := unpacked.read(tarfile.RECORDSIZE):
            size_bytes += len(left)
            if size_bytes > DIAGNOSTICS_BUNDLE_SIZE_BYTES_MAX:
                raise ValueError(f"it has more than {DIAGNOSTICS_BUNDLE_SIZE_BYTES_MAX} bytes")


def _write(archive: tarfile.TarFile, directory: str, file: _File) -> None:
    member = tarfile.TarInfo(f"{directory}/{file.name}")
    member.size, member.mtime, member.mode = len(file.data), file.made_at, 0o600
    archive.addfile(member, io.BytesIO(file.data))


def _content(file: _File) -> Any:
    """What a file says: JSON where it is that, otherwise its text."""
    text = file.data.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        return text
