"""metactl's backup commands: what they print, and what becomes of the file when something goes wrong."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from metasrv.cli import ctl, ctl_backup
from metasrv.grpc_api.export_lines import ArchiveHead
from metasrv.model.errors import NotDoneError

APPLIED = '{"leader_id":{"term":2,"node_id":1},"index":7}'
LINES = (
    '["header",{"DataHeader":{"key":"header","value":{"version":"V004"}}}]',
    f'["state_machine/0",{{"StateMachineMeta":{{"key":"LastApplied","value":{{"LogId":{APPLIED}}}}}}}]',
    '["state_machine/0",{"GenericKV":{"key":"k","value":{"seq":1,"meta":{},"data":[1]}}}]',
)
Archive = Callable[[], Iterator[Sequence[str]]]


def head(**changed: object) -> str:
    return ArchiveHead("c", 1, 0, True, 7, 1, ())._replace(**changed).line()  # type: ignore[arg-type]


class FakeClient:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def archive(self, *, local: bool, secrets: bool) -> Iterator[Sequence[str]]:
        del local, secrets
        return self._archive()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Archive], None]:
    def answer(archive: Archive) -> None:
        monkeypatch.setattr(ctl_backup, "client_of", lambda _arguments: FakeClient(archive))

    return answer


def test_an_archive_is_saved_and_inspected(
    answering: Callable[[Archive], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "archive"
    answering(lambda: iter([[head()], LINES[:2], LINES[2:]]))
    assert ctl.main(["snapshot", "save", str(target)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"saved 4 lines up to T2-N1.7 to {target}\nconfirmed: yes, by a quorum")
    assert "clear text" in printed.err
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert ctl.main(["snapshot", "inspect", str(target)]) == 0
    assert "Keys: 1\n" in capsys.readouterr().out


def test_a_local_archive_says_how_far_behind_it_may_be(
    answering: Callable[[Archive], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "archive")
    answering(lambda: iter([[head(confirmed=False, last_log_index=12, leader_id=None)], LINES]))
    for arguments in (["snapshot", "save", "--local", target], ["snapshot", "inspect", target]):
        assert ctl.main(arguments) == 0
        printed = capsys.readouterr().out
        assert "it ends at entry 7, 5 entries before the end of the node's own log" in printed
        assert "the node knew no leader" in printed


def test_a_server_that_does_not_know_archives_gives_one_that_nobody_confirmed(
    answering: Callable[[Archive], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "archive")
    answering(lambda: iter([LINES]))
    assert ctl.main(["snapshot", "save", target]) == 0
    assert "confirmed: no: the server does not know the question" in capsys.readouterr().out
    assert ctl.main(["snapshot", "inspect", target]) == 0
    printed = capsys.readouterr().out
    assert "ClusterId: unknown" in printed
    assert "Confirmed: no" in printed


@pytest.mark.parametrize("before", [[], [[head()], LINES]])
def test_a_backup_that_ends_early_leaves_no_file(
    answering: Callable[[Archive], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    before: list[Sequence[str]],
) -> None:
    def breaks_off() -> Iterator[Sequence[str]]:
        yield from before
        raise NotDoneError("no leader")

    answering(breaks_off)
    assert ctl.main(["snapshot", "save", str(tmp_path / "archive")]) == 1
    error = capsys.readouterr().err
    assert "no leader" in error
    assert ("--local saves what it has" in error) == (not before)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["snapshot", "inspect", str(tmp_path / "missing")]) == 1
    assert "missing cannot be read: No such file" in capsys.readouterr().err
    assert ctl.main(["import", "--db", "f"]) == 1
    assert "--raft-dir is missing" in capsys.readouterr().err
