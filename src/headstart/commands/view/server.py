"""A page of this machine alone: loopback, a secret in the address, and no other site may ask.

Whoever is logged in can open a port of the machine, and a page of any site can make its browser ask
there, even by a name that it points to 127.0.0.1 (DNS rebinding). So every address holds a random
token, the header ``Host`` has to name this server, and a request that another page makes is refused
by its ``Origin`` and ``Sec-Fetch-Site``. Nothing is ever changed by a request.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from headstart.commands.view.pages import PAGE_FILES, PAGE_POLICY, page_file
from headstart.commands.view.stage import Stage
from headstart.core.errors import ConfigError

if TYPE_CHECKING:
    from headstart.commands.view.scene import Scene

HOST = "127.0.0.1"
MOST_NAMED = 100
"""Items that the page may ask for at once."""
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": PAGE_POLICY,
}
_TIMEOUT = 30.0


class Viewer:
    """A page that is served until it is closed.

    Attributes:
        url: its address, with the token.
    """

    def __init__(self, stage: Stage, port: int = 0) -> None:
        self._stage = stage
        self._token = secrets.token_urlsafe(24)
        try:
            self._server = _Server((HOST, port), stage, self._token)
        except OSError as error:
            raise ConfigError(
                (f"port {port} of this machine cannot be used: {error.strerror or error}",),
                hint="omit port to use any free one",
            ) from error
        self.port = int(self._server.server_address[1])
        self.url = f"http://{HOST}:{self.port}/{self._token}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def scene(self) -> Scene:
        """What it shows, as soon as the items are open.

        Raises:
            HeadstartError: they cannot be opened.
        """
        return self._stage.scene

    @property
    def items(self) -> int:
        """How many items the page shows."""
        return len(self._stage)

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._stage.close()

    def wait(self) -> None:
        """Wait until another thread closes it, or until the user interrupts.

        Raises:
            HeadstartError: the items cannot be opened behind what was kept of the page.
        """
        while self._thread.is_alive():
            if self._stage.failed is not None:
                raise self._stage.failed
            self._thread.join(0.5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Viewer('{self.url}')"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], stage: Stage, token: str) -> None:
        self.stage, self.token = stage, token
        super().__init__(address, _Handler)
        port = self.server_address[1]
        self.names = frozenset(f"{name}:{port}" for name in (HOST, "localhost"))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that goes away in the middle is no fault."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT
    server_version = "headstart"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a request."""
        if not self._from_here():
            self._refuse(403, "this page is only for this machine")
            return
        parts = urlsplit(self.path)
        _, _, rest = parts.path.partition("/")
        token, _, name = rest.partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(404, "not found: open the address that headstart view has printed")
            return
        try:
            kind, body = self._answer(name, parse_qs(parts.query))
        except (KeyError, ValueError, IndexError):
            self._refuse(404, "not found")
            return
        except Exception as error:
            self._refuse(500, f"{type(error).__name__}: {error}")
            return
        self._send(200, kind, body)

    do_HEAD = do_GET

    def _from_here(self) -> bool:
        """Whether the request was made to this machine by name, and by no page of another site."""
        host = self.headers.get("Host", "")
        origin = self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "none")
        own = {f"http://{name}" for name in self.server.names}
        opened = ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")
        navigated = all(self.headers.get(name) == value for name, value in opened)
        return (
            host in self.server.names
            and (origin is None or origin in own)
            and (site in ("none", "same-origin") or navigated)  # a link may stand anywhere
        )

    def _answer(self, name: str, query: dict[str, list[str]]) -> tuple[str, bytes]:
        stage = self.server.stage
        if name in PAGE_FILES:
            return page_file(name)
        if name == "scene.json":
            return _json(stage.describe())
        if name == "points.bin":
            body = stage.points(query["of"][0] if "of" in query else None)
            if body is None:
                raise KeyError(name)
            return "application/octet-stream", body
        if name == "checked":
            return _json(stage.checked())
        what, _, number = name.partition("/")
        if what == "items":
            wanted = [self._item(each) for each in query["i"][0].split(",")[:MOST_NAMED]]
            return _json(stage.named(wanted))
        i = self._item(number)
        if what == "item":
            return _json(stage.scene.item(i))
        if what == "near":
            return _json(stage.scene.near(i))
        if what == "thumbnail":
            picture = stage.picture(i)
            if picture is None:
                raise KeyError(i)
            return ("image/png" if picture.startswith(b"\x89PNG") else "image/jpeg"), picture
        raise KeyError(name)

    def _item(self, text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) >= len(self.server.stage):
            raise KeyError(text)
        return int(text)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, why: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{why}\n".encode("utf-8", "replace"))

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: addresses hold the token."""


def _json(value: Any) -> tuple[str, bytes]:
    body = json.dumps(value, ensure_ascii=True, allow_nan=False).encode()
    return "application/json", body


__all__ = ["HOST", "Viewer"]
