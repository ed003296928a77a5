"""Properties of the index functions, over any labels and groups."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.division import (
    few_per_class,
    held_out_part,
    held_out_rows,
    make_folds,
    stratified_split,
)
from headstart.core.errors import HeadError

labels = st.lists(st.integers(0, 4), min_size=1, max_size=120)
seeds = st.integers(-(2**40), 2**40)
positive = st.integers(0, 2**40)
fractions = st.floats(0.01, 0.99)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    label = draw(labels)
    return label, draw(st.lists(st.integers(0, 30), min_size=len(label), max_size=len(label)))


@given(labels, fractions, seeds)
def test_split_is_a_partition_with_the_shares_of_each_class(
    label: list[int], fraction: float, seed: int
) -> None:
    first, second = stratified_split(label, fraction, seed=seed)
    assert sorted([*first, *second]) == list(range(len(label)))
    assert (np.diff(first) > 0).all()
    assert (np.diff(second) > 0).all()
    values = np.array(label)
    for c in set(label):
        n, taken = (values == c).sum(), (values[second] == c).sum()
        expected = min(max(round(n * fraction), 1), n - 1)
        assert taken == expected


@given(grouped(), fractions, seeds)
def test_groups_are_never_divided(
    data: tuple[list[int], list[int]], fraction: float, seed: int
) -> None:
    label, groups = data
    first, second = stratified_split(label, fraction, seed=seed, groups=groups)
    assert sorted([*first, *second]) == list(range(len(label)))
    key = np.array(groups)
    assert not set(key[first]) & set(key[second])
    assert len(first) > 0


@given(grouped(), fractions, seeds, st.randoms(use_true_random=False))
def test_the_split_of_distinct_keys_does_not_depend_on_order(
    data: tuple[list[int], list[int]], fraction: float, seed: int, random: object
) -> None:
    label = data[0]
    keys = [f"item {i}" for i in range(len(label))]
    order = list(range(len(label)))
    random.shuffle(order)  # type: ignore[attr-defined]
    _, second = stratified_split(label, fraction, seed=seed, keys=keys)
    _, again = stratified_split(
        [label[i] for i in order], fraction, seed=seed, keys=[keys[i] for i in order]
    )
    assert {order[i] for i in again} == set(second.tolist())


@given(labels, seeds)
def test_seeds_repeat_and_matter(label: list[int], seed: int) -> None:
    one, two = (stratified_split(label, 0.5, seed=seed)[1].tolist() for _ in range(2))
    assert one == two
    hundred = [0] * 100
    a, b = (stratified_split(hundred, 0.5, seed=s)[1].tolist() for s in (seed, seed + 1))
    assert a != b


def test_a_grown_data_set_keeps_nearly_all_assignments() -> None:
    keys = [f"image {i}" for i in range(1100)]
    _, before = stratified_split([0] * 1000, 0.2, seed=0, keys=keys[:1000])
    _, after = stratified_split([0] * 1100, 0.2, seed=0, keys=keys)
    moved = set(before.tolist()) ^ {i for i in after.tolist() if i < 1000}
    assert len(moved) < 40


@settings(max_examples=60, deadline=None)
@given(
    label=st.lists(st.integers(0, 4), min_size=2, max_size=80),
    folds=st.integers(2, 6),
    seed=st.integers(0, 100),
)
def test_folds_are_stratified_and_even(label: list[int], folds: int, seed: int) -> None:
    y = np.array(label)
    found = make_folds(y, folds, seed=seed)
    counts = np.bincount(y)
    if counts.max() < 2:
        assert found is None
        return
    if found is None:  # with one item of a class, another may be left alone to train on
        assert len(np.unique(y)) > 1
        assert counts[counts > 0].min() == 1
        return
    trained = [np.unique(y[train]) for train, _ in found.splits()]
    assert all(len(classes) >= min(2, len(np.unique(y))) for classes in trained)
    assert found.count == min(folds, max(2, counts[counts > 0].min()))
    assert (found.count < folds) == bool(found.notes)
    sizes = np.bincount(found.of, minlength=found.count)
    assert sizes.max() - sizes.min() <= 1
    for label in np.unique(y):
        held = np.bincount(found.of[y == label], minlength=found.count)
        assert held.max() - held.min() <= 1
    covered = np.concatenate([held for _, held in found.splits()])
    assert sorted(covered) == list(range(len(y)))


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 9), min_size=2, max_size=60),
    folds=st.integers(2, 5),
    seed=st.integers(0, 100),
)
def test_groups_are_never_parted(groups: list[int], folds: int, seed: int) -> None:
    g = np.array(groups)
    y = np.random.default_rng(seed).integers(0, 3, len(g))
    if len(np.unique(g)) < 2:
        with pytest.raises(HeadError, match="two groups"):
            make_folds(y, folds, seed=seed, groups=g)
        return
    found = make_folds(y, folds, seed=seed, groups=g)
    assert found is not None
    assert set(found.of) == set(range(found.count))
    for group in np.unique(g):
        assert len(np.unique(found.of[g == group])) == 1


@given(labels, st.integers(1, 9), positive)
def test_few_per_class_is_nested(label: list[int], n: int, seed: int) -> None:
    chosen = few_per_class(label, n, seed=seed)
    values = np.array(label)
    for c in set(label):
        assert (values[chosen] == c).sum() == min(n, (values == c).sum())
    assert set(chosen.tolist()) <= set(few_per_class(label, n + 1, seed=seed).tolist())


@settings(deadline=None)
@given(grouped(), st.integers(2, 4), positive)
def test_copies_are_never_parted(data: tuple[list[int], list[int]], k: int, seed: int) -> None:
    """Everything that divides keeps rows of one key, and of one group, together."""
    y, key = np.array(data[0]), np.array(data[1])
    groups = key // 2 + 100 * (key == 7)
    sides = []
    for more in ({}, {"groups": groups}):
        folds = None
        if len(more) == 0 or len(np.unique(groups)) > 1:
            folds = make_folds(y, k, seed=seed, keys=key, **more)
        sides += [(more, folds.of)] if folds is not None else []
        sides.append((more, held_out_rows(y, 0.3, seed=seed, keys=key, **more)))
        with suppress(HeadError):  # no class has two different items
            _, held = held_out_part(y, 1, seed=seed, keys=key, **more)
            sides.append((more, np.isin(np.arange(len(y)), held)))
    for more, side in sides:
        for together in (key, *more.values()):
            assert all(len(np.unique(side[together == value])) == 1 for value in together)


@settings(deadline=None)
@given(grouped(), st.integers(2, 4), positive, st.randoms(use_true_random=False))
def test_with_keys_order_decides_nothing(
    data: tuple[list[int], list[int]], k: int, seed: int, random: object
) -> None:
    key = np.array([f"item {value}" for value in data[1]])
    y = np.array([value % 5 for value in data[1]])  # copies have one label
    order = list(range(len(y)))
    random.shuffle(order)  # type: ignore[attr-defined]
    mixed, again = key[order], y[order]

    def by_key(keys: np.ndarray, chosen: np.ndarray) -> list[tuple[str, int]]:
        return sorted(zip(keys.tolist(), chosen.tolist(), strict=True))

    def mask(rows: np.ndarray) -> np.ndarray:
        return np.isin(np.arange(len(y)), rows)

    one, two = make_folds(y, k, seed=seed, keys=key), make_folds(again, k, seed=seed, keys=mixed)
    assert (one is None) == (two is None)
    if one is not None and two is not None:
        assert by_key(key, one.of) == by_key(mixed, two.of)
    first, second = (
        held_out_rows(a, 0.3, seed=seed, keys=b) for a, b in ((y, key), (again, mixed))
    )
    assert by_key(key, first) == by_key(mixed, second)
    distinct, at = np.unique(key, return_index=True)
    few = few_per_class(y[at], 2, seed=seed, keys=distinct)
    turned = few_per_class(y[at][::-1], 2, seed=seed, keys=distinct[::-1])
    assert set(distinct[few]) == set(distinct[::-1][turned])
    if (np.bincount(y[at]) > 1).any():
        parts = [held_out_part(a, 0, seed=seed, keys=b)[1] for a, b in ((y, key), (again, mixed))]
        assert by_key(key, mask(parts[0])) == by_key(mixed, mask(parts[1]))


@settings(deadline=None)
@given(labels, st.integers(2, 5), st.integers(2, 6), positive)
def test_copies_of_every_item_change_no_place(
    label: list[int], k: int, copies: int, seed: int
) -> None:
    """300 images and the same images five times: the same folds and the same parts."""
    y = np.array(label)
    key = np.array([f"item {i}" for i in range(len(y))])
    many, keys = np.tile(y, copies), np.tile(key, copies)
    once, often = make_folds(y, k, seed=seed, keys=key), make_folds(many, k, seed=seed, keys=keys)
    assert (once is None) == (often is None)
    if once is not None and often is not None:
        np.testing.assert_array_equal(np.tile(once.of, copies), often.of)
    for shot in (1, 3):
        drawn = key[few_per_class(y, shot, seed=seed, keys=key)]
        again = keys[few_per_class(many, shot, seed=seed, keys=keys)]
        assert sorted(drawn) == sorted(again)
    with suppress(HeadError):  # no class has two items
        _, held = held_out_part(y, 1, seed=seed, keys=key)
        _, again = held_out_part(many, 1, seed=seed, keys=keys)
        assert set(key[held]) == set(keys[again])
    _, second = stratified_split(y, 0.3, seed=seed, keys=key)
    _, parted = stratified_split(many, 0.3, seed=seed, keys=keys)
    for c in set(label):  # rounding a share of all copies and of the items may differ by an item
        assert abs((y[second] == c).sum() - (many[parted] == c).sum() / copies) <= 1


def test_folds_are_even_where_every_class_has_few_items() -> None:
    """Four items in each of 2,000 classes: no fold may be left without rows."""
    y = np.repeat(np.arange(2000), 4)
    found = make_folds(y, 5, seed=0, keys=[f"{i:x}" for i in range(len(y))])
    assert found is not None
    assert found.count == 4
    sizes = np.bincount(found.of, minlength=found.count)
    assert sizes.max() - sizes.min() <= 1


def test_a_group_larger_than_a_fold_takes_one_fold() -> None:
    y = np.arange(200) % 2
    groups = np.where(np.arange(200) < 120, 0, np.arange(200))
    found = make_folds(y, 5, seed=0, keys=[str(i) for i in range(200)], groups=groups)
    assert found is not None
    assert sorted(np.bincount(found.of).tolist()) == [20, 20, 20, 20, 120]


def test_all_items_equal_leave_nothing_to_hold_out() -> None:
    y = np.array([0, 1] * 20)
    assert make_folds(y, 5, seed=0, keys=["same"] * 40) is None
    assert not held_out_rows(y, 0.2, seed=0, keys=["same"] * 40).any()
    with pytest.raises(HeadError, match="two items"):
        held_out_part(y, 0, seed=0, keys=["same"] * 40)
    first, second = stratified_split(y, 0.2, seed=0, keys=["same"] * 40)
    assert (len(first), len(second)) == (40, 0)


def test_a_class_with_one_content_is_held_out_whole() -> None:
    y = np.array([0] * 20 + [1] * 20 + [2] * 5)
    keys = [f"item {i}" for i in range(40)] + ["the only one"] * 5
    found = make_folds(y, 5, seed=0, keys=keys, names=["a", "b", "c"])
    assert found is not None
    assert found.notes == ("2 folds instead of 5, because class 'c' has only 1 item",)
    assert len(set(found.of[40:].tolist())) == 1


@given(st.integers(2, 9), st.integers(1, 6), st.sampled_from([0.1, 0.2, 0.25, 0.5]), seeds)
def test_groups_of_many_strata_can_be_held_out(
    groups: int, each: int, fraction: float, seed: int
) -> None:
    # As targets of regressions give them: every group has most of its rows in a stratum of its own.
    group = np.repeat(np.arange(groups), each + groups)
    label = np.concatenate([[own] * each + list(range(groups)) for own in range(groups)])
    first, second = stratified_split(label, fraction, seed=seed, groups=group.tolist())
    size, wanted = each + groups, round(fraction * len(label))
    assert bool(len(second)) == (size <= 2 * wanted)  # nearer with a group than without
    assert set(label[second]) <= set(label[first])
    assert not set(group[first]) & set(group[second])
    assert abs(len(second) - wanted) <= size / 2


def test_the_only_group_of_a_class_is_not_held_out() -> None:
    label, group = np.array([0, 0, 1, 1, 2, 2]), [0, 0, 1, 1, 2, 2]
    first, second = stratified_split(label, 0.3, seed=0, groups=group)
    assert first.tolist() == list(range(6))
    assert not len(second)


def test_rows_linked_by_key_or_group_stay_together() -> None:
    """0-1 share a key, 1-2 a group, 2-3 a key: all four are one unit."""
    keys = ["a", "a", "b", "b", "c", "d", "e", "f"]
    groups = ["p", "q", "q", "r", "s", "t", "u", "v"]
    for seed in range(20):
        folds = make_folds(
            np.array([0, 0, 1, 1, 0, 1, 0, 1]), 2, seed=seed, keys=keys, groups=groups
        )
        assert folds is not None
        assert len(set(folds.of[:4].tolist())) == 1


def test_chance_is_fair() -> None:
    """Every item is held out about equally often."""
    held = np.zeros(50)
    for seed in range(400):
        held[stratified_split([0] * 50, 0.2, seed=seed)[1]] += 1
    assert abs(held - 80).max() < 5 * np.sqrt(400 * 0.2 * 0.8)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_impossible_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        stratified_split([0, 1], fraction, seed=0)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 labels but 1 keys"):
        stratified_split([0, 1], 0.5, seed=0, keys=["a"])


def test_few_rows_come_from_all_groups_first() -> None:
    labels, groups = np.zeros(12, int), np.array(list("aaaaaabbbccd"))
    for n in range(1, 13):
        chosen = groups[few_per_class(labels, n, seed=0, groups=groups)].tolist()
        assert len(set(chosen)) == min(n, 4)
        assert set(few_per_class(labels, n - 1 or 1, seed=0, groups=groups)) <= set(
            few_per_class(labels, n, seed=0, groups=groups)
        )
