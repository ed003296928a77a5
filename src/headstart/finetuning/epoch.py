"""One epoch: going through the training part once, and validating."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headstart.core.progress import Task
from headstart.finetuning import chance
from headstart.finetuning.mixing import mixed_inputs
from headstart.finetuning.network import smoothed_loss
from headstart.finetuning.optimizers import Average, set_rates
from headstart.finetuning.roads import Batch, Index, Road
from headstart.finetuning.rows import autocast
from headstart.finetuning.setup import Setup
from headstart.finetuning.stages import Stage


def train_epoch(
    setup: Setup,
    at: tuple[int, int],
    road: Road,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    task: Task,
) -> tuple[float, float]:
    """Go through the training part once; return mean loss and accuracy.

    Args:
        setup: network, stages, data.
        at: numbers of the stage, from 0, and of the epoch in it, from 1.
        road: what the stage trains on.
        optimizer: of the stage.
        average: of the weights, taken forward after every step; None keeps none.
        task: told of the items that are done.
    """
    number, epoch = at
    stage, devices, seed = setup.targets[number].stage, setup.devices, setup.seed
    order = chance.order(len(setup.train_labels), seed, number, epoch)
    if stage.batch_statistics and len(order) % stage.batch_size == 1:
        order = order[:-1]  # a batch of one item has no variance to normalise by
    mixing = chance.numbers(seed, number, epoch, chance.MIXING, devices.rank)
    steps = -(-len(order) // stage.batch_size)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    totals = torch.zeros(2, dtype=torch.float64, device=setup.device)
    view = 1 + (epoch - 1) % stage.views if stage.views else 0
    setup.network.train()
    batches = devices.batches(road.train, order, stage.batch_size, view)
    for step, (count, batch) in enumerate(batches):
        set_rates(optimizer, stage.rate_factor(epoch - 1 + (step + 0.5) / steps))
        optimizer.zero_grad(set_to_none=True)
        if batch is not None:
            totals += _learn(road, stage, batch, setup.train_labels, count, mixing)
        devices.sum_gradients(trained)
        if stage.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, stage.clip)
        optimizer.step()
        if average is not None:
            average.update()
        task.advance(count)
    loss_sum, hit_sum = devices.total(totals).tolist()
    return loss_sum / max(len(order), 1), hit_sum / max(len(order), 1)


def _learn(
    road: Road,
    stage: Stage,
    batch: Batch,
    labels: Tensor,
    count: int,
    mixing: np.random.Generator,
) -> Tensor:
    """Go forward and back through a share of ``count`` items; return its loss and hits."""
    index, inputs = batch
    device = labels.device
    truth = labels[torch.from_numpy(index).to(device)]
    inputs, mixed = mixed_inputs(inputs, truth, stage, mixing)
    with autocast(stage.precision, device):
        logits = road.forward(*inputs)
    loss = smoothed_loss(logits, truth, stage.label_smoothing, mixed)
    # A share weighs as much as it has items, so that the sum is the mean over the batch.
    torch.autograd.backward(loss if len(truth) == count else loss * (len(truth) / count))
    hits = (logits.detach().argmax(1) == truth).sum()
    return torch.stack([loss.detach().double() * len(truth), hits.double()])


def validate(setup: Setup, road: Road, stage: Stage) -> tuple[float, float]:
    """Return mean loss and accuracy on the validation part, in evaluation mode.

    Args:
        setup: network, data.
        road: what the stage trains on.
        stage: its batch size and precision.
    """
    labels, device, devices = setup.validation_labels, setup.device, setup.devices
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    setup.network.eval()
    order: Index = np.arange(len(labels))
    with torch.no_grad(), autocast(stage.precision, device):
        batches = devices.batches(road.validation, order, 2 * stage.batch_size, 0)
        for index, inputs in (batch for _, batch in batches if batch is not None):
            truth = labels[torch.from_numpy(index).to(device)]
            logits = road.forward(*inputs).float()
            loss = torch.nn.functional.cross_entropy(logits, truth, reduction="sum")
            hits = (logits.argmax(1) == truth).sum()
            totals += torch.stack([loss.double(), hits.double()])
    loss_sum, hit_sum = devices.total(totals).tolist()
    return loss_sum / len(labels), hit_sum / len(labels)


__all__ = ["train_epoch", "validate"]
