"""Where heads are solved: what a device must be, and that nothing is left on another one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from headstart.core.errors import HeadError
from headstart.heads import fit_logistic, fit_logistic_path, fit_logistic_paths
from headstart.heads.logistic.device import choose_device

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


def test_devices_that_are_none() -> None:
    x, y = np.eye(4), np.arange(4) % 2
    with pytest.raises(HeadError, match="device such as cpu or cuda, found 'gpu'"):
        fit_logistic(x, y, 2, device="gpu")
    with pytest.raises(HeadError, match="cpu or cuda, not on 'meta'"):
        fit_logistic_path(x, y, 2, np.arange(4) // 2, device="meta")
    with pytest.raises(HeadError, match="'cuda:99' does not exist"):
        fit_logistic(x, y, 2, device="cuda:99")


def test_auto_takes_cuda_for_large_features_only() -> None:
    assert choose_device("auto", (1000, 1000)).type == "cpu"
    there = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto", (10_000, 1000)).type == there


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_every_tensor_is_made_on_the_device_of_the_rows(
    precision: str, digits: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tensor made without a device would lie on "meta" here, and meet the others in an error.
    x, y = digits[0][:300], digits[1][:300]
    monkeypatch.setattr("headstart.heads.logistic.single.is_small", lambda *_: False)
    folds = np.arange(300) % 3
    options = {"grid": [1e-3, 1e-2], "precision": precision, "class_weight": "balanced"}
    expected = fit_logistic_paths(x, y, 11, folds, **options)
    alone, _ = fit_logistic(x, y, 11, C=0.1)
    with torch.device("meta"):
        found = fit_logistic_paths(x, y, 11, folds, **options)
        again, _ = fit_logistic(x, y, 11, C=0.1)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.log_loss, other.log_loss)
        np.testing.assert_array_equal(one.held_out_decision(0), other.held_out_decision(0))
    np.testing.assert_array_equal(again.weight, alone.weight)


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_path_on_cuda_equals_that_on_the_processor(
    precision: str, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = digits
    folds = np.arange(len(y)) % 3
    options = {"grid": [1e-3, 1e-2, 1e-1], "drop_hopeless": False, "precision": precision}
    expected = fit_logistic_paths(x, y, 10, folds, **options)
    found = fit_logistic_paths(x, y, 10, folds, device="cuda", **options)
    for one, other in zip(found, expected, strict=True):
        assert one.device.startswith("cuda")
        np.testing.assert_allclose(one.log_loss, other.log_loss, rtol=5e-3)
        np.testing.assert_allclose(one.accuracy, other.accuracy, atol=0.01)


@needs_cuda
def test_single_head_on_cuda_equals_that_on_the_processor(
    digits: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits
    monkeypatch.setattr("headstart.heads.logistic.single.is_small", lambda *_: False)
    found, convergence = fit_logistic(x, y, 10, C=0.1, device="cuda", tolerance=1e-8)
    expected, _ = fit_logistic(x, y, 10, C=0.1, tolerance=1e-8)
    assert convergence.reached
    np.testing.assert_allclose(found.weight, expected.weight, atol=1e-5)


@needs_cuda
def test_flags_of_the_user_stay() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()
    x, y = np.random.default_rng(0).normal(size=(60, 5)), np.arange(60) % 3
    fit_logistic_path(x, y, 3, np.arange(60) % 2, grid=[0.1], device="cuda")
    assert before == (
        torch.backends.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision(),
    )
