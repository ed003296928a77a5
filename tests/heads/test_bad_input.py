"""Invalid features and labels: one clear error each, from every public function that takes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from headstart.core.errors import HeadError
from headstart.heads import (
    choose_linear,
    fit_lda,
    fit_logistic,
    fit_logistic_path,
    fit_mlp,
    fit_neighbours,
    fit_prototype,
    fit_ridge,
    learning_curve,
    nested_cross_validation,
    sweep,
)

N, D = 24, 3
FOLDS = np.arange(N) % 3

TAKERS: dict[str, Callable[[object, object], object]] = {
    "fit_logistic": lambda x, y: fit_logistic(x, y, 3),
    "fit_logistic_path": lambda x, y: fit_logistic_path(x, y, 3, FOLDS),
    "fit_ridge": lambda x, y: fit_ridge(x, y, 3),
    "fit_lda": lambda x, y: fit_lda(x, y, 3),
    "fit_neighbours": lambda x, y: fit_neighbours(x, y, 3),
    "fit_prototype": lambda x, y: fit_prototype(x, y, 3),
    "fit_mlp": lambda x, y: fit_mlp(x, y, 3),
    "choose_linear": lambda x, y: choose_linear(x, y, 3),
    "learning_curve": lambda x, y: learning_curve(x, y, 3),
    "nested_cross_validation": lambda x, y: nested_cross_validation(x, y, 3),
    "sweep": lambda x, y: sweep({"layer4": x}, y, 3),
}


def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, D))


def with_value(value: float) -> np.ndarray:
    x = features()
    x[4, 1] = x[7, 0] = value
    return x


LABELS = np.arange(N) // 2 % 3
FAULTS: dict[str, tuple[object, object, str]] = {
    "NaN": (with_value(np.nan), LABELS, r"NaN or infinity in 2 of 24 rows \(row 4, 7\)"),
    "infinity": (with_value(np.inf), LABELS, r"NaN or infinity in 2 of 24 rows \(row 4, 7\)"),
    "one class": (features(), np.ones(N, int), r"two classes .* \(every label is 1\)"),
    "too few labels": (features(), LABELS[:-1], r"one label per item \(24 items\), found .*23"),
    "unknown class": (features(), LABELS + 1, "class indices below 3, found 3"),
    "text": (features().astype(str), LABELS, "numeric type"),
    "images": (np.zeros((N, 2, 2)), LABELS, r"\(items, features\), found shape \(24, 2, 2\)"),
    "no rows": (np.zeros((0, D)), np.zeros(0, int), "at least one item"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("taker", list(TAKERS))
def test_one_clear_error(taker: str, fault: str) -> None:
    x, y, message = FAULTS[fault]
    with pytest.raises(HeadError, match=message) as error:
        TAKERS[taker](x, y)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "folds",
    [np.arange(N) % 3 * 2, np.zeros(N, int), FOLDS[:-1], FOLDS - 1, FOLDS + 0.5],
    ids=["an empty fold", "one fold", "too few", "negative", "no numbers of folds"],
)
def test_folds_that_are_none(folds: np.ndarray) -> None:
    with pytest.raises(HeadError, match="two folds or more, none of them empty"):
        fit_logistic_path(features(), LABELS, 3, folds)


def test_a_head_refuses_other_features() -> None:
    head = fit_lda(features(), LABELS, 3)[0]
    with pytest.raises(HeadError, match="expected 3 features per item, found 4"):
        head.predict(np.zeros((2, 4)))
    with pytest.raises(HeadError, match="NaN or infinity"):
        head.predict_proba(with_value(np.nan))
