"""Which items to label next: against plain loops over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from headstart.core.errors import HeadError
from headstart.heads import fit_ridge
from headstart.heads.lda import fit_lda
from headstart.heads.suggesting import UNSURE, margins, take_next

X = load_digits().data.astype(np.float32)
Y = load_digits().target.astype(np.int64)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def farthest(pool: np.ndarray, labelled: np.ndarray, count: int) -> list[int]:
    """Greedy k-centre, as the book has it."""
    known, taken = list(unit(labelled)), []
    for _ in range(count):
        gap = [min(float(((a - b) ** 2).sum()) for b in known) for a in unit(pool)]
        for one in taken:
            gap[one] = -1
        taken.append(int(np.argmax(gap)))
        known.append(unit(pool)[taken[-1]])
    return taken


def test_k_centre_is_the_greedy_one() -> None:
    pool, labelled = X[:150], X[150:170]
    found = take_next(pool, 8, by="k-centre", labelled=labelled)
    assert found.rows.tolist() == farthest(pool, labelled, 8)
    assert (np.diff(found.distance) <= 1e-6).all()
    for row, distance, near in zip(found.rows, found.distance, found.near, strict=True):
        other = labelled[near] if near >= 0 else pool[found.rows[-1 - near]]
        gap = np.linalg.norm(unit(pool[row][None]) - unit(other[None]))
        assert gap == pytest.approx(distance, abs=1e-3)


def test_without_labels_the_first_is_the_middle() -> None:
    found = take_next(X[:150], 3, by="k-centre")
    mean = unit(X[:150]).mean(axis=0)
    assert found.rows[0] == int((unit(X[:150]) @ mean).argmax())
    assert np.isnan(found.distance[0])
    assert found.near[1] == -1


def test_margins_and_their_mix() -> None:
    head, _ = fit_lda(X[:300], Y[:300], 10)
    pool = X[300:900]
    p = head.predict_proba(pool)
    unsure = margins(head, p)
    top = np.sort(p, axis=1)
    np.testing.assert_allclose(unsure.value, top[:, -1] - top[:, -2], atol=1e-12)
    by_margin = take_next(pool, 7, by="margin", unsure=unsure)
    assert set(by_margin.rows) == set(np.argsort(unsure.value)[:7])
    mix = take_next(pool, 7, by="mix", unsure=unsure, labelled=X[:300])
    least = np.argsort(unsure.value, kind="stable")[: 7 * UNSURE]
    assert set(mix.rows) <= set(least)
    among = np.sort(least)
    assert mix.rows.tolist() == [among[i] for i in farthest(pool[among], X[:300], 7)]


def test_labels_and_numbers() -> None:
    several = np.stack([Y % 2, Y > 5], axis=1).astype(np.float64)
    head = fit_ridge(X[:200], several[:200], 2, task="multi-label").head
    head = head.with_thresholds(np.array([0.3, 0.5]))
    p = head.predict_proba(X[200:400])
    unsure = margins(head, p)
    row = int(unsure.value.argmin())
    assert abs(p[row, unsure.first[row]] - [0.3, 0.5][unsure.first[row]]) < 0.05
    numbers = fit_ridge(X[:200], Y[:200].astype(float), 1, task="regression").head
    with pytest.raises(HeadError, match="k-centre"):
        margins(numbers, numbers.predict(X[:5]))


def test_all_are_taken_once_where_few_are_left() -> None:
    pool = np.repeat(X[:3], 2, axis=0)
    found = take_next(pool, 10, by="k-centre", labelled=X[5:8])
    assert sorted(found.rows.tolist()) == list(range(6))


def test_typical_items_are_of_every_group_without_a_label_and_none_is_strange() -> None:
    generator = np.random.default_rng(0)
    centres = np.eye(6, 40) * 8 + 1
    sizes = (90, 70, 50, 40, 30, 25)
    of = np.repeat(np.arange(6), sizes)
    pool = (centres[of] + generator.normal(0, 0.4, (len(of), 40))).astype(np.float32)
    strange = generator.normal(0, 8, (4, 40)).astype(np.float32)
    labelled = (centres[[0, 2]] + generator.normal(0, 0.4, (2, 40))).astype(np.float32)
    found = take_next(np.concatenate([pool, strange]), 8, by="typical", labelled=labelled)
    assert (found.rows < len(pool)).all()
    assert of[found.rows][:4].tolist() == [1, 3, 4, 5]  # those without a label, the largest first
    assert found.stands_for is not None
    assert (found.stands_for[:4] >= 25).all()
    inside = pool[of == 1]
    middle = np.linalg.norm(inside - inside.mean(axis=0), axis=1)
    assert np.linalg.norm(pool[found.rows[0]] - inside.mean(axis=0)) < np.median(middle)


def test_an_item_alone_in_its_group_is_told_from_one_among_labelled_ones() -> None:
    labelled, pool = np.repeat(np.eye(3, 40)[:2], 6, axis=0), np.eye(3, 40)[[0, 2]]
    found = take_next(pool, 2, by="typical", labelled=labelled)
    assert found.stands_for is not None
    assert found.labelled is not None
    assert found.stands_for.tolist() == [1, 1]
    assert dict(zip(found.rows.tolist(), found.labelled > 0, strict=True)) == {0: True, 1: False}


@pytest.mark.parametrize(("n", "count"), [(1, 1), (5, 5), (40, 39), (3, 2)])
def test_typical_items_are_found_among_few_and_among_copies(n: int, count: int) -> None:
    for pool in (X[:n], np.repeat(X[:1], n, axis=0)):
        found = take_next(pool, count, by="typical", labelled=X[100:101])
        assert len(set(found.rows.tolist())) == count


def test_typical_items_gain_over_random_ones_of_few_labels() -> None:
    gains = []
    for draw in range(8):
        generator = np.random.default_rng(draw)
        order = generator.permutation(len(X))
        pool, test = order[:900], order[900:]
        taken = take_next(X[pool], 30, by="typical").rows
        chance = generator.permutation(len(pool))[:30]
        right = []
        for rows in (pool[taken], pool[chance]):
            head, _ = fit_lda(X[rows], Y[rows], 10)
            right.append((head.predict(X[test]) == Y[test]).mean())
        gains.append(right[0] - right[1])
    assert np.mean(gains) > 0.05
