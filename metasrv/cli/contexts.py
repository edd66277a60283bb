"""Contexts: which cluster metactl speaks to, and with which credentials, from a file, so that commands need no addresses.

    current = "prod"
    [contexts.prod]
    endpoints = ["10.0.0.1:28101", "10.0.0.2:28101"]     # admin APIs, the first that takes a connection is asked
    token_file = "~/.config/metactl-prod.token"
    tls_ca_file = "ca.pem"

The file is `$METACTL_CONFIG`, by default `metactl.toml` in `$XDG_CONFIG_HOME` or `~/.config`. A flag wins over the
environment, and that over the context. An address on the command line leaves the context's credentials for that port
aside, unless `--context` is given too: they are not sent to strangers. Knows no command. Reads files.
"""

from __future__ import annotations

import argparse
import os
import stat
import tomllib
from typing import Any, NamedTuple

from metasrv.cli.ctl_admin import TOKEN_VARIABLE
from metasrv.cli.ctl_flags import NotGiven
from metasrv.cli.terminal import note
from metasrv.model.errors import InvalidRequestError

FILE_VARIABLE = "METACTL_CONFIG"
CONTEXT_VARIABLE = "METACTL_CONTEXT"
FILE_SIZE_BYTES_MAX = 1024 * 1024
SECRETS = frozenset({"token", "grpc_password"})
LISTS = frozenset({"endpoints", "grpc_endpoints"})
FILES = {
    "token_file": "admin_token_file",
    "tls_ca_file": "admin_tls_ca_file",
    "tls_cert_file": "admin_tls_cert_file",
    "tls_key_file": "admin_tls_key_file",
    "grpc_tls_ca_file": "grpc_tls_ca_file",
    "grpc_tls_cert_file": "grpc_tls_cert_file",
    "grpc_tls_key_file": "grpc_tls_key_file",
    "grpc_password_file": "",
}
"""Keys that name files, and the arguments that they stand for; relative ones are beside the file of contexts."""
TEXTS = {"grpc_user": "grpc_user", "grpc_tls_server_name": "grpc_tls_server_name"}
KEYS = (*sorted(LISTS), *FILES, *TEXTS, *sorted(SECRETS))
MASK = "***"


class Contexts(NamedTuple):
    """What the file has."""

    path: str
    current: str | None
    contexts: dict[str, dict[str, Any]]

    def named(self, name: str) -> dict[str, Any]:
        """Raises InvalidRequestError when there is none of that name."""
        if name not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise InvalidRequestError(f"there is no context {name!r} in {self.path}; contexts: {known}")
        return self.contexts[name]


def file_path() -> str:
    """Where the file of contexts is, whether or not it exists."""
    given = os.environ.get(FILE_VARIABLE)
    if given:
        return given
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, "metactl.toml")


def read() -> Contexts:
    """The contexts; none when there is no file. Raises InvalidRequestError, also for secrets that others can read."""
    path = file_path()
    try:
        with open(path, "rb") as stream:
            status = os.fstat(stream.fileno())
            tree = tomllib.loads(stream.read(FILE_SIZE_BYTES_MAX).decode())
    except FileNotFoundError:
        return Contexts(path, None, {})
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{path} cannot be used: {error}") from error
    contexts = tree.pop("contexts", {})
    current = tree.pop("current", None)
    problems = [f"{name!r} is no key of it; it has `current` and tables `[contexts.NAME]`" for name in tree]
    if not isinstance(contexts, dict) or not all(isinstance(context, dict) for context in contexts.values()):
        problems.append("`contexts` has a table for each context")
    elif current is not None and not isinstance(current, str):
        problems.append("`current` is the name of a context")
    else:
        problems += [problem for name, context in contexts.items() for problem in _problems(name, context)]
    if problems:
        raise InvalidRequestError(f"{path} cannot be used: {'; '.join(problems)}")
    _refuse_loose(path, status, contexts)
    return Contexts(path, current, contexts)


def chosen(contexts: Contexts, given: str | None) -> str | None:
    """The name of the context in use: the flag's, the variable's, or the file's `current`."""
    return given or os.environ.get(CONTEXT_VARIABLE) or contexts.current


def complete(arguments: argparse.Namespace) -> None:
    """Fill in from the context what the command line and the environment leave open. Raises InvalidRequestError."""
    if not getattr(arguments, "connects", False):
        return
    contexts = read()
    name = chosen(contexts, arguments.context)
    if name is None:
        return
    context = contexts.named(name)
    for half, address, keys in (
        ("endpoints", "admin_api_address", [key for key in FILES if key.startswith(("token", "tls"))]),
        ("grpc_endpoints", "grpc_api_address", [key for key in (*FILES, *TEXTS) if key.startswith("grpc")]),
    ):
        is_given = not isinstance(getattr(arguments, address, None), NotGiven)
        if is_given and arguments.context is None:
            continue
        if not is_given and context.get(half):
            setattr(arguments, address, ",".join(context[half]))
        _fill(arguments, contexts.path, context, keys)
        if half == "endpoints":
            arguments.context_token = context.get("token")
        else:
            arguments.context_password = _password(contexts.path, context)


def _fill(arguments: argparse.Namespace, path: str, context: dict[str, Any], keys: list[str]) -> None:
    for key in keys:
        argument = FILES.get(key) or TEXTS.get(key)
        if not argument or key not in context or not _is_open(arguments, argument):
            continue
        if key == "token_file":
            if os.environ.get(TOKEN_VARIABLE):
                continue
            _warn_of_loose(beside(path, context[key]))
        setattr(arguments, argument, beside(path, context[key]) if key in FILES else context[key])


def _is_open(arguments: argparse.Namespace, argument: str) -> bool:
    value = getattr(arguments, argument, None)
    return value is None or isinstance(value, NotGiven)


def _password(path: str, context: dict[str, Any]) -> str | None:
    if "grpc_password_file" not in context:
        return context.get("grpc_password")
    file = beside(path, context["grpc_password_file"])
    _warn_of_loose(file)
    try:
        with open(file, encoding="utf-8") as stream:
            return stream.readline().rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"grpc_password_file {file} cannot be read: {error}") from error


def beside(path: str, name: str) -> str:
    """A file that the file of contexts names: in a home, absolute, or beside it."""
    return os.path.join(os.path.dirname(os.path.abspath(path)), os.path.expanduser(name))


def masked(context: dict[str, Any]) -> dict[str, Any]:
    """A context without its secrets."""
    return {key: MASK if key in SECRETS else value for key, value in context.items()}


# ----------------------------------------------------------------------------- checks


def _problems(name: str, context: dict[str, Any]) -> list[str]:
    problems = []
    for key, value in context.items():
        place = f"`{key}` of context {name!r}"
        if key not in KEYS:
            problems.append(f"{place} is not known; there are {', '.join(KEYS)}")
        elif key in LISTS:
            if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
                problems.append(f"{place} is a list of host:port")
        elif not isinstance(value, str):
            problems.append(f"{place} is a text")
    return problems


def _refuse_loose(path: str, status: os.stat_result, contexts: dict[str, dict[str, Any]]) -> None:
    """Refuse a file whose secrets others can read, or that others can write: they could send credentials elsewhere."""
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return
    if mode & 0o077 and any(not SECRETS.isdisjoint(context) for context in contexts.values()):
        raise InvalidRequestError(f"{path} has secrets and is open to other users (mode {mode:04o}): chmod 600 {path}")
    if mode & 0o022:
        raise InvalidRequestError(f"{path} can be written by other users (mode {mode:04o}): chmod 600 {path}")


def _warn_of_loose(path: str) -> None:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return  # whoever opens it says why it cannot be read
    if mode & 0o077:
        note(f"warning: {path} is open to other users (mode {mode:04o}): chmod 600 {path}")
