"""An iterator that runs ahead of its consumer in a thread of its own, by a bounded distance."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

T = TypeVar("T")

_LOOK = 0.1  # seconds after which a full queue looks whether anybody still wants its content
_END = object()


class Ahead(Iterator[T], Generic[T]):
    """Yields what another iterator yields, which works up to ``depth`` results ahead.

    What it raises is raised here, after the results that came before. It is a context: on leaving
    it, early or not, the thread has ended and the other iterator is closed.

    Args:
        make: returns the iterator; called in the thread.
        depth: results that may wait.
        name: of the thread.
    """

    def __init__(self, make: Callable[[], Iterator[T]], depth: int, name: str) -> None:
        self._queue: queue.Queue[object] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._done = False
        self._thread = threading.Thread(target=self._run, args=(make,), name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        if self._done:
            raise StopIteration
        found = self._queue.get()
        if found is not _END:
            return cast("T", found)
        self._done = True
        self._thread.join()
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread, and wait for its end; results that nobody took are dropped."""
        self._done = True
        self._stopped.set()
        self._thread.join()
        while not self._queue.empty():
            self._queue.get_nowait()

    def _run(self, make: Callable[[], Iterator[T]]) -> None:
        try:
            source = make()
            try:
                for result in source:
                    if not self._put(result):
                        return
            finally:
                close = getattr(source, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # raised again where it is waited for
            self._error = error
        finally:
            self._put(_END)

    def _put(self, result: object) -> bool:
        """Hand over a result; False where nobody wants it any more."""
        while not self._stopped.is_set():
            try:
                self._queue.put(result, timeout=_LOOK)
            except queue.Full:
                continue
            return True
        return False


__all__ = ["Ahead"]
