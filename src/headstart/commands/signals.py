"""SIGTERM and SIGHUP end a command in order: what was computed is committed before the exit.

Job schedulers, containers and closed terminals send them. Only the command line answers to them:
in a program that uses the library, signals belong to the program.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

_AGAIN_SECONDS = 1.0  # repeated within that time, a signal is the same request


class EndedBySignal(SystemExit):
    """Raised in the main thread, wherever it is, so that every ``finally`` runs.

    Attributes:
        name: of the signal.
        code: 128 + its number, as shells report it.
    """

    code: int

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


def end_on_signals() -> None:
    """Turn the signals that end a process into :class:`EndedBySignal`, where nobody else did.

    A signal that is ignored (as under ``nohup``) or handled already stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    owner, last = os.getpid(), [-_AGAIN_SECONDS]

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker: it ends as it would have ended
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if now - last[0] >= _AGAIN_SECONDS:
            last[0] = now
            raise EndedBySignal(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


__all__ = ["EndedBySignal", "end_on_signals"]
