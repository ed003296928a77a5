"""Many classes with few items each: bounded memory and time, and no solver that gives up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.evaluation import evaluate, most_likely
from headstart.heads import (
    TrainingRows,
    base,
    choose_linear,
    doubtful_labels_of_many_classes,
    fit_ridge,
    head_kind,
    head_kinds,
    learning_curve,
    learning_curves,
    many_classes,
    ridge,
    sweep,
)
from headstart.heads.calibration import calibration_rows
from headstart.heads.logistic.curvature import class_curvature, eigh


def memory(field: str) -> float:
    """Return a figure of /proc/self/status in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(field + ":")[1].split()[0]) / 1e6


def few_items(
    classes: int, each: int, width: int, *, noise: float = 1.6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training rows and labels, and 300 test rows and labels, of Gaussian classes."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width)).astype(np.float32)
    y, held = np.repeat(np.arange(classes), each), rng.integers(0, classes, 300)

    def rows(labels: np.ndarray) -> np.ndarray:
        return (centres[labels] + noise * rng.normal(size=(len(labels), width))).astype(np.float32)

    return rows(y), y, rows(held), held


@pytest.mark.parametrize("exponent", [-1000, -60, 0, 60, 900])
def test_eigenvectors_do_not_depend_on_the_scale(exponent: int) -> None:
    a = torch.randn(2, 30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a = a @ a.mT
    values, vectors = eigh(a)
    scaled, same = eigh(torch.ldexp(a, torch.tensor(float(exponent), dtype=torch.float64)))
    assert torch.equal(vectors, same)
    np.testing.assert_allclose(np.ldexp(values.numpy(), exponent), scaled.numpy())
    assert not eigh(torch.zeros(2, 5, 5))[0].any()


def test_a_solver_that_does_not_converge_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.randn(3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a = a @ a.mT
    wanted = eigh(a)

    def fail(_: torch.Tensor) -> None:
        raise RuntimeError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    values, vectors = eigh(a)
    torch.testing.assert_close(values, wanted[0])
    torch.testing.assert_close(vectors @ torch.diag_embed(values) @ vectors.mT, a)


def test_the_curvature_of_many_classes_is_diagonal() -> None:
    p = torch.softmax(torch.randn(40, 300, 2, generator=torch.Generator().manual_seed(0)), dim=1)
    vectors, values = class_curvature(p, "softmax")
    assert vectors is None
    assert values.shape == (2, 300)
    sure = torch.zeros(40, 300, 1)
    sure[:, 0] = 1.0
    assert (class_curvature(sure, "softmax")[1] > 0).all()


@pytest.mark.parametrize("classes", [250, 300])
def test_logistic_regression_with_few_items_of_many_classes(classes: int) -> None:
    x, y, held, truth = few_items(classes, 4, 24, noise=0.3)
    trained = choose_linear(x, y, classes, grid=(0.1, 10.0, 1000.0))
    assert (trained.head.predict(held) == truth).mean() > 0.8


@pytest.mark.slow
def test_a_thousand_classes_of_four_items() -> None:
    """``linalg.eigh`` failed here on a matrix of 1e-18, after two minutes."""
    x, y, held, truth = few_items(1000, 4, 256)
    trained = choose_linear(x, y, 1000)
    assert (trained.head.predict(held) == truth).mean() > 0.95


def test_ridge_of_many_classes_equals_the_matrix_of_targets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y, _, _ = few_items(40, 6, 20)
    for weight in (None, "balanced"):
        whole = fit_ridge(x, y, 41, class_weight=weight)
        monkeypatch.setattr(ridge, "_MOST_TARGETS", 0)
        sums = fit_ridge(x, y, 41, class_weight=weight)
        monkeypatch.undo()
        np.testing.assert_allclose(sums.error, whole.error, rtol=1e-9)
        assert sums.chosen == whole.chosen
        np.testing.assert_allclose(sums.head.weight, whole.head.weight, atol=1e-10)
        np.testing.assert_allclose(sums.head.bias, whole.head.bias, atol=1e-10)
        assert sums.head.temperature == pytest.approx(whole.head.temperature, rel=1e-6)
        assert sums.left_out is None
        assert not sums.head.predict_proba(x)[:, 40].any()  # a class without a row


def test_probabilities_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, held, truth = few_items(30, 6, 20)
    names = [f"class {i}" for i in range(30)]
    for kind in ("lda", "ridge", "knn", "prototype"):
        head = head_kind(kind).fit(TrainingRows(x, y, 30), head_kind(kind).settings({})).head
        whole = head.likelihoods(held)
        assert isinstance(whole, np.ndarray)
        monkeypatch.setattr(base, "_MOST_PROBABILITIES", 100)
        monkeypatch.setattr(base, "_AT_ONCE", 30)
        blocks = head.likelihoods(held)
        assert not isinstance(blocks, np.ndarray)
        assert blocks.shape == whole.shape
        np.testing.assert_allclose(np.asarray(blocks), whole, rtol=1e-5, atol=1e-8)
        np.testing.assert_array_equal(head.predict(held), whole.argmax(axis=1))
        one, other = evaluate(truth, blocks, names), evaluate(truth, whole, names)
        assert one.accuracy == other.accuracy
        assert one.top_5 == other.top_5
        assert one.log_loss == pytest.approx(other.log_loss, rel=1e-5)
        for wanted, got in zip(most_likely(whole, 3), most_likely(blocks, 3), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5)
        monkeypatch.undo()


def test_calibration_looks_at_some_rows_of_very_many() -> None:
    assert len(calibration_rows(60_000, 100)) == 60_000
    some = calibration_rows(50_000, 10_000)
    assert 1000 <= len(some) <= 1001
    assert (some[0], some[-1]) == (0, 49_999)


def test_c_is_chosen_on_some_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, held, truth = few_items(150, 4, 24, noise=0.5)
    monkeypatch.setattr(many_classes, "MANY_CLASSES", 100)
    monkeypatch.setattr(many_classes, "MOST_PRODUCTS", 1)
    found = choose_linear(x, y, 150, grid=(0.1, 10.0), names=[str(i) for i in range(150)])
    assert any("classes drawn at random" in note for note in found.notes)
    assert "of 150 classes" in found.curves[0].name
    assert found.held_out is None
    assert found.head.present.all()  # type: ignore[attr-defined]
    assert (found.head.predict(held) == truth).mean() > 0.8
    every = sweep(x, y, 150)
    assert any("linear heads are skipped" in note for note in every.notes)
    assert {one.head for one in every.candidates} == {"ridge", "lda", "knn", "prototype"}
    alone = sweep(x, y, 150, heads=("linear",), grid=(0.1, 10.0), folds=2)
    assert {one.head for one in alone.candidates} == {"linear"}
    assert alone.winner.accuracy.value > 0.7
    single = choose_linear(np.concatenate([x[::4], x[:1] + 9]), np.arange(151), 151)
    assert any("no two classes have two items" in note for note in single.notes)


def test_doubts_and_learning_curve_of_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _, _ = few_items(60, 8, 24, noise=0.4)
    wrong = y.copy()
    wrong[[0, 100]] = [30, 5]
    doubts, notes = doubtful_labels_of_many_classes(x, wrong, 60)
    assert {0, 100} <= {each.row for each in doubts}
    assert any("linear discriminant analysis" in note for note in notes)
    monkeypatch.setattr(learning_curves, "_MANY_CLASSES", 10)
    monkeypatch.setattr(learning_curves, "_MOST_PRODUCTS", 1)
    curve = learning_curve(x, y, 60, repetitions=2)
    assert any("linear discriminant analysis" in note for note in curve.notes)
    assert curve.scores[-1].value > 0.9


def test_classes_of_one_item() -> None:
    """Half of the classes have a single item: every head trains, and folds are made."""
    x, y, held, _ = few_items(60, 4, 24, noise=0.3)
    kept = np.flatnonzero((y < 30) | (np.arange(len(y)) % 4 == 0))
    x, y = x[kept], y[kept]
    for kind in head_kinds("classification"):
        options = {"epochs": 3} if kind.name == "mlp" else {}
        trained = kind.fit(TrainingRows(x, y, 60), kind.settings(options))
        assert trained.head.predict_proba(held).shape == (300, 60)
    found = sweep(x, y, 60, heads=("lda", "prototype", "knn"))
    assert found.winner.accuracy.value > 0.3


@pytest.mark.slow
def test_ten_thousand_classes_of_five_items() -> None:
    """Ridge held a matrix of rows by classes for every penalty: 9.7 GB at 2,000 classes."""
    # The peak of this test alone: other tests of the process may have needed more.
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a part of a process")
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    x, y, held, truth = few_items(10_000, 5, 128, noise=1.0)
    names = [f"class {i}" for i in range(10_000)]
    for kind in ("lda", "ridge", "prototype", "knn"):
        head = head_kind(kind).fit(TrainingRows(x, y, 10_000), head_kind(kind).settings({})).head
        found = evaluate(truth, head.likelihoods(held), names)
        assert found.top_5 is not None
        assert found.top_5.value >= found.accuracy.value > 0.9
        assert found.confusion == ()
    peak = memory("VmHWM") - before
    assert peak < 3.0, f"{peak} GB"
