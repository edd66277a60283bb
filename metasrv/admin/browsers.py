"""Tells requests that a web page made from those that a person or a program made.

Any page in the browser of somebody who reaches this port can send a GET here: as a link, an image, a form. Browsers say
where a request comes from, each in its own way, and on plain HTTP an image may carry nothing but the name of the browser.
So a request that must not come from a page is refused at the slightest mark of a browser, unless the page is this node's
own. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

ACTION_HEADER = b"x-metasrv-action"
"""A POST needs it, with any value. A form cannot set it, and a script of another site only after asking (Fetch standard,
CORS), which this API never grants."""


def comes_from_a_page(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a page of another origin may have sent the request. Header names are in lower case."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site != b"same-origin"
    host = headers.get(b"host", b"")
    for name in (b"origin", b"referer"):
        source = headers.get(name)
        if source is not None:
            return not _is_at(source, host)
    if any(name.startswith(b"sec-") for name in headers):
        return True
    return b"mozilla/" in headers.get(b"user-agent", b"").lower()


def _is_at(url: bytes, host: bytes) -> bool:
    try:
        found = urlsplit(url.decode("ascii"))
        return found.scheme in ("http", "https") and found.netloc.lower() == host.decode("ascii").lower() != ""
    except ValueError:
        return False
