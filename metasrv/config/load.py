"""Where the configuration comes from: defaults < TOML file < environment < flags, by presence.

A given value counts even if it equals the default. All mistakes of all sources are collected into one ConfigError. What
a node can start with and probably was not meant, a key that nobody knows for example, is a warning, and a mistake only
for `config check`. Reads one file; runs before the event loop and opens no socket.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from metasrv.config.keys import KEYS, SECTIONS, SHORTHANDS, UPSTREAM_SECTIONS, Key, Kind, is_upstream_only, suggestion
from metasrv.config.model import Config
from metasrv.config.validate import cautions, cross_problems
from metasrv.model.errors import ConfigError

FlagValues = Mapping[str, str | tuple[str, ...]]
"""Texts of the flags that were given, by key path; lists as tuples."""

CONFIG_FILE_SIZE_BYTES_MAX = 1024 * 1024
"""Nobody writes a larger configuration; the path is probably wrong."""

DESCRIBED_CHARACTERS_MAX = 120
"""How much of a wrong value is quoted."""

NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")

BOOLEAN_TEXTS: Mapping[str, bool] = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The effective configuration and the source of each of its values."""

    config: Config
    sources: Mapping[str, str]
    """By key path: `default`, the file's path, `environment METASRV_ID`, `flag --id`."""
    warnings: tuple[str, ...] = ()
    """One sentence for each thing that was probably not meant."""


@dataclass(slots=True)
class _Draft:
    """What has been gathered until now."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Sentences about keys that neither upstream's known releases nor metasrv have."""
    misread: set[str] = field(default_factory=set)
    """Keys that the unknown ones were probably meant to be."""
    doubtful: set[str] = field(default_factory=set)
    """Keys whose value is already a problem; checks that read them would only repeat it."""

    def take(self, layer: Mapping[str, Any], source_of: Mapping[str, str]) -> None:
        """Put one source's values over those of the sources before it."""
        expanded = {path: (value, source_of[path]) for path, value in layer.items() if path not in SHORTHANDS}
        for short, path in SHORTHANDS.items():
            if short in layer:
                expanded[path] = (layer[short], source_of[short])
        for path, (value, source) in expanded.items():
            if is_upstream_only(path):
                if path not in self.ignored:
                    self.ignored.append(path)
            else:
                self.values[path] = value
                self.sources[path] = source


def load_config(
    file: str | None, environment: Mapping[str, str], flags: FlagValues, *, strict: bool = False
) -> LoadedConfig:
    """Gather, validate and freeze the configuration; `strict` makes every warning a mistake.

    Raises ConfigError with one sentence for each mistake found.
    """
    draft = _Draft()
    if file is not None:
        _take_file(draft, file)
    _take_environment(draft, environment)
    _take_flags(draft, flags)
    if strict:
        # What a misspelt key leaves unset would be blamed as well. A start looks at it all the same: a misspelt
        # secret must not open the raft port.
        draft.doubtful |= draft.misread
    config = _build(draft)
    draft.problems.extend(cross_problems(config, frozenset(draft.doubtful)))
    warnings = [*draft.unknown, *cautions(config, frozenset(draft.doubtful))]
    if draft.problems or (strict and warnings):
        # A start that fails names the unknown keys too: one of them is probably the reason.
        raise ConfigError([*draft.unknown, *draft.problems, *warnings[len(draft.unknown) :]])
    sources = {
        path: draft.sources.get(path, "default")
        for path, key in KEYS.items()
        if not key.ignored and path not in SHORTHANDS
    }
    return LoadedConfig(config, sources, tuple(warnings))


def check_config_file(path: str) -> list[str]:
    """All mistakes of one file, without environment and flags; empty if there are none. Warnings count as mistakes."""
    try:
        load_config(path, {}, {}, strict=True)
    except ConfigError as error:
        return error.problems
    return []


# ----------------------------------------------------------------------------- the three sources


def _take_file(draft: _Draft, file: str) -> None:
    layer: dict[str, Any] = {}
    for path, value in _flatten(_read_toml(file), ""):
        if is_upstream_only(path):
            layer[path] = value
        elif path in SECTIONS:
            draft.problems.append(f"{file}: `{path}` must be a table, written as `[{path}]`")
            draft.doubtful.update(key for key in KEYS if key.startswith(path + "."))
        elif path in KEYS:
            layer[path] = tuple(value) if isinstance(value, list) else value
        else:
            meant = suggestion(path, isinstance(value, dict))
            draft.unknown.append(_unknown_key(file, path, value, meant))
            draft.misread.update(key for key in KEYS if meant and (key == meant or key.startswith(meant + ".")))
    draft.take(layer, dict.fromkeys(layer, file))


def _take_environment(draft: _Draft, environment: Mapping[str, str]) -> None:
    texts: dict[str, str | tuple[str, ...]] = {}
    source_of: dict[str, str] = {}
    for path, key in KEYS.items():
        variable = key.environment_variable
        # Compose files set a variable to nothing to say "not given".
        if variable is not None and environment.get(variable):
            texts[path] = environment[variable]
            source_of[path] = f"environment {variable}"
    draft.take(_parse_texts(draft, texts, source_of), source_of)


def _take_flags(draft: _Draft, flags: FlagValues) -> None:
    source_of = {path: f"flag {KEYS[path].flag}" for path in flags}
    draft.take(_parse_texts(draft, flags, source_of), source_of)


def _parse_texts(draft: _Draft, texts: FlagValues, source_of: Mapping[str, str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for path, text in texts.items():
        try:
            layer[path] = _parse_text(KEYS[path], text)
        except ValueError as error:
            draft.problems.append(f"{source_of[path]}: {error}")
            draft.doubtful.add(SHORTHANDS.get(path, path))
    return layer


def _parse_text(key: Key, text: str | tuple[str, ...]) -> Any:
    if key.kind is Kind.LIST:
        parts = (text,) if isinstance(text, str) else text
        return tuple(item.strip() for part in parts for item in part.split(",") if item.strip())
    single = text if isinstance(text, str) else ",".join(text)
    if key.kind is Kind.INTEGER:
        digits = single.strip()
        if not digits.isascii() or not digits.removeprefix("-").isdigit() or len(digits) > 20:
            raise ValueError(f"{single!r} is not {Kind.INTEGER}")
        return int(digits)
    if key.kind is Kind.NUMBER:
        if not NUMBER.fullmatch(single.strip()):
            raise ValueError(f"{single!r} is not {Kind.NUMBER}")
        return float(single)
    if key.kind is Kind.BOOLEAN:
        boolean = BOOLEAN_TEXTS.get(single.strip().lower())
        if boolean is None:
            raise ValueError(f"{single!r} is not {Kind.BOOLEAN}")
        return boolean
    return single


# ----------------------------------------------------------------------------- the file


def _read_toml(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            content = stream.read(CONFIG_FILE_SIZE_BYTES_MAX + 1)
        if len(content) > CONFIG_FILE_SIZE_BYTES_MAX:
            raise ConfigError([f"{file} is larger than {CONFIG_FILE_SIZE_BYTES_MAX} bytes, so it is not a configuration"])
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise ConfigError([f"the configuration file {file} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file} is not UTF-8 text: byte {error.start} is wrong"]) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{file} is not TOML: {error or 'it is nested too deeply'}"]) from error


def _flatten(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Every value with its dotted path; a table that is not a known section counts as one value."""
    for name, value in table.items():
        path = prefix + name
        if isinstance(value, dict) and (path in SECTIONS or path in UPSTREAM_SECTIONS):
            yield from _flatten(value, path + ".")
        else:
            yield path, value


def _unknown_key(file: str, path: str, value: object, meant: str | None) -> str:
    what = "section" if isinstance(value, dict) else "key"
    return f"{file}: unknown {what} `{path}`" + (f"; did you mean `{meant}`?" if meant else "")


# ----------------------------------------------------------------------------- from values to models


def _build(draft: _Draft) -> Config:
    """The models; values that do not fit are reported and replaced by their defaults."""
    try:
        return _validated(draft)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            path = _path_of(details)
            draft.problems.append(_sentence(draft, path, details))
            draft.doubtful.add(path)
    for path in draft.doubtful:
        draft.values.pop(path, None)
    return _validated(draft)


def _validated(draft: _Draft) -> Config:
    nested: dict[str, Any] = {"ignored_keys": tuple(draft.ignored)}
    for path, value in draft.values.items():
        *sections, name = path.split(".")
        table = nested
        for section in sections:
            table = table.setdefault(section, {})
        table[name] = value
    return Config.model_validate(nested)


def _path_of(details: ErrorDetails) -> str:
    """The key an error is about, without the position inside a list."""
    return ".".join(part for part in details["loc"] if isinstance(part, str))


def _sentence(draft: _Draft, path: str, details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    value = "***" if KEYS[path].secret else _describe(draft.values.get(path))
    return f"{draft.sources.get(path, 'default')}: `{path}` is {value}: {message}"


def _describe(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= DESCRIBED_CHARACTERS_MAX else text[:DESCRIBED_CHARACTERS_MAX] + "…"
