"""How much of an accuracy rests on groups that are known."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.heads.group_check import group_effect


def patients(rng: np.random.Generator, spread: float) -> tuple[np.ndarray, ...]:
    """Sixty patients of two classes, six slices each; ``spread`` is how far patients lie apart."""
    groups = np.repeat(np.arange(60), 6)
    labels = groups % 2
    own = rng.normal(size=(60, 40)) * spread
    class_mean = np.zeros(40)
    class_mean[0] = 1.0
    x = own[groups] + labels[:, None] * class_mean + rng.normal(size=(360, 40)) * 0.3
    return x.astype(np.float32), labels, groups.astype(str)


def test_groups_that_are_recognised_are_measured() -> None:
    x, labels, groups = patients(np.random.default_rng(0), 2.0)
    found = group_effect(x, labels, 2, groups)
    assert found is not None
    assert found.groups == 60
    assert found.torn > found.whole + 0.1
    assert found.difference.interval is not None
    assert found.difference.interval.low > 0
    assert found == group_effect(x, labels, 2, groups)


def test_groups_without_meaning_make_no_difference() -> None:
    x, labels, _ = patients(np.random.default_rng(1), 0.0)
    drawn = np.random.default_rng(2).permutation(np.repeat(np.arange(60), 6)).astype(str)
    found = group_effect(x, labels, 2, drawn)
    assert found is not None
    assert found.difference.interval is not None
    assert found.difference.interval.low <= 0


def test_what_cannot_be_measured_is_not() -> None:
    x, labels, _ = patients(np.random.default_rng(3), 1.0)
    assert group_effect(x, labels, 2, np.array(["one"] * 360)) is None


def test_many_rows_are_drawn_by_whole_groups() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(900), 6)
    x = rng.normal(size=(5400, 5)).astype(np.float32)
    found = group_effect(x, groups % 2, 2, groups.astype(str))
    assert found is not None
    assert 600 <= found.groups <= 700


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_labels_and_numbers_of_groups_are_measured_too(task: str) -> None:
    """What is the same in a group is known from its others, and nothing else is."""
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(60), 5)
    x = rng.normal(size=(60, 80))[of] + 0.4 * rng.normal(size=(300, 80))
    values = rng.normal(size=(60, 2)) if task == "regression" else rng.integers(0, 2, (60, 2))
    y = values.astype(np.float64)[of]
    groups = np.array([f"g{i}" for i in of])
    found = group_effect(x, y, 2, groups, task=task)
    assert found is not None
    assert found.torn > found.whole + 0.1
    assert found.difference.value == pytest.approx(found.torn - found.whole)
    assert found.difference.interval is not None
    assert found.difference.interval.method == "groups"
    assert found.difference.interval.low > 0


def test_a_leak_that_matters_to_one_group_in_ten_is_seen() -> None:
    """Most items are known anyway, and some photographs only by their other crops."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(80), 5)
    labels = groups % 2
    side = np.where(np.arange(80) % 10 == 0, -0.3, 1.0)[groups]  # as if of the other class
    x = rng.normal(size=(80, 30))[groups] + 0.2 * rng.normal(size=(400, 30))
    x[:, 0] = 6 * side * (2 * labels - 1)
    found = group_effect(x.astype(np.float32), labels, 2, groups.astype(str))
    assert found is not None
    assert 0.03 < found.difference.value < 0.12
    assert found.difference.interval is not None
    assert found.difference.interval.low > 0
