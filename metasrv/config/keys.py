"""The catalogue of keys, metasrv's own and upstream's: path in a file, flag, environment variable, kind.

metasrv's own keys are read from the models, so that a field added there is a key, a flag and a variable at once. Knows
no values. Pure; runs anywhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from metasrv.config.model import Config, SecretText

ENVIRONMENT_PREFIX = "METASRV_"
CONFIG_FILE_VARIABLE = "METASRV_CONFIG_FILE"


class Kind(StrEnum):
    """How a key's text, from a flag or the environment, becomes a value."""

    BOOLEAN = "true or false"
    INTEGER = "a whole number"
    NUMBER = "a number"
    TEXT = "text"
    LIST = "a list of texts"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a configuration."""

    path: str
    """Dotted, as in a file: `raft_config.id`."""
    kind: Kind
    secret: bool = False
    description: str = ""
    ignored: bool = False
    """Upstream's; accepted, without effect here."""

    @property
    def flag(self) -> str:
        """`--id`, `--log-file-dir`: only `[raft_config]` is left out (docs/contract/admin-api.md section 3.1)."""
        return "--" + self.path.removeprefix("raft_config.").replace(".", "-").replace("_", "-")

    @property
    def environment_variable(self) -> str | None:
        """`METASRV_ID`; None for what must not linger in an environment (docs/contract/admin-api.md section 3.1)."""
        if self.ignored or self.path in FLAG_OR_FILE_ONLY:
            return None
        return ENVIRONMENT_PREFIX + self.flag.removeprefix("--").replace("-", "_").upper()


FLAG_OR_FILE_ONLY = frozenset({"raft_config.leave_id", "raft_config.leave_via"})
"""An inherited variable must not make a server remove a node."""

SHORTHANDS: Mapping[str, str] = {"log_level": "log.file.level", "log_dir": "log.file.dir"}
"""Upstream's short names; within one source they win over the long name, as in upstream."""

UPSTREAM_SECTIONS = ("log.storage",)
"""Whole tables of upstream that mean nothing here."""

UPSTREAM_KEYS: Mapping[str, Kind] = {
    "metric_api_address": Kind.TEXT,
    "flight_api_address": Kind.TEXT,
    "flight_tls_server_cert": Kind.TEXT,
    "flight_tls_server_key": Kind.TEXT,
    "config_id": Kind.TEXT,
    "log.file.prefix_filter": Kind.TEXT,
    "log.stderr.prefix_filter": Kind.TEXT,
    "log.storage.on": Kind.BOOLEAN,
    "log.storage.interval": Kind.INTEGER,
    "log.storage.level": Kind.TEXT,
    "log.storage.stage_name": Kind.TEXT,
    "raft_config.config_id": Kind.TEXT,
    "raft_config.raft_api_host": Kind.TEXT,
    "raft_config.metric_api_address": Kind.TEXT,
    "raft_config.boot": Kind.BOOLEAN,
    "raft_config.no_sync": Kind.BOOLEAN,
    "raft_config.sled_tree_prefix": Kind.TEXT,
    "raft_config.sled_max_cache_size_mb": Kind.INTEGER,
    "raft_config.log_cache_max_items": Kind.INTEGER,
    "raft_config.log_cache_capacity": Kind.INTEGER,
    "raft_config.log_wal_chunk_max_records": Kind.INTEGER,
    "raft_config.log_wal_chunk_max_size": Kind.INTEGER,
    "raft_config.snapshot_db_debug_check": Kind.BOOLEAN,
    "raft_config.snapshot_db_block_keys": Kind.INTEGER,
    "raft_config.snapshot_db_block_cache_item": Kind.INTEGER,
    "raft_config.snapshot_db_block_cache_size": Kind.INTEGER,
    "raft_config.compact_immutables_ms": Kind.INTEGER,
    "raft_config.raft_grpc_max_message_size": Kind.INTEGER,
    # Upstream's older test configuration has these at the top as well as in `[raft_config]`.
    "no_sync": Kind.BOOLEAN,
    "sled_tree_prefix": Kind.TEXT,
    "raft_api_host": Kind.TEXT,
}
"""Keys of upstream's present and older releases that mean nothing here (docs/contract/admin-api.md section 3.3)."""


def _kind(annotation: Any) -> tuple[Kind, bool]:
    """The kind of a field's type, and whether it is a secret."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin is tuple:
        return Kind.LIST, _kind(get_args(annotation)[0])[1]
    if annotation is bool:
        return Kind.BOOLEAN, False
    if annotation is int:
        return Kind.INTEGER, False
    if annotation is float:
        return Kind.NUMBER, False
    alternatives = [alternative for alternative in get_args(annotation) if alternative is not type(None)]
    if origin is not None and alternatives and not isinstance(alternatives[0], str):
        return _kind(alternatives[0])
    return Kind.TEXT, isinstance(annotation, type) and issubclass(annotation, SecretText)


def _own_keys(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        path = prefix + name
        nested = _nested_model(field)
        if nested is not None:
            yield from _own_keys(nested, path + ".")
        elif not field.exclude:
            kind, secret = _kind(field.annotation)
            yield Key(path, kind, secret, field.description or "")


def _nested_model(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _catalogue() -> dict[str, Key]:
    keys = {key.path: key for key in _own_keys(Config, "")}
    for path, target in SHORTHANDS.items():
        keys[path] = Key(path, Kind.TEXT, False, f"Short for `{target}`.")
    for path, kind in UPSTREAM_KEYS.items():
        keys[path] = Key(path, kind, ignored=True, description="Upstream's; accepted and ignored.")
    return keys


KEYS: Mapping[str, Key] = _catalogue()
"""Every key that is accepted, by path."""

SECTIONS = frozenset(path.rpartition(".")[0] for path in KEYS if "." in path) | {"log"}
"""Paths that must be tables."""


def is_upstream_only(path: str) -> bool:
    """Whether the key is upstream's and has no effect here."""
    key = KEYS.get(path)
    if key is not None:
        return key.ignored
    return any(path == section or path.startswith(section + ".") for section in UPSTREAM_SECTIONS)


def suggestion(path: str, is_table: bool) -> str | None:
    """The known key or section that an unknown one was probably meant to be, or None."""
    if is_table:
        return _closest(path, sorted(SECTIONS), 0.7)
    candidates = [key.path for key in KEYS.values() if not key.ignored]
    by_name = {candidate.rpartition(".")[2]: candidate for candidate in reversed(candidates)}
    name = path.rpartition(".")[2]
    if name in by_name:
        return by_name[name]
    close_name = _closest(name, list(by_name), 0.7)
    return _closest(path, candidates, 0.75) or (by_name[close_name] if close_name else None)


def _closest(text: str, candidates: list[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(text, candidates, n=1, cutoff=cutoff)), None)
