"""The head that holds the weights of a perceptron as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor

from headstart.core.errors import HeadError
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import task_named
from headstart.heads.base import Arrays, Head, expect_arrays
from headstart.heads.features import Features, blocks, standardised
from headstart.heads.tensors import Perceptron

_BLOCK_ROWS = 8192

Layer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class MLPHead(Head):
    """``h_0 = (x - mean) / scale``, ``h_j = relu(W_j h_{j-1} + b_j)``, outputs the last, linear.

    Attributes:
        layers: pairs of weight ``(out, in) float32`` and bias ``(out,) float32``.
        mean, scale: ``(d,) float64``, the standardisation of the training rows.
        output_shift, output_scale: ``(k,) float64``, undo the standardisation of regression
            targets; 0 and 1 otherwise.
        present: ``(k,) bool``, the classes that the training rows held.
        task, temperature: see :class:`~headstart.heads.base.Head`.
    """

    kind: ClassVar[str] = "mlp"
    rounds_by_company: ClassVar[bool] = True

    layers: tuple[Layer, ...]
    mean: FloatArray
    scale: FloatArray
    output_shift: FloatArray
    output_scale: FloatArray
    present: np.ndarray
    task: str = "classification"
    temperature: float = 1.0

    @property
    def n_features(self) -> int:
        """The width of the features."""
        return len(self.mean)

    @property
    def n_classes(self) -> int:
        """The number of outputs."""
        return len(self.present)

    def decision(self, x: Features) -> FloatArray:
        """Return the outputs ``(n, k) float64``; ``-inf`` for classes not seen in training."""
        outputs = np.empty((len(x), self.n_classes))
        network = Perceptron((torch.from_numpy(w), torch.from_numpy(b)) for w, b in self.layers)
        network.eval()
        for rows in blocks(len(x), _BLOCK_ROWS):
            with torch.inference_mode():
                hidden = network(as_inputs(x[rows], self.mean, self.scale))
            outputs[rows] = hidden.double().numpy()
        outputs = outputs * self.output_scale + self.output_shift
        outputs[:, ~self.present] = -np.inf
        return cast(FloatArray, outputs)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the arrays, the task, and the number of layers."""
        arrays = {
            "mean": self.mean,
            "scale": self.scale,
            "output_shift": self.output_shift,
            "output_scale": self.output_scale,
            "present": self.present.astype(np.uint8),
        }
        for number, (weight, bias) in enumerate(self.layers):
            arrays |= {f"weight.{number}": weight, f"bias.{number}": bias}
        return arrays, {"task": self.task, "layers": len(self.layers)}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        """Rebuild the head; refuse layers that do not fit one another."""
        count = options["layers"]
        if not (isinstance(count, int) and 1 <= count <= len(arrays)):
            raise HeadError(f"the number of layers of the head is impossible: {count!r}")
        widths = ["d", *(f"h{i}" for i in range(count - 1)), "k"]
        shapes: dict[str, tuple[int | str, ...]] = {"mean": ("d",), "scale": ("d",)}
        shapes |= dict.fromkeys(("output_shift", "output_scale", "present"), ("k",))
        for i in range(count):
            shapes |= {f"weight.{i}": (widths[i + 1], widths[i]), f"bias.{i}": (widths[i + 1],)}
        expect_arrays(arrays, shapes)
        if arrays["scale"].min() <= 0:
            raise HeadError("the scale of the head must be positive everywhere")
        return cls(
            layers=tuple(
                (arrays[f"weight.{i}"].astype(np.float32), arrays[f"bias.{i}"].astype(np.float32))
                for i in range(count)
            ),
            mean=arrays["mean"].astype(np.float64),
            scale=arrays["scale"].astype(np.float64),
            output_shift=arrays["output_shift"].astype(np.float64),
            output_scale=arrays["output_scale"].astype(np.float64),
            present=arrays["present"].astype(bool),
            task=task_named(options["task"]).name,
        )


def as_inputs(rows: FloatArray, mean: FloatArray, scale: FloatArray) -> Tensor:
    """Return standardised rows as the network takes them, ``(n, d) float32``."""
    return torch.from_numpy(standardised(rows, mean, scale).astype(np.float32))


def layers_of(network: Perceptron) -> tuple[Layer, ...]:
    """Return copies of the weights and biases of a perceptron."""
    values = [p.detach().numpy().copy() for p in network.parameters()]
    return tuple(zip(values[::2], values[1::2], strict=True))
