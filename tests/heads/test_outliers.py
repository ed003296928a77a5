"""Items unlike the training rows: pytorch-ood as the oracle, false alarms, copies, groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from headstart.core.errors import HeadError
from headstart.heads import outliers
from headstart.heads.outliers import Outliers, fit_outliers

DIGITS = load_digits()
X = DIGITS.data.astype(np.float32)
Y = DIGITS.target.astype(np.int64)
KNOWN = np.flatnonzero(Y < 7)
OTHERS = np.flatnonzero(Y >= 7)
METHODS = ("knn", "mahalanobis")


def drawn(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(KNOWN)
    return order[:n], order[n:]


def auroc(known: np.ndarray, others: np.ndarray) -> float:
    truth = np.r_[np.zeros(len(known)), np.ones(len(others))]
    return float(roc_auc_score(truth, np.r_[known, others]))


def test_neighbours_are_those_of_pytorch_ood() -> None:
    detector = pytest.importorskip("pytorch_ood.detector", reason="pytorch-ood is not installed")
    train, test = drawn(0)
    own = fit_outliers({"features": X[train]}, Y[train], method="knn")
    oracle = detector.KNN(None, k=outliers.K).fit_features(
        torch.from_numpy(X[train]), torch.from_numpy(Y[train])
    )
    new = np.concatenate([test, OTHERS])
    theirs = oracle.predict_features(torch.from_numpy(X[new])).numpy()
    np.testing.assert_allclose(own.judges[0].score(X[new]), theirs, atol=2e-4)
    ours = own.scores([X[new]])
    n = len(test)
    assert auroc(ours[:n], ours[n:]) == pytest.approx(auroc(theirs[:n], theirs[n:]), abs=1e-3)


def test_mahalanobis_is_that_of_pytorch_ood_where_it_can_be_computed() -> None:
    """Beside its covariance, which is not shrunk, ours is for rows that are few."""
    detector = pytest.importorskip("pytorch_ood.detector", reason="pytorch-ood is not installed")
    moves = X.std(axis=0) > 0.5  # a constant feature has no inverse there
    x = X[:, moves]
    train, test = drawn(0, 900)
    own = fit_outliers({"features": x[train]}, Y[train], method="mahalanobis")
    oracle = detector.Mahalanobis(None).fit_features(
        torch.from_numpy(x[train]), torch.from_numpy(Y[train])
    )
    new = np.concatenate([test, OTHERS])
    theirs = oracle.predict_features(torch.from_numpy(x[new])).numpy()
    ours, n = own.scores([x[new]]), len(test)
    assert auroc(ours[:n], ours[n:]) > auroc(theirs[:n], theirs[n:]) - 0.01
    assert np.corrcoef(np.argsort(np.argsort(ours)), np.argsort(np.argsort(theirs)))[0, 1] > 0.8


@pytest.mark.parametrize("method", METHODS)
def test_false_alarms_are_as_rare_as_was_asked(method: str) -> None:
    shares = {0.02: [], 0.1: [], 0.2: []}
    for seed in range(40):
        train, test = drawn(seed)
        found = fit_outliers({"features": X[train]}, Y[train], method=method, seed=seed)  # type: ignore[arg-type]
        scores = found.scores([X[test]])
        for rate, kept in shares.items():
            kept.append(found.flagged(scores, rate).mean())
    for rate, kept in shares.items():
        assert rate * 0.5 < np.mean(kept) < rate * 1.25, (method, rate, np.mean(kept))


@pytest.mark.parametrize("method", METHODS)
def test_copies_are_not_their_own_neighbours(method: str) -> None:
    """With every item ten times over, the threshold is that of the items alone, or nearly."""
    train, test = drawn(0, 200)
    copied = np.repeat(train, 10)
    once = fit_outliers({"features": X[train]}, Y[train], method=method)  # type: ignore[arg-type]
    often = fit_outliers({"features": X[copied]}, Y[copied], method=method)  # type: ignore[arg-type]
    assert often.independent <= once.independent == 200
    assert often.independent > 180  # near copies among digits count once, too
    flagged = often.flagged(often.scores([X[test]]), 0.1).mean()
    assert flagged < 0.2
    assert not often.flagged(often.scores([X[train]]), 0.05).mean() > 0.05


@pytest.mark.parametrize("method", METHODS)
def test_items_of_a_new_group_are_no_alarm(method: str) -> None:
    rng = np.random.default_rng(0)
    shift = rng.normal(size=(80, 5)) * 3
    group = np.repeat(np.arange(40), 10)
    x = rng.normal(size=(400, 5)) + shift[group] + 10
    new = rng.normal(size=(400, 5)) + shift[40 + group] + 10
    names = [f"g{i}" for i in group]
    apart = fit_outliers({"features": x}, None, method=method, groups=names)  # type: ignore[arg-type]
    mixed = fit_outliers({"features": x}, None, method=method)  # type: ignore[arg-type]
    assert apart.independent == 40
    alarms = apart.flagged(apart.scores([new]), 0.1).mean()
    assert alarms < 0.2
    if method == "knn":
        assert mixed.flagged(mixed.scores([new]), 0.1).mean() > alarms + 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["far from zero", "classes far apart"])
def test_small_differences_between_large_features_are_not_lost(method: str, kind: str) -> None:
    """Rows that all point one way, and classes that are narrow for their distance."""
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(1 if kind == "far from zero" else 5, 32))

    def drawn_around(n: int, width: float) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, len(middles), n)
        return (middles[y] + width * rng.normal(size=(n, 32))).astype(np.float32), y

    x, y = drawn_around(1000, 1e-4)
    made = fit_outliers({"f": x}, y, method=method)  # type: ignore[arg-type]
    usual, strange = (made.scores([drawn_around(500, w)[0]]) for w in (1e-4, 4e-4))
    assert 0.02 < made.flagged(usual, 0.05).mean() < 0.09
    assert made.flagged(strange, 0.05).all()
    assert (made.p_values(made.scores([x])) > 0.001).all()


def test_several_layers_judge_together() -> None:
    train, test = drawn(0)
    noise = np.random.default_rng(0).normal(size=X.shape).astype(np.float32) * 30
    views = {"noisy": X + noise, "clear": X}
    both = fit_outliers({n: v[train] for n, v in views.items()}, Y[train], method="knn")
    worse = fit_outliers({"noisy": views["noisy"][train]}, Y[train], method="knn")

    def of(found: Outliers, names: tuple[str, ...]) -> float:
        scores = [found.scores([views[n][rows] for n in names]) for rows in (test, OTHERS)]
        return auroc(*scores)

    assert of(both, ("noisy", "clear")) > of(worse, ("noisy",)) + 0.05
    with pytest.raises(HeadError, match="features of 2 layers, found 1"):
        both.scores([X[test]])


def test_rows_that_neighbours_keep_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "MOST_BYTES", 64 * 4 * 150)
    train, test = drawn(0)
    found = fit_outliers({"features": X[train]}, Y[train], method="knn")
    assert found.judges[0].rows.shape == (150, 64)  # type: ignore[union-attr]
    assert found.flagged(found.scores([X[test]]), 0.1).mean() < 0.2
    assert auroc(found.scores([X[test]]), found.scores([X[OTHERS]])) > 0.75


@pytest.mark.parametrize("method", METHODS)
def test_it_is_saved_and_read_whole(method: str) -> None:
    train, test = drawn(0, 100)
    found = fit_outliers({"a": X[train], "b": X[train][:, :9]}, Y[train], method=method)  # type: ignore[arg-type]
    arrays, values = found.pack()
    again = Outliers.unpack(arrays, values)
    views = [X[test], X[test][:, :9]]
    np.testing.assert_array_equal(again.scores(views), found.scores(views))
    assert again.scores([np.empty((0, 64)), np.empty((0, 9))]).shape == (0,)
    for wrong in ({"method": "magic"}, {"layers": ["a", "b", "c"]}):
        with pytest.raises((HeadError, KeyError, IndexError)):
            Outliers.unpack(arrays, {**values, **wrong})
    with pytest.raises((HeadError, KeyError)):
        Outliers.unpack({**arrays, "calibration": arrays["calibration"] * np.nan}, values)


def test_few_items_are_said() -> None:
    train, test = drawn(0, 10)
    found = fit_outliers({"features": X[train]}, Y[train], method="knn")
    with pytest.raises(HeadError, match="needs 19 training items, and there are"):
        found.flagged(found.scores([X[test]]), 0.05)
    with pytest.raises(HeadError, match="two different training items"):
        fit_outliers({"features": X[:1]}, Y[:1], method="knn")
