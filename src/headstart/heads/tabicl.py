"""A head that trains nothing: TabICL, a network that reads the training rows as its context.

TabICL (Qu, Holzmüller, Varoquaux and Le Morvan 2025) was pre-trained on synthetic tables; labels of
new rows follow from one pass over the labelled ones. Features of a backbone are a table like any
other, but a wide one: so it sees their principal components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import numpy as np

from headstart.core.errors import HeadError
from headstart.core.projection import principal_plane
from headstart.core.wording import count, format_percent
from headstart.evaluation.targets import (
    FloatArray,
    as_labels,
    as_regression_targets,
    require_two_classes,
)
from headstart.heads.base import Arrays, Head, expect_arrays
from headstart.heads.contract import Trained, TrainingRows
from headstart.heads.features import Features, as_rows, blocks
from headstart.heads.logistic.device import choose_device
from headstart.heads.options import TabICLOptions
from headstart.heads.tabicl_weights import checkpoint_file, digest_of, estimator

MOST_ROWS, MOST_COLUMNS = 100_000, 2_000
"""The largest tables that its authors report on; beyond, nobody knows what it is worth."""

_QUERY_ROWS = 8192
_TINY = 1e-38


@dataclass(frozen=True, eq=False)
class TabICLHead(Head):
    """The training rows, and where the network is that reads them.

    Attributes:
        rows: ``(n, c) float32``, the training rows as the network sees them.
        targets: class indices ``(n,) int64``, or values ``(n, t) float64``.
        classes: the number of classes, or of targets.
        mean: ``(d,) float64``, taken from features before they are projected.
        axes: ``(c, d) float64``, what they are projected on; with no rows: as they are.
        checkpoint: the file of the weights.
        digest: its SHA-256: predictions are those of this file or none.
        estimators: views of the table that are averaged.
        seed: of the orders of columns and classes in them.
        device: where it runs; not saved: a head that is read runs on the processor.
    """

    kind: ClassVar[str] = "tabicl"
    rounds_by_company: ClassVar[bool] = True

    rows: FloatArray
    targets: np.ndarray
    classes: int
    mean: FloatArray
    axes: FloatArray
    checkpoint: str
    digest: str
    estimators: int = 8
    seed: int = 0
    device: str = "cpu"
    task: str = "classification"
    temperature: float = 1.0

    @property
    def n_features(self) -> int:
        """The width of the features."""
        return len(self.mean)

    @property
    def n_classes(self) -> int:
        """The number of classes, or of targets."""
        return self.classes

    def decision(self, x: Features) -> FloatArray:
        """Return log-probabilities ``(n, k) float64``, or values; ``-inf``: a class without rows.

        Raises:
            HeadError: the weights are not there, or are others.
            MissingExtraError: the package ``tabicl`` is not installed.
        """
        found = np.full((len(x), self.classes), -np.inf)
        present = np.unique(self.targets) if self.task == "classification" else None
        for part in blocks(len(x), _QUERY_ROWS):
            seen = self._seen(x[part])
            if present is not None:
                p = self._models[0].predict_proba(seen).astype(np.float64)
                found[part.start : part.stop, present] = np.log(np.maximum(p, _TINY))
            else:
                for one, model in enumerate(self._models):
                    found[part, one] = model.predict(seen)
        return found

    def _seen(self, x: FloatArray) -> FloatArray:
        rows = np.asarray(x, dtype=np.float64) - self.mean
        return (rows @ self.axes.T if len(self.axes) else rows).astype(np.float32)

    @cached_property
    def _models(self) -> list[Any]:
        """The network with the training rows; one for each target of a regression."""
        path = Path(self.checkpoint)
        if not path.is_file():
            path = checkpoint_file(None, self.task)
        if digest_of(path) != self.digest:
            raise HeadError(
                f"'{path.name}' is not the checkpoint that this head was made with (its SHA-256"
                " differs)",
                hint=f"put the right one, {self.digest[:16]}…, at {self.checkpoint}",
            )
        targets = self.targets[:, None] if self.targets.ndim == 1 else self.targets
        device = choose_device(self.device, self.rows.shape)
        return [
            estimator(
                path, self.task, count=self.estimators, seed=self.seed, device=device,
                x=self.rows, y=column,
            )
            for column in targets.T
        ]  # fmt: skip

    def as_module(self) -> NoReturn:
        """Refuse: part of TabICL is scikit-learn's.

        Raises:
            HeadError: always.
        """
        raise HeadError(
            "the head 'tabicl' is not a PyTorch module: it scales its columns through"
            " scikit-learn, and reads its training rows at every prediction",
            hint="to export, train another head, such as 'auto'",
        )

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the training rows and targets, and which weights read them."""
        arrays = {"rows": self.rows, "targets": self.targets, "mean": self.mean}
        names = ("classes", "checkpoint", "digest", "estimators", "seed")
        options = {name: getattr(self, name) for name in names} | {"task": self.task}
        return ({**arrays, "axes": self.axes} if len(self.axes) else arrays), options

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        """Rebuild the head; the weights are looked for when it predicts."""
        task, classes = options["task"], int(options["classes"])
        targets: tuple[int | str, ...] = ("n",) if task == "classification" else ("n", "t")
        own: dict[str, tuple[int | str, ...]] = {"axes": ("c", "d")} if "axes" in arrays else {}
        width = "c" if own else "d"
        sizes = expect_arrays(
            arrays, {"rows": ("n", width), "targets": targets, "mean": ("d",), **own}
        )
        if task == "classification":
            y: np.ndarray = as_labels(arrays["targets"], sizes["n"], classes)
            require_two_classes(y)
        elif task == "regression" and sizes["t"] == classes:
            y = as_regression_targets(arrays["targets"], sizes["n"])
        else:
            raise HeadError(f"the options of the head are impossible: {dict(options)}")
        TabICLOptions(estimators=int(options["estimators"]))  # which checks it
        return cls(
            arrays["rows"].astype(np.float32),
            y,
            classes,
            arrays["mean"].astype(np.float64),
            arrays["axes"].astype(np.float64) if own else np.empty((0, sizes["d"])),
            str(options["checkpoint"]),
            str(options["digest"]),
            int(options["estimators"]),
            int(options["seed"]),
            task=task,
        )


def fit_tabicl(rows: TrainingRows, options: TabICLOptions) -> Trained:
    """Keep the training rows as the context of TabICL.

    Args:
        rows: training rows; for a regression each target is predicted on its own.
        options: see :class:`~headstart.heads.options.TabICLOptions`.

    Returns:
        The head, and a note on what it sees of the features.

    Raises:
        HeadError: the rows or columns are more than TabICL is known to read, the weights are not
            there, or fewer than two classes occur.
        MissingExtraError: the package ``tabicl`` is not installed.
    """
    features = as_rows(rows.x)
    n, d = features.shape
    _check_size(n, d, options.components)
    targets: np.ndarray
    if rows.task == "classification":
        targets = as_labels(rows.y, n, rows.n_classes)
        require_two_classes(targets)
    else:
        targets = as_regression_targets(rows.y, n)
    path = checkpoint_file(options.checkpoint, rows.task)
    x = np.asarray(features[:], dtype=np.float64)
    mean, axes, notes = _projection(x, options.components)
    seen = x - mean
    head = TabICLHead(
        (seen @ axes.T if len(axes) else seen).astype(np.float32),
        targets,
        rows.n_classes,
        mean,
        axes,
        str(path),
        digest_of(path),
        options.estimators,
        rows.seed % 2**32,
        options.device,
        task=rows.task,
    )
    head.decision(x[:1])  # what is wrong with the weights shows here, not in the evaluation
    return Trained(head, notes=notes)


def _check_size(n: int, d: int, components: int | None) -> None:
    if n > MOST_ROWS:
        raise HeadError(
            f"expected at most {MOST_ROWS:,} training rows for the head 'tabicl', found {n:,}:"
            " it reads all of them at every prediction, and has not been tried on larger tables",
            hint="use head='auto', or fewer items",
        )
    if d > MOST_COLUMNS and components is None:
        raise HeadError(
            f"expected at most {MOST_COLUMNS:,} features for the head 'tabicl', found {d:,}: it"
            " has not been tried on wider tables",
            hint="components=100 gives it 100 principal components",
        )


def _projection(
    x: FloatArray, components: int | None
) -> tuple[FloatArray, FloatArray, tuple[str, ...]]:
    """Return mean, axes and a note; no axes where all features are seen as they are."""
    n, d = x.shape
    wanted = d if components is None else min(components, d, n - 1)
    if components is None or wanted >= d:
        return x.mean(axis=0), np.empty((0, d)), ()
    plane = principal_plane(x.astype(np.float32), wanted)
    used = plane.axes[np.abs(plane.axes).sum(axis=1) > 0]
    if not len(used):
        used = np.eye(1, d)  # equal rows: one column, which says nothing
    share = format_percent(min(1.0, sum(plane.shares)))
    note = (
        f"head: TabICL sees {count(len(used), 'principal component')} of {count(d, 'feature')},"
        f" which hold {share} of their variance"
    )
    return plane.mean, used, (note,)


__all__ = ["MOST_COLUMNS", "MOST_ROWS", "TabICLHead", "fit_tabicl"]
