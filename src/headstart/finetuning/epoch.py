"""One epoch: a pass over the training items, and a pass over the validation items."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headstart.core.arguments import Arguments
from headstart.core.progress import Progress
from headstart.extraction import autocast
from headstart.finetuning import rng
from headstart.finetuning.devices import Devices
from headstart.finetuning.feeds import Batch, Feeds, Index, StageFeeds
from headstart.finetuning.network import smoothed_loss
from headstart.finetuning.recipe import Stage
from headstart.finetuning.state import TrainingState, set_rates


def train_epoch(
    feeds: Feeds,
    opened: StageFeeds,
    stage: Stage,
    at: tuple[int, int],
    state: TrainingState,
    devices: Devices,
    task: Progress,
) -> tuple[float, float]:
    """Train on every item once; return mean loss and accuracy.

    Args:
        feeds: the items of the run.
        opened: what the stage trains on.
        stage: the stage.
        at: number of the stage, from 0, and of the epoch in it, from 1.
        state: optimizer and average of the stage.
        devices: that share every batch.
        task: advanced by finished items.
    """
    number, epoch = at
    labels, seed = feeds.labels(feeds.train), feeds.seed
    order = rng.item_order(len(labels), seed, number, epoch)
    if stage.batch_statistics and len(order) % stage.batch_size == 1:
        order = order[:-1]  # a batch of one item has no variance to normalise by
    mixing = rng.mixing_generator(seed, number, epoch, devices.rank)
    steps = -(-len(order) // stage.batch_size)
    trained = [p for group in state.optimizer.param_groups for p in group["params"]]
    totals = torch.zeros(2, dtype=torch.float64, device=labels.device)
    view = 1 + (epoch - 1) % stage.views if stage.views else 0
    feeds.network.train()
    batches = devices.batches(opened.train, order, stage.batch_size, view)
    for step, (count, batch) in enumerate(batches):
        set_rates(state.optimizer, stage.rate_factor(epoch - 1 + (step + 0.5) / steps))
        state.optimizer.zero_grad(set_to_none=True)
        if batch is not None:
            totals += _forward_backward(opened, stage, batch, labels, count, mixing)
        devices.sum_gradients(trained)
        if stage.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, stage.clip)
        state.optimizer.step()
        if state.average is not None:
            state.average.update()
        task.advance(count)
    loss_sum, hit_sum = devices.total(totals).tolist()
    return loss_sum / max(len(order), 1), hit_sum / max(len(order), 1)


def _forward_backward(
    opened: StageFeeds,
    stage: Stage,
    batch: Batch,
    labels: Tensor,
    count: int,
    mixing: np.random.Generator,
) -> Tensor:
    """Accumulate the gradients of a share of ``count`` items; return its summed loss and hits."""
    index, inputs = batch
    device = labels.device
    truth = labels[torch.from_numpy(index).to(device)]
    inputs, mixed = _mixed(inputs, truth, stage, mixing)
    with autocast(stage.precision, device):
        logits: Tensor = inputs.call(opened.forward)
    loss = smoothed_loss(logits, truth, stage.label_smoothing, mixed)
    # A share weighs as much as it has items, so that the sum is the mean over the batch.
    torch.autograd.backward(loss if len(truth) == count else loss * (len(truth) / count))
    hits = (logits.detach().argmax(1) == truth).sum()
    return torch.stack([loss.detach().double() * len(truth), hits.double()])


def _mixed(
    inputs: Arguments, labels: Tensor, stage: Stage, mixing: np.random.Generator
) -> tuple[Arguments, tuple[Tensor, float] | None]:
    """Mix items with others of their batch and add noise, as the stage says.

    Several devices each mix within their own share.

    Args:
        inputs: of m items; only floating-point tensors are changed.
        labels: ``(m,) int64``.
        stage: its ``mixup`` and ``noise``.
        mixing: the generator of weights and partners.

    Returns:
        The inputs; and with mixup the labels ``(m,)`` of the partners and the weight of the items
        themselves, as :func:`~headstart.finetuning.network.smoothed_loss` takes them.
    """
    mixed = None
    if stage.mixup > 0:
        weight = float(mixing.beta(stage.mixup, stage.mixup))
        partner = torch.from_numpy(mixing.permutation(len(labels))).to(labels.device)
        inputs = inputs.map(
            lambda x: weight * x + (1 - weight) * x[partner] if x.is_floating_point() else x
        )
        mixed = (labels[partner], weight)
    if stage.noise > 0:
        inputs = inputs.map(
            lambda x: (
                x + stage.noise * x.detach().std() * torch.randn_like(x)
                if x.is_floating_point()
                else x
            )
        )
    return inputs, mixed


def validate(
    feeds: Feeds, opened: StageFeeds, stage: Stage, devices: Devices
) -> tuple[float, float]:
    """Return mean loss and accuracy on the validation items, in evaluation mode.

    Args:
        feeds: the items of the run.
        opened: what the stage trains on.
        stage: its batch size and precision.
        devices: that share every batch.
    """
    labels = feeds.labels(feeds.validation)
    device = labels.device
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    feeds.network.eval()
    order: Index = np.arange(len(labels))
    with torch.no_grad(), autocast(stage.precision, device):
        batches = devices.batches(opened.validation, order, 2 * stage.batch_size, 0)
        for index, inputs in (batch for _, batch in batches if batch is not None):
            truth = labels[torch.from_numpy(index).to(device)]
            logits = inputs.call(opened.forward).float()
            loss = torch.nn.functional.cross_entropy(logits, truth, reduction="sum")
            hits = (logits.argmax(1) == truth).sum()
            totals += torch.stack([loss.double(), hits.double()])
    loss_sum, hit_sum = devices.total(totals).tolist()
    return loss_sum / len(labels), hit_sum / len(labels)


__all__ = ["train_epoch", "validate"]
