"""Gradients of a network that is not being trained: which block has the largest for its weights?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.core.devices import doubled
from headstart.finetuning.feeds import Feed, Index
from headstart.finetuning.network import Classifier, network_groups
from headstart.modules.modes import evaluation_mode


@contextmanager
def gradients_for(network: Classifier, trainable: Sequence[str]) -> Iterator[None]:
    """Let only ``trainable`` parameters have gradients, in evaluation mode; undo both on exit.

    Evaluation mode costs the same time, and leaves statistics and generators alone. Gradients that
    a user's own loop has accumulated are set aside and restored.
    """
    before = [(one, one.requires_grad, one.grad) for one in network.parameters()]
    chosen = set(trainable)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in chosen)
        parameter.grad = None
    try:
        with evaluation_mode(network):
            yield
    finally:
        for parameter, wanted, gradient in before:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient


@dataclass(frozen=True)
class RelativeGradient:
    """Gradient norm over weight norm of one block group.

    Attributes:
        name: the group.
        ratio: ``‖∇L‖ / ‖w‖`` over all its parameters together.
    """

    name: str
    ratio: float


def relative_gradients(
    network: Classifier, feed: Feed, targets: Tensor, order: Index, *, batch_size: int = 32
) -> tuple[RelativeGradient, ...]:
    """Measure the relative gradient norm of every block group of the backbone.

    The criterion of surgical fine-tuning's Auto-RGN (Lee et al. 2023, arXiv 2210.11466, section
    4.1): a block whose gradient is large beside its weights is the one to tune. The gradient is
    that of the mean loss over all given items, in evaluation mode, behind the current head, so
    the head has to be trained first. Nothing of the network changes.

    Args:
        network: with a trained head.
        feed: gives images.
        targets: of all items, as the objective of the network makes them.
        order: ``(m,)``, the items to use; a few hundred are enough.
        batch_size: items a pass.

    Returns:
        One record a group, from the input to the output; the head is left out.
    """
    live = network.live_tensors()
    names = [name for name, _ in network.named_parameters() if name in live]
    with gradients_for(network, names):
        for index, inputs in feed.batches(order, batch_size, 0):
            truth = targets[torch.from_numpy(index).to(targets.device)]
            loss = network.objective.loss(inputs.call(network), truth)
            loss = loss * (len(truth) / len(order))
            torch.autograd.backward(loss)
        parameters = dict(network.named_parameters())
        found = []
        for group in network_groups(network)[:-1]:  # the last is the head
            own = [parameters[name] for name in group.parameters]
            weight = sum(float(doubled(p.detach()).square().sum()) for p in own)
            slope = sum(float(doubled(p.grad).square().sum()) for p in own if p.grad is not None)
            ratio = (slope / weight) ** 0.5 if weight else float("nan")
            found.append(RelativeGradient(group.name, ratio))
    return tuple(found)


__all__ = ["RelativeGradient", "gradients_for", "relative_gradients"]
