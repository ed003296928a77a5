"""Properties of the index functions, over any labels and groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data import few_per_class, stratified_folds, stratified_split

labels = st.lists(st.integers(0, 4), min_size=1, max_size=120)
seeds = st.integers(-(2**40), 2**40)
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
    _, second = stratified_split(label, fraction, seed=seed, groups=keys)
    _, again = stratified_split(
        [label[i] for i in order], fraction, seed=seed, groups=[keys[i] for i in order]
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
    _, before = stratified_split([0] * 1000, 0.2, seed=0, groups=keys[:1000])
    _, after = stratified_split([0] * 1100, 0.2, seed=0, groups=keys)
    moved = set(before.tolist()) ^ {i for i in after.tolist() if i < 1000}
    assert len(moved) < 40


@given(labels.filter(lambda v: len(v) > 3), st.integers(2, 4), seeds)
def test_folds_are_level_in_every_class(label: list[int], k: int, seed: int) -> None:
    fold = stratified_folds(label, k, seed=seed)
    assert set(fold.tolist()) <= set(range(k))
    values = np.array(label)
    for c in set(label):
        counts = np.bincount(fold[values == c], minlength=k)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(fold, minlength=k)
    assert sizes.max() - sizes.min() <= 1


@given(grouped(), st.integers(2, 4), seeds)
def test_folds_never_divide_groups(data: tuple[list[int], list[int]], k: int, seed: int) -> None:
    label, groups = data
    if k > len(set(groups)):
        with pytest.raises(ValueError, match="k must lie between"):
            stratified_folds(label, k, seed=seed, groups=groups)
        return
    fold = stratified_folds(label, k, seed=seed, groups=groups)
    assert all(len({f for f, g in zip(fold, groups, strict=True) if g == h}) == 1 for h in groups)


@given(labels, st.integers(1, 9), seeds)
def test_few_per_class_is_nested(label: list[int], n: int, seed: int) -> None:
    chosen = few_per_class(label, n, seed=seed)
    values = np.array(label)
    for c in set(label):
        assert (values[chosen] == c).sum() == min(n, (values == c).sum())
    assert set(chosen.tolist()) <= set(few_per_class(label, n + 1, seed=seed).tolist())


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
        stratified_split([0, 1], 0.5, seed=0, groups=["a"])
