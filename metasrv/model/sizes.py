"""Sizes as operators read them. Pure; must not know what has the size."""

from __future__ import annotations


def size_text(size_bytes: int) -> str:
    """`512 bytes`, `1.5 MiB`."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
