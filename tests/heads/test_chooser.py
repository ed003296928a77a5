"""The head that chooses itself: ties, evidence, few labels, scaling, and what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from headstart.core.errors import ConfigError
from headstart.core.row_keys import RowKeys
from headstart.heads import (
    HeadKind,
    Trained,
    TrainingRows,
    choose_linear,
    chooser,
    fit_lda,
    fit_ridge,
    register_head,
    table,
)
from headstart.heads.base import Head
from headstart.heads.chooser import _Tried, _winner
from headstart.heads.prepared import PreparedHead, shrunk_preparation
from headstart.heads.registry import automatic_heads, head_for, head_kind
from headstart.heads.source import StreamedFeatures

Digits = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def digits() -> Digits:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return x[order].astype(np.float32), y[order].astype(np.int64)


@pytest.fixture
def kinds() -> Iterator[None]:
    before = dict(table.KINDS)
    yield
    table.KINDS.clear()
    table.KINDS.update(before)


def choose(x: Any, y: np.ndarray, k: int = 10, **options: Any) -> Trained:
    kind = head_kind("auto")
    rows = TrainingRows(x, y, k, weights=options.pop("weights", None))
    return kind.fit(rows, kind.settings(options))


def first_of_each(y: np.ndarray, n: int) -> np.ndarray:
    return np.sort(np.concatenate([np.flatnonzero(y == c)[:n] for c in np.unique(y)]))


def tried(right: list[np.ndarray]) -> tuple[list[_Tried], np.ndarray]:
    """Return heads that are right where it is said, of items that are all of class 1."""
    found = [_Tried(head_kind("ridge"), None, np.stack([1.0 - r, r], axis=1)) for r in right]
    return found, np.ones(len(right[0]), np.int64)


def test_of_equals_the_favourite_is_taken() -> None:
    same = np.r_[np.ones(50), np.zeros(50)]
    assert _winner(*tried([same, same, same]), None) == 0


def test_ten_items_prove_nothing_and_a_thousand_do() -> None:
    half = np.tile([1.0, 0.0, 0.0, 0.0, 1.0], 2)
    better = half.copy()
    better[1] = 1.0
    assert _winner(*tried([half, better]), None) == 0
    favourite, rival = np.tile(half, 100), np.tile(better, 100)
    assert _winner(*tried([favourite, rival]), None) == 1
    assert _winner(*tried([rival, favourite]), None) == 0


def test_of_few_items_the_log_loss_decides_and_of_many_the_accuracy() -> None:
    """Two heads that are right equally often, one of which knows when it is wrong."""

    def saying(right: np.ndarray, sure: np.ndarray) -> _Tried:
        p = np.where(right, sure, 1 - sure)
        return _Tried(head_kind("ridge"), None, np.stack([1 - p, p], axis=1))

    right = np.tile([True, True, True, True, False], 8)
    bold, wise = np.full(40, 0.9), np.where(right, 0.9, 0.55)
    labels = np.ones(40, np.int64)
    assert _winner([saying(right, bold), saying(right, wise)], labels, None) == 1
    assert _winner([saying(right, wise), saying(right, bold)], labels, None) == 0
    worse = right.copy()
    worse[:4] = False
    many, sure = np.tile(right, 200), np.tile(bold, 200)
    rival, knows = np.tile(worse, 200), np.tile(np.where(worse, 0.9, 0.51), 200)
    assert _winner([saying(many, sure), saying(rival, knows)], np.ones(8000, np.int64), None) == 0


def test_a_weight_counts_as_so_many_rows() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.random(60) < 0.6).astype(float), (rng.random(60) < 0.75).astype(float)
    weights = rng.integers(1, 6, 60)
    once, labels = tried([a, b])
    repeated, more = tried([np.repeat(a, weights), np.repeat(b, weights)])
    assert _winner(once, labels, weights.astype(float)) == _winner(repeated, more, None)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=2, max_size=80),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_items_decides_nothing(
    outcomes: list[tuple[bool, bool, bool]], random: Any
) -> None:
    right = np.array(outcomes, dtype=float).T
    order = np.arange(right.shape[1])
    random.shuffle(order)
    assert _winner(*tried(list(right)), None) == _winner(*tried(list(right[:, order])), None)


def test_one_label_a_class_beats_standardised_logistic_regression() -> None:
    """Features as networks have them: not negative, of very different size."""
    rng = np.random.default_rng(0)
    size = np.exp(rng.normal(0, 1.5, 400))
    centres = rng.random((4, 400)) * (rng.random((4, 400)) < 0.3)
    y = np.tile(np.arange(4), 120)
    x = (np.maximum(centres[y] + 0.6 * rng.normal(size=(480, 400)), 0) * size).astype(np.float32)
    x *= rng.lognormal(0, 0.7, (480, 1)).astype(np.float32)
    here, today = [], []
    for draw in range(15):
        rows = np.random.default_rng(draw).permutation(480)
        train, test = rows[first_of_each(y[rows], 1)], rows[100:]
        here.append((choose(x[train], y[train], 4).head.predict(x[test]) == y[test]).mean())
        before = choose_linear(x[train], y[train], 4).head
        today.append((before.predict(x[test]) == y[test]).mean())
    assert np.mean(here) > np.mean(today) + 0.05


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=20, max_size=20))
def test_with_few_labels_the_length_of_a_row_is_nothing(factors: list[float]) -> None:
    x, y = load_digits(return_X_y=True)
    rows = first_of_each(y, 2)
    scaled = x[rows] * np.array(factors)[:, None]
    names = tuple(map(str, rows))
    kind, keys = head_kind("auto"), RowKeys(names, names)
    plain, other = (
        kind.fit(
            TrainingRows(part, y[rows], 10, keys=keys), kind.settings({"heads": ("ridge",)})
        ).head
        for part in (x[rows], scaled)
    )
    assert isinstance(plain, PreparedHead)
    np.testing.assert_allclose(other.predict_proba(x[:50]), plain.predict_proba(x[:50]), atol=1e-4)


def test_the_preparation_of_many_rows_is_standardisation_and_of_two_rows_is_not(
    digits: Digits,
) -> None:
    x = digits[0]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    many, two = shrunk_preparation(x), shrunk_preparation(x[:2])
    wide = unit.std(axis=0) > 0.02
    np.testing.assert_allclose(many.scale[wide], unit.std(axis=0)[wide], rtol=0.02)
    assert two.scale.max() / two.scale.min() < 4
    same = shrunk_preparation(np.ones((3, 4), np.float32))
    assert (same.scale == 1).all()
    weighted = shrunk_preparation(x[:3], np.array([2.0, 1.0, 3.0]))
    repeated = shrunk_preparation(x[[0, 0, 1, 2, 2, 2]])
    np.testing.assert_allclose(weighted.scale, repeated.scale)


@pytest.mark.parametrize("each", [1, 2, 4, 30])
def test_the_choice_is_the_same_in_any_order_of_the_rows(digits: Digits, each: int) -> None:
    x, y = digits
    rows = first_of_each(y, each)
    other = np.random.default_rng(0).permutation(rows)
    here, there = choose(x[rows], y[rows]), choose(x[other], y[other])
    assert here.chosen == there.chosen
    assert here.notes == there.notes
    np.testing.assert_allclose(
        here.head.predict_proba(x[-200:]), there.head.predict_proba(x[-200:]), atol=1e-7
    )
    if each > 1:
        found = here.held_out_probabilities
        assert found is not None
        assert found.shape == (len(rows), 10)
        np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_weight_of_two_is_the_row_twice(digits: Digits) -> None:
    x, y = digits
    rows = first_of_each(y, 3)
    weights = np.r_[np.full(15, 2.0), np.full(15, 1.0)]
    twice = np.r_[rows, rows[:15]]
    here = choose(x[rows], y[rows], weights=weights)
    there = choose(x[twice], y[twice])
    assert here.chosen["head"] == there.chosen["head"]
    np.testing.assert_allclose(
        here.head.predict_proba(x[-200:]), there.head.predict_proba(x[-200:]), atol=2e-3
    )


def test_many_labels_are_trained_as_by_name(digits: Digits) -> None:
    x, y = digits
    trained = choose(x[:600], y[:600], heads=("ridge", "lda"))
    alone = {"ridge": fit_ridge(x[:600], y[:600], 10).head, "lda": fit_lda(x[:600], y[:600], 10)[0]}
    name = str(trained.chosen["head"])
    np.testing.assert_array_equal(trained.head.predict(x), alone[name].predict(x))
    assert set(trained.details["heads"]) == {"ridge", "lda"}
    assert trained.held_out is not None
    assert trained.held_out.value == pytest.approx(trained.details["heads"][name])


def test_a_rival_that_wins_is_calibrated_on_what_was_held_out(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chooser, "FAVOURITE_LEAD", -1.0)  # the rival wins
    rng = np.random.default_rng(0)
    x, y = digits
    noisy = np.where(rng.random(len(y)) < 0.3, rng.integers(0, 10, len(y)), y)
    alone, _ = fit_lda(x[:300], noisy[:300], 10)
    chosen = choose(x[:300], noisy[:300], heads=("prototype", "lda"), few=0)
    assert chosen.chosen["head"] == "lda"

    def loss(head: Head) -> float:
        p = head.predict_proba(x[300:])[np.arange(len(x) - 300), noisy[300:]]
        return float(-np.log(np.maximum(p, 1e-12)).mean())

    assert loss(chosen.head) < loss(alone) - 0.1


def test_what_it_says(digits: Digits) -> None:
    x, y = digits
    rows = first_of_each(y, 3)
    (said,) = (note for note in choose(x[rows], y[rows]).notes if note.startswith("head: "))
    assert said.startswith("head: linear on rows of unit length: ")
    assert "3 labels per class" in said
    for name in automatic_heads():
        assert name in said
    (*_, alone, _) = choose(x[first_of_each(y, 1)], y[first_of_each(y, 1)]).notes
    assert "no item can be held out" in alone


def test_features_on_disk_are_not_compared(digits: Digits) -> None:
    x, y = digits
    trained = choose(StreamedFeatures(x[:300]), y[:300])
    assert trained.chosen["head"] == "linear"
    assert any("read from disk" in note for note in trained.notes)


@pytest.mark.usefixtures("kinds")
def test_a_registered_head_may_be_chosen(digits: Digits) -> None:
    x, y = digits
    register_head(replace(head_kind("knn"), name="mine", aliases=(), automatic=True))
    trained = choose(x[:300], y[:300], heads=("prototype", "mine"))
    assert set(trained.details["heads"]) == {"prototype", "mine"}
    assert automatic_heads()[-1] == "mine"


def test_heads_that_cannot_be_chosen_are_refused(digits: Digits) -> None:
    x, y = digits
    for heads in (("auto",), ("ridgee",), ()):
        with pytest.raises(ConfigError):
            choose(x[:50], y[:50], heads=heads)


def test_class_weights_leave_out_heads_that_have_none(digits: Digits) -> None:
    trained = choose(digits[0][:200], digits[1][:200], class_weight="balanced")
    assert set(trained.details["heads"]) == {"linear", "ridge"}


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_other_tasks_take_the_first_head_that_knows_them(digits: Digits, task: str) -> None:
    x, y = digits
    targets = np.eye(10)[y[:100]] if task == "multi-label" else y[:100].astype(float)
    kind = head_kind("auto")
    rows = TrainingRows(x[:100], targets, 10 if task == "multi-label" else 1, task=task)
    trained = kind.fit(rows, kind.settings({}))
    assert trained.chosen["head"] == {"multi-label": "linear", "regression": "ridge"}[task]


def test_the_registry_says_which_heads_are_automatic() -> None:
    assert automatic_heads() == ("linear", "ridge", "lda", "prototype")
    assert isinstance(head_kind("auto"), HeadKind)
    assert chooser.FAVOURITE_LEAD > 0


def test_options_of_one_head_mean_that_head() -> None:
    assert head_for("auto", {}).name == "auto"
    assert head_for("auto", {"few": 3, "folds": 4}).name == "auto"
    assert head_for("auto", {"C": 0.1}).name == "linear"
    assert head_for("auto", {"alpha": 3.0, "standardise": False}).name == "ridge"
    assert head_for("auto", {"shrinkage": 0.1}).name == "lda"
    assert head_for("auto", {"sharpness": 1}).name == "auto"  # which then says what it has
    assert head_for("knn", {"k": 3}).name == "knn"
