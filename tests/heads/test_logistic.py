"""Logistic regression against scikit-learn at the same objective, and the path against singles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from headstart.core.errors import HeadError
from headstart.heads import StreamedFeatures, fit_logistic, fit_logistic_path
from headstart.heads.features import moments
from headstart.heads.logistic.objective import evaluate
from headstart.heads.logistic.problem import make_problem
from headstart.heads.logistic.rows import block_bounds


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


def degenerate(name: str) -> tuple[np.ndarray, np.ndarray, int]:
    rng = np.random.default_rng(0)
    if name == "separable":
        y = np.arange(60) % 3
        return rng.normal(size=(60, 5)) + 20 * np.eye(5)[y], y, 3
    if name == "collinear":
        x = rng.normal(size=(200, 6))
        x = np.concatenate([x, x[:, :2] @ rng.normal(size=(2, 3)), 2 * x[:, :1]], axis=1)
        return x, (x[:, 0] + rng.normal(size=200) > 0) + (x[:, 1] > 1).astype(int), 3
    if name == "constant columns":
        x = rng.normal(size=(150, 6))
        x[:, 1], x[:, 4] = 7.25, 0.0
        return x, (x[:, 0] + rng.normal(size=150) > 0) + (x[:, 2] > 1).astype(int), 3
    if name == "one sample a class":
        return rng.normal(size=(4, 6)), np.arange(4), 4
    if name == "more features than rows":
        return rng.normal(size=(30, 400)), rng.integers(0, 3, 30), 3
    assert name == "two classes"
    x = rng.normal(size=(120, 4))
    return x, (x[:, 0] + rng.normal(size=120) > 0).astype(int), 2


CASES = [
    "separable",
    "collinear",
    "constant columns",
    "one sample a class",
    "more features than rows",
    "two classes",
]


def assert_equal_to_sklearn(
    x: np.ndarray, y: np.ndarray, k: int, C: float, **weights: object
) -> None:
    z = StandardScaler().fit_transform(x.astype(np.float64))
    reference = LogisticRegression(C=C, tol=1e-12, max_iter=100_000, **weights).fit(z, y)
    head, convergence = fit_logistic(x, y, k, C=C, tolerance=1e-10, **weights)
    assert convergence.reached
    found = head.weight if k > 2 else head.weight[:, 1:] - head.weight[:, :1]
    difference = np.linalg.norm(found.T - reference.coef_) / np.linalg.norm(reference.coef_)
    assert difference < 1e-4
    np.testing.assert_allclose(head.predict_proba(x), reference.predict_proba(z), atol=1e-5)


@pytest.mark.parametrize("C", [1e-3, 1.0, 100.0])
def test_digits_equal_scikit_learn(C: float) -> None:
    x, y = digits()
    assert_equal_to_sklearn(x, y, 10, C)


@pytest.mark.parametrize("C", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize("case", CASES)
def test_degenerate_problems_equal_scikit_learn(case: str, C: float) -> None:
    x, y, k = degenerate(case)
    assert_equal_to_sklearn(x, y, k, C)


def test_class_weights_equal_scikit_learn() -> None:
    x, y, k = degenerate("collinear")
    assert_equal_to_sklearn(x, y, k, 0.5, class_weight="balanced")


def test_large_solver_equals_newton(monkeypatch: pytest.MonkeyPatch) -> None:
    # The same problem by L-BFGS, which a small problem would not otherwise reach.
    x, y = digits()
    newton, _ = fit_logistic(x, y, 10, C=0.1, tolerance=1e-9)
    monkeypatch.setattr("headstart.heads.logistic.single.is_small", lambda *_: False)
    lbfgs, convergence = fit_logistic(x, y, 10, C=0.1, tolerance=1e-9)
    assert convergence.reached
    np.testing.assert_allclose(lbfgs.weight, newton.weight, atol=1e-6)


@pytest.mark.parametrize("C", [1e-4, 1.0, 1e5])
@pytest.mark.parametrize("k", [2, 3])
def test_newton_in_the_span_of_few_rows_takes_the_steps_of_the_whole_space(
    k: int, C: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(k)
    x, y = rng.normal(size=(40, 300)), np.arange(40) % k
    x[30:] = x[:10]  # the span has fewer dimensions than there are rows
    start = torch.from_numpy(rng.normal(size=(301, 1 if k == 2 else k)))  # not in the span
    few, first = fit_logistic(x, y, k, C=C, tolerance=1e-9, start=start)
    monkeypatch.setattr("headstart.heads.logistic.newton._FEW_ROWS", 0.0)
    whole, second = fit_logistic(x, y, k, C=C, tolerance=1e-9, start=start)
    assert first.reached
    assert first.passes == second.passes
    np.testing.assert_allclose(few.weight, whole.weight, rtol=1e-7, atol=1e-9)


def test_soft_labels_of_repeated_items_equal_their_copies() -> None:
    x, y, k = degenerate("collinear")
    rng = np.random.default_rng(1)
    other = rng.integers(0, k, len(y))
    soft = 0.5 * np.eye(k)[y] + 0.5 * np.eye(k)[other]
    # Two half-weight copies with hard labels are the same objective.
    doubled, _ = fit_logistic(
        np.concatenate([x, x]), np.concatenate([y, other]), k, C=0.5, tolerance=1e-10
    )
    mixed, _ = fit_logistic(x, soft, k, C=1.0, tolerance=1e-10)
    np.testing.assert_allclose(mixed.weight, doubled.weight, atol=1e-7)


def test_multi_label_equals_one_problem_a_label() -> None:
    x, _, _ = degenerate("collinear")
    y = (x[:, :3] + np.random.default_rng(2).normal(size=(200, 3)) > 0).astype(int)
    head, _ = fit_logistic(x, y, 3, C=0.3, task="multi-label", tolerance=1e-10)
    z = StandardScaler().fit_transform(x)
    reference = OneVsRestClassifier(LogisticRegression(C=0.3, tol=1e-12, max_iter=10_000)).fit(z, y)
    np.testing.assert_allclose(head.predict_proba(x), reference.predict_proba(z), atol=1e-6)
    np.testing.assert_array_equal(head.predict(x), reference.predict(z))


def test_absent_class_has_probability_zero() -> None:
    x, y, _ = degenerate("separable")
    y = np.where(y == 2, 4, y)  # of five classes, 2 and 3 are absent
    head, _ = fit_logistic(x, y, 5)
    probabilities = head.predict_proba(x)
    assert (probabilities[:, [2, 3]] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    three, _ = fit_logistic(x, np.where(y == 4, 2, y), 3)
    np.testing.assert_allclose(probabilities[:, [0, 1, 4]], three.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_path_equals_single_fits_in_every_fold(precision: str) -> None:
    x, y = digits()
    x, y = x[:400], y[:400]
    folds = np.arange(400) % 3
    grid = [1e-4, 1e-3, 1e-2, 1e-1]
    path = fit_logistic_path(
        x, y, 10, folds, grid=grid, tolerance=1e-5, drop_hopeless=False, precision=precision
    )
    assert (path.gradient <= 1e-5).all()
    for fold in range(3):
        train, held = folds != fold, folds == fold
        for at, C in enumerate(grid):
            head, _ = fit_logistic(x[train], y[train], 10, C=C, tolerance=1e-8)
            p = head.predict_proba(x[held])
            loss = -np.log(p[np.arange(held.sum()), y[held]]).mean()
            assert path.log_loss[fold, at] == pytest.approx(loss, rel=2e-3)
            assert abs(path.accuracy[fold, at] - (p.argmax(1) == y[held]).mean()) < 0.01


def test_path_refines_to_the_same_answers_as_one_level() -> None:
    # 33 penalties are solved in three levels; each must end where a start from nothing ends.
    x, y = digits()
    x, y = x[:300], y[:300]
    folds = np.arange(300) % 2
    grid = 10.0 ** np.linspace(-4, 0, 33)
    path = fit_logistic_path(x, y, 10, folds, grid=grid, tolerance=1e-5, drop_hopeless=False)
    for at in (1, 6, 17, 31):
        alone = fit_logistic_path(
            x, y, 10, folds, grid=[grid[at]], tolerance=1e-5, drop_hopeless=False
        )
        np.testing.assert_allclose(path.log_loss[:, at], alone.log_loss[:, 0], rtol=1e-3)


def test_dropped_penalties_are_worse_than_the_best() -> None:
    x, y = digits()
    folds = np.arange(len(y)) % 5
    path = fit_logistic_path(x, y, 10, folds)
    full = fit_logistic_path(x, y, 10, folds, drop_hopeless=False, max_passes=60)
    assert path.dropped.any()
    assert not path.dropped[path.mean_accuracy.argmax()]
    assert full.mean_accuracy[path.dropped].max() < path.mean_accuracy.max()


def test_held_out_rows_never_reach_their_head() -> None:
    # Poison the labels and the features of fold 0: its own heads must not notice.
    x, y = digits()
    x, y = x[:300].copy(), y[:300].copy()
    folds = np.arange(300) % 3
    options = {"grid": [1e-3, 1e-2], "drop_hopeless": False, "precision": "float64"}
    clean = fit_logistic_path(x, y, 10, folds, **options)
    y[folds == 0] = (y[folds == 0] + 1) % 10
    poisoned = fit_logistic_path(x, y, 10, folds, **options)
    assert (poisoned.accuracy[0] < clean.accuracy[0]).all()
    np.testing.assert_allclose(poisoned.gradient[0], clean.gradient[0], rtol=1e-6)


def test_a_fold_without_a_class_is_solved_without_it() -> None:
    x, y, _ = degenerate("separable")
    folds = np.arange(60) % 2
    folds[y == 2] = 0  # fold 0 trains without class 2
    path = fit_logistic_path(x, y, 3, folds, grid=[0.1, 1.0])
    assert np.isfinite(path.accuracy).all()
    assert path.accuracy[0].max() <= (y[folds == 0] != 2).mean() + 1e-9


@pytest.mark.parametrize("stream", [False, True], ids=["array", "streamed"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_without_weight_is_not_held_out_for_it(classes: int, stream: bool) -> None:
    # Its rows train nothing, and are judged where their fold is held out: there and only there.
    rng = np.random.default_rng(0)
    y = np.arange(180) % 3
    x = rng.normal(size=(180, 5)) + 1.5 * np.eye(5)[y]
    y, folds = y % classes, rng.permutation(180) % 4
    weight = np.array([1.0, 2.0, 0.0]) if classes == 3 else np.array([0.0, 1.0])
    given = StreamedFeatures(x) if stream else x
    path = fit_logistic_path(
        given, y, classes, folds, grid=[0.1, 1.0], class_weight=weight, drop_hopeless=False
    )
    for fold in range(4):
        held = folds == fold
        for at in range(2):
            p = path.head(fold, at).predict_proba(x[held])
            assert path.accuracy[fold, at] == pytest.approx((p.argmax(1) == y[held]).mean())
            loss = -np.log(p[np.arange(held.sum()), y[held]]).mean()
            assert path.log_loss[fold, at] == pytest.approx(loss, rel=1e-3)
        answered = path.head(fold, 1).decision(x[held])
        np.testing.assert_allclose(path.held_out_decision(1)[held], answered, atol=1e-9)


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_gradient_agrees_with_automatic_differentiation(precision: str) -> None:
    x, y = digits()
    x, y = x[:500], y[:500]
    problem = make_problem(
        x, y, 10, standardise=True, class_weight="balanced", task="classification"
    )
    rows = problem.rows(np.random.default_rng(0).permutation(500)).pack()
    y = y[rows.order]
    x = x[rows.order]
    held = np.arange(500) % 4 == 0
    group = problem.all_but(rows, held)
    theta = 0.1 * torch.randn(65, 10, 2, generator=torch.Generator().manual_seed(0)).double()
    found = evaluate(
        rows,
        [group],
        [theta],
        block_bounds(np.array([0, 500]), 64),
        link="softmax",
        precision=precision,
    )[0]
    mean, scale = moments(x, np.flatnonzero(~held))
    z = torch.from_numpy(np.c_[(x[~held] - mean) / scale, np.ones((~held).sum())])
    theta.requires_grad_()
    log_p = torch.log_softmax(torch.einsum("nd,dkc->nkc", z, theta), dim=1)
    own = log_p[torch.arange(len(z)), torch.from_numpy(y[~held])]
    weight = torch.from_numpy(group.weight[~held])[:, None]
    loss = -(own * weight).sum(0) / weight.sum()
    loss.sum().backward()
    tolerance = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 3e-3}[precision]
    np.testing.assert_allclose(found.gradient.double(), theta.grad, atol=tolerance)
    np.testing.assert_allclose(found.loss, loss.detach(), rtol=10 * tolerance)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.array([[1.0, np.nan], [1.0, 2.0]]), [0, 1], "NaN or infinity in 1 of 2 rows"),
        (np.array([[1.0, np.inf], [1.0, 2.0]]), [0, 1], "NaN or infinity"),
        (np.ones((2, 2)), [1, 1], "at least two classes"),
        (np.ones((2, 2)), [0, 1, 1], "one label per item"),
        (np.ones((2, 2)), [0, 5], "below 3"),
        (np.ones((2, 2)), [0, -1], "from 0"),
        (np.ones((2, 2)), ["a", "b"], "integer class indices"),
        (np.ones((2, 2, 2)), [0, 1], "shape"),
        (np.ones((0, 2)), [], "at least one item"),
        (np.array([["a"], ["b"]]), [0, 1], "numeric"),
    ],
)
def test_bad_input_is_one_clear_error(x: np.ndarray, y: list[int], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        fit_logistic(x, y, 3)


def test_bad_folds_and_grids_are_errors() -> None:
    x, y, k = degenerate("collinear")
    with pytest.raises(HeadError, match="none of them empty"):
        fit_logistic_path(x, y, k, np.where(np.arange(200) < 100, 0, 2))
    with pytest.raises(HeadError, match="C above 0"):
        fit_logistic_path(x, y, k, np.arange(200) % 2, grid=[0.0, 1.0])
    with pytest.raises(HeadError, match="C above 0"):
        fit_logistic(x, y, k, C=-1.0)


def test_solving_leaves_the_global_random_state_alone() -> None:
    x, y = digits()
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    fit_logistic_path(x[:200], y[:200], 10, np.arange(200) % 2, grid=[0.01])
    assert torch.equal(before[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
