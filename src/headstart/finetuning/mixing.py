"""Mixing items of a batch, and noise, at the input of what is computed anew."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headstart.finetuning.stages import Stage


def mixed_inputs(
    inputs: tuple[Tensor, ...], labels: Tensor, stage: Stage, chance_: np.random.Generator
) -> tuple[tuple[Tensor, ...], tuple[Tensor, float] | None]:
    """Mix items with others of their batch, and add noise, where the stage says so.

    Of several devices each mixes within its own share.

    Args:
        inputs: what the forward takes, each ``(m, ...)``; what is no floating type stays.
        labels: ``(m,) int64``.
        stage: its ``mixup`` and ``noise``.
        chance_: where the shares and the partners are drawn from.

    Returns:
        The inputs, and with mixup the labels ``(m,)`` of the partners with the share of the
        items' own, as :func:`~headstart.finetuning.network.smoothed_loss` takes them.
    """
    mixed = None
    if stage.mixup > 0:
        share = float(chance_.beta(stage.mixup, stage.mixup))
        partner = torch.from_numpy(chance_.permutation(len(labels))).to(labels.device)
        inputs = tuple(
            share * x + (1 - share) * x[partner] if x.is_floating_point() else x for x in inputs
        )
        mixed = (labels[partner], share)
    if stage.noise > 0:
        inputs = tuple(
            x + stage.noise * x.detach().std() * torch.randn_like(x) if x.is_floating_point() else x
            for x in inputs
        )
    return inputs, mixed


__all__ = ["mixed_inputs"]
