"""What keys, values and numbers a command may carry (limits.py, invariant 10). The rules of each command call these.

`apply` is total and would take anything; validation keeps what is too large out of the log. Pure; services call it on
the event loop, once a request.
"""

from __future__ import annotations

from metasrv.model.errors import InvalidRequestError, TooLargeError
from metasrv.model.limits import KEY_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX
from metasrv.model.types import U64_MAX


def validate_key(key: str, what: str = "the key", spare_bytes: int = 0) -> None:
    """Raise when `key` is longer than the limit less `spare_bytes`, or has no UTF-8 form."""
    if key.isascii():
        size_bytes = len(key)
    else:
        try:
            size_bytes = len(key.encode())
        except UnicodeEncodeError:
            raise InvalidRequestError(f"{what} is not valid Unicode: it has half of a surrogate pair") from None
    if size_bytes + spare_bytes > KEY_SIZE_BYTES_MAX:
        raise TooLargeError(f"{what} in bytes", size_bytes + spare_bytes, KEY_SIZE_BYTES_MAX)


def validate_value(value: bytes) -> None:
    """Raise TooLargeError past the limit."""
    if len(value) > VALUE_SIZE_BYTES_MAX:
        raise TooLargeError("the value in bytes", len(value), VALUE_SIZE_BYTES_MAX)


def validate_numbers(*numbers: int | None) -> None:
    """Raise InvalidRequestError unless each is an unsigned 64-bit number or None."""
    for number in numbers:
        if number is not None and not 0 <= number <= U64_MAX:
            raise InvalidRequestError(f"{number} is not an unsigned 64-bit number")
