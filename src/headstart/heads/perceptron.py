"""The perceptron: a network of linear layers, and the head that holds its weights as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.core.errors import HeadError
from headstart.evaluation.targets import FloatArray
from headstart.evaluation.tasks import task_named
from headstart.heads.base import Arrays, Head, expect_arrays
from headstart.heads.features import Features, blocks, standardised

_BLOCK_ROWS = 8192

Layer = tuple[np.ndarray, np.ndarray]


class Perceptron(nn.Module):
    """Linear layers with ReLU between them, and dropout on the inputs of all but the first.

    Args:
        layers: weight ``(out, in)`` and bias ``(out,)`` of each layer, float32.
        dropout: in training mode; drawn from ``generator``.
        generator: of the dropout.
    """

    def __init__(
        self,
        layers: Iterable[tuple[Tensor, Tensor]],
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for weight, bias in layers:
            layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
            layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
            self.layers.append(layer)
        self.dropout, self.generator = dropout, generator

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers, ``(n, d) -> (n, k)``."""
        for number, layer in enumerate(self.layers):
            if number:
                x = functional.relu(x)
                if self.training and self.dropout > 0:
                    # nn.Dropout would draw from the global generator.
                    keep = torch.rand(x.shape, generator=self.generator) >= self.dropout
                    x = x * keep / (1 - self.dropout)
            x = layer(x)
        return x

    def arrays(self) -> tuple[Layer, ...]:
        """Return copies of the weights and biases."""
        values = [p.detach().numpy().copy() for p in self.parameters()]
        return tuple(zip(values[::2], values[1::2], strict=True))


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
