"""Secrets with texts that nothing else has, and a search for them in every form in which they may leak."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

SHORTEST = 12
"""Characters of a fragment that is looked for: shorter ones are found by chance."""


class PlantedSecrets:
    """What must not be seen, by name; `seen` has a line for each place where it was."""

    def __init__(self) -> None:
        self._forms: dict[str, set[bytes]] = {}
        self.seen: list[str] = []
        self.searched_bytes = 0

    def plant(self, name: str) -> str:
        """Make a secret; returns its text."""
        text = f"planted-{name}-{secrets.token_hex(8)}"
        self.add(name, text.encode())
        return text

    def add(self, name: str, secret: bytes) -> None:
        """Look for this one from now on."""
        self._forms[name] = set(forms_of(secret))

    def add_key_file(self, name: str, path: Path) -> None:
        """Look for a key in PEM form: its lines, and what they encode."""
        body = re.sub(rb"-----[^-]+-----", b"", path.read_bytes()).split()
        decoded = base64.b64decode(b"".join(body))
        private = decoded[36:68]  # before it stands which kind of key it is, behind it what the certificate has, too
        self._forms[name] = {*forms_of(private), *(line for line in body[:1])}

    def look(self, where: str, data: bytes | str) -> None:
        """Search one text or file."""
        found = data.encode() if isinstance(data, str) else data
        self.searched_bytes += len(found)
        for name, forms in self._forms.items():
            self.seen += [f"{name} as {form!r} in {where}" for form in forms if form in found]


def forms_of(secret: bytes) -> Iterator[bytes]:
    """Plain, in hexadecimal, and in both alphabets of base64 at each of the three places it may begin at."""
    yield secret
    yield binascii.hexlify(secret)
    yield binascii.hexlify(secret).upper()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret)
        # The characters at both ends depend on the neighbours.
        middle = encoded[(0, 2, 3)[shift] : len(encoded) - 4]
        assert len(middle) >= SHORTEST
        yield middle
        yield middle.translate(bytes.maketrans(b"+/", b"-_"))
