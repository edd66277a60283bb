"""Protocol versions of the handshake: the announced one, the oldest client, their encoding.

Announcing a version is a promise of the features of docs/contract/grpc.md section b.4; it stands here and nowhere
else. Knows nothing of the build version of this package. Pure.
"""

from __future__ import annotations

from typing import NamedTuple


class ProtocolVersion(NamedTuple):
    """A release number as the handshake sends it; minor and patch stay below 1000."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def digit(self) -> int:
        """The number on the wire: 1.2.676 is 1002676."""
        return self.major * 1_000_000 + self.minor * 1_000 + self.patch

    @classmethod
    def from_digit(cls, digit: int) -> ProtocolVersion:
        return cls(digit // 1_000_000, digit // 1_000 % 1_000, digit % 1_000)

    @classmethod
    def parse(cls, text: str) -> ProtocolVersion:
        """Parse `major.minor.patch`; raises ValueError with a plain sentence."""
        parts = text.split(".")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise ValueError(f"{text!r} is not a version of the form major.minor.patch")
        major, minor, patch = (int(part) for part in parts)
        if minor > 999 or patch > 999:
            raise ValueError(f"{text!r} has a minor or patch number above 999")
        return cls(major, minor, patch)


SERVER_VERSION = ProtocolVersion(260629, 2, 0)
"""What this server announces, unless `grpc_announced_version` says otherwise: it offers every feature of this version."""

MIN_CLIENT_VERSION = ProtocolVersion(1, 2, 676)
"""The oldest client that is let in, unless `grpc_min_client_version` says otherwise."""

MIN_SERVER_VERSION = ProtocolVersion(260217, 0, 0)
"""The oldest server that the client library talks to: it needs KvTransaction and `match_seq` on puts."""
