"""The network that is fine-tuned: a backbone up to its cut, dropout, and a linear head.

The backbone stays the same module, with the same parameter names, so that a freeze contract, an
optimizer and a saved file all mean the same tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.backbones import Backbone
from headstart.backbones.groups import BlockGroup, block_groups
from headstart.core.errors import BackboneError
from headstart.finetuning.objective import Objective
from headstart.heads import LinearHead
from headstart.modules.digests import named_tensors
from headstart.modules.forward import capture
from headstart.modules.pooling import pool, towards_rows
from headstart.prefix import Candidate, Cut

BACKBONE, HEAD = "backbone", "head"
_STILL = 1e-6
"""A deviation that is smaller, relative to that of most features, is rounding in float32: rows of
networks with dead channels (all-MiniLM-L6 has three) hold values of 1e-8 and 1e-33."""


class Classifier(nn.Module):
    """``head(dropout(pool(backbone(x))))``.

    Args:
        source: the backbone; its module is used in place, not copied.
        n_classes: outputs of the head.
        dropout: probability of dropout before the head.
        seed: of the head's first weights.
        objective: what it is trained to minimise; None: the cross-entropy of one class an item.

    Attributes:
        source: the backbone it was made from; weights are read from it when it is used.
        objective: what it is trained to minimise.
    """

    def __init__(
        self,
        source: Backbone,
        n_classes: int,
        *,
        dropout: float = 0.0,
        seed: int = 0,
        objective: Objective | None = None,
    ) -> None:
        super().__init__()
        shape = source.feature_shape()
        if len(shape) != 1:
            raise BackboneError(
                f"a head needs one row per item, and {source.name} gives {shape} per item",
                hint=towards_rows(shape),
            )
        _refuse_padding(source)
        self.source = source
        self.objective = objective or Objective()
        self.backbone = source.module
        self.layout = source.layout  # found by a run of its own, not in a forward pass
        self.dropout = nn.Dropout(dropout)
        with torch.random.fork_rng(devices=[]):
            self.head = nn.Linear(shape[0], n_classes)
        self._reset_head(seed)
        self.to(source.device)

    def forward(self, x: Tensor, *more: Tensor, **named: Tensor) -> Tensor:
        """Return logits, or standardised numbers, ``(n, n_classes)`` for its arguments."""
        return cast(Tensor, self.head(self.dropout(self.features(x, *more, **named))))

    def features(self, x: Tensor, *more: Tensor, **named: Tensor) -> Tensor:
        """Return what the head is given, ``(n, d)``."""
        layer = self.source.layer
        found = capture(self.backbone, [layer], lambda _layer, output: output, x, *more, **named)
        return pool(found[layer], self.source.pooling, self.layout)

    def cut_at_feature(self, cut: Cut | Candidate) -> bool:
        """Return whether the boundary of a cut is the backbone's own feature, in float32."""
        stored = [(spec.dtype, spec.compute) for spec in cut.boundary]
        return stored == [("float32", "float32")] and cut.only_runs(("dropout", HEAD))

    def load_head(self, head: LinearHead) -> None:
        """Take the weights of a linear head; its standardisation is folded into them.

        Classes that the head has never seen get the bias of the least likely one. Features that
        vary by rounding alone get no weight: divided by their deviation, the smallest change of
        the backbone would outweigh all others.
        """
        still = head.scale < _STILL * np.median(head.scale)
        weight = np.where(still[:, None], 0.0, head.weight) / head.scale[:, None]
        bias = head.bias - head.mean @ weight
        bias = np.where(head.present, bias, bias[head.present].min())
        mean, scale = self.objective.mean, self.objective.scale
        if mean is not None and scale is not None:
            weight, bias = weight / scale, (bias - mean) / scale
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight.T.copy()))
            self.head.bias.copy_(torch.from_numpy(bias))

    def linear_head(self, present: NDArray[np.bool_]) -> LinearHead:
        """Return the head as a run folder keeps it: on raw features, in the unit of the targets.

        Args:
            present: ``(k,)``, the classes that the training items held.
        """
        weight = self.head.weight.detach().cpu().double().numpy().T.copy()
        bias = self.head.bias.detach().cpu().double().numpy().copy()
        mean, scale = self.objective.mean, self.objective.scale
        if mean is not None and scale is not None:
            weight, bias = weight * scale, bias * scale + mean
        width, task = len(weight), self.objective.task
        return LinearHead(
            weight, bias, np.zeros(width), np.ones(width), present, task=task, method="finetuned"
        )

    def live_modules(self) -> frozenset[str]:
        """Return the names of modules that take part in the forward, with their ancestors."""
        names = {"", BACKBONE, HEAD, "dropout"}
        for name in self.source.live.modules:
            pieces = f"{BACKBONE}.{name}".rstrip(".").split(".")
            names.update(".".join(pieces[: i + 1]) for i in range(len(pieces)))
        return frozenset(names)

    def live_tensors(self) -> frozenset[str]:
        """Return the names of parameters and buffers that take part in the forward.

        A tied one is listed under its first name too, which is the one that is trained.
        """
        own = {f"{BACKBONE}.{name}" for name in self.source.live.tensors}
        every = dict(named_tensors(self))
        taking_part = {id(every[name]) for name in own if name in every}
        own |= {
            name
            for name, tensor in (*self.named_parameters(), *self.named_buffers())
            if id(tensor) in taking_part
        }
        return frozenset(own | {f"{HEAD}.weight", f"{HEAD}.bias"})

    def grouped_parameters(self) -> list[list[str]]:
        """Return the names of the parameters block by block; see :func:`block_groups`."""
        groups = [list(group.parameters) for group in network_groups(self)]
        listed = {name for group in groups for name in group}
        # Parameters behind the layer belong to no group that trains; they come before the stem, so
        # that the others keep their distance from the head.
        rest = [name for name, _ in self.named_parameters() if name not in listed]
        return [rest, *groups] if rest else groups

    def _reset_head(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        bound = 1.0 / math.sqrt(self.head.in_features)
        with torch.no_grad():
            for parameter in (self.head.weight, self.head.bias):
                drawn = torch.rand(parameter.shape, generator=generator)
                parameter.copy_(drawn * (2 * bound) - bound)


def _refuse_padding(source: Backbone) -> None:
    """Refuse a pooling over padded positions: training has no mask to leave them out by."""
    if source.probe().mask is not None and source.layout.positions and source.pooling != "cls":
        raise BackboneError(
            f"{source.name} pads its {source.inputs.unit}, and fine-tuning cannot exclude"
            f" padding from pooling='{source.pooling}'",
            hint="let the module pool with its own mask, and omit layer",
        )


def network_groups(network: Classifier) -> tuple[BlockGroup, ...]:
    """Return the block groups of the backbone that take part in the forward, and the head.

    Names of parameters and modules are those in the classifier; names of groups are short.
    """
    live = network.live_tensors()
    found = []
    for group in block_groups(network.backbone):
        parameters = tuple(f"{BACKBONE}.{name}" for name in group.parameters)
        if any(name in live for name in parameters):
            modules = tuple(f"{BACKBONE}.{name}" for name in group.modules)
            kept = tuple(name for name in parameters if name in live)
            # The classifier that trains is the head; a backbone may have a part of that name.
            name = f"{BACKBONE}.{HEAD}" if group.name == HEAD else group.name
            found.append(BlockGroup(name, kept, modules))
    head = BlockGroup(HEAD, (f"{HEAD}.weight", f"{HEAD}.bias"), (HEAD,))
    return (*found, head)


def dead_modules(network: Classifier) -> tuple[str, ...]:
    """Return the outermost modules with tensors that take no part in the forward."""
    live = network.live_modules()
    dead: list[str] = []
    for name, module in network.named_modules():
        if name in live or any(name.startswith(parent + ".") for parent in dead):
            continue
        tensors: Iterable[Tensor] = (*module.parameters(), *module.buffers())
        if any(True for _ in tensors):
            dead.append(name)
    return tuple(dead)


__all__ = [
    "BACKBONE",
    "HEAD",
    "Classifier",
    "dead_modules",
    "network_groups",
]
