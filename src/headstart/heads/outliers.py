"""Which items are unlike anything a head was trained on: distances of features, and their p-values.

``knn`` is the distance to the k-th nearest training row, both of unit length (Sun et al. 2022).
``mahalanobis`` is the distance to the nearest class mean, measured by the covariance inside the
classes, which all classes share (Lee et al. 2018) and which is shrunk by the rule of Ledoit and
Wolf (2004), so that it works with fewer rows than features.

The threshold comes from training rows alone. Each is judged by rows of other folds, so that neither
it nor a copy of it is its own neighbour; the p-value of a new item is the share of training items
that are at least as far out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from headstart.core.division import make_folds
from headstart.core.errors import HeadError
from headstart.core.nearest import unit_rows
from headstart.core.row_keys import Index, Keys, content_order, units_among
from headstart.core.wording import count, format_bytes
from headstart.evaluation.conformal import unit_weights
from headstart.evaluation.targets import FloatArray
from headstart.heads.base import Arrays
from headstart.heads.copies import keep_together
from headstart.heads.features import Features, as_rows, blocks, rows_to_predict, subset
from headstart.heads.lda import gaussian_classes, shrunk_covariance
from headstart.heads.neighbours import nearest

Method = Literal["knn", "mahalanobis"]
K = 10
"""The neighbour whose distance counts; of fewer than 100 rows a nearer one."""
FOLDS = 5
MOST_BYTES = 64 * 2**20
"""Of training rows that ``knn`` keeps over all layers; of more, a sample."""
_MOST_JUDGED = 5_000
_MOST_FEATURES = 8192
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class _Neighbours:
    """Training rows of one layer, ``(m, d) float32`` of unit length."""

    rows: np.ndarray
    k: int

    def score(self, x: Features) -> FloatArray:
        """Return the distance to the k-th nearest row, ``(n,)``.

        It is taken of the rows themselves: of cosines near 1, single precision would leave nothing.
        """
        found = np.empty(len(x))
        for part in blocks(len(x), 1024):
            own = unit_rows(x[part])
            _, index = nearest(own, self.rows, self.k, "euclidean")
            gap = own.astype(np.float64) - self.rows[index[:, -1]]
            found[part] = np.sqrt(np.einsum("nd,nd->n", gap, gap))
        return found

    def pack(self) -> Arrays:
        return {"rows": self.rows}


@dataclass(frozen=True, eq=False)
class _Gaussian:
    """Class means of one layer, and what turns its covariance into the identity.

    Attributes:
        mean, scale: ``(d,)``, by which features are standardised.
        whiten: ``(d, d) float32``.
        centres: ``(c, d) float32``, whitened.
    """

    mean: FloatArray
    scale: FloatArray
    whiten: np.ndarray
    centres: np.ndarray

    def score(self, x: Features) -> FloatArray:
        """Return the distance to the nearest class mean, ``(n,)``.

        In double precision: of classes far apart for their width little is left of the difference.
        """
        found = np.empty(len(x))
        whiten, centres = self.whiten.astype(np.float64), self.centres.astype(np.float64)
        square = np.einsum("cd,cd->c", centres, centres)
        for part in blocks(len(x), 1024):
            z = ((x[part] - self.mean) / self.scale) @ whiten
            own = np.einsum("nd,nd->n", z, z)
            gap = own[:, None] + square - 2.0 * (z @ centres.T)
            found[part] = np.sqrt(np.maximum(gap.min(axis=1), 0.0))
        return found

    def pack(self) -> Arrays:
        return {
            "mean": self.mean,
            "scale": self.scale,
            "whiten": self.whiten,
            "centres": self.centres,
        }


@dataclass(frozen=True, eq=False)
class Outliers:
    """What tells items that are unlike the training rows.

    Attributes:
        method: ``knn`` or ``mahalanobis``.
        layers: names of the features that judge; the mean of their scores counts, each less its
            mean and over its deviation among the training rows.
        judges: one for each layer.
        location, scale: ``(layers,)``, mean and deviation of the logarithm of the scores.
        calibration: ``(n,)``, scores of training rows, judged by rows of other folds.
        units: ``(n,)``, the number of what each belongs to: copies and groups count once.
        shrinkage: of the covariance of each layer; empty for ``knn``.
    """

    method: Method
    layers: tuple[str, ...]
    judges: tuple[_Neighbours | _Gaussian, ...]
    location: FloatArray
    scale: FloatArray
    calibration: FloatArray
    units: Index
    shrinkage: tuple[float, ...] = ()

    @property
    def independent(self) -> int:
        """The number of training items that the threshold rests on, copies and groups once."""
        return len(np.unique(self.units))

    @property
    def widths(self) -> tuple[int, ...]:
        """How many features each layer has."""
        return tuple(_width(judge) for judge in self.judges)

    def scores(self, views: Sequence[object]) -> FloatArray:
        """Return how far out items are, ``(n,)``; more is farther.

        Args:
            views: features ``(n, d)`` of every layer, in their order.
        """
        if len(views) != len(self.judges):
            raise HeadError(f"expected features of {len(self.judges)} layers, found {len(views)}")
        raw = [
            judge.score(rows_to_predict(x, width))
            for judge, x, width in zip(self.judges, views, self.widths, strict=True)
        ]
        return _combined(np.stack(raw, axis=1), self.location, self.scale)

    def p_values(self, scores: FloatArray) -> FloatArray:
        """Return the share of training items at least as far out, ``(n,)``, the item counted in."""
        order = np.argsort(self.calibration, kind="stable")
        weight = unit_weights(self.units)[order]
        above = np.concatenate([np.cumsum(weight[::-1])[::-1], [0.0]])
        at = np.searchsorted(self.calibration[order], scores, side="left")
        return cast(FloatArray, above[at] + 1.0 / (self.independent + 1.0))

    def flagged(self, scores: FloatArray, false_alarms: float) -> np.ndarray:
        """Return which items ``(n,)`` are out, where a share of the ordinary ones may be.

        Raises:
            HeadError: too few training items for so few false alarms.
        """
        self.require(false_alarms)
        return np.asarray(self.p_values(scores) <= false_alarms + _TINY)

    def require(self, false_alarms: float) -> None:
        """Refuse a rate of false alarms that the training items are too few for.

        Raises:
            HeadError: naming how many it takes.
        """
        _require(self.independent, false_alarms)

    def pack(self) -> tuple[Arrays, dict[str, Any]]:
        """Return arrays and plain JSON values; :meth:`unpack` is the inverse."""
        arrays: Arrays = {
            "location": self.location,
            "scale": self.scale,
            "calibration": self.calibration,
            "units": self.units,
        }
        for at, judge in enumerate(self.judges):
            arrays |= {f"{at}.{name}": array for name, array in judge.pack().items()}
        k = [judge.k for judge in self.judges if isinstance(judge, _Neighbours)]
        return arrays, {
            "method": self.method,
            "layers": list(self.layers),
            "k": k,
            "shrinkage": list(self.shrinkage),
        }

    @classmethod
    def unpack(cls, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`pack` described, trusting neither.

        Raises:
            HeadError, KeyError, TypeError, ValueError: they disagree.
        """
        layers = tuple(str(name) for name in values["layers"])
        n = len(arrays["calibration"])
        shapes = {"location": len(layers), "scale": len(layers), "calibration": n, "units": n}
        for name, size in shapes.items():
            array = arrays[name]
            if array.shape != (size,) or not size or not np.isfinite(array).all():
                raise HeadError(f"the array {name!r} has the shape {array.shape} or is not finite")
        judges: list[_Neighbours | _Gaussian] = []
        for at in range(len(layers)):
            if values["method"] == "knn":
                rows, k = arrays[f"{at}.rows"], int(values["k"][at])
                if rows.ndim != 2 or rows.dtype != np.float32 or not 1 <= k <= len(rows):
                    raise HeadError(f"the rows of layer {at} have the shape {rows.shape}")
                judges.append(_Neighbours(rows, k))
                continue
            if values["method"] != "mahalanobis":
                raise HeadError(f"it names the unknown method {values['method']!r:.40}")
            mean, scale, whiten, centres = (
                arrays[f"{at}.{name}"] for name in ("mean", "scale", "whiten", "centres")
            )
            d = len(mean)
            if (
                mean.shape != (d,) or scale.shape != (d,) or whiten.shape != (d, d)
                or centres.ndim != 2 or centres.shape[1] != d or not len(centres)
            ):  # fmt: skip
                raise HeadError(f"the arrays of layer {at} do not belong together")
            judges.append(_Gaussian(mean, scale, whiten, centres))
        return cls(
            values["method"], layers, tuple(judges), arrays["location"], arrays["scale"],
            arrays["calibration"], arrays["units"], tuple(map(float, values["shrinkage"])),
        )  # fmt: skip


def require_items(ids: Keys, groups: Keys | None, false_alarms: float) -> None:
    """Refuse a rate of false alarms that items are too few for, before any is embedded.

    Near copies are not known yet: more items may still turn out to be too few.

    Args:
        ids: n content ids of the training items.
        groups: n names; items of one group count once.
        false_alarms: the rate.

    Raises:
        HeadError: naming how many it takes.
    """
    independent = len(units_among(len(ids), ids, groups).keys)
    _require(min(independent, _MOST_JUDGED), false_alarms)


def _require(independent: int, false_alarms: float) -> None:
    least = 1.0 / (independent + 1.0)
    if least <= false_alarms + _TINY:
        return
    raise HeadError(
        f"false_alarms={false_alarms:g} needs"
        f" {count(int(np.ceil(1 / false_alarms - 1 - 1e-9)), 'training item')}, and there"
        f" {'is' if independent == 1 else 'are'} {independent:,}"
        " (copies and items of a group count once)",
        hint=f"allow more false alarms, {_rounded_up(least):g} at least, or label more items",
    )


def _rounded_up(share: float) -> float:
    """Return the next number of two digits that is no smaller."""
    digits = 1 - math.floor(math.log10(share))
    scale = 10.0**digits
    return round(math.ceil(share * scale - 1e-9) / scale, digits)


def fit_outliers(
    views: Mapping[str, object],
    labels: np.ndarray | None,
    *,
    method: Method,
    keys: Keys | None = None,
    groups: Keys | None = None,
    seed: int = 0,
) -> Outliers:
    """Learn what training rows look like, and how far out they lie themselves.

    Args:
        views: features ``(n, d)`` of the same training rows, by the name of the layer.
        labels: class indices ``(n,)``, whose means ``mahalanobis`` takes; None: one mean.
        method: which.
        keys: n content ids; copies and near copies do not judge each other.
        groups: n names; rows of one group do not judge each other.
        seed: of the folds.

    Raises:
        HeadError: fewer than two different rows, one group only, or too many features.
    """
    rows = {name: as_rows(x) for name, x in views.items()}
    n = len(next(iter(rows.values())))
    y = np.zeros(n, np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
    for name, x in rows.items():
        if method == "mahalanobis" and x.shape[1] > _MOST_FEATURES:
            raise HeadError(
                f"the covariance of {x.shape[1]:,} features of {name} takes"
                f" {format_bytes(8 * x.shape[1] ** 2)}",
                hint="use ood='knn', or a layer with pooling",
            )
    together = keep_together(labels, *rows.values(), keys=keys)
    kept = together.keys
    divided = make_folds(_strata(y), FOLDS, seed=seed, keys=kept, groups=groups) if n > 1 else None
    if divided is None:
        raise HeadError(
            "expected two different training items or more to tell what is unlike them",
            hint="label more items",
        )
    order = content_order(kept)
    judged = np.sort(_some(order, _MOST_JUDGED))
    most = MOST_BYTES // (4 * sum(x.shape[1] for x in rows.values()))
    raw = np.empty((n, len(rows)))
    for fold in range(divided.count):
        held = judged[divided.of[judged] == fold]
        beside = np.sort(_some(order[divided.of[order] != fold], most))
        all_beside = np.flatnonzero(divided.of != fold)
        for at, x in enumerate(rows.values()):
            used = beside if method == "knn" else all_beside
            judge, _ = _judge(subset(x, used), y[used], method)
            raw[held, at] = judge.score(subset(x, held))
    logs = np.log(np.maximum(raw[judged], _TINY))
    location, scale = logs.mean(axis=0), logs.std(axis=0)
    scale = np.where(scale > _TINY, scale, 1.0)
    whole = np.sort(_some(order, most)) if method == "knn" else np.arange(n)
    final = [_judge(subset(x, whole), y[whole], method) for x in rows.values()]
    units = units_among(n, kept, groups).of[judged]
    return Outliers(
        method,
        tuple(rows),
        tuple(judge for judge, _ in final),
        location,
        scale,
        _combined(raw[judged], location, scale),
        np.unique(units, return_inverse=True)[1].astype(np.int64),
        tuple(used for _, used in final if used is not None),
    )


def _judge(
    x: Features, y: np.ndarray, method: Method
) -> tuple[_Neighbours | _Gaussian, float | None]:
    if method == "knn":
        k = max(1, min(K, len(x) // 10))
        return _Neighbours(unit_rows(x[:]), k), None
    present, label = np.unique(y, return_inverse=True)
    gauss = gaussian_classes(x, label, len(present))
    covariance, used = shrunk_covariance(gauss.scatter, float(len(x)))
    lower = cholesky(covariance, lower=True)
    whiten = solve_triangular(lower, np.eye(len(lower)), lower=True).T.astype(np.float32)
    centres = (gauss.centres @ whiten.astype(np.float64)).astype(np.float32)
    return _Gaussian(gauss.mean, gauss.scale, whiten, centres), used


def _width(judge: _Neighbours | _Gaussian) -> int:
    return int(judge.rows.shape[1] if isinstance(judge, _Neighbours) else len(judge.mean))


def _combined(raw: FloatArray, location: FloatArray, scale: FloatArray) -> FloatArray:
    logs = np.log(np.maximum(raw, _TINY))
    return cast(FloatArray, ((logs - location) / scale).mean(axis=1))


def _strata(y: np.ndarray) -> np.ndarray:
    """Return what folds keep in proportion: classes, rare ones together, so that folds stay five.

    A class that no other fold holds makes its training items look unlike the others, which errs on
    the side of fewer alarms.
    """
    _, inverse, size = np.unique(y, return_inverse=True, return_counts=True)
    return np.where(size[inverse] >= FOLDS, inverse, -1)


def _some(order: Index, most: int) -> Index:
    """Return up to so many of the rows, evenly spread over their order."""
    if len(order) <= most:
        return order
    return order[np.linspace(0, len(order) - 1, max(most, 1)).round().astype(np.int64)]


__all__ = ["FOLDS", "K", "Method", "Outliers", "fit_outliers", "require_items"]
