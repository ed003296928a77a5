"""``serve``: a run behind a small HTTP service."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.commands.predict.model import Model
from headstart.commands.run import Run
from headstart.commands.saved_run import SavedRun
from headstart.commands.serve.answers import Answers
from headstart.commands.serve.options import SERVE, ServeConfig
from headstart.commands.session import Session
from headstart.commands.settings import RunOptions
from headstart.core.errors import ConfigError, MissingExtraError
from headstart.core.wording import clean
from headstart.data.reading import default_workers

if TYPE_CHECKING:
    from headstart.commands.serve.app import Service

_PACKAGES = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")
_MEGABYTE = 1_000_000
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


def serve(
    trained: Run | SavedRun | Path | str,
    *,
    config: ServeConfig | None = None,
    run: RunOptions | None = None,
    ready: Callable[[str], None] | None = None,
    **overrides: Any,
) -> None:
    """Answer requests over HTTP until the process is told to stop.

    On SIGTERM, SIGINT or SIGHUP, requests in flight are answered first.

    Args:
        trained: a run, or its folder.
        config: the settings of ``serve``.
        run: batch size, device, engine and the threads that decode; precision and storage are
            those of the run.
        ready: called with the address once requests are answered.
        **overrides: single fields of these, such as ``port=8080``.

    Raises:
        ConfigError: the address cannot be listened on.
        DataError: not a run folder.
        MissingExtraError: ``headstart[serve]`` is not installed.
    """
    with _listening(trained, config, run, overrides) as (server, listener, url):
        asyncio.run(_serving(server, listener, lambda: ready(url) if ready else None))


@contextlib.contextmanager
def serving(
    trained: Run | SavedRun | Path | str,
    *,
    config: ServeConfig | None = None,
    run: RunOptions | None = None,
    **overrides: Any,
) -> Iterator[str]:
    """Serve in a thread for as long as the context lasts: in a notebook, in a test.

    Args:
        trained, config, run, **overrides: as for :func:`serve`.

    Yields:
        The address, such as ``http://127.0.0.1:8000``.
    """
    with _listening(trained, config, run, overrides) as (server, listener, url):
        answering = threading.Event()
        thread = threading.Thread(
            target=lambda: asyncio.run(_serving(server, listener, answering.set)),
            name="headstart-serve",
            daemon=True,
        )
        thread.start()
        try:
            while not answering.wait(0.1):
                if not thread.is_alive():
                    raise RuntimeError("the service stopped before it answered")
            yield url
        finally:
            server.should_exit = True
            thread.join()


async def _serving(server: Any, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Run the server; say when it answers."""
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    if server.started:
        ready()
    await task


@contextlib.contextmanager
def _listening(
    trained: Run | SavedRun | Path | str,
    config: ServeConfig | None,
    run: RunOptions | None,
    overrides: dict[str, Any],
) -> Iterator[tuple[Any, socket.socket, str]]:
    """Open the run, the address and the server.

    The address comes first: one that is taken costs no loading.
    """
    config, run, _, _ = SERVE.settle(overrides, config, run, None)
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "serve", "the service")
    session = Session(run)
    with (
        contextlib.closing(_bound(config)) as listener,
        _answers(trained, config, session) as answers,
    ):
        from headstart.commands.serve.app import is_local
        from headstart.commands.serve.batching import Batcher

        host, port = listener.getsockname()[:2]
        local = is_local(host)
        service = _service(answers, config, local)
        batcher: Batcher = service.batcher
        try:
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            if not local:
                session.say(
                    f"listening on {host}: any machine that can reach this one can send"
                    " requests, without authentication"
                )
            yield _server(service, config), listener, url
        finally:
            batcher.close()


@contextlib.contextmanager
def _answers(
    trained: Run | SavedRun | Path | str, config: ServeConfig, session: Session
) -> Iterator[Answers]:
    with session.clock("load"):
        judge = Model.of(trained, config, session).judge(session, config.asked, config.wanted)
    with Answers(judge, session, top=config.top, max_pixels=config.max_pixels) as answers:
        session.say(*answers.warm_up())
        yield answers


def _service(answers: Answers, config: ServeConfig, local: bool) -> Service:
    from headstart.commands.serve.app import ROUTES, Service
    from headstart.commands.serve.batching import Batcher
    from headstart.commands.serve.bodies import Limits
    from headstart.commands.serve.counters import Counters

    counters, model = Counters(), answers.model
    workers = answers.workers or default_workers()
    limits = Limits(answers.kind, answers.unit, config.max_items, int(config.max_body * _MEGABYTE))
    about = {
        "backbone": clean(model.backbone.name),
        "task": model.head.task,
        "classes": list(model.classes[:1000]),
        "takes": limits.forms,
        "says": list(answers.columns),
        **_promised(config),
        "limits": {
            "items": limits.items,
            "bytes": limits.body,
            **({"pixels": int(config.max_pixels * 1e6)} if answers.unit == "images" else {}),
            "queue": config.queue,
        },
        "routes": list(ROUTES),
    }
    batcher = Batcher(
        answers,
        queue=config.queue,
        wait=config.wait / 1000,
        workers=workers,
        seen=counters.batch,
    )
    return Service(batcher, limits, about, answers.columns, local, counters=counters)


def _promised(config: ServeConfig) -> dict[str, Any]:
    """Return what was asked for beyond one answer for every item."""
    asked, wanted = config.asked, config.wanted
    found: dict[str, Any] = {}
    if asked is not None:
        found["coverage"] = {
            "share": asked.coverage,
            "by_class": asked.by_class,
            "set_score": asked.score,
        }
    if wanted is not None:
        found["ood"] = {"method": wanted.method, "false_alarms": wanted.false_alarms}
    return found


def _bound(config: ServeConfig) -> socket.socket:
    """Take the address.

    Raises:
        ConfigError: it does not exist, is taken, or is not ours to take.
    """
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            (f"host='{clean(config.host)}' is not an address of this machine: {reason}",)
        ) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(
            (f"cannot listen on port {config.port} of {config.host}: {error.strerror}",),
            hint="choose another with port=N; port=0 takes a free one",
        ) from error
    return listener


def _server(service: Service, config: ServeConfig) -> Any:
    """Return uvicorn's server, which ends in order on a signal and says nothing of its own."""
    import uvicorn

    from headstart.commands.serve.app import make_app
    from headstart.commands.serve.patience import PatientProtocol

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn raises the signal again at the end, and an ordered stop would be a failure.
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
            before = {number: signal.signal(number, self.handle_exit) for number in numbers}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        def handle_exit(self, sig: int, frame: Any) -> None:
            service.stopping = True
            super().handle_exit(sig, frame)

    settings = uvicorn.Config(
        make_app(service),
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=math.ceil(config.grace),
        log_level="error",
    )
    return Server(settings)


__all__ = ["serve", "serving"]
