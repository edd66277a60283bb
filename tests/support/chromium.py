"""A headless Chromium, spoken to with the DevTools protocol over two pipes: pages, scripts in them, keys, pictures.

https://chromedevtools.github.io/devtools-protocol/. No port is opened, and nothing is installed beside the browser.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or ""
DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.05
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--no-proxy-server", "--remote-debugging-pipe"),
)
DESKTOP, PHONE = (1280, 900), (360, 740)


class Chromium:
    """One browser process; `with Chromium(directory) as browser`."""

    def __init__(self, directory: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        with (directory / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", PROGRAM, *FLAGS),
                    *(f"--user-data-dir={directory / 'profile'}", "about:blank"),
                ],
                pass_fds=(commands, answers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.close(commands)
        os.close(answers)
        self._received = b""
        self._last_id = 0
        self.pages: dict[str, Page] = {}

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def page(self, size: tuple[int, int] = DESKTOP, theme: str = "light") -> Page:
        """An empty page in a profile of its own, so that nothing is remembered from another one."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log"):
            page.command(f"{domain}.enable")
        page.resize(size)
        feature = {"name": "prefers-color-scheme", "value": theme}
        page.command(
            "Emulation.setEmulatedMedia", features=[feature, {"name": "prefers-reduced-motion", "value": "reduce"}]
        )
        return page

    def command(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The result of one command. Raises RuntimeError with the browser's words when it refuses."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self, deadline: float) -> dict[str, Any]:
        """The next message; events go to their page."""
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "the browser has ended"
            self._received += piece
        line, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        page = self.pages.get(message.get("sessionId", ""))
        if page is not None and "method" in message:
            page.take(message["method"], message["params"])
        return message


class Page:
    """One page, and what went wrong in it."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self.errors: list[str] = []
        """Exceptions, `console.error`, violations of the policy; not requests that were answered with an error."""

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.command(method, self._session, **parameters)

    def take(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.errors.append(str([argument.get("value") for argument in parameters["args"]]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            if entry["source"] != "network":
                self.errors.append(f"{entry['source']}: {entry['text']}")

    def resize(self, size: tuple[int, int], scale: float = 1.0) -> None:
        width, height = size
        is_phone = width < 600
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_phone
        )

    def close(self) -> None:
        """End the page, and what runs in it."""
        del self._browser.pages[self._session]
        self.command("Page.close")

    def open(self, url: str) -> None:
        self.command("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise; it has to be plain data."""
        answer = self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Until the expression is true; while it raises an exception it is not."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        tried = f"(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()"
        while not self.evaluate(tried):
            assert time.monotonic() < deadline, f"never true: {expression}\n{self.errors}\n{self.text()[:2000]}"
            time.sleep(POLL_SECONDS)

    def text(self, selector: str = "body") -> str:
        """What a reader sees of an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def press(self, key: str) -> None:
        """A key as a person presses it, so that the browser's own behaviour follows."""
        codes = {"Escape": 27, "Tab": 9, "Enter": 13, "ArrowLeft": 37}
        event: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        if len(key) == 1:
            event["text"] = key
        if key == "Enter":
            event["text"] = "\r"
        self.command("Input.dispatchKeyEvent", type="keyDown", **event)
        self.command("Input.dispatchKeyEvent", type="keyUp", **{**event, "text": ""})

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def picture(self, file: Path, full_height: bool = True) -> None:
        """Save what is seen as PNG or, by the file's name, WebP; with `full_height` the whole page, as tall as it is."""
        parameters: dict[str, Any] = {"format": file.suffix[1:], "captureBeyondViewport": full_height}
        if file.suffix == ".webp":
            parameters["quality"] = 60
        if full_height:
            size = self.command("Page.getLayoutMetrics")["cssContentSize"]
            parameters["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        file.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", **parameters)["data"]))
