"""The routes of the service: ``/predict``, ``/health``, ``/metrics``, and what it is at ``/``."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from headstart._version import __version__
from headstart.commands.serve.batching import Batcher, Row
from headstart.commands.serve.bodies import Body, Limits, read_items
from headstart.commands.serve.counters import CONTENT_TYPE, Counters
from headstart.commands.serve.fault import Fault, RefusedError
from headstart.commands.serve.schema import predict_operation
from headstart.core.wording import shorten

ROUTES = ("GET /", "POST /predict", "GET /health", "GET /metrics", "GET /openapi.json")
_GONE = 499  # as nginx has it: nobody is there to read the answer


@dataclass(eq=False)
class Service:
    """What the routes answer from.

    Attributes:
        batcher: computes.
        limits: of a request.
        about: what ``/`` says of the run.
        columns: of an answer, by name one value each.
        local: whether only this machine is served: then requests that a browser was led to by
            another name than that of this machine are refused.
        stopping: whether it has been told to stop.
        counters: what ``/metrics`` says.
        held: bytes of bodies that are in memory.
    """

    batcher: Batcher
    limits: Limits
    about: Mapping[str, Any]
    columns: Mapping[str, Any] = field(default_factory=dict)
    local: bool = True
    stopping: bool = False
    counters: Counters = field(default_factory=Counters)
    held: int = 0

    def hold(self, size: int) -> None:
        """Count bytes of a body that have arrived: what is only announced takes no memory.

        Raises:
            RefusedError: there is no room for them beside those of eight of the largest requests.
        """
        if self.held + size > 8 * self.limits.body:
            expected, found = "room for the body", "too many large requests at once"
            raise RefusedError(Fault(expected, found, "send it again", 503, 1))
        self.held += size


def make_app(service: Service) -> FastAPI:
    """Return the application; it runs on any ASGI server, in one process."""
    app = FastAPI(title="headstart serve", version=__version__, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False  # a redirect has no words, and costs the body twice
    app.add_middleware(_Local, local=service.local)
    app.add_exception_handler(HTTPException, _no_route)

    @app.head("/", include_in_schema=False)
    @app.get("/")
    async def about() -> Response:
        """What is served, what it takes, and its limits."""
        return _json(service.about)

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Response:
        """200 while requests are answered, 503 once the service has been told to stop."""
        state = "stopping" if service.stopping else "ready"
        said = {"status": state, "pending": service.batcher.pending}
        return _json(said, 503 if service.stopping else 200)

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters in Prometheus' format."""
        service.counters.pending.set(service.batcher.pending)
        return Response(service.counters.text(), media_type=CONTENT_TYPE)

    @app.post("/predict", openapi_extra=predict_operation(service.limits, service.columns))
    async def predict(request: Request) -> Response:
        """Predict for one item or many; every bad item has an error of its own."""
        begun = time.perf_counter()
        answer = await _predict(request, service)
        service.counters.requests.labels(str(answer.status_code)).inc()
        service.counters.seconds.observe(time.perf_counter() - begun)
        return answer

    return app


async def _predict(request: Request, service: Service) -> Response:
    body = Body(request, service.hold)
    try:
        items = await read_items(request, body, service.limits)
        rows = await service.batcher.answer(items)
    except RefusedError as refused:
        if not body.awaits_word:
            with contextlib.suppress(ClientDisconnect):
                await body.drop(4 * service.limits.body)
        return _refusal(refused.fault, close=not body.complete)
    except ClientDisconnect:
        return Response(status_code=_GONE)
    except asyncio.CancelledError:  # time is up, and the answer to this is the last thing done
        fault = Fault("time for an answer", "the service is stopping", "send it again", 503, 1)
        return _refusal(fault, close=True)
    finally:
        service.held -= body.held
    return _answer([item.name for item in items], rows, service)


def _answer(names: Sequence[str], rows: Sequence[Row | Fault], service: Service) -> Response:
    said: list[Mapping[str, Any]] = []
    for name, row in zip(names, rows, strict=True):
        bad = isinstance(row, Fault)
        service.counters.items.labels("bad" if bad else "predicted").inc()
        said.append({"item": name, "error": row.plain()} if isinstance(row, Fault) else row)
    faults = [row for row in rows if isinstance(row, Fault)]
    status = 200 if len(faults) < len(rows) else max(fault.status for fault in faults)
    return _json({"predictions": said}, status)


def _refusal(fault: Fault, *, close: bool = False) -> Response:
    headers = {} if fault.retry is None else {"Retry-After": str(fault.retry)}
    if close:  # what is left of the body would be taken for the next request
        headers["Connection"] = "close"
    return _json({"error": fault.plain()}, fault.status, headers)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(value, allow_nan=False)  # ASCII: names with lone surrogates, too
    return Response(text, status, dict(headers or {}), "application/json")


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    found = f"{request.method} {shorten(request.url.path, 80)}"
    fault = Fault(f"one of {', '.join(ROUTES)}", found, "see GET /")
    return _json({"error": fault.plain()}, status, getattr(error, "headers", None))


class _Local:
    """Refuses requests to this machine by a name that is not its own: DNS rebinding."""

    def __init__(self, app: ASGIApp, local: bool) -> None:
        self._app, self._local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._local and scope["type"] == "http":
            named = [value for name, value in scope["headers"] if name == b"host"]
            host = b", ".join(named).decode("latin-1")  # several are no name of this machine
            if not is_local(_without_port(host)):
                fault = Fault(
                    "a request to localhost",
                    f"the host '{shorten(host, 80)}'",
                    "ask for localhost, or start the service with another host",
                    421,
                )
                await _refusal(fault, close=True)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_local(host: str) -> bool:
    """Whether a host is this machine alone."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


__all__ = ["ROUTES", "Service", "is_local", "make_app"]
