"""Loss and gradient of many linear heads in one pass over the features.

A :class:`Group` is a set of heads that share their training rows (one fold of one split). Its
parameters are one tensor ``theta: (d + 1, k, c)``: the last row holds the intercepts, the last
axis runs over the heads, which differ in the strength of their penalty. For row i of weight w_i,
with z_i the standardised features and a final 1,

    f_h(theta) = sum_i w_i loss(z_i . theta_h, y_i) / sum_i w_i  +  lambda_h / 2 * |W_h|^2

which is scikit-learn's objective ``C sum_i w_i loss_i + |W|^2 / 2`` over ``C sum_i w_i``, hence
``lambda = 1 / (C sum_i w_i)``. The intercept is not penalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from headstart.evaluation.targets import FloatArray
from headstart.heads.logistic.rows import Precision, Rows

Link = Literal["softmax", "sigmoid"]
_TARGET_BLOCK_BYTES = 4 * 1024 * 1024
_DEVICE_BLOCK_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Group:
    """The rows that a set of heads is trained on, and the standardisation of just those rows.

    Attributes:
        weight: ``(n,) float64`` in reading order; 0 for a row that trains nothing, be it held out
            or of a class without weight.
        held_out: ``(n,) bool`` in reading order, the rows that judge the heads.
        shift, scale: ``(d,) float64``, on top of the common standardisation of the rows.
        absent: ``(k,) bool``, classes without a training row; their probability is held at 0.
        judges: ``(n,) float64`` in reading order, how often each held-out row counts where it
            judges, 0 for all others; None: once.
    """

    weight: FloatArray
    held_out: np.ndarray
    shift: FloatArray
    scale: FloatArray
    absent: np.ndarray
    judges: FloatArray | None = None

    @property
    def total(self) -> float:
        """The sum of the weights."""
        return float(self.weight.sum())

    @property
    def judging(self) -> np.ndarray:
        """How often each row judges the heads, ``(n,)``."""
        return self.held_out if self.judges is None else self.judges


@dataclass
class Evaluated:
    """Loss and gradient of the heads of one group.

    Attributes:
        loss: ``(c,) float64``, the weighted mean loss without the penalty.
        gradient: ``(d + 1, k, c)`` of that loss, in the group's own standardisation.
    """

    loss: Tensor
    gradient: Tensor


def block_rows(columns: int, device: torch.device) -> int:
    """Rows a block should have so that its logits stay in the processor's cache.

    A CUDA device wants fewer and larger products.
    """
    if device.type != "cpu":
        return int(np.clip(_DEVICE_BLOCK_BYTES // (4 * max(columns, 1)), 2048, 65536))
    return int(np.clip(_TARGET_BLOCK_BYTES // (4 * max(columns, 1)), 256, 2048))


def evaluate(
    rows: Rows,
    groups: Sequence[Group],
    thetas: Sequence[Tensor],
    bounds: list[tuple[int, int]],
    *,
    link: Link,
    precision: Precision,
) -> list[Evaluated]:
    """Pass once over the rows for all heads of all groups.

    Args:
        rows: the training rows.
        groups: one entry a training set.
        thetas: the parameters of each group, ``(d + 1, k, c)``; ``c`` may differ, and be 0.
        bounds: the blocks to read.
        link: ``softmax`` (classes exclude each other) or ``sigmoid`` (each column by itself).
        precision: of the matrix products; sums are kept in float32 or better.
    """
    stacks = _Stacks(rows, groups, thetas, precision)
    for start, stop, z in rows.blocks(bounds, precision):
        weights = [group.weight[start:stop] for group in groups]
        stack = stacks.of([at for at, weight in enumerate(weights) if weight.any()])
        if stack is None:
            continue
        target = _target(rows, start, stop, stack.bias.dtype)
        labels = rows.label_weights(target) if link == "sigmoid" else None
        loss, residual = _residual(stack.logits(z, link), target, link, labels)
        if any((weights[at] != 1).any() for at in stack.members):
            columns = stack.spread(weights)
            loss *= columns
            residual *= columns[:, None, :]
        stack.take(z, loss, residual.flatten(1))
    return stacks.collect()


def held_out_sums(
    rows: Rows,
    groups: Sequence[Group],
    thetas: Sequence[Tensor],
    bounds: list[tuple[int, int]],
    *,
    link: Link,
    precision: Precision,
) -> list[tuple[Tensor, Tensor]]:
    """Return, for each group, correct answers and summed loss on its held-out rows, weighted.

    Args:
        rows, groups, thetas, bounds, link, precision: as for :func:`evaluate`.

    Returns:
        A pair of ``(c,) float64`` a group.
    """
    stacks = _Stacks(rows, groups, thetas, precision)
    sums = [theta.new_zeros(2, theta.shape[2], dtype=torch.float64) for theta in thetas]
    for start, stop, z in rows.blocks(bounds, precision):
        held = [group.judging[start:stop] for group in groups]
        stack = stacks.of([at for at, out in enumerate(held) if out.any()])
        if stack is None:
            continue
        target = _target(rows, start, stop, stack.bias.dtype)
        logits = stack.logits(z, link)
        hits = _hits(logits, target, link)
        loss, _ = _residual(logits, target, link)
        columns = stack.spread(held)
        both = torch.stack([(hits * columns).sum(0), (loss * columns).sum(0)]).double()
        for at, part in zip(stack.members, torch.split(both, stack.sizes, dim=1), strict=True):
            sums[at] += part
    return [(one[0], one[1]) for one in sums]


class _Stack:
    """The parameters of several groups side by side, so that a block needs one product."""

    def __init__(
        self, members: list[int], parts: list[_Part], product: torch.dtype, work: torch.dtype
    ) -> None:
        self.members = members
        self.sizes = [parts[at].count for at in members]
        weight = torch.cat([parts[at].weight for at in members], dim=2)  # (d, k, c)
        self.shape = weight.shape
        self.factor = _factor(weight.flatten(1), product)
        self.bias = torch.cat([parts[at].bias for at in members], dim=1).flatten()
        absent = torch.cat([parts[at].absent for at in members], dim=1)
        self.absent = absent if absent.any() else None
        # Transposed: with few heads this product is several times faster.
        self.gradient = weight.new_zeros(self.factor_columns, self.shape[0], dtype=work)
        self.bias_gradient = weight.new_zeros(self.factor_columns, dtype=work)
        self.loss = weight.new_zeros(self.shape[2], dtype=torch.float64)

    @property
    def factor_columns(self) -> int:
        return self.shape[1] * self.shape[2]

    def logits(self, z: Tensor, link: Link) -> Tensor:
        """Return ``(m, k, c)``."""
        if z.dtype is torch.bfloat16:
            leading, rest = (z @ self.factor).chunk(2, dim=1)
            flat = leading.to(self.bias.dtype).add_(rest).add_(self.bias)
        else:
            flat = torch.addmm(self.bias, z, self.factor)
        logits = flat.view(len(z), *self.shape[1:])
        if link == "softmax" and self.absent is not None:
            logits.masked_fill_(self.absent, -1e30)
        return logits

    def spread(self, of_groups: Sequence[np.ndarray]) -> Tensor:
        """Repeat one value per row and group, ``(m,)`` each, for the group's heads: ``(m, c)``."""
        values = [
            torch.from_numpy(of_groups[at]).to(self.bias)[:, None].expand(-1, size)
            for at, size in zip(self.members, self.sizes, strict=True)
        ]
        return torch.cat(values, dim=1)

    def take(self, z: Tensor, loss: Tensor, residual: Tensor) -> None:
        """Add a block's weighted loss ``(m, c)`` and residual ``(m, k c)``."""
        self.loss += loss.sum(0)
        self.bias_gradient += residual.sum(0)
        if z.dtype is torch.bfloat16:
            self.gradient += residual.to(z.dtype).T @ z
        else:
            self.gradient.addmm_(residual.T, z)


@dataclass(frozen=True)
class _Part:
    """One group's parameters for what is read: ``(d, k, c)``, ``(k, c)``, and absent classes."""

    weight: Tensor
    bias: Tensor
    absent: Tensor
    count: int


class _Stacks:
    """The stack of the groups that a block concerns; the last one is kept, blocks being sorted."""

    def __init__(
        self,
        rows: Rows,
        groups: Sequence[Group],
        thetas: Sequence[Tensor],
        precision: Precision,
    ) -> None:
        self.groups = groups
        self.thetas = thetas
        self.work = torch.float64 if precision == "float64" else torch.float32
        self.product = torch.bfloat16 if precision == "bfloat16" else self.work
        self.frames = [_frame(rows, group, precision) for group in groups]
        self.parts = [
            self._part(group, theta, frame)
            for group, theta, frame in zip(groups, thetas, self.frames, strict=True)
        ]
        self.current: _Stack | None = None
        self.found = [
            Evaluated(
                theta.new_zeros(theta.shape[2], dtype=torch.float64),
                theta.new_zeros(theta.shape, dtype=self.work),
            )
            for theta in thetas
        ]

    def of(self, members: list[int]) -> _Stack | None:
        """Return the stack of these groups, less those without heads; None if none is left."""
        wanted = [at for at in members if self.parts[at].count]
        if not wanted:
            return None
        if self.current is None or self.current.members != wanted:
            self._unload()
            self.current = _Stack(wanted, self.parts, self.product, self.work)
        return self.current

    def collect(self) -> list[Evaluated]:
        """Return the means of each group, in its own standardisation."""
        self._unload()
        for group, (shift, inverse), one in zip(self.groups, self.frames, self.found, strict=True):
            one.loss /= group.total
            one.gradient /= group.total
            # The adjoint of folding the standardisation in.
            one.gradient[:-1] -= shift.to(self.work) * one.gradient[-1]
            one.gradient[:-1] *= inverse.to(self.work)
        return self.found

    def _unload(self) -> None:
        """Add what the current stack has summed up to its groups, and let it go."""
        stack, self.current = self.current, None
        if stack is None:
            return
        d, k, c = stack.shape
        gradients = torch.split(stack.gradient.view(k, c, d), stack.sizes, dim=1)
        biases = torch.split(stack.bias_gradient.view(k, c), stack.sizes, dim=1)
        losses = torch.split(stack.loss, stack.sizes)
        for at, gradient, bias, loss in zip(stack.members, gradients, biases, losses, strict=True):
            self.found[at].gradient[:-1] += gradient.permute(2, 0, 1)
            self.found[at].gradient[-1] += bias
            self.found[at].loss += loss

    def _part(self, group: Group, theta: Tensor, frame: tuple[Tensor, Tensor]) -> _Part:
        shift, inverse = frame
        weight = theta[:-1] * inverse.to(theta.dtype)
        bias = theta[-1] - (weight * shift.to(theta.dtype)).sum(0)
        k, c = theta.shape[1:]
        absent = theta.new_zeros(k, c, dtype=torch.bool)
        if group.absent.any():
            absent[torch.from_numpy(group.absent).to(theta.device)] = True
        return _Part(weight.to(self.work), bias.to(self.work), absent, c)


def _factor(weight: Tensor, product: torch.dtype) -> Tensor:
    """Return the parameters ``(d, m)`` as a factor of the product, ``(d, m)`` or ``(d, 2 m)``.

    Rounding the features or the residuals to bfloat16 errs differently in every row, and so
    averages out; rounding the parameters errs alike in all of them. So these are split in two, a
    leading part and what it leaves, side by side.
    """
    if product is not torch.bfloat16:
        return weight
    leading = weight.to(product)
    return torch.cat([leading, (weight - leading).to(product)], dim=1)


def _frame(rows: Rows, group: Group, precision: Precision) -> tuple[Tensor, Tensor]:
    """Return shift and inverse scale ``(d, 1, 1)`` from what is read to the group's own."""
    shift, scale = rows.frame(precision)
    own_shift = rows.shift + group.shift * rows.scale
    own_scale = rows.scale * group.scale
    return (
        torch.from_numpy((own_shift - shift) / scale).to(rows.device)[:, None, None],
        torch.from_numpy(scale / own_scale).to(rows.device)[:, None, None],
    )


def _target(rows: Rows, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    if rows.labels is not None:
        return rows.labels[start:stop]
    assert rows.targets is not None
    return rows.targets[start:stop].to(dtype)


def _hits(logits: Tensor, target: Tensor, link: Link) -> Tensor:
    """Return 1 where a row is right, ``(m, k, c) -> (m, c)``; a share of the labels by sigmoid."""
    if link == "sigmoid":
        truth = (target[:, None] if target.ndim == 1 else target)[:, :, None] > 0.5
        return ((logits > 0) == truth).to(logits.dtype).mean(1)
    hard = target if target.ndim == 1 else target.argmax(1)
    own = logits.gather(1, hard[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]
    return (own >= logits.amax(1)).to(logits.dtype)  # argmax would be several times slower


def _residual(
    logits: Tensor, target: Tensor, link: Link, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return loss ``(m, c)`` and residual ``(m, k, c)``; the logits are spent.

    Args:
        logits: ``(m, k, c)``.
        target: ``(m,)`` or ``(m, k)``.
        link: softmax or sigmoid.
        labels: ``(m, k)``, what each label of a row weighs; None: 1.
    """
    tiny = torch.finfo(logits.dtype).tiny
    if link == "sigmoid":
        t = (target[:, None].to(logits.dtype) if target.ndim == 1 else target)[:, :, None]
        each = torch.nn.functional.softplus(logits) - t * logits
        if labels is None:
            return each.sum(1), logits.sigmoid_().sub_(t)
        weights = labels[:, :, None]
        return (each * weights).sum(1), logits.sigmoid_().sub_(t).mul_(weights)
    if logits.device.type == "cpu":
        probabilities = torch.softmax(logits, dim=1, out=logits)
    else:
        probabilities = torch.softmax(logits, dim=1)
    if target.ndim == 1:
        index = target[:, None, None].expand(-1, 1, logits.shape[2])
        own = probabilities.gather(1, index)
        loss = -own[:, 0].clamp_min(tiny).log()
        return loss, probabilities.scatter_(1, index, own - 1.0)
    loss = -(target[:, :, None] * probabilities.clamp_min(tiny).log()).sum(1)
    return loss, probabilities.sub_(target[:, :, None])
