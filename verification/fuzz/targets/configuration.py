"""A configuration file, and variables of the environment: mistakes are sentences, never an exception of another kind.

The first byte says how many of the following lines are variables; the rest is the file.
"""

from __future__ import annotations

import os
import tempfile

from metasrv.config.keys import ENVIRONMENT_PREFIX
from metasrv.config.load import check_config_file, load_config
from metasrv.config.text import config_text, show_config_text, start_warnings
from metasrv.model.errors import ConfigError
from verification.fuzz.target import Target

_directory = tempfile.TemporaryDirectory(prefix="metasrv-fuzz-")
_PATH = os.path.join(_directory.name, "node.toml")


def _run(data: bytes) -> None:
    count = data[0] % 4 if data else 0
    *lines, content = data[1:].split(b"\n", count)
    environment = {}
    for line in lines:
        name, _, value = line.decode("utf-8", "surrogateescape").partition("=")
        environment[ENVIRONMENT_PREFIX + name] = value
    with open(_PATH, "wb") as file:
        file.write(content)
    for problem in check_config_file(_PATH):
        problem.encode("utf-8", "backslashreplace")
    try:
        loaded = load_config(_PATH, environment, {})
    except ConfigError as error:
        if not error.problems:
            raise AssertionError("a configuration was refused without a sentence") from error
        return
    show_config_text(loaded)
    config_text(loaded.config)
    start_warnings(loaded.config)


_FILE = b"""
admin_api_address = "127.0.0.1:28101"
admin_allowed_hosts = [".example.org"]
grpc_api_address = "[::1]:9191"
grpc_require_token = "all"
file_group = "0"
log_level = "Warn,metasrv.raft=Debug"
[log.file]
on = true
dir = "./logs"
limit = 3
[log.stderr]
format = "json"
[raft_config]
id = 1
raft_listen_host = "127.0.0.1"
raft_api_port = 28103
single = true
join = ["host:28103", "[::1]:28103"]
raft_secret = "secret"
raft_accepted_secrets = ["a", "b"]
heartbeat_interval = 200
"""
TARGET = Target(
    "configuration",
    _run,
    (
        b"\0" + _FILE,
        b"\3ID=7\nJOIN=a:1,b:2\nLOG_FILE_LEVEL=Info\n" + _FILE,
        b"\1ADMIN_API_ADDRESS=x\n[raft_config]\nsingle = 1\n",
        b"\0[raft_config.more]\nx = 1979-05-27T07:32:00Z\n",
    ),
)
