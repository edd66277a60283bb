"""The command line of the server."""

from __future__ import annotations

import pytest

from metasrv.cli.options import CONFIG_CHECK, CONFIG_SHOW, RUN, keys_by_flag, parse_options
from metasrv.config.keys import KEYS
from metasrv.config.load import load_config
from metasrv.model.errors import ConfigError


def problems_of(*arguments: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_options(arguments, {})
    return caught.value.problems


def test_nothing_given_is_nothing_told() -> None:
    options = parse_options([], {})
    assert (options.command, options.config_file, options.cmd, options.flags) == (RUN, None, "", {})


def test_flags_given_are_told_as_text() -> None:
    options = parse_options(
        ["--single", "--id=3", "--join", "a:1", "b:2", "--join", "c:3", "--log-file-on", "false", "-c", "x.toml"], {}
    )
    assert options.config_file == "x.toml"
    assert options.flags == {
        "raft_config.single": "true",
        "raft_config.id": "3",
        "raft_config.join": ("a:1", "b:2", "c:3"),
        "log.file.on": "false",
    }


def test_every_key_has_a_flag_without_the_section_of_raft() -> None:
    flags = keys_by_flag()
    assert {key.flag for key in KEYS.values()} == set(flags)
    assert {"--id", "--raft-dir", "--log-file-max-size", "--log-stderr-level", "--insecure-raft", "--leave-via",
            "--admin-api-address", "--log-level", "--snapshot-db-block-keys"} <= set(flags)  # fmt: skip


def test_every_flag_reaches_the_configuration() -> None:
    for flag, key in keys_by_flag().items():
        options = parse_options([flag, "1"], {})
        assert list(options.flags) == [key.path]


def test_upstreams_flags_are_accepted_and_ignored() -> None:
    options = parse_options(["--single", "--snapshot-db-block-cache-size", "1", "--no-sync"], {})
    config = load_config(None, {}, options.flags).config
    assert sorted(config.ignored_keys) == ["raft_config.no_sync", "raft_config.snapshot_db_block_cache_size"]


def test_config_file_from_the_environment_unless_given() -> None:
    environment = {"METASRV_CONFIG_FILE": "env.toml"}
    assert parse_options([], environment).config_file == "env.toml"
    assert parse_options(["--config-file", "flag.toml"], environment).config_file == "flag.toml"
    assert parse_options([], {"METASRV_CONFIG_FILE": ""}).config_file is None


def test_a_cluster_is_begun_by_a_flag_only() -> None:
    assert parse_options(["--begin-cluster", "--single"], {}).begin_cluster
    assert not parse_options(["--single"], {"METASRV_BEGIN_CLUSTER": "true"}).begin_cluster


def test_data_is_rebuilt_by_a_flag_only() -> None:
    assert parse_options(["--rebuild", "-c", "x.toml"], {}).rebuild
    assert not parse_options(["--single"], {"METASRV_REBUILD": "true"}).rebuild


def test_commands() -> None:
    check = parse_options(["config", "check", "f.toml"], {})
    assert (check.command, check.check_file) == (CONFIG_CHECK, "f.toml")
    show = parse_options(["--single", "-c", "x.toml", "--id", "1", "config", "show", "--id", "2"], {})
    assert (show.command, show.config_file) == (CONFIG_SHOW, "x.toml")
    assert show.flags == {"raft_config.single": "true", "raft_config.id": "2"}
    assert parse_options(["--cmd", "ver"], {}).cmd == "ver"


def test_leave_request() -> None:
    options = parse_options(["--leave-id", "3", "--leave-via", "a:1,b:2"], {})
    raft = load_config(None, {}, options.flags).config.raft_config
    assert raft.is_leave_request
    assert (raft.leave_id, raft.leave_via) == (3, ("a:1", "b:2"))


def test_mistyped_flags_are_named_and_their_values_are_not() -> None:
    assert problems_of("--hartbeat-interval", "3", "--raft-secert", "planted", "--raft-secert=planted") == [
        "unknown flag --hartbeat-interval; did you mean --heartbeat-interval?",
        "unknown flag --raft-secert; did you mean --raft-secret?",
        "unknown flag --raft-secert; did you mean --raft-secret?",
    ]


def test_wrong_command_lines_are_configuration_errors() -> None:
    assert "expected one argument" in problems_of("--id")[0]
    assert "invalid choice: 'start'" in problems_of("start")[0]
    assert "required: FILE" in problems_of("config", "check")[0]
    assert "required: COMMAND" in problems_of("config")[0]
    assert problems_of("config", "check", "a", "b") == ["unexpected argument 'b'"]


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_print_and_exit(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_options([flag], {})
    assert caught.value.code == 0
    assert "metasrv" in capsys.readouterr().out
