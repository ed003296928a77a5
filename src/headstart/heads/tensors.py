"""Heads as modules: what a saved head holds → features ``(n, d)`` → probabilities, in float32.

:func:`head_module` reads what ``head.safetensors`` and ``head.json`` hold. An exported head is run
by this very file, which therefore imports nothing but torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LOWEST = -1e30
"""The logit of a class that cannot be predicted: no runtime has to know of -inf."""


def head_module(arrays: Mapping[str, Any], document: Mapping[str, Any]) -> nn.Module:
    """Return a saved head as a module, with its temperature and its thresholds.

    Args:
        arrays: of ``head.safetensors``, as NumPy's arrays or tensors.
        document: of ``head.json``.

    Returns:
        ``(n, d) float32`` → ``(n, k) float32``: probabilities, or the values of a regression.

    Raises:
        KeyError: the head is of a kind that has no module.
    """
    return nn.Sequential(_logits(arrays, document), Outputs(document))


def _logits(arrays: Mapping[str, Any], document: Mapping[str, Any]) -> nn.Module:
    tensors = {name: torch.as_tensor(value) for name, value in arrays.items()}
    return MODULES[document["kind"]](tensors, document["options"])


def _single(value: Tensor) -> Tensor:
    return value.detach().to(torch.float32).clone()


class Outputs(nn.Module):
    """Logits → probabilities: ``logits / temperature``, less the logarithm of the classes' shares.

    Attributes:
        task: ``classification``, ``multi-label`` or ``regression``, whose values stay as they are.
        temperature: of the calibration.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__()
        self.task = str(document["task"])
        self.temperature = float(document["temperature"])
        shares = document.get("thresholds") if self.task == "classification" else None
        correction = torch.zeros(()) if shares is None else _single(torch.tensor(shares).log())
        self.register_buffer("correction", correction, persistent=shares is not None)
        self.correction: Tensor

    def forward(self, logits: Tensor) -> Tensor:
        """Return probabilities ``(n, k)``: rows sum to 1, but for several labels."""
        if self.task == "regression":
            return logits
        if self.task == "multi-label":
            return torch.sigmoid(logits / self.temperature)
        return functional.softmax(logits / self.temperature - self.correction, dim=1)


class Scaling(nn.Module):
    """``(x - mean) / scale``, with what is lost of the mean in single precision.

    Args:
        mean, scale: ``(d,) float64``.
    """

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        for name, value in (
            ("mean", mean),
            ("scale", scale),
            ("rest", (mean - _single(mean).double()) / scale),
        ):
            self.register_buffer(name, _single(value))
        self.mean: Tensor
        self.scale: Tensor
        self.rest: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Scale rows ``(n, d)``."""
        return (x - self.mean) / self.scale - self.rest


def _unit(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp(min=1e-30)


class Linear(nn.Module):
    """``scaled x @ weight + bias``."""

    def __init__(self, arrays: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:  # noqa: ARG002
        super().__init__()
        self.scaling = Scaling(arrays["mean"], arrays["scale"])
        self.weight = nn.Parameter(_single(arrays["weight"]))
        self.bias = nn.Parameter(_single(arrays["bias"]))
        self.register_buffer("present", arrays["present"].bool())
        self.present: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, k)``."""
        return _known(self.scaling(x) @ self.weight + self.bias, self.present)


def _known(logits: Tensor, present: Tensor) -> Tensor:
    return torch.where(present, logits, LOWEST)


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


class MLP(nn.Module):
    """A perceptron of scaled rows; of a regression its outputs are scaled back."""

    def __init__(self, arrays: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.scaling = Scaling(arrays["mean"], arrays["scale"])
        self.network = Perceptron(
            (_single(arrays[f"weight.{i}"]), _single(arrays[f"bias.{i}"]))
            for i in range(options["layers"])
        )
        for name in ("output_shift", "output_scale"):
            self.register_buffer(name, _single(arrays[name]))
        self.register_buffer("present", arrays["present"].bool())
        self.output_shift: Tensor
        self.output_scale: Tensor
        self.present: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return logits or values ``(n, k)``."""
        found = self.network(self.scaling(x)) * self.output_scale + self.output_shift
        return _known(found, self.present)


class Prototypes(nn.Module):
    """The cosine of centred rows with each class mean."""

    def __init__(self, arrays: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:  # noqa: ARG002
        super().__init__()
        self.scaling = Scaling(arrays["centre"].double(), torch.ones_like(arrays["centre"]))
        self.register_buffer("prototypes", _single(arrays["prototypes"]))
        self.register_buffer("present", arrays["present"].bool())
        self.prototypes: Tensor
        self.present: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return cosines ``(n, k)``."""
        return _known(_unit(self.scaling(x)) @ self.prototypes.T, self.present)


class Neighbours(nn.Module):
    """The logarithm of the vote shares of the k nearest training rows."""

    def __init__(self, arrays: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.k, self.classes = int(options["k"]), int(options["classes"])
        self.cosine = options["metric"] == "cosine"
        self.softness = float(options["softness"]) if options["weights"] == "softmax" else None
        rows = _single(arrays["rows"])
        self.register_buffer("rows", rows)
        self.register_buffer("squares", (rows.double() ** 2).sum(1).float())
        self.register_buffer("labels", arrays["labels"].long())
        counts = arrays.get("counts")
        self.most = self.k
        if counts is not None:
            enough = int((counts.double().sort().values.cumsum(0) < self.k).sum()) + 1
            self.most = min(enough, len(rows))
        self.register_buffer("counts", None if counts is None else _single(counts))
        self.rows: Tensor
        self.squares: Tensor
        self.labels: Tensor
        self.counts: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Return logarithms of shares ``(n, classes)``."""
        if self.cosine:
            similarity = _unit(x) @ self.rows.T
        else:
            similarity = 2.0 * (x @ self.rows.T) - self.squares
        values, index = similarity.topk(self.most, dim=1)
        if self.softness is None:
            vote = torch.ones_like(values)
        else:
            vote = torch.exp((values - values[:, :1]) / self.softness)
        if self.counts is not None:
            count = self.counts[index]
            before = count.cumsum(1) - count
            vote = vote * torch.minimum((self.k - before).clamp(min=0.0), count)
        vote = vote / vote.sum(dim=1, keepdim=True)
        shares = torch.zeros(x.shape[0], self.classes, dtype=vote.dtype, device=vote.device)
        shares = shares.scatter_add(1, self.labels[index], vote)
        return torch.where(shares > 0, torch.log(shares.clamp(min=1e-37)), LOWEST)


class Prepared(nn.Module):
    """Rows of unit length, scaled, before another head."""

    def __init__(self, arrays: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.scaling = Scaling(arrays["mean"], arrays["scale"])
        inside = {
            name.removeprefix("inner."): array
            for name, array in arrays.items()
            if name.startswith("inner.")
        }
        self.inner = _logits(inside, options["inner"])

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the inner head, ``(n, k)``."""
        found: Tensor = self.inner(self.scaling(_unit(x)))
        return found


class Started(nn.Module):
    """What a classifier says of these classes, and what labels have added to it."""

    def __init__(self, arrays: Mapping[str, Tensor], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.share, self.unit = float(options["share"]), options.get("unit", False) is True
        self.start_weight = nn.Parameter(_single(arrays["start_weight"]))
        self.start_bias = nn.Parameter(_single(arrays["start_bias"]))
        self.scaling = Scaling(arrays["mean"], arrays["scale"])
        self.weight = nn.Parameter(_single(arrays["weight"]))
        self.bias = nn.Parameter(_single(arrays["bias"]))
        owner = arrays["owner"].long()
        columns = [(owner == one).nonzero().flatten() for one in range(len(arrays["bias"]))]
        widest = max(map(len, columns))
        # Columns of each class, filled up with its first; what is filled up counts nothing.
        index = torch.stack([torch.cat([c, c[:1].expand(widest - len(c))]) for c in columns])
        filled = torch.stack([torch.arange(widest) >= len(c) for c in columns])
        self.register_buffer("index", index)
        self.register_buffer("filled", torch.where(filled, LOWEST, 0.0))
        self.index: Tensor
        self.filled: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, k)``."""
        given = _unit(x) if self.unit else x
        logits = (given @ self.start_weight + self.start_bias)[:, self.index] + self.filled
        before = functional.log_softmax(torch.logsumexp(logits, dim=2), dim=1)
        added: Tensor = self.scaling(_unit(x)) @ self.weight + self.bias
        return self.share * before + added


MODULES: dict[str, Callable[[Mapping[str, Tensor], Mapping[str, Any]], nn.Module]] = {
    "linear": Linear,
    "mlp": MLP,
    "neighbours": Neighbours,
    "prototype": Prototypes,
    "prepared": Prepared,
    "started": Started,
}
"""The module of each kind of saved head."""

__all__ = ["LOWEST", "MODULES", "Outputs", "Perceptron", "Scaling", "head_module"]
