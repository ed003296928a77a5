"""Heads of rows in parts are those of all rows together, however they are divided."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.cache import stored_parts
from headstart.core.errors import HeadError, StoreError
from headstart.heads import (
    ArrayPart,
    fit_lda,
    fit_logistic,
    fit_ridge,
    lda_over,
    logistic_over,
    ridge_over,
)
from headstart.heads import partitioned_logistic as logistic
from headstart.heads.merges import Moments, merged
from headstart.store import Store

ROWS, WIDTH = 240, 9
CLOSE = 1e-6


def rows_of(classes: int, seed: int = 0, *, dtype: Any = np.float32) -> tuple[Any, Any]:
    """Return overlapping classes far from the origin, with a dead and two collinear columns."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, ROWS)
    y[:classes] = np.arange(classes)
    x = random.normal(size=(ROWS, WIDTH)) + random.normal(size=(classes, WIDTH))[y] + 30.0
    x[:, 3] = 5.0
    x[:, 5] = 2 * x[:, 4] + 0.01 * random.normal(size=ROWS)
    return x.astype(dtype), y


def divided(x: Any, y: Any, cuts: Sequence[int]) -> list[ArrayPart]:
    """Return parts, some of which may be empty."""
    at = np.sort(np.array(cuts, dtype=np.int64))
    return [ArrayPart(a, b) for a, b in zip(np.split(x, at), np.split(y, at), strict=True)]


CUTS = st.lists(st.integers(0, ROWS), max_size=8)
CLASSES = st.sampled_from([2, 3, 5])


def apart(one: Any, other: Any) -> float:
    """Return the largest difference of two heads, in all that they are made of."""
    names = ("weight", "bias", "mean", "scale")
    found = [np.abs(getattr(one, name) - getattr(other, name)).max() for name in names]
    assert (one.present == other.present).all()
    return float(max(*found, abs(one.temperature - other.temperature)))


@settings(max_examples=25, deadline=None)
@given(CUTS, CLASSES, st.integers(0, 5), st.booleans(), st.booleans())
def test_lda(cuts: list[int], classes: int, seed: int, standardise: bool, double: bool) -> None:
    x, y = rows_of(classes, seed, dtype=np.float64 if double else np.float32)
    whole, shrinkage = fit_lda(x, y, classes, standardise=standardise)
    head, found = lda_over(divided(x, y, cuts), classes, standardise=standardise)
    assert abs(found - shrinkage) < CLOSE
    assert apart(head, whole) < CLOSE
    assert head.method == whole.method == "lda"


@settings(max_examples=15, deadline=None)
@given(CUTS, CLASSES, st.integers(0, 5), st.booleans())
def test_ridge(cuts: list[int], classes: int, seed: int, standardise: bool) -> None:
    x, y = rows_of(classes, seed)
    whole = fit_ridge(x, y, classes, standardise=standardise)
    found = ridge_over(divided(x, y, cuts), classes, standardise=standardise)
    assert found.chosen == whole.chosen
    assert np.abs(found.error - whole.error).max() < CLOSE
    assert (found.accuracy == whole.accuracy).all()
    assert apart(found.head, whole.head) < CLOSE


@pytest.mark.parametrize("small", [True, False])
@settings(max_examples=8, deadline=None)
@given(CUTS, CLASSES, st.integers(0, 3))
def test_logistic_path(small: bool, cuts: list[int], classes: int, seed: int) -> None:
    x, y = rows_of(classes, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic, "is_small", lambda *_: small)
        grid = (0.01, 1.0)
        found = logistic_over(divided(x, y, cuts), classes, grid=grid, tolerance=1e-10)
    for c, head, gradient in zip(found.values, found.heads, found.gradients, strict=True):
        whole, reached = fit_logistic(x, y, classes, C=c, tolerance=1e-10)
        assert reached.reached
        assert gradient <= 1e-10
        assert apart(head, whole) < CLOSE


@settings(max_examples=30, deadline=None)
@given(CUTS, st.permutations(range(4)))
def test_moments_do_not_depend_on_the_order_of_the_parts(cuts: list[int], order: list[int]) -> None:
    x, y = rows_of(3)
    x = x.astype(np.float64) + 1e6  # cancellation would show
    parts = divided(x, y, cuts)
    mixed = [parts[i % len(parts)] for i in order if i < len(parts)]
    mixed += [part for i, part in enumerate(parts) if i not in order]
    found = merged(Moments.of(part, 3) for part in mixed)
    assert found.total == ROWS
    assert np.allclose(found.mean, x.mean(axis=0), rtol=1e-12)
    assert np.allclose(found.squares / ROWS, x.var(axis=0), rtol=1e-7, atol=1e-9)


def test_an_absent_class_is_absent() -> None:
    x, y = rows_of(3)
    y = np.where(y == 1, 0, y)
    parts = divided(x, y, [70, 100])
    for head in (
        lda_over(parts, 4)[0],
        ridge_over(parts, 4).head,
        logistic_over(parts, 4).heads[0],
    ):
        assert head.present.tolist() == [True, False, True, False]
        probabilities = np.asarray(head.predict_proba(x))
        assert (probabilities[:, [1, 3]] == 0).all()
        assert (probabilities.argmax(axis=1) == y).mean() > 0.6


@pytest.mark.parametrize("fit", [lda_over, ridge_over, logistic_over])
def test_faults_are_said_in_one_line(fit: Any) -> None:
    x, y = rows_of(3)
    for parts, said in (
        ([], "at least one part"),
        ([ArrayPart(x[:0], y[:0])], "at least two classes"),
        ([ArrayPart(x, np.zeros(ROWS, np.int64))], "at least two classes, found 1"),
        ([ArrayPart(x, y + 1)], "class indices from 0 to 2"),
        ([ArrayPart(x, y), ArrayPart(x[:, :4], y)], "9 and 4 features"),
        ([ArrayPart(x, y), ArrayPart(np.where(x == x[5, 5], np.nan, x), y)], "NaN or infinity"),
    ):
        with pytest.raises(HeadError, match=said) as caught:
            fit(parts, 3)
        assert "\n" not in str(caught.value)


def stored(folder: Path, x: Any) -> tuple[Any, list[str]]:
    """Put rows into a store, in several shards."""
    space = Store(folder).space({"of": "rows"})
    ids = [f"{i:032x}" for i in range(len(x))]
    for start in range(0, len(x), 50):
        chosen = slice(start, start + 50)
        space.append(ids[chosen], {"features": x[chosen]})
    return space, ids


def test_rows_of_a_store_are_read_part_by_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.store import FeatureSet

    x, y = rows_of(3)
    space, ids = stored(tmp_path, x)
    parts = stored_parts(space, ids, y, rows=64)
    assert [len(part) for part in parts] == [64, 64, 64, 48]
    assert len(pickle.dumps(parts[0])) < 64 * 40 + 2000  # ids and labels, no rows
    most = []
    ask = FeatureSet.__getitem__

    def getitem(rows: Any, key: Any) -> Any:
        found = ask(rows, key)
        most.append(len(found))
        return found

    monkeypatch.setattr(FeatureSet, "__getitem__", getitem)
    head, _ = lda_over(pickle.loads(pickle.dumps(parts)), 3)
    assert apart(head, fit_lda(x, y, 3)[0]) < CLOSE
    assert max(most) <= 64
    with pytest.raises(StoreError, match="do not belong together"):
        stored_parts(space, ids, y[1:])


@pytest.mark.slow
def test_processes_and_ray_add_up_to_the_same(tmp_path: Path) -> None:
    from headstart.runners import over_processes, over_ray

    x, y = rows_of(3)
    space, ids = stored(tmp_path, x)
    parts = stored_parts(space, ids, y, rows=40)
    kinds = [over_processes(2)]
    try:
        import ray  # noqa: F401

        kinds.append(over_ray(workers=2))
    except ImportError:
        pass
    for kind in kinds:
        with kind as over:
            assert apart(lda_over(parts, 3, over=over)[0], fit_lda(x, y, 3)[0]) < CLOSE
            assert apart(ridge_over(parts, 3, over=over).head, fit_ridge(x, y, 3).head) < CLOSE
            found = logistic_over(parts, 3, over=over, tolerance=1e-9)
            whole, _ = fit_logistic(x, y, 3, tolerance=1e-9)
            assert apart(found.heads[0], whole) < CLOSE
