"""Copies of the backbone in the modes that a function needs; the user's module stays untouched."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.backbones import Backbone, features_of
from headstart.cache import describe_space
from headstart.core.arguments import Arguments
from headstart.core.devices import kept_randomness
from headstart.core.errors import BackboneError
from headstart.extraction import Extraction, Precision, autocast
from headstart.extraction.engines.eager import arranged
from headstart.freezing import FreezeHandle, FreezePolicy, blend, freeze, reestimate
from headstart.freezing.contract import contracts
from headstart.freezing.norm import Reestimation
from headstart.modules.forward import run_up_to
from headstart.study.configurations import Autograd
from headstart.study.functions import Cut, Facts, Function
from headstart.study.repetitions import Ints, Repetition, StudyData

_CONTEXTS = {"no_grad": torch.no_grad, "inference": torch.inference_mode, "grad": torch.enable_grad}


@dataclass(frozen=True, eq=False)
class Networks:
    """The network under study, and its copies that are ready to compute a function.

    Statistics are measured once for every preprocessing and training split.

    Attributes:
        backbone: the user's; never changed.
        deepest: the same, cut where the deepest configuration is.
        facts: what it contains.
        data: the items.
        statistics_items: training items that statistics are re-estimated on.
        batch_size: items in a batch of that.
    """

    backbone: Backbone
    deepest: Backbone
    facts: Facts
    data: StudyData
    statistics_items: int
    batch_size: int
    _restated: dict[object, tuple[Backbone, Reestimation]] = field(default_factory=dict)
    _spaces: dict[Cut, dict[str, Any]] = field(default_factory=dict)

    def ready(self, function: Function, repetition: Repetition) -> Backbone:
        """Return a copy in the modes, and with the statistics, for the training rows."""
        if not function.measured_statistics:
            return prepared(self.backbone, function)
        key = (function.inputs, repetition.number if self.data.redrawn else 0)
        if key not in self._restated:
            self._restated[key] = self._restate(function, repetition)
        restated, done = self._restated[key]
        if function.statistics == "reestimated":
            return restated
        assert function.alpha is not None
        mixed = copied(restated)
        blend(mixed.module, done, function.alpha)
        return mixed

    def space(self, cut: Cut, precision: Precision) -> dict[str, Any]:
        """Describe the function of the network at a cut, for keys."""
        if cut not in self._spaces:
            (at,) = at_cuts(self.backbone, [cut])
            self._spaces[cut] = describe_space(at, precision)
        return self._spaces[cut]

    def forget(self) -> None:
        """Free the copies whose statistics were measured."""
        self._restated.clear()

    def _restate(self, function: Function, repetition: Repetition) -> tuple[Backbone, Reestimation]:
        chosen = statistics_sample(repetition, self.statistics_items)
        given = function.inputs
        device, size = self.backbone.device, self.batch_size
        batches = self.data.batches(self.data.train, chosen, given, size, device)
        return restate(self.deepest, self.facts.norms, [inputs for _, inputs in batches])


def statistics_sample(repetition: Repetition, most: int) -> Ints:
    """Return the training items that statistics are measured on: at most ``most``, at random."""
    if len(repetition.train) <= most:
        return repetition.train
    generator = np.random.default_rng(repetition.seeds.validation)
    return np.sort(generator.permutation(repetition.train)[:most])


def copied(backbone: Backbone) -> Backbone:
    """Return the same backbone around a copy of its module, without any freeze contract.

    Raises:
        BackboneError: the module cannot be copied.
    """
    try:
        module = copy.deepcopy(backbone.module)
    except Exception as error:  # whatever a user's module raises
        raise BackboneError(
            f"{backbone.name} cannot be copied ({error}), and a comparison never runs your own"
            " module in training mode",
            hint="make the module deep-copyable",
        ) from error
    settle(module)
    return dataclasses.replace(backbone, module=module)


def settle(module: nn.Module) -> None:
    """Take freeze contracts off a copy and put it in evaluation mode."""
    for _, governed in list(contracts(module)):
        FreezeHandle(governed).release()
    module.eval()


def prepared(backbone: Backbone, function: Function) -> Backbone:
    """Return a copy in the modes in which ``function`` computes training rows."""
    ready = copied(backbone)
    _set_modes(ready.module, batch=function.batch_dependent, dropout=function.dropout)
    return ready


def _set_modes(module: nn.Module, *, batch: bool, dropout: bool) -> None:
    if not batch and not dropout:
        module.eval()
        return
    if not (batch and dropout):
        trainable = any(parameter.requires_grad for parameter in module.parameters())
        freeze(
            module,
            FreezePolicy(
                "trainable" if trainable else "frozen",
                norm="batch" if batch else "running",
                norm_updates=batch,
                stochastic="on" if dropout else "off",
            ),
        )
    module.train()


def restate(
    backbone: Backbone, norms: Sequence[str], batches: Sequence[Arguments]
) -> tuple[Backbone, Reestimation]:
    """Return a copy whose batch norms hold the exact statistics of ``batches``, and what they were.

    Args:
        backbone: cut where the deepest row is taken; what lies behind is not run.
        norms: the layers to measure.
        batches: what the network is called with, kept in memory with all activations of one depth.
    """
    copy_ = copied(backbone)

    def forward(model: nn.Module, batch: Arguments) -> None:
        inputs = arranged(batch)
        run_up_to(model, backbone.layer, *inputs.args, **inputs.kwargs)

    done = reestimate(copy_.module, batches, layers=norms, forward=forward, in_memory=True)
    return copy_, done


def at_cuts(backbone: Backbone, cuts: Sequence[Cut]) -> tuple[Backbone, ...]:
    """Return the same network at every cut."""
    return tuple(backbone.at(layer, pooling) for layer, pooling in cuts)


def run_batch(
    cuts: Sequence[Backbone], inputs: Arguments, autograd: Autograd, settings: Extraction
) -> list[Tensor]:
    """Run one batch in the modes that the module is in, and return its rows at every cut.

    Args:
        cuts: one network.
        inputs: of n items, on the network's device.
        autograd: under which gradient mode.
        settings: for the precision.

    Returns:
        ``(n, d) float32`` a cut, detached.
    """
    with _CONTEXTS[autograd](), autocast(settings.precision, inputs.device):
        outputs = features_of(cuts, arranged(inputs))
    return [output.detach().float() for output in outputs]


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators for dropout, and restore the user's random state afterwards."""
    with kept_randomness((device,), seed):
        yield


__all__ = [
    "Networks",
    "at_cuts",
    "copied",
    "prepared",
    "restate",
    "run_batch",
    "seeded",
    "settle",
    "statistics_sample",
]
