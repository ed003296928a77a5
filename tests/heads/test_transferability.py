"""Transferability scores: what they reward, what leaves them unchanged, and a plain reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from headstart.core.errors import HeadError
from headstart.heads import h_score, log_evidence
from headstart.heads.transferability import rank_correlation


def blobs(signal: float, n: int = 120, d: int = 20, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres, y = rng.normal(size=(k, d)), np.arange(n) % k
    return signal * centres[y] + rng.normal(size=(n, d)), y


@pytest.mark.parametrize("score", [log_evidence, h_score])
def test_features_that_tell_classes_apart_score_higher(score) -> None:  # type: ignore[no-untyped-def]
    found = [score(*blobs(signal), 4) for signal in (0.0, 0.3, 1.0, 3.0)]
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.1


@pytest.mark.parametrize("shape", [(30, 8), (12, 40)])
def test_log_evidence_is_that_of_the_plain_formula(shape: tuple[int, int]) -> None:
    """The evidence of a Gaussian: N(y; 0, I / beta + F F' / alpha), at its maximum."""
    rng = np.random.default_rng(1)
    n = shape[0]
    x, y = rng.normal(size=shape), np.arange(n) % 2
    x[:, 0] += y
    best = []
    for label in (0, 1):
        target = (y == label).astype(float)
        values = []
        for a in np.geomspace(1e-2, 1e4, 120):
            kernel = np.eye(n) + x @ x.T / a  # times 1 / beta, whose best value is known
            quadratic = target @ np.linalg.solve(kernel, target)
            beta = n / quadratic
            sign, determinant = np.linalg.slogdet(kernel)
            assert sign > 0
            values.append(0.5 * (n * np.log(beta / (2 * np.pi)) - determinant - n) / n)
        best.append(max(values))
    assert log_evidence(x, y, 2) == pytest.approx(np.mean(best), abs=2e-3)


def test_turning_and_shifting_features_changes_no_h_score() -> None:
    x, y = blobs(1.0)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(20, 20)))[0]
    assert h_score(x @ turn + 5, y, 4) == pytest.approx(h_score(x, y, 4))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_rank_correlation_is_kendalls_tau(pairs: list[tuple[int, int]]) -> None:
    a, b = ([float(pair[i]) for pair in pairs] for i in (0, 1))
    found, wanted = rank_correlation(a, b), kendalltau(a, b).statistic
    assert (found is None) == bool(np.isnan(wanted))
    if found is not None:
        assert found == pytest.approx(wanted)


def test_two_backbones_have_no_rank_correlation() -> None:
    assert rank_correlation([1.0, 2.0], [1.0, 2.0]) is None


def test_one_class_is_refused() -> None:
    with pytest.raises(HeadError, match="two classes"):
        log_evidence(np.ones((4, 2)), [0, 0, 0, 0], 1)
