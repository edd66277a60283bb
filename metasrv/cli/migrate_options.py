"""The options of `metactl migrate`: those of other commands over the client API, once for each side.

Only declares them; `ctl_migrate.py` carries the command out.
"""

from __future__ import annotations

import argparse
import os

from metasrv.cli.ctl_grpc import USER_VARIABLE
from metasrv.model.users import ROOT

SOURCE, TARGET = "from", "to"
QUIET_SECONDS_DEFAULT = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare everything but `--quiet-seconds`."""
    parser.add_argument(
        "--from", dest="from_address", default="", metavar="HOST:PORT", help="nodes of the source, with commas between"
    )
    parser.add_argument("--to", dest="to_address", required=True, metavar="HOST:PORT", help="nodes of the target")
    end = parser.add_mutually_exclusive_group()
    end.add_argument(
        "--cut-over", action="store_true", help="end it once the source stands still and both are equal, key by key"
    )
    end.add_argument("--abort", action="store_true", help="delete what was copied, and end it; needs only --to")
    parser.add_argument("--work-directory", metavar="DIR", help="where exports are kept while they are compared")
    user = os.environ.get(USER_VARIABLE) or ROOT
    for side, name in ((SOURCE, "the source"), (TARGET, "the target")):
        option = f"--{side}-grpc"
        parser.add_argument(f"{option}-user", default=user, metavar="NAME", help=f"who logs in to {name}, default {user}")
        parser.add_argument(f"{option}-tls-ca-file", metavar="FILE", help=f"authority of {name}'s nodes; enables TLS")
        parser.add_argument(f"{option}-tls-server-name", metavar="NAME", help="name in the certificates, if not the host")
        parser.add_argument(
            f"{option}-tls-cert-file", metavar="FILE", help="certificate of the user, instead of a password"
        )
        parser.add_argument(f"{option}-tls-key-file", metavar="FILE", help="key of that certificate")
    _add_switch_options(parser)


def _add_switch_options(parser: argparse.ArgumentParser) -> None:
    switch = parser.add_argument_group("writers of a source that is a cluster of metasrv, with --cut-over")
    switch.add_argument(
        "--from-read-only",
        action="store_true",
        help="let the source refuse writes once the target is level; off again unless the cut-over succeeds",
    )
    option = "--from-admin"
    text = "admin API of one node of the source, or of several with commas between"
    switch.add_argument(f"{option}-api-address", default="", metavar="HOST:PORT", help=text)
    switch.add_argument(f"{option}-tls-ca-file", metavar="FILE", help="authority of its certificate; enables TLS")
    switch.add_argument(f"{option}-tls-cert-file", metavar="FILE", help="certificate to show to it, with its key")
    switch.add_argument(f"{option}-tls-key-file", metavar="FILE", help="key of that certificate")
    switch.add_argument(f"{option}-token-file", metavar="FILE", help="file with a token of scope operate")
