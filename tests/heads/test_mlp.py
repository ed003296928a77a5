"""The perceptron: it learns, repeats itself, stops early, and leaves global state alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from headstart.core.errors import ConfigError, HeadError
from headstart.heads import fit_mlp
from headstart.heads.perceptron import Perceptron


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


@pytest.mark.parametrize(
    ("optimizer", "lr", "schedule"),
    [("adamw", 1e-3, "cosine"), ("adam", 1e-3, "step"), ("sgd", 0.05, "constant")],
)
def test_optimizers_and_schedules_learn(
    digits: tuple[np.ndarray, np.ndarray], optimizer: str, lr: float, schedule: str
) -> None:
    x, y = digits
    fit = fit_mlp(
        x[:1000], y[:1000], 10, hidden=(64,), epochs=25, batch_size=64,
        optimizer=optimizer, lr=lr, schedule=schedule, dropout=0.2,
    )  # fmt: skip
    assert (fit.head.predict(x[1000:]) == y[1000:]).mean() > 0.85
    assert [c.name for c in fit.curves] == [
        "train loss",
        "validation loss",
        "train accuracy",
        "validation accuracy",
    ]
    loss = fit.curves[1].y
    assert all(len(c.y) == len(loss) for c in fit.curves)
    assert loss[fit.chosen["best_epoch"] - 1] == min(loss)


def test_same_seed_same_head_and_no_global_state(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0][:300], digits[1][:300]
    before = torch.random.get_rng_state()
    first = fit_mlp(x, y, 10, hidden=(16,), epochs=4, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(10)  # the global generator moves between the two fits
    second = fit_mlp(x, y, 10, hidden=(16,), epochs=4, seed=3)
    other = fit_mlp(x, y, 10, hidden=(16,), epochs=4, seed=4)
    np.testing.assert_array_equal(first.head.predict_proba(x), second.head.predict_proba(x))
    assert not np.array_equal(first.head.predict_proba(x), other.head.predict_proba(x))


def test_validation_rows_train_nothing(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0][:400], digits[1][:400].copy()
    held = np.arange(400) % 4 == 0
    options = {"hidden": (16,), "epochs": 3, "patience": None, "validation_rows": held}
    clean = fit_mlp(x, y, 10, **options)
    y[held] = (y[held] + 1) % 10
    poisoned = fit_mlp(x, y, 10, **options)
    assert clean.curves[0].y == poisoned.curves[0].y  # the train loss
    assert clean.curves[1].y != poisoned.curves[1].y


def test_early_stopping_keeps_the_best_epoch() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 50)).astype(np.float32)
    y = rng.integers(0, 2, 300)  # nothing to learn: validation loss soon rises
    fit = fit_mlp(x, y, 2, epochs=200, patience=5, lr=1e-2, schedule="constant")
    assert len(fit.curves[0].y) == fit.chosen["best_epoch"] + 5 < 200
    assert any("stopped after epoch" in note for note in fit.notes)


def test_dropout_scales_and_zeroes() -> None:
    generator = torch.Generator().manual_seed(0)
    identity = torch.eye(2000), torch.zeros(2000)
    network = Perceptron([identity, identity], 0.25, generator)
    out = network(torch.ones(1, 2000)).detach()
    assert (network.eval()(torch.ones(1, 2000)) == 1).all()
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)


def test_regression_and_multi_label(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits
    values = 1000.0 + 50.0 * y  # far from 0: targets are standardised for training
    fit = fit_mlp(x[:1200], values[:1200], 1, task="regression", epochs=60)
    error = np.abs(fit.head.predict(x[1200:])[:, 0] - values[1200:]).mean()
    assert error < 0.5 * np.abs(values - values.mean()).mean()
    assert [c.name for c in fit.curves] == ["train loss", "validation loss"]
    several = fit_mlp(x[:1200], np.eye(10)[y[:1200]], 10, task="multi-label", epochs=40)
    assert (several.head.predict(x[1200:]) == np.eye(10)[y[1200:]]).mean() > 0.95


def test_all_unfit_options_are_named_together() -> None:
    x, y = np.eye(4), np.arange(4)
    with pytest.raises(ConfigError) as caught:
        fit_mlp(x, y, 4, lr=-1.0, optimizer="adagrad", epochs=0, patience=0)
    for part in ("lr must be above 0", "adagrad", "epochs must", "patience must"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match=r"hidden.*dropout"):
        fit_mlp(x, y, 4, hidden=(0,), dropout=1.0)


def test_divergence_is_an_error(digits: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(HeadError, match="diverged"):
        fit_mlp(*digits, 10, optimizer="sgd", lr=1e12, epochs=3)
