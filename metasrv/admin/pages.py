"""The pages for people: the console at `/` and `/ui`, the API's reference at `/docs`, and the files of both under `/ui/`.

The files are in `console_page/` and hold no data, so everybody may load them; what they show comes from the routes of the
API, with the caller's token. Must not know the API. The files are read once, and served from memory on the event loop.
"""

from __future__ import annotations

import gzip
from importlib import resources
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response

from metasrv.admin.caching import ASK_EACH_TIME, etag_of, is_known
from metasrv.admin.compression import accepts_gzip
from metasrv.admin.problem import fault

FOLDER = "console_page"
CONSOLE, REFERENCE = "console.html", "reference.html"
CONTENT_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
PAGE_PATHS = frozenset({"/", "/ui", "/docs"})
FILES_PREFIX = "/ui/"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing from elsewhere, nothing inline, nobody may frame it."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    # A browser asks each time whether the file is still the same, so that a new release shows at once.
    "Cache-Control": ASK_EACH_TIME,
    "Vary": "Accept-Encoding",
}


class PageFile(NamedTuple):
    """One file, ready to be sent."""

    content_type: str
    body: bytes
    zipped: bytes
    etag: str


def is_page(path: str) -> bool:
    """Whether `path` is a page or a file of one: the same for everybody, and without any data of the node."""
    return path in PAGE_PATHS or path.startswith(FILES_PREFIX)


def load_files() -> dict[str, PageFile]:
    """Every file of the pages by its name."""
    folder = resources.files("metasrv.admin").joinpath(FOLDER)
    files = {}
    for entry in folder.iterdir():
        content_type = CONTENT_TYPES.get(entry.name.rpartition(".")[2])
        if content_type is not None:
            body = entry.read_bytes()
            files[entry.name] = PageFile(content_type, body, gzip.compress(body, mtime=0), etag_of(body))
    return files


def pages_router() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    files = load_files()

    @router.get("/")
    @router.get("/ui")
    async def console(request: Request) -> Response:
        """The console."""
        return _answer(request, files[CONSOLE])

    @router.get("/docs")
    async def reference(request: Request) -> Response:
        """The API's reference, made from `/openapi.json` in the browser."""
        return _answer(request, files[REFERENCE])

    @router.get("/ui/{name}")
    async def file(request: Request, name: str) -> Response:
        """A script, a style or a picture of the pages."""
        found = files.get(name)
        return fault(404, "not found") if found is None else _answer(request, found)

    return router


def _answer(request: Request, file: PageFile) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    if is_known(request, file.etag):
        return Response(status_code=304, headers=headers)
    headers["Content-Type"] = file.content_type
    if accepts_gzip(request.headers.get("accept-encoding", "")):
        return Response(file.zipped, headers={**headers, "Content-Encoding": "gzip"})
    return Response(file.body, headers=headers)
