from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from headstart.core.errors import ConfigError, DataError
from headstart.data import load_data
from headstart.study import CompareConfig
from headstart.study.repetitions import Samples, batch_bounds, divide, loader_order

from .conftest import RIGHT, picture_data, pictures


def test_an_official_test_split_is_kept():
    data = divide(picture_data(), CompareConfig(repeats=3))
    assert not data.redrawn
    for repetition in data.repetitions:
        assert len(repetition.train) == 90
        assert len(repetition.test) == 60
        assert repetition.seeds.split is None
        assert len(repetition.held_out) == 18
    held = [tuple(d.held_out) for d in data.repetitions]
    assert len(set(held)) == 3


def test_without_one_every_repetition_draws_its_own():
    dataset = load_data(pictures(100))
    data = divide(dataset, CompareConfig(repeats=3))
    assert data.redrawn
    tests = []
    for repetition in data.repetitions:
        assert not set(repetition.train) & set(repetition.test)
        assert len(repetition.train) + len(repetition.test) == 100
        tests.append({data.test.ids[i] for i in repetition.test})
    assert tests[0] == set(dataset.test.ids)
    assert tests[1] != tests[2] != tests[0]
    again = divide(dataset, CompareConfig(repeats=3))
    assert all(
        (a.test == b.test).all() for a, b in zip(data.repetitions, again.repetitions, strict=True)
    )


def test_splits_of_one_array_that_the_user_has_made_are_kept():
    drawn = load_data(pictures(60))
    assert drawn.test_drawn
    assert not picture_data().test_drawn
    own = dataclasses.replace(drawn, test_drawn=False)
    assert not divide(own, CompareConfig(repeats=2)).redrawn
    assert divide(own, CompareConfig(repeats=2, redraw=True)).redrawn
    with pytest.raises(ConfigError, match="cannot draw another"):
        divide(picture_data(), CompareConfig(repeats=2, redraw=True))


def test_limits_keep_the_shares_of_the_classes():
    data = divide(picture_data(), CompareConfig(repeats=1, train_items=30, test_items=12))
    assert np.bincount(data.train.labels).tolist() == [10, 10, 10]
    assert data.n_test == 12


def test_impossible_requests():
    with pytest.raises(ConfigError, match=r"repeats.*train_items"):
        divide(picture_data(), CompareConfig(repeats=0, train_items=1))
    x, _ = pictures(10)
    with pytest.raises(DataError, match="one class"):
        divide(load_data({"train": (x, [0] * 10), "test": (x, [0] * 10)}), CompareConfig(repeats=1))


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (1, 4, [1]), (5, 4, [5])],
)
def test_no_batch_of_one(count, size, lengths):
    assert [e - s for s, e in batch_bounds(count, size)] == lengths


def test_loader_orders():
    labels = np.array([0, 1, 2] * 10)
    assert (np.diff(labels[loader_order(labels, "class", 0)]) >= 0).all()
    shuffled = loader_order(labels, "shuffled", 0)
    assert sorted(shuffled) == list(range(30))
    assert (shuffled == loader_order(labels, "shuffled", 0)).all()
    assert (shuffled != loader_order(labels, "shuffled", 1)).any()


def test_pixels_from_memory_and_from_the_decoder_are_the_same():
    split = picture_data().train
    order = np.random.default_rng(0).permutation(len(split))[:33]
    for size in (8, 16, 50):
        kept = list(Samples().batches(split, order, RIGHT, size))
        read = list(Samples(limit=0).batches(split, order, RIGHT, size))
        assert [len(where) for where, _ in kept] == [e - s for s, e in batch_bounds(33, size)]
        for (a, x), (b, y) in zip(kept, read, strict=True):
            assert (a == b).all()
            assert torch.equal(x.args[0], y.args[0])
