"""A head that begins as a classifier: it is one, it learns, and a wrong start costs little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits

from headstart.core.errors import HeadError
from headstart.heads import choose_linear, load_head
from headstart.heads.contract import Trained, TrainingRows
from headstart.heads.started import StartedHead, fit_started

X, Y = load_digits(return_X_y=True)
X = X.astype(np.float32)
LEARNT, TEST = slice(0, 300), slice(1000, 1797)
NEW = np.arange(300, 1000)


@pytest.fixture(scope="module")
def digits() -> StartedHead:
    """A classifier of digits from 300 of them, as if it came with a network."""
    head = choose_linear(X[LEARNT], Y[LEARNT], 10).head
    weight = head.weight / head.scale[:, None]  # type: ignore[attr-defined]
    bias = head.bias - head.mean @ weight  # type: ignore[attr-defined]
    return StartedHead.untrained(weight, bias, [[k] for k in range(10)])


def right(head: StartedHead, rows: slice = TEST) -> float:
    return float((head.predict(X[rows]) == Y[rows]).mean())


def fitted(start: StartedHead, rows: np.ndarray, y: np.ndarray = Y) -> Trained:
    return fit_started(TrainingRows(X[rows], y[rows], start.n_classes), start)


def few(each: int, seed: int = 0) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(NEW)
    return np.sort(np.concatenate([order[Y[order] == k][:each] for k in range(10)]))


def test_without_a_label_it_is_the_classifier() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(64, 7)), rng.normal(size=7)
    head = StartedHead.untrained(weight, bias, [[6], [0, 3], [2]])
    p = softmax(X[:50] @ weight[:, [6, 0, 3, 2]] + bias[[6, 0, 3, 2]], axis=1)
    expected = np.stack([p[:, 0], p[:, 1] + p[:, 2], p[:, 3]], axis=1)
    np.testing.assert_allclose(head.predict_proba(X[:50]), expected, rtol=1e-9)
    nothing = fit_started(TrainingRows(X[:0], Y[:0], 3), head)
    assert nothing.head is head
    assert "no label" in nothing.notes[0]
    assert head.predict_proba([]).shape == (0, 3)


def test_labels_improve_it_and_the_more_the_better(digits: StartedHead) -> None:
    before = right(digits)
    scores = [right(fitted(digits, few(each)).head) for each in (1, 5, 40)]
    assert scores[0] >= before - 0.01
    assert scores[2] > before + 0.02
    alone = choose_linear(X[few(5)], Y[few(5)], 10).head
    assert scores[1] > float((alone.predict(X[TEST]) == Y[TEST]).mean())


def test_a_start_that_is_wrong_is_unlearnt(digits: StartedHead) -> None:
    wrong = replace(digits, owner=(digits.owner + 1) % 10)
    assert right(wrong) < 0.1
    rows = few(40)
    alone = choose_linear(X[rows], Y[rows], 10).head
    assert (
        right(fitted(wrong, rows).head) > float((alone.predict(X[TEST]) == Y[TEST]).mean()) - 0.03
    )


def test_it_is_the_minimum_of_what_it_says(digits: StartedHead) -> None:
    rows = few(4)
    made = fitted(digits, rows)
    head, C = made.head, float(made.chosen["C"])
    assert isinstance(head, StartedHead)
    logits = head.decision(X[rows])
    excess = np.exp(log_softmax(logits, axis=1)) - np.eye(10)[Y[rows]]
    slope = head.preparation(X[rows]).T @ excess + head.weight / C
    assert np.abs(slope).max() < 1e-2 * np.abs(head.weight / C).max()
    np.testing.assert_allclose(excess.sum(0) + head.bias, 0, atol=1e-2)


def test_a_class_without_a_label_keeps_what_it_was(digits: StartedHead) -> None:
    rows = few(5)
    rows = rows[Y[rows] != 7]
    sevens = (Y == 7) & np.isin(np.arange(len(Y)), np.arange(1000, 1797))
    found = fitted(digits, rows).head.predict(X[sevens])
    assert (found == 7).mean() > 0.5


def test_the_order_of_the_rows_changes_nothing(digits: StartedHead) -> None:
    rows = few(3)
    back = rows[::-1]
    first, second = fitted(digits, rows), fitted(digits, back)
    assert first.chosen == second.chosen
    np.testing.assert_allclose(
        first.head.predict_proba(X[TEST]), second.head.predict_proba(X[TEST]), atol=1e-4
    )


def test_it_is_saved_and_read(digits: StartedHead, tmp_path: Path) -> None:
    head = fitted(digits, few(5)).head
    head.save(tmp_path)
    again = load_head(tmp_path)
    assert type(again) is StartedHead
    np.testing.assert_array_equal(again.predict_proba(X[TEST]), head.predict_proba(X[TEST]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("owner", np.zeros(10, np.int64)),
        ("scale", np.zeros(64)),
        ("bias", np.zeros(9)),
        ("weight", np.full((64, 10), np.nan)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    digits: StartedHead, name: str, value: np.ndarray
) -> None:
    arrays, options = digits.state()
    with pytest.raises(HeadError):
        StartedHead.from_state({**arrays, name: value}, options)
    with pytest.raises(HeadError):
        StartedHead.from_state(arrays, {"share": 0.0})


def test_features_of_another_width_are_refused(digits: StartedHead) -> None:
    with pytest.raises(HeadError, match="64"):
        fit_started(TrainingRows(X[:20, :10], Y[:20], 10), digits)
