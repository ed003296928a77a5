"""One thread computes where several wait for each other; the user's setting comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info

from headstart.core import threads
from headstart.core.threads import fair_threads, one_is_faster


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    threads._known.clear()
    yield
    torch.set_num_threads(before)
    threads._known.clear()


@pytest.mark.parametrize(("together", "alone", "one"), [(3e-3, 1e-3, True), (1e-3, 3e-3, False)])
@pytest.mark.parametrize(("blocks", "seconds"), [(1, 0.0), (2, 0.004)])
def test_the_faster_is_found(
    monkeypatch, together: float, alone: float, one: bool, blocks: int, seconds: float
) -> None:
    clock = [0.0]
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])

    def step() -> None:
        clock[0] += together if torch.get_num_threads() > 1 else alone

    assert one_is_faster(step, 2, blocks=blocks, seconds=seconds) is one
    assert torch.get_num_threads() == 2


def test_a_step_that_fails_leaves_the_threads() -> None:
    with pytest.raises(ZeroDivisionError):
        one_is_faster(lambda: 1 // 0, 2)
    assert torch.get_num_threads() == 2


def verdicts(monkeypatch: pytest.MonkeyPatch, found: bool) -> list[int]:
    asked: list[int] = []

    def compare(step: object, several: int) -> bool:
        asked.append(several)
        return found

    monkeypatch.setattr(threads, "one_is_faster", compare)
    return asked


def test_one_thread_inside_and_all_afterwards(monkeypatch) -> None:
    asked = verdicts(monkeypatch, True)
    blas = [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    for _ in range(3):  # asked once: a verdict holds for a while
        with fair_threads():
            assert torch.get_num_threads() == 1
            limited = [each for each in threadpool_info() if each["user_api"] == "blas"]
            assert {each["num_threads"] for each in limited} <= {1}
            with fair_threads():
                assert torch.get_num_threads() == 1
    assert asked == [2]
    assert torch.get_num_threads() == 2
    assert blas == [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]
    with pytest.raises(ZeroDivisionError), fair_threads():
        _ = 1 // 0
    assert torch.get_num_threads() == 2


def test_several_stay_where_they_are_faster(monkeypatch) -> None:
    asked = verdicts(monkeypatch, False)
    with fair_threads():
        assert torch.get_num_threads() == 2
    monkeypatch.setattr(threads, "_KNOWN_SECONDS", 0.0)
    with fair_threads():
        assert torch.get_num_threads() == 2
    assert asked == [2, 2]


def test_one_thread_is_not_compared_with_itself(monkeypatch) -> None:
    asked = verdicts(monkeypatch, True)
    torch.set_num_threads(1)
    with fair_threads():
        assert torch.get_num_threads() == 1
    assert not asked
