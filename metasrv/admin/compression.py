"""gzip for the answers that are long and asked for often: metrics and status.

Only complete bodies, made on the event loop: a page of metrics takes about a millisecond. Profiles are left as
they are. Knows no route.
"""

from __future__ import annotations

import gzip

from fastapi import Request
from fastapi.responses import Response

LEVEL = 1
SIZE_BYTES_MIN = 512
"""A shorter body is not worth a header."""
_NAMES = ("gzip", "x-gzip", "*")


def compressed(request: Request, response: Response) -> Response:
    """The response, with its body compressed if the caller accepts gzip; says in any case that this was the question."""
    response.headers["Vary"] = "Accept-Encoding"
    body = bytes(response.body)
    if len(body) >= SIZE_BYTES_MIN and accepts_gzip(",".join(request.headers.getlist("accept-encoding"))):
        response.body = gzip.compress(body, LEVEL, mtime=0)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(response.body))
    return response


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the header names gzip with a weight other than 0; a name stands before `*`."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weights[name] = min((_weight(parameter) for parameter in parameters), default=1.0)
    return next((weights[name] > 0 for name in _NAMES if name in weights), False)


def _weight(parameter: str) -> float:
    name, _, text = parameter.partition("=")
    try:
        return float(text) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0
