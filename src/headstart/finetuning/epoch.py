"""One epoch: a pass over the training items, and a pass over the validation items."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headstart.core.arguments import Arguments
from headstart.core.devices import doubled, widest_float
from headstart.core.progress import Progress
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.extraction import autocast
from headstart.finetuning import rng
from headstart.finetuning.devices import Devices
from headstart.finetuning.feeds import Batch, Feeds, Index, StageFeeds
from headstart.finetuning.objective import Objective
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
    """Train on every item once; return the mean loss and the figure of the objective.

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
    targets, seed = feeds.targets(feeds.train), feeds.seed
    order = rng.item_order(len(targets), seed, number, epoch)
    if stage.batch_statistics and len(order) % stage.batch_size == 1:
        order = order[:-1]  # a batch of one item has no variance to normalise by
    mixing = rng.mixing_generator(seed, number, epoch, devices.rank)
    steps = -(-len(order) // stage.batch_size)
    trained = [p for group in state.optimizer.param_groups for p in group["params"]]
    tally = _Tally(feeds.network.objective, targets)
    view = 1 + (epoch - 1) % stage.views if stage.views else 0
    feeds.network.train()
    batches = devices.batches(opened.train, order, stage.batch_size, view)
    for step, (count, batch) in enumerate(batches):
        set_rates(state.optimizer, stage.rate_factor(epoch - 1 + (step + 0.5) / steps))
        state.optimizer.zero_grad(set_to_none=True)
        if batch is not None:
            _forward_backward(opened, stage, batch, tally, count, mixing)
        devices.sum_gradients(trained)
        if stage.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, stage.clip)
        state.optimizer.step()
        if state.average is not None:
            state.average.update()
        task.advance(count)
    return tally.figures(devices, len(order))


class _Tally:
    """Loss and figure of a pass, item by item where the figure needs all outputs at once."""

    def __init__(self, objective: Objective, targets: Tensor) -> None:
        self.objective, self.targets = objective, targets
        self._plain = objective.task == CLASSIFICATION.name and objective.weights is None
        self._totals = torch.zeros(2, dtype=widest_float(targets.device), device=targets.device)
        self._outputs: Tensor | None = None

    def add(self, index: Index, outputs: Tensor, loss: Tensor) -> None:
        """Add items: their positions, outputs ``(m, k)`` and summed loss."""
        self._totals[0] += loss.to(self._totals.dtype)
        at = torch.from_numpy(index).to(self.targets.device)
        if self._plain:
            self._totals[1] += (outputs.argmax(1) == self.targets[at]).sum().to(self._totals.dtype)
            return
        if self._outputs is None:  # the last column: which items have passed
            n, k = len(self.targets), outputs.shape[1]
            self._outputs = torch.zeros((n, k + 1), dtype=torch.float32, device=outputs.device)
        self._outputs[at, :-1] = outputs.float()
        self._outputs[at, -1] = 1.0

    def figures(self, devices: Devices, n: int) -> tuple[float, float]:
        """Return the mean loss over ``n`` items and the figure, over all devices."""
        loss_sum, hit_sum = devices.total(self._totals).tolist()
        if self._plain:
            return loss_sum / max(n, 1), hit_sum / max(n, 1)
        mine = self._outputs
        if mine is None:  # this device had no share of any batch
            size = (len(self.targets), self.objective.outputs + 1)
            mine = torch.zeros(size, device=self.targets.device)
        every = devices.total(mine)
        passed = every[:, -1] > 0
        if not bool(passed.any()):
            return loss_sum / max(n, 1), 0.0
        return loss_sum / max(n, 1), self.objective.score(self.targets[passed], every[passed, :-1])


def _forward_backward(
    opened: StageFeeds,
    stage: Stage,
    batch: Batch,
    tally: _Tally,
    count: int,
    mixing: np.random.Generator,
) -> None:
    """Accumulate the gradients of a share of ``count`` items, and count its losses and outputs."""
    index, inputs = batch
    device = tally.targets.device
    truth = tally.targets[torch.from_numpy(index).to(device)]
    inputs, mixed = _mixed(inputs, truth, stage, mixing)
    with autocast(stage.precision, device):
        logits: Tensor = inputs.call(opened.forward)
    loss = tally.objective.loss(logits, truth, stage.label_smoothing, mixed)
    # A share weighs as much as it has items, so that the sum is the mean over the batch.
    torch.autograd.backward(loss if len(truth) == count else loss * (len(truth) / count))
    tally.add(index, logits.detach(), doubled(loss.detach()) * len(truth))


def _mixed(
    inputs: Arguments, targets: Tensor, stage: Stage, mixing: np.random.Generator
) -> tuple[Arguments, tuple[Tensor, float] | None]:
    """Mix items with others of their batch and add noise, as the stage says.

    Several devices each mix within their own share.

    Args:
        inputs: of m items; only floating-point tensors are changed.
        targets: of these items.
        stage: its ``mixup`` and ``noise``.
        mixing: the generator of weights and partners.

    Returns:
        The inputs; and with mixup the targets of the partners and the weight of the items
        themselves, as :meth:`~headstart.finetuning.objective.Objective.loss` takes them.
    """
    mixed = None
    if stage.mixup > 0:
        weight = float(mixing.beta(stage.mixup, stage.mixup))
        partner = torch.from_numpy(mixing.permutation(len(targets))).to(targets.device)
        inputs = inputs.map(
            lambda x: weight * x + (1 - weight) * x[partner] if x.is_floating_point() else x
        )
        mixed = (targets[partner], weight)
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
    """Return mean loss and the figure on the validation items, in evaluation mode.

    Args:
        feeds: the items of the run.
        opened: what the stage trains on.
        stage: its batch size and precision.
        devices: that share every batch.
    """
    targets = feeds.targets(feeds.validation)
    device = targets.device
    tally = _Tally(feeds.network.objective, targets)
    feeds.network.eval()
    order: Index = np.arange(len(targets))
    with torch.no_grad(), autocast(stage.precision, device):
        batches = devices.batches(opened.validation, order, 2 * stage.batch_size, 0)
        for index, inputs in (batch for _, batch in batches if batch is not None):
            truth = targets[torch.from_numpy(index).to(device)]
            logits = inputs.call(opened.forward).float()
            tally.add(index, logits, tally.objective.summed(logits, truth))
    return tally.figures(devices, len(targets))


__all__ = ["train_epoch", "validate"]
