"""Changes inputs at random from a seed: the same seed gives the same inputs on every machine.

Knows no target. The engines that are guided by coverage use it where atheris cannot be installed; the tests always do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

_INTERESTING = (0, 1, 2, 3, 8, 16, 31, 32, 63, 64, 127, 128, 129, 192, 254, 255)


def mutated(source: random.Random, corpus: Sequence[bytes], size_bytes_max: int) -> bytes:
    """A changed input of the corpus, or two of them joined."""
    data = bytearray(source.choice(corpus))
    for _ in range(1 << source.randrange(5)):
        _mutate(source, data, corpus)
    return bytes(data[:size_bytes_max])


def _mutate(source: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    position = source.randint(0, len(data))
    match source.randrange(8):
        case 0 if data:
            data[position % len(data)] ^= 1 << source.randrange(8)
        case 1 if data:
            data[position % len(data)] = source.choice(_INTERESTING)
        case 2:
            data[position:position] = source.randbytes(source.randint(1, 8))
        case 3:
            del data[position : position + source.randint(1, 16)]
        case 4:
            other = source.choice(corpus)
            start = source.randint(0, len(other))
            data[position:position] = other[start : start + source.randint(1, 64)]
        case 5:
            data[position:position] = data[position : position + source.randint(1, 32)] * source.randint(1, 4)
        case 6:
            width = source.choice((2, 4, 8))
            value = source.choice((0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1, source.getrandbits(8 * width)))
            data[position : position + width] = value.to_bytes(width, source.choice(("big", "little")))
        case _ if data:
            del data[position:]
