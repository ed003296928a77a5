"""How often intervals hold the truth: 95 % of the time, or more where n is tiny.

The exact and the paired intervals are not simulated: every outcome is weighed by its probability.
For the others the bound is 93.5 % less three standard errors of the simulation;
``docs/intervals.md`` has the figures.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtri

from headstart.evaluation import proportion_interval, repeated_difference, repeated_mean
from headstart.evaluation.forecast import forecast
from headstart.evaluation.intervals import paired_limits
from headstart.evaluation.macro import balanced_accuracy, confusion_of, macro_f1
from headstart.evaluation.multi_label import evaluate_multi_label
from headstart.evaluation.regression import evaluate_regression

SIZES = (1, 3, 10, 20, 49, 50, 100, 200, 500, 1000, 5000)
SHARES = (0.5, 0.7, 0.9, 0.95, 0.99, 0.999, 1.0)


def bound(rounds: int) -> float:
    return 0.935 - 3 * float(np.sqrt(0.935 * 0.065 / rounds))


@pytest.mark.parametrize("n", SIZES)
def test_accuracy(n: int) -> None:
    right = np.arange(n + 1)
    if n > 1000:  # the others are as good as impossible
        right = _around(n)
    intervals = [proportion_interval(int(k), n) for k in right]
    low = np.array([i.low for i in intervals if i])
    high = np.array([i.high for i in intervals if i])
    for p in SHARES:
        inside = (low - 1e-12 <= p) & (p <= high + 1e-12)
        coverage = stats.binom.pmf(right, n, p)[inside].sum()
        assert coverage >= 0.95 - 1e-6, (n, p, coverage)
        if n >= 1000 and p <= 0.95:
            assert coverage <= 0.965, (n, p, coverage)


def _around(n: int) -> NDArray[np.int64]:
    spans = [np.arange(*stats.binom.interval(1 - 1e-9, n, p), dtype=int) for p in SHARES[:-1]]
    return np.unique(np.concatenate([*spans, np.arange(n - 50, n + 1)]))


@pytest.mark.parametrize("n", [10, 50, 200])
@pytest.mark.parametrize(
    "differ", [(0.0, 0.0), (0.01, 0.0), (0.02, 0.01), (0.05, 0.05), (0.2, 0.1)]
)
def test_paired_difference(n: int, differ: tuple[float, float]) -> None:
    first, second = differ
    most = [int(stats.binom.ppf(1 - 1e-7, n, p)) for p in differ]
    t, coverage = float(stats.t.ppf(0.975, n - 1)), 0.0
    for b in range(most[0] + 1):
        for c in range(min(most[1], n - b) + 1):
            low, high = paired_limits(b / n, c / n, n, t)
            if low - 1e-9 <= first - second <= high + 1e-9:
                rest = n - b - c
                coverage += stats.multinomial.pmf([b, c, rest], n, [*differ, 1 - first - second])
    assert coverage >= 0.935


def population(k: int, shares: object, recall: float, uneven: bool) -> NDArray[np.float64]:
    """Return a confusion matrix of shares, of which mistakes go to all other classes alike."""
    share = np.full(k, 1 / k)
    if shares == "few large, many small":
        share = 1 / np.arange(1, k + 1)
    elif isinstance(shares, tuple):
        share = np.array(shares)
    share = share / share.sum()
    recalls = 1 - (1 - recall) * np.linspace(0, 2, k) if uneven else np.full(k, recall)
    table = (share * (1 - recalls))[:, None] * (1 - np.eye(k)) / (k - 1)
    return table + np.diag(share * recalls)


CASES = [
    (2, 10, None),
    (2, 50, None),
    (2, 100, (0.95, 0.05)),
    (3, 60, (0.8, 0.15, 0.05)),
    (10, 50, None),
    (10, 500, "few large, many small"),
    (10, 5000, None),
    (50, 100, None),
    (200, 400, None),
    (200, 5000, "few large, many small"),
]


def class_means(
    k: int, n: int, shares: object, recall: float, uneven: bool, rounds: int
) -> tuple[float, float]:
    """Return the coverage of balanced accuracy and of macro F1."""
    rng = np.random.default_rng(k * n)
    table = population(k, shares, recall, uneven)
    f1 = 2 * np.diag(table) / (table.sum(0) + table.sum(1))
    recalls, cells = np.diag(table) / table.sum(1), table.ravel().cumsum() / table.sum()
    held = np.zeros(2)
    for _ in range(rounds):
        cell = np.searchsorted(cells, rng.random(n))
        found = confusion_of(cell // k, cell % k, k)
        occurs = found.support + found.guessed > 0
        truths = recalls[found.support > 0].mean(), f1[occurs].mean()
        for at, score in enumerate((balanced_accuracy(found), macro_f1(found))):
            assert score.interval is not None
            held[at] += score.interval.low - 1e-9 <= truths[at] <= score.interval.high + 1e-9
    return float(held[0] / rounds), float(held[1] / rounds)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n", "shares"), CASES)
def test_means_over_classes(k: int, n: int, shares: object) -> None:
    rounds = 200
    for recall, uneven in ((0.5, False), (0.9, False), (0.9, True), (0.99, False), (1.0, False)):
        for coverage in class_means(k, n, shares, recall, uneven, rounds):
            assert coverage >= bound(rounds), (recall, uneven, coverage)


def repetitions(
    count: int, n: int, p: float, gap: float, rounds: int, *, redrawn: bool
) -> tuple[float, float]:
    """Return the coverage of a mean and of a difference over repetitions.

    Items differ in difficulty and repetitions in quality; two heads share most of their mistakes.
    """
    rng = np.random.default_rng(count * n)
    effect, items, ratio = 0.05, n * 5 if redrawn else n, 0.25 if redrawn else None
    at = [ndtri(q) * np.sqrt(1 + effect**2) for q in (p, p - gap)]
    held = np.zeros(2)
    for _ in range(rounds):
        hard = np.sqrt(0.8) * rng.normal(size=items)
        heads: list[list[NDArray[np.bool_]]] = [[], []]
        for _ in range(count):
            rows = rng.permutation(items)[:n] if redrawn else np.arange(n)
            shared = np.sqrt(0.1) * rng.normal(size=n)
            for head, level in zip(heads, at, strict=True):
                own = np.sqrt(0.1) * rng.normal(size=n) + effect * rng.normal()
                head.append(hard[rows] + shared + own + level > 0)
        mean = repeated_mean(heads[0], test_train_ratio=ratio).interval
        difference = repeated_difference(heads[1], heads[0], test_train_ratio=ratio).interval
        assert mean is not None
        assert difference is not None
        held += (mean.low <= p <= mean.high, difference.low <= -gap <= difference.high)
    return float(held[0] / rounds), float(held[1] / rounds)


@pytest.mark.slow
@pytest.mark.parametrize("redrawn", [False, True])
@pytest.mark.parametrize("count", [2, 5, 10])
def test_repetitions(count: int, redrawn: bool) -> None:
    for n in (10, 50, 500):
        for p, gap in ((0.5, 0.05), (0.9, 0.03), (0.99, 0.0)):
            for coverage in repetitions(count, n, p, gap, 200, redrawn=redrawn):
                assert coverage >= bound(200), (n, p, coverage)


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 50, 1000])
def test_regression(n: int) -> None:
    rng, rounds, held = np.random.default_rng(n), 400, np.zeros(3)
    truths = np.sqrt(2 / np.pi) * 0.5, 0.5, 1 - 0.25 / 1.25
    for _ in range(rounds):
        guess = rng.normal(size=n)
        found = evaluate_regression(guess + 0.5 * rng.normal(size=n), guess, ["y"])
        scores = found.mean_absolute_error, found.root_mean_squared_error, found.r2
        for at, (score, truth) in enumerate(zip(scores, truths, strict=True)):
            assert score.interval is not None
            held[at] += score.interval.low <= truth <= score.interval.high
    assert (held / rounds >= bound(rounds)).all(), held / rounds


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 100, 1000])
def test_several_labels(n: int) -> None:
    rng, rounds, held = np.random.default_rng(n), 300, np.zeros(2)
    names, share, wrong = list("abcd"), np.array([0.5, 0.4, 0.3, 0.2]), 0.1
    both, given = share * (1 - wrong), share * (1 - wrong) + (1 - share) * wrong
    truths = 2 * both.sum() / (share + given).sum(), (2 * both / (share + given)).mean()
    for _ in range(rounds):
        truth = rng.random((n, 4)) < share
        guess = truth ^ (rng.random((n, 4)) < wrong)
        found = evaluate_multi_label(truth.astype(float), guess * 0.8 + 0.1, names)
        for at, score in enumerate((found.micro_f1, found.macro_f1)):
            assert score.interval is not None
            held[at] += score.interval.low <= truths[at] <= score.interval.high
    assert (held / rounds >= bound(rounds)).all(), held / rounds


def learning_curves(k: int, each: int, noise: float, rounds: int) -> tuple[float, float]:
    """Return how often the gain and the accuracy of twice the labels lie in their predictions.

    The learner is the nearest class mean of Gaussian classes; the truth is that of one head with as
    many labels as the last point, and of another with twice as many.
    """
    rng, width, held = np.random.default_rng(k * each), 10, np.zeros(2)

    def drawn(count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        y = np.repeat(np.arange(k), count)
        return centres[y] + noise * rng.normal(size=(len(y), width)), y

    def right(x: NDArray, y: NDArray, new: NDArray, truth: NDArray) -> NDArray[np.bool_]:
        means = np.stack([x[y == c].mean(axis=0) for c in range(k)])
        return ((new[:, None] - means) ** 2).sum(-1).argmin(1) == truth

    most = each * 4 // 5
    points = [*(s for s in (1, 2, 5, 10, 20, 50) if s < most), most]
    for _ in range(rounds):
        centres = rng.normal(size=(k, width))
        (x, y), (new, truth) = drawn(each), drawn(2000 // k)
        fold = np.concatenate([rng.permutation(each) % 5 for _ in range(k)])
        accuracies, counts = np.empty((len(points), 5)), []
        for repetition in range(5):
            out, rank = fold == repetition, np.full(len(y), len(y))
            for c in range(k):
                rows = rng.permutation(np.flatnonzero(~out & (y == c)))
                rank[rows] = np.arange(len(rows))
            counts.append(int(out.sum()))
            for at, shots in enumerate(points):
                rows = rank < shots
                accuracies[at, repetition] = right(x[rows], y[rows], x[out], y[out]).mean()
        ahead = forecast(np.array(points, dtype=float), accuracies, counts)
        now, then = (right(*drawn(m), new, truth).mean() for m in (most, 2 * most))
        for at, (score, real) in enumerate(((ahead.gain, then - now), (ahead.accuracy, then))):
            assert score.interval is not None
            held[at] += score.interval.low <= real <= score.interval.high
    return float(held[0] / rounds), float(held[1] / rounds)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "each", "noise"), [(2, 20, 2.0), (5, 30, 1.5), (10, 25, 2.0)])
def test_twice_the_labels(k: int, each: int, noise: float) -> None:
    """The bootstrap over repetitions missed in 2 of 8 trials."""
    for coverage in learning_curves(k, each, noise, 60):
        assert coverage >= bound(60)
