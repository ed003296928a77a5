"""The contract of every head, and how heads are written to a folder.

A saved head is two files: ``head.safetensors`` (the arrays) and ``head.json`` (the kind, the
options, the shape and type of each array, and the SHA-256 of the arrays' file);
:mod:`headstart.heads.saved` reads them.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import safetensors.numpy
from scipy.special import logit

from headstart.core.errors import HeadError
from headstart.core.files import write_bytes, write_text
from headstart.core.fingerprints import sha256
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import CLASSIFICATION, task_named
from headstart.heads.features import Features, blocks, rows_to_predict

if TYPE_CHECKING:
    from torch import nn

ARRAYS_FILE = "head.safetensors"
OPTIONS_FILE = "head.json"
FORMAT = 1
# Up to so many numbers are kept as one array, and else made so many at a time.
_MOST_PROBABILITIES = 50_000_000
_AT_ONCE = 10_000_000

Arrays = dict[str, np.ndarray]

KINDS: dict[str, type[Head]] = {}
"""Heads by the kind under which they are saved; importing a module enters its own."""


class Head(ABC):
    """Something trained that turns features into predictions. Immutable.

    A subclass names its ``kind`` and gives ``decision``, ``state`` and ``from_state``; the rest
    follows from these.

    Attributes:
        kind: the name under which the head is saved.
        task: what the outputs mean, by the name of a :class:`~headstart.evaluation.tasks.Task`.
        rounds_by_company: whether a row's outputs depend, in the last digits, on how many rows are
            computed together, since products are in single precision.
        temperature: the calibration divisor of the log-probabilities; 1 is uncalibrated.
        thresholds: ``(n_classes,)`` in (0, 1), the probability above which each label is predicted
            by a multi-label head; None: 0.5. For a classifier the shares of classes that its
            probabilities are corrected by, so that they are those of classes equally frequent.
    """

    kind: ClassVar[str]
    rounds_by_company: ClassVar[bool] = False
    task: str
    temperature: float
    thresholds: FloatArray | None = None

    @property
    @abstractmethod
    def n_features(self) -> int:
        """The width ``d`` of the features."""

    @property
    @abstractmethod
    def n_classes(self) -> int:
        """The number of classes, of labels (multi-label) or of targets (regression)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Enter a concrete head under its kind, by which ``load_head`` finds it."""
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            KINDS[cls.kind] = cls

    @abstractmethod
    def decision(self, x: Features) -> FloatArray:
        """Return unnormalised log-probabilities (logits; values for regression).

        Args:
            x: checked features ``(n, d)``, read in blocks.

        Returns:
            ``(n, n_classes) float64``; ``-inf`` marks a class that cannot be predicted.
        """

    @abstractmethod
    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the arrays and the JSON options from which ``from_state`` rebuilds the head."""

    @classmethod
    @abstractmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        """Build a head from what ``state`` returned; refuse anything inconsistent."""

    def predict_proba(self, x: object) -> FloatArray:
        """Return class probabilities.

        Args:
            x: features ``(n, d)``, float32 or float64; what lies on disk is read in blocks. Of no
                rows, an empty list included, no rows are predicted.

        Returns:
            ``(n, n_classes) float64``. Rows sum to 1, except for multi-label heads, where every
            column is the probability of its own label.

        Raises:
            HeadError: if the features do not fit the head, or the head is a regression.
        """
        rows = rows_to_predict(x, self.n_features)
        found = self._probabilities(rows)
        if len(rows) * self.n_classes <= _MOST_PROBABILITIES:
            return found.of_logits(self._corrected(self.decision(rows)))
        whole = np.empty(found.shape)
        for part, p in found.blocks():
            whole[part] = p
        return whole

    def likelihoods(self, x: object) -> FloatArray | HeadProbabilities:
        """Return class probabilities, where they are many as blocks that are made when read.

        Args:
            x: features ``(n, d)``.

        Returns:
            What :meth:`predict_proba` returns, up to 50 million numbers; else an object with
            ``shape`` and ``blocks()``, as ``evaluate`` takes it.
        """
        rows = rows_to_predict(x, self.n_features)
        if len(rows) * self.n_classes <= _MOST_PROBABILITIES:
            return self.predict_proba(rows)
        return self._probabilities(rows)

    def _probabilities(self, rows: Features) -> HeadProbabilities:
        probabilities = task_named(self.task).probabilities
        if probabilities is None:
            raise HeadError(f"a {self.task} head has no class probabilities", hint="use predict")
        return HeadProbabilities(self, rows, probabilities)

    def predict(self, x: object) -> np.ndarray:
        """Return the prediction for each item.

        Returns:
            ``(n,) int64`` class indices; ``(n, n_classes) int64`` of 0 and 1 for a multi-label
            head; ``(n, n_classes) float64`` values for a regression.
        """
        rows, of_outputs = rows_to_predict(x, self.n_features), task_named(self.task).predict

        def predict(outputs: FloatArray) -> np.ndarray:
            return of_outputs(self._thresholded(outputs))

        if len(rows) * self.n_classes <= _MOST_PROBABILITIES:
            return predict(self.decision(rows))
        parts = [predict(self.decision(rows[part])) for part in self._parts(len(rows))]
        return np.concatenate(parts)

    def _corrected(self, outputs: FloatArray) -> FloatArray:
        """Return outputs over the temperature, corrected for the shares of classes."""
        logits = outputs / self.temperature
        if self.thresholds is None or self.task != CLASSIFICATION.name:
            return logits
        return logits - np.log(self.thresholds)

    def _thresholded(self, outputs: FloatArray) -> FloatArray:
        """Return outputs that are above 0, or largest, for what is predicted."""
        if self.thresholds is None:
            return outputs
        if self.task == CLASSIFICATION.name:
            return self._corrected(outputs)
        return cast(FloatArray, outputs / self.temperature - logit(self.thresholds))

    def _parts(self, n: int) -> Iterator[slice]:
        return blocks(n, max(256, _AT_ONCE // self.n_classes))

    def with_temperature(self, temperature: float) -> Self:
        """Return the same head with another calibration temperature (> 0)."""
        if not (math.isfinite(temperature) and temperature > 0):
            raise HeadError(f"expected a temperature above 0, found {temperature}")
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.__dict__["temperature"] = float(temperature)
        return copy

    def with_thresholds(self, thresholds: np.ndarray | None) -> Self:
        """Return the same head with other thresholds ``(n_classes,)``, each in (0, 1)."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        if thresholds is None:
            copy.__dict__.pop("thresholds", None)
            return copy
        values = np.asarray(thresholds, dtype=np.float64)
        if values.shape != (self.n_classes,) or not ((values > 0) & (values < 1)).all():
            raise HeadError(
                f"expected {self.n_classes} thresholds between 0 and 1, found {values.shape}"
            )
        copy.__dict__["thresholds"] = values
        return copy

    def pack(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the head as arrays and plain JSON values; ``unpack_head`` is the inverse."""
        arrays, options = self.state()
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return arrays, {
            "format": FORMAT,
            "kind": self.kind,
            "task": self.task,
            "n_features": self.n_features,
            "n_classes": self.n_classes,
            "temperature": self.temperature,
            **({} if self.thresholds is None else {"thresholds": self.thresholds.tolist()}),
            "options": options,
            "arrays": {
                name: {"dtype": str(array.dtype), "shape": list(array.shape)}
                for name, array in sorted(arrays.items())
            },
        }

    def as_module(self) -> nn.Module:
        """Return the head as a module of PyTorch's, with its temperature and thresholds.

        A kind of head that is entered from outside overrides this.

        Returns:
            A new module in evaluation mode, ``(n, d) float32`` → ``(n, n_classes) float32``: what
            :meth:`predict_proba` returns, or the values of a regression.

        Raises:
            HeadError: the kind has no module.
        """
        from headstart.heads.tensors import MODULES, head_module

        arrays, document = self.pack()
        inner = document["options"].get("inner")
        kind = inner["kind"] if isinstance(inner, Mapping) else self.kind
        if kind not in MODULES:
            raise HeadError(
                f"a head of kind '{kind}' has no PyTorch module",
                hint=f"give {type(self).__name__} a method as_module",
            )
        return head_module(arrays, document).eval()

    def save(self, folder: Path | str) -> None:
        """Write ``head.safetensors`` and ``head.json`` into ``folder``, made if missing.

        Each file is written beside its place and renamed, so a reader never sees a torn one; the
        digest in ``head.json`` ties the pair together.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays, document = self.pack()
        payload = safetensors.numpy.save(arrays)
        document["sha256"] = sha256(payload)
        text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
        write_bytes(folder / ARRAYS_FILE, payload)
        write_text(folder / OPTIONS_FILE, text)


@dataclass(frozen=True, eq=False)
class HeadProbabilities:
    """Class probabilities ``(n, k)`` that are made when they are read, some rows at a time.

    Attributes:
        head: whose they are.
        rows: checked features ``(n, d)``.
        of_logits: logits → probabilities.
    """

    head: Head
    rows: Features
    of_logits: Callable[[FloatArray], FloatArray]

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, k)``."""
        return len(self.rows), self.head.n_classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any, /) -> FloatArray:
        """Return the probabilities of some rows, ``(m, k)``."""
        return self.of_logits(self.head._corrected(self.head.decision(self.rows[rows])))

    def blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Yield the probabilities of all rows in order, some rows at a time."""
        for part in self.head._parts(len(self.rows)):
            yield part, self[part]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Make all of them, for what cannot be done otherwise."""
        return np.array(self.head.predict_proba(self.rows), dtype=dtype, copy=copy is not False)


def expect_arrays(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int | str, ...]]
) -> dict[str, int]:
    """Check names, types, shapes and values of the arrays of a head that is being read.

    Args:
        arrays: what the file held.
        shapes: for each expected name its shape; a string stands for a size to be found, the
            same wherever the string recurs.

    Returns:
        The size found for each string.

    Raises:
        HeadError: on the first disagreement.
    """
    if set(arrays) != set(shapes):
        raise HeadError(f"expected the arrays {sorted(shapes)}, found {sorted(arrays)}")
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        array = arrays[name]
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise HeadError(f"the array {name!r} of the head holds NaN or infinity")
        fits = array.ndim == len(shape)
        for size, wanted in zip(array.shape, shape, strict=False):
            if isinstance(wanted, str):
                wanted = sizes.setdefault(wanted, size)
            fits = fits and size == wanted and size > 0
        if not fits:
            raise HeadError(f"the array {name!r} of the head has the wrong shape {array.shape}")
    return sizes
