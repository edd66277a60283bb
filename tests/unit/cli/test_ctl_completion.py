"""Completion in the shells themselves, and the forms of answers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from metasrv.cli import ctl
from metasrv.cli.ctl_completion import levels, script
from metasrv.cli.formats import Column, table_lines, yaml_lines

PARSER = ctl.build_parser()
ASK = """
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _metactl; printf '%s\\n' "${COMPREPLY[*]}"; }
"""
CASES = [
    (["mem"], {"member", "member-list"}),
    (["member", ""], {"list", "add", "remove", "promote", "replace", "-h", "--help"}),
    (["member", "list", "--wat"], {"--watch"}),
    (["member", "list", "-o", ""], {"table", "json", "yaml", "jsonl"}),
    (["member", "list", "--output", "js"], {"json", "jsonl"}),
    (["--context", "prod", "endpoint", "he"], {"health"}),
    (["user", "grant", "--right", "w"], {"write"}),
    (["completion", "z"], {"zsh"}),
    (["help", "snap"], {"snapshot"}),
    (["get", "--key", ""], set()),
]


@pytest.mark.program
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(tmp_path: Path) -> None:
    asked = "".join(f"ask metactl {' '.join(repr(word) for word in words)}\n" for words, _ in CASES)
    text = script("bash", PARSER) + ASK + asked + "ask metactl export --db a-f\n"
    (tmp_path / "a-file").touch()
    run = subprocess.run(
        ["bash", "-eu"], input=text, capture_output=True, text=True, cwd=tmp_path, timeout=30, check=True
    )
    assert run.stderr == ""
    *answers, file = [line.split() for line in run.stdout.splitlines()]
    assert [set(answer) for answer in answers] == [expected for _, expected in CASES]
    assert file == ["a-file"]


@pytest.mark.program
@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes(tmp_path: Path) -> None:
    text = script("fish", PARSER) + '\ncomplete -C "metactl member "\ncomplete -C "metactl user grant --right "\n'
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(["fish"], input=text, capture_output=True, text=True, timeout=30, check=True, env=home)
    assert run.stderr == ""
    found = {line.partition("\t")[0] for line in run.stdout.splitlines()}
    assert found == {"list", "add", "remove", "promote", "replace", "read", "write"}


@pytest.mark.program
@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_takes_the_script(tmp_path: Path) -> None:
    text = f"autoload -U compinit; compinit -u -D\n{script('zsh', PARSER)}\nprint -- $_comps[metactl]\n"
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(["zsh", "-f"], input=text, capture_output=True, text=True, timeout=30, check=True, env=home)
    assert (run.stdout.strip(), run.stderr) == ("_bash_complete -F _metactl", "")


def test_every_command_is_in_the_tree_with_its_flags() -> None:
    tree = {level.path: level for level in levels(PARSER)}
    assert {"", "member add", "endpoint health", "cluster restart-plan", "snapshot save", "config view"} <= set(tree)
    assert all(tree[""].commands.values()), "each has a help text"
    assert tree["snapshot save"].takes_file
    assert {flag.names for flag in tree["member remove"].flags} >= {("--force",), ("-o", "--output")}


# ----------------------------------------------------------------------------- forms


def test_yaml_is_read_as_what_was_written() -> None:
    tree = {
        "text": "a: b # c", "word": "yes", "number": "12", "empty": "", "plain": "node 3 leads", "lines": "a\nb",
        "null": None, "true": True, "deep": {"list": [1, [2, 3], {"a": [], "b": {}}, "-"], "none": []}, "é": "Ü",
    }  # fmt: skip
    assert yaml.safe_load("\n".join(yaml_lines(tree))) == tree
    assert "\n".join(yaml_lines([])) == "[]"
    assert yaml.safe_load("\n".join(yaml_lines([{"a": 1, "b": [2]}, "x"]))) == [{"a": 1, "b": [2]}, "x"]


def test_a_table_is_aligned_and_says_what_is_unknown() -> None:
    columns = (Column("ID", lambda row: row["id"]), Column("READY", lambda row: row["ready"]))
    rows: list[dict[str, object]] = [{"id": 1, "ready": True}, {"id": 100, "ready": None}, {"id": 2, "ready": False}]
    assert list(table_lines(rows, columns)) == ["ID   READY", "1    yes", "100  -", "2    no"]
