"""The linear head: what logistic regression, ridge and LDA all end in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

import numpy as np

from headstart.core.errors import HeadError
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import task_named
from headstart.heads.base import Arrays, Head, expect_arrays
from headstart.heads.features import Features, blocks, standardised

_BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class LinearHead(Head):
    """``logits = ((x - mean) / scale) @ weight + bias``.

    Attributes:
        weight: ``(d, k) float64``, for standardised features.
        bias: ``(k,) float64``.
        mean, scale: ``(d,) float64``, the standardisation of the training rows.
        present: ``(k,) bool``, the classes that the training rows held; the others get
            probability 0, since nothing is known of them.
        task: ``classification``, ``multi-label`` or ``regression``.
        method: how the weights were found ("logistic", "ridge", "lda").
        temperature: see :class:`~headstart.heads.base.Head`.
    """

    kind: ClassVar[str] = "linear"

    weight: FloatArray
    bias: FloatArray
    mean: FloatArray
    scale: FloatArray
    present: np.ndarray
    task: str = "classification"
    method: str = "logistic"
    temperature: float = field(default=1.0)

    @property
    def n_features(self) -> int:
        """The width of the features."""
        return int(self.weight.shape[0])

    @property
    def n_classes(self) -> int:
        """The number of outputs."""
        return int(self.weight.shape[1])

    def decision(self, x: Features) -> FloatArray:
        """Return the logits ``(n, k) float64``; ``-inf`` for classes not seen in training."""
        logits = np.empty((len(x), self.n_classes))
        for rows in blocks(len(x), _BLOCK_ROWS):
            logits[rows] = standardised(x[rows], self.mean, self.scale) @ self.weight + self.bias
        logits[:, ~self.present] = -np.inf
        return cast(FloatArray, logits)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the arrays, and the task and method."""
        arrays = {
            "weight": self.weight,
            "bias": self.bias,
            "mean": self.mean,
            "scale": self.scale,
            "present": self.present.astype(np.uint8),
        }
        return arrays, {"task": self.task, "method": self.method}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        """Rebuild the head; refuse wrong shapes, a scale that is not positive, unknown tasks."""
        expect_arrays(
            arrays,
            {"weight": ("d", "k"), "bias": ("k",), "mean": ("d",), "scale": ("d",)}
            | {"present": ("k",)},
        )
        weight, bias, mean, scale = (
            arrays[name].astype(np.float64) for name in ("weight", "bias", "mean", "scale")
        )
        present = arrays["present"].astype(bool)
        if scale.min() <= 0:
            raise HeadError("the scale of the head must be positive everywhere")
        if not present.any():
            raise HeadError("the head knows no class")
        task, method = task_named(options["task"]).name, str(options["method"])
        return cls(weight, bias, mean, scale, present, task=task, method=method)
