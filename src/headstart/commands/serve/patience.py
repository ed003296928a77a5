"""How long a connection may take to say what it wants, and how much it may say before that.

uvicorn ends connections that are idle between two requests, and a body has its own limits
(:mod:`headstart.commands.serve.bodies`). The head of a request has neither there: a client that
sends a byte now and then would hold a connection for ever, and one that never ends its headers
would fill the memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 20.0
"""From a connection, or the first byte of a request, to the end of its headers."""
HEAD_BYTES = 2**16
"""Of its address and headers."""


class PatientProtocol(HttpToolsProtocol):
    """HTTP/1.1, with an end to the patience for the head of a request."""

    _late: asyncio.TimerHandle | None = None
    _size = 0

    def connection_made(self, transport: Any) -> None:
        """Wait for a first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Wait for the end of its headers."""
        self._size = 0
        super().on_message_begin()
        self._wait()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Wait no more: the body has limits of its own."""
        self._stop()
        super().on_headers_complete()

    def _wait(self) -> None:
        self._stop()
        self._late = self.loop.call_later(HEAD_SECONDS, self._close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > HEAD_BYTES:
            self._close()


__all__ = ["HEAD_BYTES", "HEAD_SECONDS", "PatientProtocol"]
