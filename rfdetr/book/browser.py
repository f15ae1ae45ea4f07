"""Chromium without a window, spoken to through its debugging pipe: open pages, run scripts in them, print.

Needs no package beyond the standard library: commands and events are JSON texts on two file descriptors.
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rfdetr.errors import UserError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # Chromium refuses to run as root with one, and opens only pages of this project
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
)
_SECONDS = 60.0
"""What one command may take. A page that needs longer is broken."""


def find_browser() -> str:
    """Path of Chromium: `$CHROMIUM`, or the first of the usual names; UserError where there is none."""
    chosen = os.environ.get("CHROMIUM")
    found = shutil.which(chosen) if chosen else next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        where = f"CHROMIUM={chosen} is no program" if chosen else f"none of {', '.join(_NAMES)} is installed"
        raise UserError(
            f"this needs Chromium, but {where}; install it (Debian: apt-get install chromium) or set CHROMIUM"
        )
    return found


class Tab:
    """One page of a browser. `events` holds what the browser reported since the last `forget`."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Answer to a command of the DevTools protocol. RuntimeError when the browser refuses it."""
        return self._browser.call(method, parameters, self._session, self.events)

    def show(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Size of the window in px and the colour scheme that the reader's system asks for."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Load a page and wait until its scripts have run. RuntimeError for a page that cannot be loaded."""
        self.events.clear()
        answer = self.call("Page.navigate", url=address)
        if answer.get("errorText"):
            raise RuntimeError(f"{address}: {answer['errorText']}")
        self._browser.wait(lambda: self._has("Page.loadEventFired"), self.events)
        self.settle()

    def _has(self, method: str) -> bool:
        return any(event["method"] == method for event in self.events)

    def settle(self) -> None:
        """Wait for two frames, after which layout and charts are drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression (a promise is awaited). RuntimeError with its exception."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def picture(self, path: Path) -> None:
        """Save what the window shows as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def print(self, **options: Any) -> bytes:
        """The page as PDF; options as in `Page.printToPDF`."""
        stream = self.call("Page.printToPDF", transferMode="ReturnAsStream", **options)["stream"]
        pieces = []
        while True:
            piece = self.call("IO.read", handle=stream)
            pieces.append(
                base64.b64decode(piece["data"]) if piece["base64Encoded"] else piece["data"].encode()
            )
            if piece["eof"]:
                return b"".join(pieces)


class Browser:
    """A running Chromium; made by `running`."""

    def __init__(self, process: "subprocess.Popen[bytes]", read: int, write: int) -> None:
        self._process, self._read, self._write = process, read, write
        self._pending = b""
        self._number = 0

    def tab(self) -> Tab:
        """A new empty page."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        return Tab(self, attached["sessionId"])

    def call(
        self,
        method: str,
        parameters: Mapping[str, Any],
        session: str = "",
        events: list[dict[str, Any]] | None = None,
        seconds: float = _SECONDS,
    ) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come before are added to `events`."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": dict(parameters)}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + seconds
        while True:
            answer = self._message(until)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            if events is not None and "method" in answer:
                events.append(answer)

    def wait(self, ready: Any, events: list[dict[str, Any]], seconds: float = _SECONDS) -> None:
        """Take in events until `ready()` is true."""
        until = time.monotonic() + seconds
        while not ready():
            message = self._message(until)
            if "method" in message:
                events.append(message)

    def _message(self, until: float) -> dict[str, Any]:
        """The next message of the browser. TimeoutError or ConnectionError without one."""
        while b"\0" not in self._pending:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise ConnectionError("the browser has ended")
            self._pending += piece
        text, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


@contextmanager
def running() -> Iterator[Browser]:
    """Start Chromium with an empty profile, and end it."""
    program = find_browser()
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()

    def descriptors() -> None:  # Chromium reads commands from 3 and writes answers to 4.
        first, second = os.dup(to_browser), os.dup(from_browser)
        os.dup2(first, 3)
        os.dup2(second, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=descriptors,
            close_fds=False,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Browser(process, read, write)
        finally:
            os.close(write)
            os.close(read)
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the browser and its helper processes, which share its process group."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(timeout=5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
