"""Sources, precedence, provenance and the sentences of a wrong configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from metasrv.config.keys import KEYS
from metasrv.config.load import CONFIG_FILE_SIZE_BYTES_MAX, FlagValues, LoadedConfig, check_config_file, load_config
from metasrv.model.errors import ConfigError

SINGLE: FlagValues = {"raft_config.single": "true"}


def write(directory: Path, text: str) -> str:
    path = directory / "meta.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems_of(file: str | None, environment: dict[str, str] | None = None, flags: FlagValues = SINGLE) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(file, environment or {}, flags)
    assert caught.value.exit_code == 2
    return caught.value.problems


def load(file: str | None, environment: dict[str, str] | None = None, flags: FlagValues = SINGLE) -> LoadedConfig:
    return load_config(file, environment or {}, flags)


def test_each_source_wins_over_the_one_before(tmp_path: Path) -> None:
    file = write(tmp_path, "[raft_config]\nid = 1\nraft_api_port = 1111\nheartbeat_interval = 300\n")
    environment = {"METASRV_ID": "2", "METASRV_RAFT_API_PORT": "2222"}
    loaded = load(file, environment, {**SINGLE, "raft_config.id": "3"})
    raft = loaded.config.raft_config
    assert (raft.id, raft.raft_api_port, raft.heartbeat_interval, raft.cluster_name) == (3, 2222, 300, "foo_cluster")
    assert loaded.sources["raft_config.id"] == "flag --id"
    assert loaded.sources["raft_config.raft_api_port"] == "environment METASRV_RAFT_API_PORT"
    assert loaded.sources["raft_config.heartbeat_interval"] == file
    assert loaded.sources["raft_config.cluster_name"] == "default"


def test_a_flag_equal_to_the_default_still_wins(tmp_path: Path) -> None:
    file = write(tmp_path, "[raft_config]\nheartbeat_interval = 300\n")
    loaded = load(file, flags={**SINGLE, "raft_config.heartbeat_interval": "500"})
    assert loaded.config.raft_config.heartbeat_interval == 500
    assert loaded.sources["raft_config.heartbeat_interval"] == "flag --heartbeat-interval"


def test_a_file_value_beats_a_default_that_upstreams_flags_would_impose(tmp_path: Path) -> None:
    file = write(tmp_path, "[raft_config]\nheartbeat_interval = 1000\nwait_leader_timeout = 70000\n")
    raft = load(file).config.raft_config
    assert (raft.heartbeat_interval, raft.wait_leader_timeout) == (1000, 70_000)


def test_every_value_has_a_source() -> None:
    sources = load(None).sources
    assert set(sources) == {path for path, key in KEYS.items() if not key.ignored and not path.startswith("log_")}
    assert sources["raft_config.single"] == "flag --single"


def test_lists_in_the_environment_are_comma_separated() -> None:
    loaded = load(None, {"METASRV_JOIN": "a:1, b:2,,"}, {})
    assert loaded.config.raft_config.join == ("a:1", "b:2")


def test_empty_variables_count_as_not_given() -> None:
    loaded = load(None, {"METASRV_ID": "", "METASRV_JOIN": ""})
    assert loaded.sources["raft_config.id"] == "default"


def test_other_variables_are_left_alone() -> None:
    # Kubernetes sets such variables for a service that is called metasrv.
    assert load(None, {"METASRV_PORT": "tcp://10.0.0.1:9191", "METASRV_SERVICE_HOST": "10.0.0.1"})


def test_the_environment_never_makes_a_server_remove_a_node() -> None:
    raft = load(None, {"METASRV_LEAVE_ID": "2", "METASRV_LEAVE_VIA": "a:1"}).config.raft_config
    assert (raft.leave_id, raft.leave_via) == (None, ())


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("ON", True), ("no", False), ("0", False)])
def test_booleans_in_the_environment(text: str, value: bool) -> None:
    assert load(None, {"METASRV_INSECURE_RAFT": text}).config.raft_config.insecure_raft is value


def test_short_log_names() -> None:
    loaded = load(None, {"METASRV_LOG_LEVEL": "Debug", "METASRV_LOG_FILE_LEVEL": "Warn"}, {**SINGLE, "log_dir": "x"})
    assert (loaded.config.log.file.level, loaded.config.log.file.dir) == ("Debug", "x")
    assert loaded.sources["log.file.level"] == "environment METASRV_LOG_LEVEL"
    assert loaded.sources["log.file.dir"] == "flag --log-dir"


def test_a_later_source_beats_a_short_name(tmp_path: Path) -> None:
    file = write(tmp_path, 'log_level = "Warn"\n')
    assert load(file, flags={**SINGLE, "log.file.level": "Debug"}).config.log.file.level == "Debug"


def test_upstream_test_configuration_is_accepted(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
log_level = "ERROR"
log_dir = "foo/logs"
metric_api_address = "127.0.0.1:8000"
admin_api_address = "127.0.0.1:9000"
admin_tls_server_cert = ""
admin_tls_server_key = ""
grpc_api_address = "127.0.0.1:10000"
grpc_api_advertise_host = "127.0.0.1"
grpc_tls_server_cert = ""
grpc_tls_server_key = ""

[log]
[log.stderr]
on = false
[log.file]
level = "INFO"
format = "json"
dir = "./.databend/logs2"
prefix_filter = ""
[log.storage]
on = false
[log.storage.params]
type = "fs"

[raft_config]
config_id = ""
raft_api_host = "127.0.0.1"
raft_listen_host = "127.0.0.1"
raft_advertise_host = "localhost"
raft_api_port = 28203
raft_dir = "./.databend/meta2"
no_sync = true
snapshot_logs_since_last = 1000
heartbeat_interval = 1000
install_snapshot_timeout = 2000
max_applied_log_to_keep = 1
snapshot_db_block_keys = 10
compact_immutables_ms = 500
single = false
join = ["127.0.0.1:28103"]
id = 2
sled_tree_prefix = "sled_foo"
sled_max_cache_size_mb = 10240
cluster_name = "foo_cluster"
""",
    )
    config = load(file, flags={}).config
    assert (config.raft_config.id, config.raft_config.join) == (2, ("127.0.0.1:28103",))
    assert (config.log.file.level, config.log.file.dir) == ("ERROR", "foo/logs")
    assert set(config.ignored_keys) == {
        "metric_api_address",
        "log.file.prefix_filter",
        "log.storage.on",
        "log.storage.params",
        "raft_config.config_id",
        "raft_config.raft_api_host",
        "raft_config.no_sync",
        "raft_config.snapshot_db_block_keys",
        "raft_config.compact_immutables_ms",
        "raft_config.sled_tree_prefix",
        "raft_config.sled_max_cache_size_mb",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[raft_config]\nheartbeat_intervall = 1", "key `raft_config.heartbeat_intervall`; did you mean `raft_config.he"),
        ("id = 1", "unknown key `id`; did you mean `raft_config.id`?"),
        ("[raft_confg]\nid = 1", "unknown section `raft_confg`; did you mean `raft_config`?"),
        ("[log.file]\nlevl = 'Info'", "unknown key `log.file.levl`; did you mean `log.file.level`?"),
        ("ignored_keys = []", "unknown key `ignored_keys`"),
        ("zzz = 1", "unknown key `zzz`"),
    ],
)
def test_unknown_keys_are_named_with_what_was_meant(tmp_path: Path, text: str, sentence: str) -> None:
    file = write(tmp_path, "raft_config.single = true\n" + text if "[raft_config]" not in text else text)
    warnings = load(file).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{file}: unknown ")
    assert sentence in warnings[0]
    assert warnings[0] in check_config_file(file), "a start warns, a check refuses"


def test_a_mistyped_key_is_the_only_mistake_that_a_check_reports(tmp_path: Path) -> None:
    file = write(tmp_path, '[raft_config]\njoinn = ["a:1"]\n')
    unknown = f"{file}: unknown key `raft_config.joinn`; did you mean `raft_config.join`?"
    assert check_config_file(file) == [unknown]
    assert problems_of(file, flags={}) == [unknown, "at least one of `single` and `join` needs to be enabled"]


def test_a_mistyped_secret_does_not_open_the_raft_port(tmp_path: Path) -> None:
    file = write(tmp_path, '[raft_config]\nsingle = true\nraft_listen_host = "10.0.0.1"\nraft_secert = "planted"\n')
    unknown, exposed = problems_of(file)
    assert unknown == f"{file}: unknown key `raft_config.raft_secert`; did you mean `raft_config.raft_secret`?"
    assert exposed.startswith("`raft_listen_host` 10.0.0.1 can be reached from other machines")


def test_a_newer_file_of_upstream_starts_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    text = 'newest = 1\n[log.tracing]\non = true\n[raft_config]\nsingle = true\nno_sync = true\nwal_v2 = "on"\n'
    loaded = load(write(tmp_path, text), flags={})
    assert [warning.partition(": unknown ")[2].partition(";")[0] for warning in loaded.warnings] == [
        "key `newest`", "section `log.tracing`", "key `raft_config.wal_v2`",
    ]  # fmt: skip
    assert loaded.config.ignored_keys == ("raft_config.no_sync",)
    assert loaded.config.raft_config.single


def test_what_a_check_refuses_and_a_start_only_warns_of(tmp_path: Path) -> None:
    file = write(tmp_path, '[raft_config]\nsingle = true\nraft_advertise_host = "0.0.0.0"\n')
    (warning,) = load(file, flags={}).warnings
    assert warning.startswith("`raft_advertise_host` is 0.0.0.0, which is an address to listen on")
    assert check_config_file(file) == [warning]


def test_all_mistakes_of_all_sources_are_reported_at_once(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'admin_api_address = "nowhere"\ncolour = "red"\n'
        '[log.file]\nlevel = "loud"\n[raft_config]\nid = "one"\nheartbeat_interval = 19\njoin = ["x"]\n',
    )
    problems = problems_of(file, {"METASRV_LEARNER": "maybe"}, {"raft_config.raft_api_port": "65536"})
    assert problems == [
        f"{file}: unknown key `colour`",
        "environment METASRV_LEARNER: 'maybe' is not true or false",
        f"{file}: `log.file.level` is 'loud': 'loud' is not a log level; use Off, Error, Warn, Info, Debug or Trace",
        f"{file}: `raft_config.id` is 'one': input should be a valid integer",
        "flag --raft-api-port: `raft_config.raft_api_port` is 65536: input should be less than or equal to 65535",
        f"{file}: `raft_config.join` is ['x']: 'x' is not host:port",
        f"{file}: `raft_config.heartbeat_interval` is 19: input should be greater than or equal to 20",
        "invalid socket address syntax while parsing nowhere",
    ]


def test_a_section_that_is_no_table(tmp_path: Path) -> None:
    file = write(tmp_path, "raft_config = 5\n[[log]]\nlevel = 'x'\n")
    assert problems_of(file, flags={}) == [
        f"{file}: `raft_config` must be a table, written as `[raft_config]`",
        f"{file}: `log` must be a table, written as `[log]`",
    ]


@pytest.mark.parametrize("text", ["one", "1.5", "", "1e3", "٣", "9" * 5000])
def test_malformed_numbers_of_flags(text: str) -> None:
    assert problems_of(None, flags={**SINGLE, "raft_config.id": text})[0].startswith("flag --id: ")


def test_a_secret_of_the_wrong_type_is_not_quoted(tmp_path: Path) -> None:
    file = write(tmp_path, "admin_token = ['planted']\n[raft_config]\nraft_secret = 271828\n")
    problems = problems_of(file)
    assert problems == [
        f"{file}: `admin_token` is ***: input should be a valid string",
        f"{file}: `raft_config.raft_secret` is ***: input should be a valid string",
    ]


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    assert problems_of(missing) == [f"the configuration file {missing} cannot be read: No such file or directory"]
    assert problems_of(str(tmp_path))[0].endswith("cannot be read: Is a directory")
    broken = write(tmp_path, "id = = 1\n")
    assert problems_of(broken)[0].startswith(f"{broken} is not TOML: Invalid value (at line 1")
    huge_number = write(tmp_path, f"[raft_config]\nid = {'9' * 5000}\n")
    assert "is not TOML" in problems_of(huge_number)[0]
    (tmp_path / "meta.toml").write_bytes(b"# \xff\n")
    assert problems_of(str(tmp_path / "meta.toml")) == [f"{tmp_path / 'meta.toml'} is not UTF-8 text: byte 2 is wrong"]


def test_size_of_a_file_at_the_limit_and_past_it(tmp_path: Path) -> None:
    good = "[raft_config]\nid = 1\n#"
    file = write(tmp_path, good + "x" * (CONFIG_FILE_SIZE_BYTES_MAX - len(good)))
    assert load(file).config.raft_config.id == 1
    file = write(tmp_path, good + "x" * (CONFIG_FILE_SIZE_BYTES_MAX - len(good) + 1))
    assert "is larger than" in problems_of(file)[0]


def test_check_of_a_file_ignores_environment_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METASRV_SINGLE", "true")
    good = write(tmp_path, "[raft_config]\nsingle = true\n")
    assert check_config_file(good) == []
    bad = write(tmp_path, "[raft_config]\nid = 1\n")
    assert check_config_file(bad) == ["at least one of `single` and `join` needs to be enabled"]


@pytest.mark.parametrize(("text", "ratio"), [("0.25", 0.25), ("1", 1.0), (" 0 ", 0.0)])
def test_a_ratio_is_a_number_in_a_flag(text: str, ratio: float) -> None:
    loaded = load_config(None, {"METASRV_TRACING_SAMPLE_RATIO": text}, {"raft_config.single": "true"})
    assert loaded.config.tracing.sample_ratio == ratio


@pytest.mark.parametrize("text", ["nan", "1e3", "-0.1", "1.5", "half", "1_0"])
def test_what_is_no_ratio_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="tracing"):
        load_config(None, {}, {"tracing.sample_ratio": text})


def test_a_collector_is_a_url() -> None:
    with pytest.raises(ConfigError, match="must begin with `http://`"):
        load_config(None, {}, {"tracing.otlp_endpoint": "collector:4318"})
