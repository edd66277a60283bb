"""`metactl dump-raft-log-wal`: prints the log of a stopped node. Runs in the foreground of a short process."""

from __future__ import annotations

import argparse

from metasrv.backup.dumping import dump
from metasrv.cli.terminal import show


def dump_raft_log(arguments: argparse.Namespace) -> None:
    for line in dump(arguments.raft_dir, decoded=arguments.decode_values, raw=arguments.raw):
        show(line)
