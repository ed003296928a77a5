"""Sets from held-out training rows: their coverage on new items, and when they are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import betabinom, binom
from sklearn.datasets import load_digits

from headstart.core.errors import HeadError
from headstart.evaluation.sets import ClassSets, LabelSets, ValueSets
from headstart.heads.abstaining import calibrated
from headstart.heads.base import Head
from headstart.heads.contract import Trained, TrainingRows
from headstart.heads.held_out import Calibration
from headstart.heads.registry import head_kind
from headstart.heads.table import automatic_heads

DIGITS = load_digits()
X = DIGITS.data.astype(np.float32)
Y = DIGITS.target.astype(np.int64)
NAMES = [str(i) for i in range(10)]


def trained(name: str, rows: TrainingRows, **options: object) -> Trained:
    kind = head_kind(name)
    settings = kind.settings(options)
    return calibrated(kind.fit(rows, settings), rows, kind, settings)


def drawn(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(X))
    return order[:n], order[n:]


def rows_of(train: np.ndarray, **more: object) -> TrainingRows:
    keys = [f"item {i}" for i in train]
    return TrainingRows(X[train], Y[train], 10, keys=keys, **more)  # type: ignore[arg-type]


def said(made: Trained, test: np.ndarray, **asked: object) -> ClassSets:
    assert made.calibration is not None
    p = made.head.predict_proba(X[test])
    keys = [f"item {i}" for i in test]
    found = made.calibration.sets(p, keys=keys, names=NAMES, **asked)  # type: ignore[arg-type]
    assert isinstance(found, ClassSets)
    return found


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("lda", "lac"),
        pytest.param("lda", "aps", marks=pytest.mark.slow),
        pytest.param("prototype", "raps", marks=pytest.mark.slow),
    ],
)
def test_coverage_over_a_hundred_draws(name: str, score: str) -> None:
    """One draw varies as held-out and new items do together; the mean of all hardly does."""
    coverage, n, hits, inside = 0.9, 300, [], 0
    for seed in range(100):
        train, test = drawn(seed, n)
        found = said(trained(name, rows_of(train)), test, coverage=coverage, score=score)
        hit = sum(Y[i] in each for i, each in zip(test, found.members, strict=True))
        hits.append(hit / len(test))
        rank = int(np.ceil((n + 1) * coverage))
        low, high = betabinom.interval(0.95, len(test), rank, n + 1 - rank)
        inside += low <= hit <= high
    assert abs(np.mean(hits) - coverage) < 0.01
    assert inside >= binom.ppf(0.001, 100, 0.95)


@pytest.mark.parametrize("name", ["auto", *automatic_heads("classification")])
def test_few_rows_are_judged_beside_a_twentieth_of_them_without_a_new_choice(name: str) -> None:
    train, test = drawn(3, 200)
    rows, kind = rows_of(train), head_kind(name)
    settings = kind.settings({})
    made = kind.fit(rows, settings)
    again = made.again or (lambda some: kind.fit(some, fixed).head)
    fixed = kind.with_chosen(settings, made.chosen)
    heads: list[tuple[TrainingRows, Head]] = []

    def spy(some: TrainingRows) -> Head:
        heads.append((some, again(some)))
        return heads[-1][1]

    fine = calibrated(replace(made, again=spy), rows, kind, settings).calibration
    assert fine is not None
    assert len(heads) == 20
    assert min(len(some.y) for some, _ in heads) >= 0.94 * len(train)  # type: ignore[arg-type]
    held = {  # what each head says of the rows that it did not see, at the temperature of the head
        int(i): head.with_temperature(made.head.temperature).predict_proba(X[[i]])[0, Y[i]]
        for some, head in heads
        for i in set(train) - {int(key.split()[1]) for key in some.keys}  # type: ignore[union-attr]
    }
    np.testing.assert_allclose(fine.scores["lac"], [1 - held[int(i)] for i in train], atol=1e-6)
    many = rows_of(np.concatenate([train, test])[:1001])
    made = kind.fit(many, settings)
    calibrated(replace(made, again=lambda _: pytest.fail("of many rows")), many, kind, settings)


def test_where_a_twentieth_cannot_be_held_out_what_the_choice_has_left_serves() -> None:
    rows, kind = rows_of(drawn(3, 100)[0]), head_kind("linear")
    settings = kind.settings({})
    made = kind.fit(rows, settings)

    def refuse(_: TrainingRows) -> Head:
        raise HeadError("one class is left")

    found = calibrated(replace(made, again=refuse), rows, kind, settings)
    p = made.held_out_probabilities
    assert p is not None
    assert found.calibration is not None
    np.testing.assert_allclose(
        found.calibration.scores["lac"], 1 - p[np.arange(len(p)), np.asarray(rows.y)]
    )


def test_a_coverage_of_every_class() -> None:
    share = []
    for seed in range(20):
        train, test = drawn(seed, 600)
        found = said(trained("prototype", rows_of(train)), test, coverage=0.9, by_class=True)
        measured = found.measured(Y[test], NAMES)
        assert measured.by_class
        share.append([row.covered.value for row in measured.rows])
    by_class = np.mean(share, axis=0)
    assert by_class.min() > 0.87  # of 1,200 held-out items each
    marginal = []
    for seed in range(8):
        train, test = drawn(seed, 600)
        found = said(trained("prototype", rows_of(train)), test, coverage=0.9)
        marginal.append([r.covered.value for r in found.measured(Y[test], NAMES).rows])
    assert np.mean(marginal, axis=0).min() < by_class.min()  # else it would show nothing


def test_too_few_items_are_said_and_no_set_of_everything_is_returned() -> None:
    train, test = drawn(0, 60)
    made = trained("lda", rows_of(train))
    with pytest.raises(HeadError, match=r"needs 99 held-out training items.* there are 60"):
        said(made, test, coverage=0.99)
    with pytest.raises(HeadError, match=r"for '[0-9]'.*omit by_class=True"):
        said(made, test, coverage=0.95, by_class=True)


@pytest.mark.parametrize(("by_class", "told"), [(True, "for items with 'a'"), (False, "")])
def test_too_few_items_of_labels_are_said_of_what_was_asked(by_class: bool, told: str) -> None:
    truth = (np.arange(60)[:, None] % 3 == np.arange(3)).astype(np.int64)
    kept = Calibration("multi-label", np.arange(60), truth, {"probability": truth * 0.5 + 0.2})
    with pytest.raises(HeadError) as error:
        kept.sets(np.full((2, 3), 0.5), coverage=0.99, by_class=by_class, names=["a", "b", "c"])
    assert told in str(error.value)
    for of_class in ("omit by_class=True", "in all ("):
        assert (of_class in str(error.value)) is by_class


def test_a_head_that_gives_held_out_items_no_chance_is_refused() -> None:
    train, _ = drawn(0, 60)
    units, truth = np.arange(60), Y[train]
    hopeless = Calibration(
        "classification", units, truth, {name: np.ones(60) for name in ("lac", "aps", "raps")}
    )
    with pytest.raises(HeadError, match="every class would be in every set"):
        hopeless.sets(np.full((3, 10), 0.1), coverage=0.9)


def test_copies_promise_no_more_than_the_items_they_repeat() -> None:
    train, test = drawn(0, 40)
    made = trained("lda", rows_of(np.repeat(train, 20)))
    with pytest.raises(HeadError, match="there are 40, which promise"):
        said(made, test, coverage=0.99)


def test_items_of_one_group_count_once_and_are_held_out_together() -> None:
    """Each group is shifted on its own: items of a new one are covered, as they are by group."""
    rng = np.random.default_rng(0)
    hits: list[float] = []
    for _ in range(40):
        group = np.repeat(np.arange(30), 12)
        shift = rng.normal(size=(60, 6)) * 1.5
        y = rng.integers(0, 2, 720)
        x = rng.normal(size=(720, 6)) + 2 * y[:, None]
        x[:360] += shift[group]
        x[360:] += shift[30 + group]
        rows = TrainingRows(x[:360], y[:360], 2, groups=[f"g{i}" for i in group])
        made = trained("lda", rows)
        assert made.calibration is not None
        found = made.calibration.sets(made.head.predict_proba(x[360:]), coverage=0.9)
        hits.append(float(found.measured(y[360:], ["a", "b"]).covered.value))
        with pytest.raises(HeadError, match=r"there are (28|29|30),"):
            made.calibration.sets(np.full((1, 2), 0.5), coverage=0.99)
    assert 0.88 < np.mean(hits) < 0.95


@pytest.mark.parametrize("rule", ["balanced", None])
def test_a_balanced_threshold_is_held_out_too(rule: str | None) -> None:
    from headstart.heads.thresholds import with_thresholds

    rng, kind = np.random.default_rng(0), head_kind("linear")
    hits = []
    for _ in range(10):
        y = (rng.random(1400) < 0.15).astype(np.int64)
        x = rng.normal(size=(1400, 4)) + 1.2 * y[:, None]
        rows = TrainingRows(x[:400], y[:400], 2)
        settings = kind.settings({})
        made = kind.fit(rows, settings)
        made = with_thresholds(made, rows, "balanced" if rule else "auto")
        made = calibrated(made, rows, kind, settings)
        assert made.calibration is not None
        found = made.calibration.sets(made.head.predict_proba(x[400:]), coverage=0.9)
        hits.append(found.measured(y[400:], ["a", "b"]).covered.value)
    assert 0.88 < np.mean(hits) < 0.92


def test_labels_are_decided_one_by_one() -> None:
    rng = np.random.default_rng(0)
    members = np.stack([Y % 2, Y > 6, Y == 3], axis=1).astype(np.float64)
    shares = {False: [], True: []}
    for _ in range(10):
        train, test = drawn(int(rng.integers(1000)), 700)
        rows = TrainingRows(X[train], members[train], 3, task="multi-label")
        made = trained("ridge", rows)
        assert made.calibration is not None
        p = made.head.predict_proba(X[test])
        for by_class in (False, True):
            found = made.calibration.sets(p, coverage=0.95, by_class=by_class)
            assert isinstance(found, LabelSets)
            measured = found.measured(members[test], ["odd", "large", "three"])
            shares[by_class].append([row.covered.value for row in measured.rows])
    for found_shares in shares.values():
        np.testing.assert_allclose(np.mean(found_shares, axis=0), 0.95, atol=0.02)


@pytest.mark.parametrize("targets", [1, 2])
def test_intervals_hold_the_truth(targets: int) -> None:
    rng = np.random.default_rng(0)
    hits, weight = [], rng.normal(size=(8, targets))
    for _ in range(30):
        x = rng.normal(size=(500, 8))
        y = x @ weight + rng.standard_t(3, size=(500, targets)) * [1, 10][:targets]
        rows = TrainingRows(x[:150], y[:150], targets, task="regression")
        made = trained("ridge", rows)
        assert made.calibration is not None
        held = made.head.predict(x[150:])
        found = made.calibration.sets(held, coverage=0.9, rows=x[150:])
        assert isinstance(found, ValueSets)
        told = found.measured(y[150:], ["a", "b"][:targets])
        hits.append([row.covered.value for row in told.rows])
    np.testing.assert_allclose(np.mean(hits, axis=0), 0.9, atol=0.02)
    with pytest.raises(HeadError, match="numbers have none"):
        made.calibration.sets(held, coverage=0.9, by_class=True, rows=x[150:])


def test_it_is_saved_and_read_whole() -> None:
    train, _ = drawn(0, 120)
    made = trained("lda", rows_of(train)).calibration
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    numbers = trained("ridge", TrainingRows(x, x[:, 0], 1, task="regression")).calibration
    assert made is not None
    assert numbers is not None
    again = Calibration.unpack(*made.pack())
    np.testing.assert_array_equal(again.scores["lac"], made.scores["lac"])
    second = Calibration.unpack(*numbers.pack())
    asked = {"coverage": 0.8, "rows": x}
    first = numbers.sets(np.zeros((60, 1)), **asked)  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        second.sets(np.zeros((60, 1)), **asked).low,  # type: ignore[arg-type, union-attr]
        first.low,  # type: ignore[union-attr]
    )
    arrays, values = made.pack()
    for wrong in (
        {**arrays, "units": arrays["units"][:5]},
        {**arrays, "score.lac": arrays["score.lac"].astype(np.float32)},
        {**arrays, "score.lac": np.full(len(train), np.nan)},
    ):
        with pytest.raises((HeadError, KeyError, ValueError)):
            Calibration.unpack(wrong, values)


def test_why_nothing_is_kept() -> None:
    train, _ = drawn(0, 80)
    rows, kind = rows_of(train), head_kind("lda")
    made = kind.fit(rows, kind.settings({}))
    never = calibrated(made, rows, kind, kind.settings({}), rule="never")
    assert never.calibration is None
    assert "never" in never.uncalibrated
    slow = head_kind("mlp")
    skipped = calibrated(made, rows, slow, slow.settings({}))
    assert skipped.calibration is None
    assert "abstain='always'" in skipped.uncalibrated
    one_each = np.array([int(np.flatnonzero(c == Y)[0]) for c in range(10)])
    none = trained("lda", rows_of(one_each))
    assert none.calibration is None
    assert "no training item can be held out" in none.uncalibrated
