"""Scaling of features that a few rows can bear, and heads that are trained behind it.

The deviation of a feature over two or ten rows is mostly noise, and dividing by it drowns what a
network has learnt: with one label a class, logistic regression on standardised features tells ants
from bees in 62 % of all cases, and in 80 % on rows that are scaled as here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np

from headstart.core.errors import HeadError
from headstart.core.nearest import unit_rows
from headstart.evaluation.targets import FloatArray
from headstart.heads.base import Arrays, Head
from headstart.heads.features import Features, blocks
from headstart.heads.saved import unpack_head

_PRIOR_ROWS = 5.0
_INNER = "inner."


@dataclass(frozen=True, eq=False)
class Preparation:
    """Rows to unit length, then each feature less its mean and over a shrunk deviation.

    Attributes:
        mean, scale: ``(d,) float64``, of rows of unit length.
    """

    mean: FloatArray
    scale: FloatArray

    def __call__(self, rows: FloatArray) -> FloatArray:
        """Return prepared rows ``(n, d) float64``."""
        prepared = unit_rows(rows).astype(np.float64)
        prepared -= self.mean
        prepared /= self.scale
        return prepared


def shrunk_preparation(x: FloatArray, weight: FloatArray | None = None) -> Preparation:
    """Take mean and deviations from rows, the variances shrunk towards their mean.

    The variance of a feature counts as that of five more rows with the variance of all features:
    of two rows hardly anything remains of their own, of a hundred nearly everything.

    Args:
        x: features ``(n, d)``.
        weight: ``(n,)``, how often each row counts; None: once.
    """
    rows = unit_rows(x).astype(np.float64)
    count = np.ones(len(rows)) if weight is None else weight
    total = float(count.sum())
    mean = count @ rows / total
    free = max(total - 1, total / 2)  # degrees of freedom; weights may be below 1
    variance = count @ (rows - mean) ** 2 / free
    common = float(variance.mean())
    if common <= 0:
        return Preparation(mean, np.ones_like(mean))
    shrunk = (free * variance + _PRIOR_ROWS * common) / (free + _PRIOR_ROWS)
    return Preparation(mean, np.sqrt(shrunk))


@dataclass(frozen=True, eq=False)
class PreparedHead(Head):
    """A head on prepared rows.

    Attributes:
        inner: the head, of the same width.
        preparation: what rows go through first.
        task: that of ``inner``.
        temperature: that of ``inner``, unless changed.
    """

    kind: ClassVar[str] = "prepared"

    inner: Head
    preparation: Preparation
    task: str = "classification"
    temperature: float = 1.0

    @property
    def n_features(self) -> int:
        """The width of the features."""
        return self.inner.n_features

    @property
    def n_classes(self) -> int:
        """The number of outputs."""
        return self.inner.n_classes

    def decision(self, x: Features) -> FloatArray:
        """Return the outputs of the inner head, ``(n, k) float64``."""
        parts = [self.inner.decision(self.preparation(x[rows])) for rows in blocks(len(x))]
        return cast(FloatArray, np.concatenate(parts)) if parts else np.empty((0, self.n_classes))

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the arrays of both, and what describes the inner head."""
        arrays, document = self.inner.pack()
        named = {f"{_INNER}{name}": array for name, array in arrays.items()}
        own = {"mean": self.preparation.mean, "scale": self.preparation.scale}
        return {**own, **named}, {"inner": document}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        """Rebuild the head; refuse shapes that differ and a scale that is not positive."""
        document = options["inner"]
        if not isinstance(document, Mapping) or document.get("kind") == cls.kind:
            raise HeadError("the head does not say what is behind its scaling")
        own = {name: arrays[name] for name in ("mean", "scale") if name in arrays}
        inner = unpack_head(
            {
                name.removeprefix(_INNER): array
                for name, array in arrays.items()
                if name.startswith(_INNER)
            },
            document,
            "a head",
        )
        width = (inner.n_features,)
        if (
            len(arrays) != len(document["arrays"]) + 2
            or len(own) != 2
            or any(a.shape != width for a in own.values())
        ):
            raise HeadError(f"expected a mean and a scale of shape {width}, found {sorted(arrays)}")
        if not all(np.isfinite(a).all() for a in own.values()):
            raise HeadError("the mean or the scale of the head holds NaN or infinity")
        mean, scale = (own[name].astype(np.float64) for name in ("mean", "scale"))
        if scale.min() <= 0:
            raise HeadError("the scale of the head must be positive everywhere")
        return cls(inner, Preparation(mean, scale), task=inner.task)


def behind(preparation: Preparation, inner: Head) -> PreparedHead:
    """Return a head that was trained on prepared rows as one that takes rows as they are."""
    return PreparedHead(inner, preparation, inner.task, inner.temperature)


__all__ = ["Preparation", "PreparedHead", "behind", "shrunk_preparation"]
