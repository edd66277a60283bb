"""Profiles as speedscope.app reads them: one sampled profile in its JSON schema. Pure; runs anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from metasrv.profiling.stacks import Frame, StackSample

SCHEMA_URL = "https://www.speedscope.app/file-format-schema.json"


def encode_speedscope(title: str, samples: Sequence[StackSample], unit: str, value_index: int = 0) -> bytes:
    """`unit` is `none`, `bytes`, `nanoseconds`, `microseconds`, `milliseconds` or `seconds`."""
    frames: dict[Frame, int] = {}
    stacks = [[frames.setdefault(frame, len(frames)) for frame in sample.frames] for sample in samples]
    weights = [sample.values[value_index] for sample in samples]
    document: dict[str, Any] = {
        "$schema": SCHEMA_URL,
        "exporter": "metasrv",
        "name": title,
        "shared": {"frames": [{"name": str(frame), "file": frame.file, "line": frame.line} for frame in frames]},
        "profiles": [
            {
                "type": "sampled",
                "name": title,
                "unit": unit,
                "startValue": 0,
                "endValue": sum(weights),
                "samples": stacks,
                "weights": weights,
            }
        ],
        "activeProfileIndex": 0,
    }
    return json.dumps(document).encode()
