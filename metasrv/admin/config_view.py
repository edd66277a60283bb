"""The effective configuration as a debug dump: text that is neither JSON nor TOML.

The body of `/v1/config` (docs/contract/admin-api.md section 1.1). The models themselves mask secrets; nothing
here ever sees one. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

INDENT = "    "


def config_dump(config: BaseModel) -> str:
    """`Config { key: value, … }`, one key per line, nested tables indented."""
    return f"{_dump(type(config).__name__, config.model_dump(mode='json'), '')}\n"


def _dump(name: str, table: Mapping[str, Any], indent: str) -> str:
    lines = [f"{name} {{"]
    for key, value in table.items():
        inner = indent + INDENT
        text = _dump("", value, inner).lstrip() if isinstance(value, dict) else _scalar(value)
        lines.append(f"{inner}{key}: {text},")
    return "\n".join([*lines, f"{indent}}}"])


def _scalar(value: object) -> str:
    return "None" if value is None else json.dumps(value, ensure_ascii=False)
