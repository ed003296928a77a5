"""Many classes with few items each: bounded memory and time, and no solver that gives up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.heads import choose_linear
from headstart.heads.logistic.curvature import class_curvature, eigh


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
