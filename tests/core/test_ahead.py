"""An iterator that runs ahead in a thread: order, bounds, errors, early ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from headstart.core.ahead import Ahead

NAME = "ahead-of-a-test"


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == NAME]


class Source:
    """Counts up; fails after some, and says what became of it."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.made, self.closed, self.fails_after = 0, False, fails_after

    def __call__(self) -> Iterator[int]:
        try:
            while self.made < 50:
                if self.made == self.fails_after:
                    raise OSError("the disk is gone")
                self.made += 1
                yield self.made
        finally:
            self.closed = True


def test_results_come_in_order_and_the_thread_ends() -> None:
    source = Source()
    with Ahead(source, 3, NAME) as ahead:
        assert list(ahead) == list(range(1, 51))
        assert list(ahead) == []
    assert source.closed
    assert not threads()


def test_it_runs_ahead_by_so_many_and_no_more() -> None:
    source = Source()
    with Ahead(source, 3, NAME) as ahead:
        for taken in range(1, 11):
            assert next(ahead) == taken
            # three wait in the queue, and one in the hand of the thread
            assert source.made <= taken + 4
    assert source.made <= 14
    assert source.closed
    assert not threads()


def test_an_error_comes_after_the_results_before_it() -> None:
    source = Source(fails_after=7)
    with Ahead(source, 2, NAME) as ahead:
        assert [next(ahead) for _ in range(7)] == list(range(1, 8))
        with pytest.raises(OSError, match="the disk is gone"):
            next(ahead)
        with pytest.raises(StopIteration):
            next(ahead)
    assert source.closed
    assert not threads()


def test_an_error_on_the_way_to_the_first_result_is_raised() -> None:
    def fails() -> Iterator[int]:
        raise ValueError("nothing to begin with")

    with Ahead(fails, 2, NAME) as ahead, pytest.raises(ValueError, match="nothing to begin with"):
        next(ahead)
    assert not threads()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_of_the_consumer_ends_the_thread(error: type[BaseException]) -> None:
    source = Source()
    with pytest.raises(error), Ahead(source, 2, NAME) as ahead:
        next(ahead)
        raise error
    assert source.closed
    assert not threads()
