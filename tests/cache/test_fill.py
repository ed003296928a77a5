"""Filling spaces: what is missing, once; commits in time; unreadable items; errors on the way."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from headstart.cache import Block, Filling, fill
from headstart.core.records import CacheUse
from headstart.store import Space, Store

IDS = [hashlib.sha256(str(i).encode()).hexdigest()[:32] for i in range(40)]


@pytest.fixture
def spaces(tmp_path: Path) -> tuple[Space, Space]:
    store = Store(tmp_path / "store")
    return store.space({"layer": "one"}), store.space({"layer": "two"})


class Computer:
    """Computes rows in blocks of eight, and remembers for which ids."""

    def __init__(self, unreadable: tuple[str, ...] = (), fails_after: int | None = None) -> None:
        self.unreadable, self.fails_after = set(unreadable), fails_after
        self.seen: list[str] = []

    def __call__(self, keys: list[str]) -> Iterator[Block]:
        for start in range(0, len(keys), 8):
            chosen = [key for key in keys[start : start + 8] if key not in self.unreadable]
            if self.fails_after is not None and len(self.seen) >= self.fails_after:
                raise KeyboardInterrupt
            self.seen += keys[start : start + 8]
            rows = np.array([[IDS.index(key)] * 3 for key in chosen], np.float32)
            if chosen:
                yield Block(chosen, [{"features": rows}, {"features": rows * 2, "more": rows}])


def run(spaces: tuple[Space, Space], ids: list[str], compute: Computer, **options: int):  # type: ignore[no-untyped-def]
    return fill(spaces, ids, compute, task="compute", unit="items", batch_size=4, **options)


def test_what_is_missing_is_computed_once_for_all_spaces(spaces: tuple[Space, Space]) -> None:
    first = Computer()
    assert run(spaces, [*IDS[:20], *IDS[:5]], first).use == CacheUse(0, 20)
    assert sorted(first.seen) == sorted(IDS[:20])
    second = Computer()
    assert run(spaces, IDS, second).use == CacheUse(20, 20)
    assert sorted(second.seen) == sorted(IDS[20:])
    assert run(spaces, IDS, Computer(fails_after=0)).use == CacheUse(40, 0)
    np.testing.assert_array_equal(spaces[0].read(IDS).array()[:, 0], np.arange(40))
    rows = spaces[1].read(IDS)[np.arange(40)]
    np.testing.assert_array_equal(rows["features"][:, 0], 2 * np.arange(40))
    np.testing.assert_array_equal(rows["more"][:, 0], np.arange(40))


def test_a_space_that_lacks_rows_is_filled_from_the_same_pass(spaces: tuple[Space, Space]) -> None:
    rows = np.zeros((10, 3), np.float32)
    spaces[0].append(IDS[:10], {"features": rows})
    compute = Computer()
    assert run(spaces, IDS[:20], compute).use == CacheUse(0, 20)
    assert not spaces[1].missing(IDS[:20])
    assert not spaces[0].read(IDS[:10]).array().any()  # the rows committed first stay


def test_views_are_rows_of_their_own(spaces: tuple[Space, Space]) -> None:
    run(spaces, IDS[:8], Computer())
    assert run(spaces, IDS[:8], Computer(), number=2).use == CacheUse(0, 8)
    assert spaces[0].missing(IDS[:8], 1) == IDS[:8]


def test_items_without_a_row_are_lost_and_not_tried_again(spaces: tuple[Space, Space]) -> None:
    compute = Computer(unreadable=(IDS[3], IDS[17], *IDS[24:32]))
    filled = run(spaces, IDS, compute)
    assert filled.lost == compute.unreadable
    assert filled.use == CacheUse(0, 30)
    assert len(compute.seen) == 40
    assert run(spaces, IDS, Computer(tuple(compute.unreadable))).use == CacheUse(30, 0)


def test_nothing_computed_is_lost_by_an_error(spaces: tuple[Space, Space]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(spaces, IDS, Computer(fails_after=24))
    assert len(spaces[0].missing(IDS)) == 16
    other = Computer()  # the claims are released: the rest can be had
    assert run(spaces, IDS, other).use == CacheUse(24, 16)
    assert len(other.seen) == 16


def eventually(true: Callable[[], bool]) -> bool:
    """Wait for what a thread that writes will have done; it is done in some milliseconds."""
    until = time.monotonic() + 30
    while not (found := true()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def test_portions_are_committed_when_enough_wait(
    spaces: tuple[Space, Space], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[fill.__module__]
    compute = Computer()
    with Filling(spaces, batch_size=64) as filling:
        filling.fill(IDS[:8], compute)
        assert len(spaces[0].missing(IDS[:8])) == 8  # they wait
        filling.fill(IDS[:8], compute)
        assert len(compute.seen) == 8  # and are known all the same
        monkeypatch.setattr(module, "COMMIT_BYTES", 500)  # two blocks of 8 * 3 * 3 * 4 bytes
        filling.fill(IDS[8:16], compute)
        assert eventually(
            lambda: filling.is_idle and not spaces[0].missing(IDS[:16])
        )  # too many bytes
        monkeypatch.setattr(module, "COMMIT_BYTES", 2**30)
        monkeypatch.setattr(module, "COMMIT_SECONDS", 0.0)
        filling.fill(IDS[16:24], compute)
        assert eventually(
            lambda: filling.is_idle and not spaces[0].missing(IDS[:24])
        )  # too long ago
        monkeypatch.setattr(module, "COMMIT_SECONDS", 1e9)
        filling.fill(IDS[24:], compute)
        assert len(spaces[0].missing(IDS)) == 16
    assert not spaces[0].missing(IDS)
    assert spaces[0].preflight(IDS).missing == 0


def test_workers_do_not_wait_for_each_others_unreadable_items(tmp_path: Path) -> None:
    lost: list[set[str]] = []
    both = threading.Barrier(2)

    def work(first: list[str]) -> None:
        space = Store(tmp_path).space({"layer": "one"})
        compute = Computer(unreadable=(IDS[3], IDS[33]))
        with Filling((space,), batch_size=4) as filling:
            filling.fill(first, lambda keys: one_column(compute(keys)))
            both.wait(20)  # each has met one of them
            filling.fill(IDS, lambda keys: one_column(compute(keys)))
            lost.append(filling.lost)

    def one_column(blocks: Iterator[Block]) -> Iterator[Block]:
        return (Block(block.ids, block.columns[:1]) for block in blocks)

    threads = [
        threading.Thread(target=work, args=(ids,), daemon=True) for ids in (IDS[:8], IDS[32:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert lost == [{IDS[3], IDS[33]}] * 2
    assert len(Store(tmp_path).space({"layer": "one"})) == 38
