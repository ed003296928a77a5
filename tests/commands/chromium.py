"""A real browser that tests drive: Chromium without a window, by its protocol over pipes."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.report.browser import browser

_LIMIT = 60.0  # seconds after which something is wrong


class Tab:
    """One page of the browser."""

    def __init__(self, chromium: Chromium, session: str) -> None:
        self._chromium, self._session = chromium, session

    def call(self, method: str, **parameters: Any) -> Any:
        return self._chromium.call(method, session=self._session, **parameters)

    def run(self, script: str) -> Any:
        """Return the value of an expression, or of a promise."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until an expression is true, and return it."""
        end = time.monotonic() + _LIMIT
        while True:
            found = self.run(script)
            if found:
                return found
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)

    def size(self, width: int, height: int, *, dark: bool = False, touch: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=touch,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def press(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, **(text if kind == "keyDown" else {})
            )

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def drag(
        self, start: tuple[float, float], end: tuple[float, float], modifiers: int = 0
    ) -> None:
        self.mouse("mousePressed", *start, button="left", clickCount=1, modifiers=modifiers)
        for t in (0.25, 0.5, 0.75, 1.0):
            x, y = (a + (b - a) * t for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", x, y, button="left", buttons=1, modifiers=modifiers)
        self.mouse("mouseReleased", *end, button="left", clickCount=1, modifiers=modifiers)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def complaints(self) -> list[str]:
        """Return what the browser has refused, and the errors of scripts."""
        self.run("0")  # what came before is read
        return [
            json.dumps(event["params"])
            for event in self._chromium.events
            if event.get("sessionId") == self._session
            and event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
        ]


class Chromium:
    """The browser. Get it from :func:`chromium`."""

    def __init__(self, into: Any, out: Any) -> None:
        self._into, self._out = into, out
        self._numbers = itertools.count(1)
        self._rest = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> Any:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == number:
                assert "error" not in found, (method, found["error"])
                return found["result"]
            if "method" in found:
                self.events.append(found)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._out, 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        first, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(first)
        return said

    def tab(self) -> Tab:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        return tab


@contextmanager
def chromium(folder: Path) -> Iterator[Chromium]:
    """Start the browser with a profile in a folder, and end it afterwards."""
    path = browser()
    assert path is not None
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    # High numbers, so that 3 and 4, where the browser looks, can be given to it in the child.
    read, write = (fcntl.fcntl(each, fcntl.F_DUPFD, 50) for each in (theirs_in, theirs_out))

    def place() -> None:
        os.dup2(read, 3)
        os.dup2(write, 4)

    process = subprocess.Popen(
        [path, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--remote-debugging-pipe",
         f"--user-data-dir={folder / 'profile'}"],
        pass_fds=(3, 4), preexec_fn=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    for each in (theirs_in, theirs_out, read, write):
        os.close(each)
    made = Chromium(ours_in, ours_out)
    try:
        yield made
    finally:
        with suppress(AssertionError, OSError):
            made.call("Browser.close")
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for each in (ours_in, ours_out):
            os.close(each)
