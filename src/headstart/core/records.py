"""Frozen dataclasses that packages exchange: plain values only, no tensors, modules or files."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Precision = Literal["float32", "tf32", "bfloat16", "float16", "int8"]
"""The precision of a forward pass through a backbone. ``tf32`` is float32 but for products of
matrices and convolutions on CUDA, which keep ten bits; ``int8`` is that of a network which was
calibrated on training items."""
INT8: Precision = "int8"
Storage = Literal["float32", "float16", "int8"]
"""How feature rows are stored: float16 halves their size, int8 with a scale a row quarters it."""
IntervalMethod = Literal["exact", "wilson", "score", "jackknife", "groups", "t", "prediction"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval and what it rests on.

    Attributes:
        low, high: the bounds, in the unit of the score (accuracies are fractions in [0, 1]).
        level: the confidence level, usually 0.95.
        method: ``exact`` or ``wilson`` (a proportion of items), ``score`` (a mean over classes, or
            a paired difference on the same items), ``jackknife`` (other figures of items),
            ``groups`` (items of a group are alike), ``t`` (over repetitions) or ``prediction`` (of
            what has not been measured).
        n: the number of items; of groups for ``groups``, of repetitions for ``t`` and
            ``prediction``.
        items: the number of items where ``n`` is that of groups or repetitions.
    """

    low: float
    high: float
    level: float
    method: IntervalMethod
    n: int
    items: int | None = None


@dataclass(frozen=True)
class Score:
    """One figure and its interval; ``interval`` is None where there can be none (n < 2)."""

    value: float
    interval: Interval | None


ACCURACY = "accuracy"
FIELDS = {
    ACCURACY: "accuracy",
    "balanced accuracy": "balanced_accuracy",
    "mAP": "mean_average_precision",
    "R²": "r2",
}
"""What the scores of a record are called in JSON, by figure."""


@dataclass(frozen=True)
class NamedScore:
    """A score with what it is called and how it is read.

    Attributes:
        name: such as ``mAP`` or ``MAE``.
        score: the figure.
        unit: ``percent``: a share that is shown in per cent; ``number``: as it is.
        higher: whether more is better.
    """

    name: str
    score: Score
    unit: Literal["percent", "number"] = "percent"
    higher: bool = True


@dataclass(frozen=True)
class ClassScores:
    """One row of the per-class table. Fractions in [0, 1]; ``support`` is the number of items.

    What does not exist is NaN: the recall of a class without items, the precision of one that is
    never predicted, the F1 of one that is neither.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of the reliability curve: mean confidence against observed accuracy."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class CoverageRow:
    """What sets did for one class, label or target.

    Attributes:
        name: of the class, label or target.
        items: how many items.
        covered: the share of them whose truth is in its set or interval.
        size: mean number of classes in a set, share of items undecided, or mean width.
    """

    name: str
    items: int
    covered: Score
    size: float


@dataclass(frozen=True)
class SetScores:
    """What conformal sets, or intervals, of one chosen coverage did on one split.

    Attributes:
        coverage: what was chosen, a fraction.
        n: number of items.
        covered: the share of items, or of pairs of item and label or target, whose truth is in its
            set, with its interval.
        size: mean number of classes in a set, of undecided labels of an item, or mean width of an
            interval; NaN where targets differ.
        answered: share of items with a single answer: one class, or every label decided.
        empty: share of items for which nothing is plausible.
        by_class: whether the coverage was chosen for every class.
        rows: class by class, label by label or target by target; at most 500.
    """

    coverage: float
    n: int
    covered: Score
    size: float
    answered: float
    empty: float
    by_class: bool = False
    rows: tuple[CoverageRow, ...] = ()


@dataclass(frozen=True)
class Unlike:
    """How many items of a split are unlike anything that a head was trained on.

    Attributes:
        method: ``knn`` or ``mahalanobis``.
        layers: whose features judged; ``features`` are those of the head.
        n: number of items.
        flagged: how many of them are out.
        false_alarms: the share of items like those of the training split that is flagged.
        calibrated_on: independent training items that the threshold rests on.
    """

    method: str
    layers: tuple[str, ...]
    n: int
    flagged: int
    false_alarms: float
    calibrated_on: int


@dataclass(frozen=True)
class ConfusedPair:
    """A kind of mistake: ``count`` of the ``items`` of a class are taken for another."""

    true: str
    predicted: str
    count: int
    items: int


@dataclass(frozen=True)
class Evaluation:
    """The scores of a classifier on one split.

    Attributes:
        n: number of items.
        classes: class names, in the order of the confusion matrix.
        accuracy, balanced_accuracy, macro_f1: fractions in [0, 1] with 95 % intervals.
        log_loss: mean negative log likelihood in nats.
        ece: expected calibration error (fraction; equal-width bins of the top probability).
        per_class: one row per class, in the order of ``classes``.
        confusion: ``confusion[i][j]`` counts items of class i predicted as class j; empty with
            more than 500 classes, of which ``confused`` has the most frequent mistakes.
        reliability: the bins behind ``ece``, without empty ones.
        top_5: the share of items whose class is among the five most probable; None with 20
            classes or fewer.
        confused: where there is no ``confusion``, the most frequent mistakes, at most 1,000.
        sets: what conformal sets of several coverages did; empty where none were made.
        unlike: how many items are unlike the training items; None where nobody asked.
    """

    n: int
    classes: tuple[str, ...]
    accuracy: Score
    balanced_accuracy: Score
    macro_f1: Score
    log_loss: float
    ece: float
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[ReliabilityBin, ...] = ()
    top_5: Score | None = None
    confused: tuple[ConfusedPair, ...] = ()
    sets: tuple[SetScores, ...] = ()
    unlike: Unlike | None = None


@dataclass(frozen=True)
class Curve:
    """A series of points that a report draws.

    Attributes:
        name: the label of the line ("train loss", "validation accuracy").
        x, y: the points, of equal length.
        x_label, y_label: axis titles, with units.
        low, high: an optional band around ``y``.
        log_x: whether the x axis is logarithmic.
        chosen: the x that was selected from the curve, if any.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str
    y_label: str
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    log_x: bool = False
    chosen: float | None = None

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Curve:
        """Rebuild a curve from what :func:`to_plain` made of it."""
        points = {name: tuple(values[name]) for name in ("x", "y", "low", "high")}
        return cls(**{**values, **points})


@dataclass(frozen=True)
class Baseline:
    """A figure to beat: its name, what it is, its accuracy on the same test items."""

    name: str
    description: str
    accuracy: Score


@dataclass(frozen=True)
class Reference:
    """Figures to beat where there is no accuracy: all scores of a baseline on the test items."""

    name: str
    description: str
    figures: tuple[NamedScore, ...]


@dataclass(frozen=True)
class Excerpt:
    """A glimpse of one or several items for a report.

    Attributes:
        picture: PNG or JPEG bytes, at most about 128 pixels high; empty where there is none.
        text: a short text; empty where a picture says it all.
    """

    picture: bytes = b""
    text: str = ""


@dataclass(frozen=True)
class CacheUse:
    """How many rows were found in the cache (``hits``) and how many were computed (``misses``)."""

    hits: int
    misses: int

    def __add__(self, other: CacheUse) -> CacheUse:
        """Return the sum of both."""
        return CacheUse(self.hits + other.hits, self.misses + other.misses)


def to_plain(value: Any) -> Any:
    """Turn records into what ``json.dumps`` accepts: dataclasses to dicts, tuples to lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], values: Any) -> T:
    """Rebuild a record from what :func:`to_plain` made of it, and JSON of that; None is NaN again.

    Args:
        kind: the dataclass.
        values: plain values, which are not trusted.

    Raises:
        KeyError, TypeError, ValueError: they are not those of such a record.
    """
    rebuilt: T = _rebuilt(kind, values)
    return rebuilt


def _rebuilt(hint: Any, value: Any) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in parts:
            return None
        (hint,) = (part for part in parts if part is not types.NoneType)
        return _rebuilt(hint, value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise TypeError(f"expected the values of {hint.__name__}, found {value!r:.60}")
        hints = typing.get_type_hints(hint)
        return hint(**{name: _rebuilt(hints[name], part) for name, part in value.items()})
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_rebuilt(parts[0], part) for part in value)
    if hint is float:
        return math.nan if value is None else float(value)
    if origin is typing.Literal and value in parts:
        return value
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise TypeError(f"expected {hint}, found {value!r:.60}")


__all__ = [
    "ACCURACY",
    "FIELDS",
    "Baseline",
    "CacheUse",
    "ClassScores",
    "ConfusedPair",
    "CoverageRow",
    "Curve",
    "Evaluation",
    "Excerpt",
    "Interval",
    "IntervalMethod",
    "NamedScore",
    "Precision",
    "Reference",
    "ReliabilityBin",
    "Score",
    "SetScores",
    "Storage",
    "Unlike",
    "from_plain",
    "to_plain",
]
