"""Joining a Ray cluster, or starting one of this machine and ending it again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from headstart.core.errors import ConfigError
from headstart.runners.table import Crew

_OBJECTS = 200 * 2**20
"""Bytes of Ray's object store: it holds the job, which is the network and the list of items."""
_ANSWER_SECONDS = 10.0


@contextlib.contextmanager
def joined(ray: Any, crew: Crew) -> Iterator[None]:
    """Join a cluster, or start one of this machine; one that the program has joined is used."""
    if ray.is_initialized():
        yield
        return
    if crew.address is not None:
        _check_answers(crew.address)
    before = dict(os.environ)
    handler = signal.getsignal(signal.SIGTERM)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    each = 1.0 if crew.cpus is None else crew.cpus
    own: dict[str, Any] = {
        "num_cpus": max(1, round(crew.workers * each)) if crew.workers else os.cpu_count() or 1
    }
    own |= {"object_store_memory": _OBJECTS, "include_dashboard": False}
    try:
        try:
            ray.init(
                address="local" if crew.address is None else crew.address,
                logging_level="ERROR",
                log_to_driver=False,
                **(own if crew.address is None else {}),
            )
        except Exception as error:
            raise _no_cluster(crew.address or "local", error) from error
        _restore(handler)
        yield
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


def _check_answers(address: str) -> None:
    """Refuse an address at which nothing answers: Ray would try for minutes.

    Raises:
        ConfigError: it names a host and a port, and there is no connection.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # auto, local, or what Ray knows better
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> ConfigError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConfigError(
        (f"no Ray cluster at '{address}': {reason}",),
        hint="give address=HOST:PORT of a running one, or omit it",
    )


def _restore(handler: Any) -> None:
    """Give a signal back to the program, where Ray has taken it."""
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


__all__ = ["joined"]
