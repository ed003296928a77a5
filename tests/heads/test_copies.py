"""Copies stay together wherever a head divides its rows, and their order decides nothing.

Labels are coin flips throughout, so that whatever was not trained on is guessed right half the
time. A division that parts copies scores far above.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from headstart.core.errors import HeadError
from headstart.core.row_keys import RowKeys
from headstart.heads import (
    StreamedFeatures,
    TrainingRows,
    choose_linear,
    fit_mlp,
    fit_prototype,
    fit_ridge,
    head_kind,
    keep_together,
    learning_curve,
    nested_cross_validation,
    sweep,
)
from headstart.heads.registry import head_kinds

ITEMS, WIDTH, TIMES = 240, 48, 5
Rows = tuple[np.ndarray, np.ndarray]


def noise(seed: int = 0) -> Rows:
    """Return features and labels that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ITEMS, WIDTH)).astype(np.float32), rng.integers(0, 2, ITEMS)


def repeated(how: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return every item five times, in mixed order, and what is told of it."""
    x, y = noise()
    x, y, item = np.tile(x, (TIMES, 1)), np.tile(y, TIMES), np.tile(np.arange(ITEMS), TIMES)
    rng = np.random.default_rng(1)
    told: dict[str, Any] = {}
    if how == "near copies":
        x = x + rng.normal(scale=0.02, size=x.shape).astype(np.float32)
    if how == "groups":  # too different for any check to see
        x = x + rng.normal(scale=0.5, size=x.shape).astype(np.float32)
    order = rng.permutation(len(x))
    if how == "groups":
        told["groups"] = item[order]
    if how == "keys":
        x = x + rng.normal(scale=0.5, size=x.shape).astype(np.float32)
        told["keys"] = [f"item {i}" for i in item[order]]
    return x[order], y[order], told


def _linear(x: np.ndarray, y: np.ndarray, told: dict[str, Any]) -> float:
    held_out = choose_linear(x, y, 2, **told).held_out
    assert held_out is not None
    return held_out.value


def _mlp(x: np.ndarray, y: np.ndarray, told: dict[str, Any]) -> float:
    curves = fit_mlp(x, y, 2, epochs=25, patience=None, validation=0.3, **told).curves
    return next(c.y[-1] for c in curves if c.name == "validation accuracy")


def _ridge(x: np.ndarray, y: np.ndarray, told: dict[str, Any]) -> float:
    path = fit_ridge(x, y, 2, **told)
    return float((path.left_out.argmax(axis=1) == y).mean())


def _sweep(x: np.ndarray, y: np.ndarray, told: dict[str, Any]) -> float:
    heads = [kind.name for kind in head_kinds("classification") if kind.name != "mlp"]
    return max(c.accuracy.value for c in sweep(x, y, 2, heads=heads, **told).candidates)


def _nested(x: np.ndarray, y: np.ndarray, told: dict[str, Any]) -> float:
    return nested_cross_validation(x, y, 2, head="knn", **told).accuracy.value


def _curve(x: np.ndarray, y: np.ndarray, told: dict[str, Any]) -> float:
    return float(learning_curve(x, y, 2, shots=(10, 80), repetitions=3, **told).accuracies.max())


DIVIDERS: dict[str, Callable[[np.ndarray, np.ndarray, dict[str, Any]], float]] = {
    "choose_linear": _linear,
    "fit_mlp": _mlp,
    "fit_ridge": _ridge,
    "sweep": _sweep,
    "nested_cross_validation": _nested,
    "learning_curve": _curve,
}


@pytest.mark.parametrize("how", ["copies", "near copies", "groups", "keys"])
@pytest.mark.parametrize("divider", DIVIDERS)
def test_what_belongs_together_is_held_out_together(divider: str, how: str) -> None:
    x, y, told = repeated(how)
    found = DIVIDERS[divider](x, y, told)
    assert 0.3 < found < 0.68, "labels are coin flips: what is held out has been trained on"


@pytest.mark.parametrize("how", ["copies", "near copies", "groups", "keys"])
def test_a_temperature_is_fitted_to_what_is_left_out(how: str) -> None:
    """Coin flips are never certain, however often they are repeated."""
    x, y, told = repeated(how)
    p = fit_prototype(x, y, 2, **told).predict_proba(np.random.default_rng(9).normal(size=x.shape))
    assert float(np.abs(p - 0.5).mean()) < 0.2


def test_copies_choose_the_penalty_of_the_items_alone() -> None:
    """``C`` multiplies a sum over rows, so that five times the rows need a fifth of it."""
    x, y = noise()
    x = x + y[:, None] * 0.3
    once = choose_linear(x, y, 2)
    often = choose_linear(np.tile(x, (TIMES, 1)), np.tile(y, TIMES), 2)
    steps = np.log10(once.chosen["C"] / (TIMES * often.chosen["C"])) / 0.25
    assert abs(steps) < 1  # of the grid
    assert min(often.details["log_loss"]) == pytest.approx(min(once.details["log_loss"]), abs=5e-3)
    assert any(
        note == "960 training items repeat another: such items are held out together"
        for note in often.notes
    )
    assert once.notes == tuple(n for n in once.notes if "repeat" not in n)


def test_near_copies_are_told_in_one_line() -> None:
    x, y, _ = repeated("near copies")
    together = keep_together(y, x)
    assert together.notes == (
        "1,200 training items nearly equal another (cosine of the features 0.98 or more): such"
        " items are held out together",
    )
    assert len(set(together.keys)) == ITEMS


def test_different_items_are_not_near_copies() -> None:
    for width in (2, 3, 8, WIDTH):
        x = np.random.default_rng(width).normal(size=(500, width))
        together = keep_together(np.arange(500) % 3, x)
        assert len(set(together.keys)) >= 497, width
        narrow = x * 0.01 + 10.0 * np.eye(3, width)[np.arange(500) % 3]  # far classes, each narrow
        assert len(set(keep_together(np.arange(500) % 3, narrow).keys)) >= 490, width


def test_a_class_of_near_copies_does_not_lose_its_items() -> None:
    x, y = noise()
    x[y == 1] = x[y == 1][0] + 1e-3 * np.random.default_rng(0).normal(
        size=(int((y == 1).sum()), WIDTH)
    )
    found = choose_linear(x, y, 2)
    assert found.details["folds"] == 5


def test_keys_that_were_looked_through_are_taken_unchanged() -> None:
    x, y, _ = repeated("near copies")
    keys = keep_together(y, x).keys
    again = keep_together(y[:50], x[:50], keys=keys.take(np.arange(50)))
    assert isinstance(again.keys, RowKeys)
    assert again.notes == ()


@pytest.mark.parametrize("name", [kind.name for kind in head_kinds("classification")])
@pytest.mark.parametrize("how", ["copies", "near copies", "alone"])
def test_the_order_of_rows_decides_nothing(name: str, how: str) -> None:
    if how == "alone":
        x, y = noise()
    else:
        x, y, _ = repeated(how)
    x = x + y[:, None] * 0.3
    kind = head_kind(name)
    options = kind.settings({"epochs": 5} if name == "mlp" else {})
    mixed = np.random.default_rng(2).permutation(len(x))
    a = kind.fit(TrainingRows(x, y, 2), options)
    b = kind.fit(TrainingRows(x[mixed], y[mixed], 2), options)
    assert a.chosen == pytest.approx(b.chosen)
    assert sorted(a.notes) == sorted(b.notes)
    new = np.random.default_rng(3).normal(size=(200, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(
        a.head.predict_proba(new), b.head.predict_proba(new), rtol=1e-4, atol=1e-5
    )


def test_the_order_of_rows_decides_no_candidate_of_a_sweep_and_no_learning_curve() -> None:
    x, y, _ = repeated("near copies")
    x = x + y[:, None] * 0.3
    mixed = np.random.default_rng(2).permutation(len(x))

    def table(x: np.ndarray, y: np.ndarray) -> dict[tuple[str, str], float]:
        found = sweep(x, y, 2).candidates
        return {(c.head, str(dict(c.options))): c.accuracy.value for c in found}

    assert table(x, y) == pytest.approx(table(x[mixed], y[mixed]), abs=1e-3)
    curves = [
        learning_curve(a, b, 2, shots=(5, 50), repetitions=2).accuracies
        for a, b in ((x, y), (x[mixed], y[mixed]))
    ]
    np.testing.assert_allclose(*curves, atol=1e-3)


@pytest.mark.parametrize("divider", DIVIDERS)
def test_one_group_is_refused(divider: str) -> None:
    x, y = noise()
    if divider in ("fit_mlp", "learning_curve"):  # which hold a part out, or nothing
        return
    with pytest.raises(HeadError, match="two groups"):
        DIVIDERS[divider](x, y, {"groups": np.zeros(len(x))})


@pytest.mark.parametrize("divider", ["choose_linear", "sweep", "nested_cross_validation"])
def test_groups_that_are_the_classes_are_refused(divider: str) -> None:
    x, y = noise()
    with pytest.raises(HeadError, match="two classes or more to train on outside every fold") as e:
        DIVIDERS[divider](x, y, {"groups": y})
    assert "two groups" in str(e.value)


def test_a_class_in_one_group_and_few_groups_are_told() -> None:
    x, y = noise()
    groups = np.arange(ITEMS) % 3
    y = np.where(groups == 2, 2, y)
    groups = np.where(y == 2, 2, groups)
    found = choose_linear(x, y, 3, groups=groups, names=["a", "b", "c"])
    assert "3 folds instead of 5, because there are only 3 groups" in found.notes
    assert any("class 'c': all items are in one group" in note for note in found.notes)


def test_all_items_equal_are_refused_or_told() -> None:
    x, y = np.ones((40, 4)), np.arange(40) % 2
    found = choose_linear(x, y, 2)
    assert any("without cross-validation" in note for note in found.notes)
    assert any("under different classes" in note for note in found.notes)
    for divider in ("sweep", "nested_cross_validation"):
        with pytest.raises(HeadError, match="two different items"):
            DIVIDERS[divider](x, y, {})
    with pytest.raises(HeadError, match="two items"):
        learning_curve(x, y, 2)
    assert np.isfinite(fit_ridge(x, y, 2).error).all()
    assert any("no rows were held out" in note for note in fit_mlp(x, y, 2, epochs=2).notes)


def test_rows_on_disk_that_cannot_be_written_are_looked_through(tmp_path: Path) -> None:
    x, y, _ = repeated("near copies")
    np.save(tmp_path / "x.npy", x.astype(np.float64))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for features in (mapped, StreamedFeatures(mapped)):
        assert len(set(keep_together(y, features).keys)) == ITEMS
        assert choose_linear(features, y, 2).chosen == choose_linear(x, y, 2).chosen


def test_c_is_chosen_for_several_labels_an_item() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 20))
    y = (x[:, :4] + rng.normal(size=(300, 4)) > 0).astype(int)
    found = choose_linear(x, y, 4, task="multi-label")
    assert 1e-4 < found.chosen["C"] < 10
    assert found.held_out is not None
    assert found.held_out.interval is None
    assert 0.6 < found.held_out.value < 0.85
    assert found.held_out_probabilities is not None
    assert found.held_out_probabilities.shape == (300, 4)
    again = head_kind("linear")
    rows = TrainingRows(np.tile(x, (3, 1)), np.tile(y, (3, 1)), 4, task="multi-label")
    often = again.fit(rows, again.settings({}))
    assert np.log10(often.chosen["C"] * 3 / found.chosen["C"]) == pytest.approx(0, abs=0.26)
    np.testing.assert_allclose(often.head.predict_proba(x), found.head.predict_proba(x), atol=0.05)


def test_c_is_chosen_for_soft_labels() -> None:
    x, y = noise()
    x = x + y[:, None] * 0.3
    soft = np.where(np.eye(2)[y] > 0, 0.9, 0.1)
    assert choose_linear(x, soft, 2).details["folds"] == 5


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([1, 2], "one group per row"),
        (np.zeros((ITEMS, 2)), "one group per row"),
        ([None, *range(1, ITEMS)], "row 0"),
        (np.where(np.arange(ITEMS) == 7, np.nan, np.arange(ITEMS)), "row 7"),
    ],
)
@pytest.mark.parametrize("divider", DIVIDERS)
def test_groups_that_are_none_are_refused(divider: str, groups: Any, words: str) -> None:
    x, y = noise()
    with pytest.raises(HeadError, match=words):
        DIVIDERS[divider](x, y, {"groups": groups})


def test_a_series_of_groups_is_taken_by_position() -> None:
    x, y = noise()
    groups = np.arange(ITEMS) // 4
    series = pd.Series(groups, index=np.random.default_rng(0).permutation(ITEMS))
    for divider in ("nested_cross_validation", "learning_curve", "choose_linear"):
        found = [DIVIDERS[divider](x, y, {"groups": given}) for given in (groups, series)]
        assert found[0] == found[1]
