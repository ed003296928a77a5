"""Scores by the values of a column."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.evaluation.intervals import proportion_interval
from headstart.evaluation.slices import group_slices, slices


def test_each_value_has_its_share_with_the_exact_interval() -> None:
    values = ["b", "a", "b", None, "a", "b"]
    right = np.array([True, True, False, True, True, True])
    first, second, none = slices(values, right)
    assert (first.value, first.n, first.score.value) == ("a", 2, 1.0)
    assert (second.value, second.n) == ("b", 3)
    assert second.score.value == pytest.approx(2 / 3)
    assert second.score.interval == proportion_interval(2, 3)
    assert (none.value, none.n) == ("(none)", 1)
    assert first.n + second.n + none.n == len(values)


def test_numbers_with_many_values_are_divided_into_four() -> None:
    values = [*np.linspace(0, 100, 200).tolist(), float("nan")]
    right = np.arange(201) % 2 == 0
    found = slices(values, right)
    assert [each.n for each in found] == [50, 50, 50, 50, 1]
    assert found[0].value.startswith("up to ")
    assert found[3].value.startswith("above ")
    assert found[4].value == "(none)"


def test_errors_have_a_mean_and_students_interval() -> None:
    found = slices(["x", "x", "y"], np.array([1.0, 3.0, 5.0]))
    assert found[0].score.value == 2
    interval = found[0].score.interval
    assert interval is not None
    assert interval.low == pytest.approx(2 - 12.7062, abs=1e-3)
    assert found[1].score.interval is None


@pytest.mark.parametrize(
    "values", [["a"] * 5, [None] * 5, [f"name {i}" for i in range(50)], [], ["a", None]]
)
def test_what_is_no_slice(values: list[str | None]) -> None:
    assert slices(values, np.ones(len(values), bool)) == ()


def test_groups_count_where_there_are_any() -> None:
    right = np.array([True, True, False, False] * 10)
    groups = np.repeat(np.arange(10), 4).astype(str)
    found = slices(["a", "b"] * 20, right, groups=groups)
    assert [each.score.interval.method for each in found] == ["groups", "groups"]  # type: ignore[union-attr]


def test_errors_of_groups_count_groups_too() -> None:
    """Ten copies of three errors say no more than the three; one patient says nothing of others."""
    once = slices(["x"] * 3 + ["y"], np.array([1.0, 3.0, 8.0, 5.0]))
    groups = [f"p{i}" for i in range(3) for _ in range(10)] + ["p3"] * 10
    errors = np.repeat([1.0, 3.0, 8.0, 5.0], 10)
    for measured in (errors, errors > 2):
        ten = slices(["x"] * 30 + ["y"] * 10, measured, groups=groups)
        assert (ten[0].score.interval.n, ten[0].score.interval.items) == (3, 30)  # type: ignore[union-attr]
        assert ten[1].score.interval is None
    ten = slices(["x"] * 30 + ["y"] * 10, errors, groups=groups)
    assert once[0].score.interval is not None
    assert ten[0].score.interval is not None
    assert ten[0].score.interval.low == pytest.approx(once[0].score.interval.low)
    assert ten[0].score.interval.high == pytest.approx(once[0].score.interval.high)


def test_every_group_has_its_score_the_worst_first() -> None:
    groups = [f"patient {i // 4}" for i in range(160)]  # more than a column may have values
    error = np.repeat(np.arange(40.0), 4)
    found = group_slices(groups, error)
    assert [each.value for each in found[:2]] == ["patient 39", "patient 38"]
    assert found[0].score.value == 39
    right = np.tile([True, True, False, False], 40)
    right[:4] = False
    assert group_slices(groups, right)[0].value == "patient 0"
    assert group_slices(groups, right)[0].score.interval == proportion_interval(0, 4)
    assert sum(each.n for each in found) == 160


@pytest.mark.parametrize("groups", [["a"] * 5, list("abcde"), []])
def test_groups_that_say_nothing_are_left_out(groups: list[str]) -> None:
    assert group_slices(groups, np.ones(len(groups))) == ()
