"""The head that chooses itself: what wins inside the training rows, and with few labels what is
known to.

The favourite is logistic regression. Ridge, LDA and prototypes are trained in the folds in which
logistic regression chooses its penalty, and judged on the same held-out items. A rival is taken if
it is probably the better head, by its log loss where items are few and by its accuracy where they
are many: from ten items a difference in accuracy says next to nothing, from a thousand everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from headstart.core.division import Folds, make_folds, require_two_classes_beside
from headstart.core.errors import ConfigError
from headstart.core.records import Score
from headstart.core.wording import count, format_percent, listed
from headstart.evaluation.intervals import proportion_interval
from headstart.evaluation.targets import FloatArray, as_labels, as_weights, require_two_classes
from headstart.heads.base import Head
from headstart.heads.calibration import calibration_rows, fit_temperature
from headstart.heads.contract import HeadKind, Trained, TrainingRows
from headstart.heads.copies import keep_together
from headstart.heads.features import Features, as_rows
from headstart.heads.many_classes import search_takes_too_long
from headstart.heads.options import AutoOptions
from headstart.heads.prepared import Preparation, behind, shrunk_preparation
from headstart.heads.source import StreamedFeatures
from headstart.heads.table import automatic_heads, head_kind

FAVOURITE_LEAD = 0.005
"""By how much the favourite is ahead of a rival before anything is measured (mean)."""
DEVIATION = 0.005
"""How far accuracies differ otherwise than log losses let expect (standard deviation)."""
ACCURACY_A_NAT = 0.5
"""What a gain of one nat in held-out log loss is worth in accuracy."""
NATS = 0.1
"""How much the log losses of two heads differ in general (standard deviation)."""
_MOST_WORK = 20e9  # products of one decomposition
_MOST_LOGITS = 10_000_000
_TINY = 1e-300  # what an uncalibrated probability is at least
_LEAST = 1e-9  # probability; one item that a head is sure of being otherwise does not decide


@dataclass(frozen=True, eq=False)
class _Tried:
    """One head and what it says of items that it was not trained on.

    Attributes:
        kind: which.
        settings: its options.
        probabilities: ``(n, k)``, held out; None: nothing could be.
        trained: on all rows; None: not yet.
    """

    kind: HeadKind
    settings: Any
    probabilities: np.ndarray | None
    trained: Trained | None = None


def choose_head(rows: TrainingRows, options: AutoOptions) -> Trained:
    """Train the head that wins inside the training rows.

    Up to ``options.few`` items a class, every row is scaled to unit length and every feature by a
    shrunk deviation (:mod:`headstart.heads.prepared`), and logistic regression has a prior on its
    penalty (:mod:`headstart.heads.rules`). Above, heads are trained as they are by name.

    The comparison is left out, and the favourite taken, where nothing can be held out, where the
    features are read from disk, and where a rival would take longer than the favourite.

    Args:
        rows: training rows.
        options: what to choose from, and how.

    Returns:
        The head; its name as ``chosen["head"]`` with what that head chose; as ``details`` the
        held-out accuracy of each ``heads``, the number of ``folds`` and of items ``each`` class
        has; one note that says which head it is and why.

    Raises:
        ConfigError: a head to choose from does not exist, or does not classify.
        HeadError: if the input is invalid, or fewer than two classes occur.
    """
    kinds = _kinds(options, rows.task)
    if rows.task != "classification":
        alone = _settings(kinds[0], options, few=False)
        return _named(kinds[0].fit(rows, alone), kinds[0], alone, ())
    features = as_rows(rows.x)
    labels = as_labels(rows.y, len(features), rows.n_classes)
    present = require_two_classes(labels)
    together = keep_together(labels, features, keys=rows.keys, names=rows.names)
    rows = replace(rows, x=features, keys=together.keys)
    each = _items_of_a_class(labels, together.keys.contents)
    few = each <= options.few and not isinstance(features, StreamedFeatures)
    preparation: Preparation | None = None
    if few:
        array = np.asarray(features)
        preparation = shrunk_preparation(array, as_weights(rows.weights, len(array)))
        rows = replace(rows, x=preparation(array))
    favourite = kinds[0]
    settings = _settings(favourite, options, few)
    trained = favourite.fit(rows, settings)
    rivals, reason = kinds[1:], _no_comparison(features, len(present), rows.n_classes)
    divided = None
    if reason is None and rivals:
        divided = make_folds(
            labels, options.folds, seed=rows.seed, keys=rows.keys, groups=rows.groups
        )
        reason = None if divided else "no item can be held out"
    first = _Tried(favourite, settings, trained.held_out_probabilities, trained)
    tried = [first]
    if divided is not None:
        require_two_classes_beside(labels, divided)
        if first.probabilities is None:
            tried = [_in_folds(favourite, settings, rows, divided)]
            tried[0] = replace(tried[0], trained=trained)
        tried += [_in_folds(k, _settings(k, options, few), rows, divided) for k in rivals]
    taken = tried[_winner(tried, labels, rows.weights)]
    final, taken = (taken.trained, taken) if taken.trained else _calibrated(taken, rows, labels)
    if preparation is not None:
        final = replace(final, head=behind(preparation, final.head))
    return _described(final, taken, tried, rows, labels, each, few, divided, reason, together.notes)


def _kinds(options: AutoOptions, task: str) -> list[HeadKind]:
    """Return the heads to choose from; those that know no class weights where there are some."""
    named = automatic_heads(task) if options.heads is None else options.heads
    kinds = [head_kind(name) for name in named]
    wrong = [kind.name for kind in kinds if task not in kind.tasks or kind.name == "auto"]
    if wrong or not kinds:
        raise ConfigError(
            (f"heads must name heads for {task}, not {listed(wrong) or 'nothing'}",),
        )
    if options.class_weight is not None:
        kinds = [kind for kind in kinds if "class_weight" in kind.option_names] or kinds[:1]
    return kinds


def _settings(kind: HeadKind, options: AutoOptions, few: bool) -> Any:
    shared = {"class_weight": options.class_weight, "device": options.device}
    own: dict[str, Any] = {"folds": options.folds}
    if options.coarse:
        own |= kind.coarse
    if few:
        own |= {"standardise": False, **kind.few}
        own.pop("grid", None)
    return kind.settings({}, **shared, **own)


def _items_of_a_class(labels: np.ndarray, contents: Sequence[str]) -> float:
    """Return the median number of different items of the classes that occur."""
    content = np.unique(np.asarray(contents), return_inverse=True)[1]
    pairs = np.unique(np.stack([labels, content]), axis=1)
    return float(np.median(np.unique(pairs[0], return_counts=True)[1]))


def _no_comparison(x: Features, present: int, n_classes: int) -> str | None:
    """Return why heads are not compared; None where they are."""
    n, d = x.shape
    if isinstance(x, StreamedFeatures):
        return "the features are read from disk"
    small = min(n, d)
    work = n * d * small + small**3
    if search_takes_too_long((n, d), n_classes) or n * present > _MOST_LOGITS or work > _MOST_WORK:
        return "with so many items, features and classes that would take longer than the training"
    return None


def _in_folds(kind: HeadKind, settings: Any, rows: TrainingRows, divided: Folds) -> _Tried:
    """Train a head beside every fold, and keep what it says of the fold."""
    held_out = np.zeros((len(divided.of), rows.n_classes))
    for train, held in divided.splits():
        head: Head = kind.fit(rows.take(train), settings).head
        held_out[held] = head.predict_proba(rows.x[held])  # type: ignore[index]
    return _Tried(kind, settings, held_out)


def _winner(tried: Sequence[_Tried], labels: np.ndarray, weights: np.ndarray | None) -> int:
    """Return the position of the head that is probably the best.

    Of few items the log loss of calibrated probabilities says more than how many are right. What it
    lets expect of a rival's lead in accuracy, less ``FAVOURITE_LEAD``, is the mean of that lead
    before it is measured, with ``DEVIATION``; it is measured with the standard error of the paired
    difference. The rival with the highest posterior mean wins if that is above 0.
    """
    share = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    right = [_right(one, labels) for one in tried]
    likely = [_log_likelihood(one, labels, weights) for one in tried]
    posterior = [0.0]
    for rival, logs in zip(right[1:], likely[1:], strict=True):
        assert rival is not None
        assert right[0] is not None
        gain = _shrunk(logs - likely[0], share, 0.0, NATS)
        expected = ACCURACY_A_NAT * gain - FAVOURITE_LEAD
        posterior.append(_shrunk(rival - right[0], share, expected, DEVIATION))
    return int(np.argmax(posterior))


def _shrunk(difference: np.ndarray, share: np.ndarray, before: float, deviation: float) -> float:
    """Return the posterior mean of a paired difference that is normal before it is measured."""
    mean = float(share @ difference) / float(share.sum())
    error = float(share @ (difference - mean) ** 2) / float(share.sum()) ** 2
    if error <= 0:  # every item says the same: what was expected stays
        return before
    known, found = 1 / deviation**2, 1 / error
    return (mean * found + before * known) / (known + found)


def _log_likelihood(one: _Tried, labels: np.ndarray, weights: np.ndarray | None) -> FloatArray:
    """Return the log probability of the class of each held-out item, calibrated, ``(n,)``."""
    if one.probabilities is None:
        return np.zeros(len(labels))
    factor = _temperature(one.probabilities, labels, weights)
    logits = np.log(np.maximum(one.probabilities, _TINY)) / factor
    own = logits[np.arange(len(labels)), labels] - logsumexp(logits, axis=1)
    return np.asarray(np.maximum(own, np.log(_LEAST)))


def _temperature(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> float:
    """Return what calibrates held-out probabilities; 1 where every class was unknown."""
    judges = calibration_rows(*probabilities.shape)
    if not probabilities[judges, labels[judges]].any():
        return 1.0
    some = None if weights is None else np.asarray(weights)[judges]
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities[judges])
    return fit_temperature(logits, labels[judges], some, few=True)


def _calibrated(taken: _Tried, rows: TrainingRows, labels: np.ndarray) -> tuple[Trained, _Tried]:
    """Train a rival on all rows, its probabilities calibrated on what was held out, these too."""
    assert taken.probabilities is not None
    final = taken.kind.fit(rows, taken.settings)
    factor = _temperature(taken.probabilities, labels, rows.weights)
    held_out = softmax(np.log(np.maximum(taken.probabilities, _TINY)) / factor, axis=1)
    final = replace(final, head=final.head.with_temperature(final.head.temperature * factor))
    return final, replace(taken, probabilities=held_out)


def _right(one: _Tried, labels: np.ndarray) -> np.ndarray | None:
    if one.probabilities is None:
        return None
    return np.asarray(one.probabilities.argmax(axis=1) == labels, dtype=np.float64)


def _named(
    trained: Trained, kind: HeadKind, settings: Any, notes: Sequence[str], few: bool = False
) -> Trained:
    chosen = {"head": kind.name, **trained.chosen}
    again = partial(_again, kind, kind.with_chosen(settings, trained.chosen), few)
    return replace(trained, chosen=chosen, notes=(*notes, *trained.notes), again=again)


def _again(kind: HeadKind, settings: Any, few: bool, rows: TrainingRows) -> Head:
    """Train the head that was chosen on other rows."""
    if not few:
        return kind.fit(rows, settings).head
    array = np.asarray(as_rows(rows.x))
    preparation = shrunk_preparation(array, as_weights(rows.weights, len(array)))
    return behind(preparation, kind.fit(replace(rows, x=preparation(array)), settings).head)


def _described(
    final: Trained,
    taken: _Tried,
    tried: Sequence[_Tried],
    rows: TrainingRows,
    labels: np.ndarray,
    each: float,
    few: bool,
    divided: Folds | None,
    reason: str | None,
    notes: Sequence[str],
) -> Trained:
    """Return what was trained with what is said about the choice."""
    share = np.ones(len(labels)) if rows.weights is None else np.asarray(rows.weights)
    found: dict[str, float] = {}
    for one in tried:
        right = _right(one, labels)
        if right is not None:
            found[one.kind.name] = float(share @ right) / float(share.sum())
    held_out = final.held_out
    if divided is not None and taken is not tried[0]:
        value, n = found[taken.kind.name], len(labels)
        held_out = Score(value, proportion_interval(value * n, n))
    details: Mapping[str, Any] = {
        **final.details,
        "heads": found,
        "each": each,
        "folds": 0 if divided is None else divided.count,
    }
    said = _why(taken, tried, found, each, few, divided, reason)
    named = _named(final, taken.kind, taken.settings, (*notes, said), few)
    return replace(
        named, held_out=held_out, held_out_probabilities=taken.probabilities, details=details
    )


def _why(
    taken: _Tried,
    tried: Sequence[_Tried],
    found: Mapping[str, float],
    each: float,
    few: bool,
    divided: Folds | None,
    reason: str | None,
) -> str:
    """Return the sentence that says which head it is, and why."""
    scaled = " on rows of unit length" if few else ""
    start = f"head: {taken.kind.name}{scaled}"
    items = count(round(each), "label")
    if len(tried) == 1 or divided is None:
        alone = (
            "the only head to choose from" if reason is None else f"heads not compared: {reason}"
        )
        return f"{start} ({items} per class; {alone})"
    scores = ", ".join(
        f"{name} {format_percent(value)}"
        for name, value in sorted(found.items(), key=lambda pair: -pair[1])
    )
    if taken is tried[0]:
        why = "no other is probably better"
    else:
        why = f"probably better than {tried[0].kind.name}"
    return (
        f"{start}: {why} by log loss and accuracy on items held out of the training split in"
        f" {divided.count} folds ({scores}; {items} per class); head='linear' or another name"
        " fixes it"
    )


__all__ = ["choose_head"]
