"""A node for the console's pages that tells whatever a test wants: the real files, made-up answers.

    python -m tests.support.console_server --pictures DIRECTORY

takes the picture of each state, for a person to look at; without `--pictures` it serves until Ctrl-C, and
`/situation/NAME` chooses what it tells.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from metasrv.admin.app import create_app
from metasrv.admin.pages import CONSOLE, HEADERS, REFERENCE, load_files
from metasrv.config.model import Config, RaftConfig
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status
from tests.support import console_scenes, console_states
from tests.support.chromium import DESKTOP, PHONE, Chromium, Page
from tests.support.paths import ROOT

TOKEN = "read-0123456789abcdef"
BEAT_SECONDS = 0.25
"""Between two lines of the stream; a node sends one every 2 s."""
JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
BUSY = "64 streams are open already"
KEYS_OFF = "the key browser is switched off; `admin_key_browser` turns it on"


def described() -> dict[str, Any]:
    """What `/openapi.json` of a node answers."""
    with tempfile.TemporaryDirectory(prefix="metasrv-console-") as directory:
        machine = StateMachine.open(str(Path(directory) / "state.db"))
        try:
            config = Config(raft_config=RaftConfig(raft_dir=directory))
            return create_app(fake_context(machine, config, leader_status())[0]).openapi()
        finally:
            machine.close()


class ConsoleServer(ThreadingHTTPServer):
    """Serves on a free port of loopback until it is closed; `with ConsoleServer() as server`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = load_files()
        self.description = json.dumps(described())
        self.asked: list[dict[str, list[str]]] = []
        """The queries for what the node was doing."""
        self.situation = "healthy"
        """A name of `STATES`, or `token` (asks for one), `absent` (no console), `busy` (refuses the stream), `down` (ends
        each connection)."""
        self.offers_keys = True
        self.acted: list[tuple[str, str]] = []
        """Path with query of each POST, and the value of its action header."""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name="console-server")

    def __enter__(self) -> ConsoleServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def rest(self) -> bool:
        """Wait until the next line is due; false once the server ends."""
        return not self._ending.wait(BEAT_SECONDS)

    def state(self) -> dict[str, Any]:
        make = console_scenes.STATES.get(self.situation, console_scenes.STATES["healthy"])
        return make(int(time.time() * 1000))


class Handler(BaseHTTPRequestHandler):
    """One request; the connection ends with it, which also ends the stream."""

    server: ConsoleServer

    def log_message(self, *_: Any) -> None:
        """The tests look at the browser, not at this log."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path.startswith("/situation/"):
            self.server.situation = address.path.rpartition("/")[2]
            self.answer(200, TEXT, self.server.situation)
            return
        if self.server.situation == "down":
            return
        name = {"/": CONSOLE, "/ui": CONSOLE, "/docs": REFERENCE}.get(address.path, address.path.removeprefix("/ui/"))
        file = self.server.files.get(name)
        if file is not None:
            self.answer(200, file.content_type, file.body, HEADERS)
        elif self.server.situation == "token" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, TEXT, "the Authorization header has no valid token; it must be Bearer <token>")
        else:
            self.data(address.path, parse_qs(address.query, keep_blank_values=True))

    def data(self, path: str, query: dict[str, list[str]]) -> None:
        if path == "/openapi.json":
            self.answer(200, JSON, self.server.description)
        elif path.startswith("/v1/runbooks/"):
            file = ROOT / "docs" / "runbooks" / f"{path.rpartition('/')[2]}.md"
            self.answer(200, "text/markdown; charset=utf-8", file.read_text(encoding="utf-8"))
        elif path.startswith("/v1/console/key") and not self.server.offers_keys:
            self.answer(403, TEXT, KEYS_OFF)
        elif path == "/v1/console/keys":
            self.answer(200, JSON, json.dumps(console_states.KEYS))
        elif path == "/v1/console/key":
            self.answer(200, JSON, json.dumps(console_states.record(query["key"][0])))
        elif path == "/v1/slow-writes":
            self.answer(
                200, JSON, json.dumps(console_states.slow_writes(int(time.time() * 1000), self.server.offers_keys))
            )
        elif path == "/v1/log-levels":
            self.answer(200, JSON, json.dumps(console_states.LOG_LEVELS))
        elif path == "/v1/diagnostics":
            name = {"Content-Disposition": 'attachment; filename="metasrv-node-1-20261127T194428Z.tar.gz"'}
            self.server.acted.append((self.path, self.headers.get("X-Metasrv-Action", "")))
            self.answer(200, "application/gzip", b"a bundle", name)
        elif path == "/v1/events":
            events = console_states.events(int(time.time() * 1000))
            self.answer(200, JSON, json.dumps({"events": events, "missing_nodes": []}))
        elif path == "/v1/profile/minutes":
            self.answer(200, JSON, json.dumps(console_states.minutes(int(time.time() * 1000))))
        elif path == "/v1/profile/history":
            self.server.asked.append(query)
            self.answer(200, TEXT, console_states.LOOKS)
        elif path == "/v1/profile/captures":
            self.answer(200, JSON, json.dumps(console_states.CAPTURES))
        elif path == "/v1/console/stream" and self.server.situation == "busy":
            problem = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": BUSY}
            self.answer(503, "application/problem+json", json.dumps(problem))
        elif path == "/v1/console/stream" and self.server.situation != "absent":
            self.stream()
        else:
            self.answer(404, TEXT, "not found")

    def do_POST(self) -> None:
        self.server.acted.append((self.path, self.headers.get("X-Metasrv-Action", "")))
        if self.path.startswith("/debug/"):
            self.answer(200, TEXT, console_states.CHANGED if "base=" in self.path else console_states.FOLDED)
        elif self.path.startswith("/v1/ctrl/trigger_transfer_leader"):
            self.answer(200, JSON, '{"from":1,"to":2,"voter_ids":[1,2,3]}')
        else:
            self.answer(500, TEXT, "the node is stopping")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        self.server.acted.append((f"{self.path} {body}", self.headers.get("X-Metasrv-Action", "")))
        asked = json.loads(body)
        if asked["logger"] == "metasrv.nowhere":
            problem = {"title": "Bad Request", "status": 400, "detail": f"there is no logger {asked['logger']!r}"}
            self.answer(400, "application/problem+json", json.dumps(problem))
            return
        expires_at_ms = int(time.time() * 1000) + asked["seconds"] * 1000
        changed = {
            "logger": asked["logger"],
            "level": asked["level"],
            "configured": "info",
            "expires_at_ms": expires_at_ms,
        }
        self.answer(200, JSON, json.dumps(changed))

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        now_ms = int(time.time() * 1000)
        self.line({"type": "state", "state": self.server.state()})
        is_new = self.server.situation in ("first-start", "waiting")
        history = console_states.history(now_ms)
        empty = {**history, "start_ms": now_ms, "series": {name: [] for name in history["series"]}}
        self.line({"type": "history", "history": empty if is_new else history})
        events = [] if is_new else console_states.events(now_ms)
        self.line({"type": "events", "events": events, "missing_nodes": []})
        told = self.server.situation
        position = console_states.POINTS
        while self.server.rest() and self.server.situation == told:
            self.line({"type": "state", "state": self.server.state()})
            if not is_new:
                time_ms = now_ms + (position - console_states.POINTS + 1) * console_states.STEP_MS
                self.line({"type": "point", "time_ms": time_ms, "values": console_states.point(position)})
            position += 1

    def line(self, message: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(message).encode() + b"\n")
        self.wfile.flush()

    def answer(self, code: int, content_type: str, body: str | bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Type": content_type}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode() if isinstance(body, str) else body)

    def handle(self) -> None:
        """A browser that goes away is no fault of the server."""
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def take_pictures(folder: Path) -> None:
    """One picture of each state: light and dark on a desktop, and on a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, ConsoleServer() as server, Chromium(Path(directory)) as browser:
        for situation in (*console_scenes.STATES, "token", "absent"):
            server.situation = situation
            for name, size, theme in (("light", DESKTOP, "light"), ("dark", DESKTOP, "dark"), ("phone", PHONE, "light")):
                page = shown(browser, server, "/", size, theme)
                page.picture(folder / f"{situation}-{name}.png")
                print(situation, name, *page.errors)
                page.close()


def take_pictures_of_documentation(folder: Path) -> None:
    """Those that the documentation shows; each is small enough to be kept beside the source."""
    with tempfile.TemporaryDirectory() as directory, ConsoleServer() as server, Chromium(Path(directory)) as browser:
        for situation in console_scenes.STATES.keys() - {"healthy", "one-node-lost"}:  # they are among those below
            server.situation = situation
            page = shown(browser, server, "/", DESKTOP, "light")
            picture_down_to(
                page, "#charts" if situation == "waiting" else "#cluster", folder / f"console-{situation}.webp"
            )
            page.close()
        for name, situation, path, size, theme in (
            ("console", "one-node-lost", "/", (1280, 1040), "light"),
            ("console-dark", "healthy", "/", (1280, 1290), "dark"),
            ("console-phone", "one-node-lost", "/", (360, 1100), "dark"),
            ("console-token", "token", "/", (1280, 240), "light"),
            ("api-reference", "healthy", "/docs", (1280, 860), "light"),
        ):
            server.situation = situation
            page = shown(browser, server, path, size, theme)
            page.picture(folder / f"{name}.webp", full_height=False)
            page.close()
        take_pictures_of_use(server, browser, folder)


def picture_down_to(page: Page, selector: str, file: Path) -> None:
    """The page from its top to the end of an element."""
    bottom = page.evaluate(f"Math.ceil(document.querySelector('{selector}').getBoundingClientRect().bottom) + 14")
    page.resize((DESKTOP[0], bottom))
    page.picture(file, full_height=False)


def take_pictures_of_use(server: ConsoleServer, browser: Chromium, folder: Path) -> None:
    """What a reader opens, chooses and points at."""

    def page_of(situation: str, size: tuple[int, int]) -> Page:
        server.situation = situation
        return shown(browser, server, "/", size, "light")

    def take(page: Page, name: str) -> None:
        time.sleep(BEAT_SECONDS)
        page.picture(folder / f"console-{name}.webp", full_height=False)

    page = page_of("healthy", (1280, 560))
    for name, click in (("flame-graph", "[data-name=cpu]"), ("transfer", "[data-name=transfer]")):
        page.click(click)
        if name == "flame-graph":
            page.evaluate("document.querySelector('#dialog form').requestSubmit()")
            page.wait_for("document.querySelector('.flame')")
        take(page, name)
        page.click("#dialog [data-action=close]")
    page.wait_for("document.querySelectorAll('.minute').length > 0")
    page.evaluate("document.getElementById('minutes').scrollIntoView()")
    take(page, "minutes")
    page.click(".minute:nth-of-type(6)")
    page.wait_for("document.querySelector('#dialog .flame')")
    take(page, "minute")
    page.click("#dialog [data-action=close]")
    page.click("#writes [data-action=writes]")
    page.wait_for("document.querySelector('#write-list table')")
    page.evaluate("document.getElementById('key-form').requestSubmit()")
    page.wait_for("document.querySelector('[data-action=record]')")
    page.click("[data-action=record][data-key=table]")
    page.wait_for("document.querySelector('.record h3')")
    page.evaluate("document.getElementById('writes').scrollIntoView()")
    take(page, "writes-and-keys")
    page.close()
    page = page_of("healthy", (1280, 860))
    page.evaluate("document.querySelector('.plot').focus()")
    for _ in range(60):
        page.press("ArrowLeft")
    take(page, "keyboard")
    page.close()
    page = page_of("no-leader", (1280, 720))
    page.click("#problems .critical summary")
    page.wait_for("document.querySelector('#problems .runbook-text h4')")
    take(page, "runbook")
    page.close()
    page = page_of("healthy", (1280, 600))
    server.situation = "down"
    page.wait_for("document.body.dataset.connection === 'lost'")
    take(page, "down")
    page.close()


def shown(browser: Chromium, server: ConsoleServer, path: str, size: tuple[int, int], theme: str) -> Page:
    """A page that has drawn what it was told."""
    page = browser.page(size, theme)
    page.open(server.url + path)
    page.wait_for("document.readyState === 'complete' && document.body.dataset.connection !== 'connecting'")
    time.sleep(2 * BEAT_SECONDS)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="take pictures of every state into this directory, and end")
    parser.add_argument("--documentation", action="store_true", help="take the pictures of docs/images again, and end")
    options = parser.parse_args()
    if options.pictures is not None or options.documentation:
        if options.pictures is not None:
            take_pictures(options.pictures)
        if options.documentation:
            take_pictures_of_documentation(ROOT / "docs" / "images")
        return
    with ConsoleServer() as server:
        print(f"{server.url}, Ctrl-C ends", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
