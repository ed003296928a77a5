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

from headstart.heads.checks import FloatArray
from headstart.heads.logistic.rows import Precision, Rows

Link = Literal["softmax", "sigmoid"]
_TARGET_BLOCK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Group:
    """The rows that a set of heads is trained on, and the standardisation of just those rows.

    Attributes:
        weight: ``(n,) float64`` in reading order; 0 holds a row out.
        shift, scale: ``(d,) float64``, on top of the common standardisation of the rows.
        absent: ``(k,) bool``, classes without a training row; their probability is held at 0.
    """

    weight: FloatArray
    shift: FloatArray
    scale: FloatArray
    absent: np.ndarray

    @property
    def total(self) -> float:
        """The sum of the weights."""
        return float(self.weight.sum())


@dataclass
class Evaluated:
    """What one pass found for one group.

    Attributes:
        loss: ``(c,) float64``, the weighted mean loss without the penalty.
        gradient: ``(d + 1, k, c)`` of that loss, in the group's own standardisation.
        correct, held_out_loss: ``(c,)`` sums over the rows that the group holds out.
    """

    loss: Tensor
    gradient: Tensor
    correct: Tensor
    held_out_loss: Tensor


def block_rows(columns: int) -> int:
    """Rows a block should have so that its logits stay in the processor's cache."""
    return int(np.clip(_TARGET_BLOCK_BYTES // (4 * max(columns, 1)), 256, 2048))


def evaluate(
    rows: Rows,
    groups: Sequence[Group],
    thetas: Sequence[Tensor],
    bounds: list[tuple[int, int]],
    *,
    link: Link,
    precision: Precision,
    gradients: bool = True,
    held_out: bool = False,
) -> list[Evaluated]:
    """Pass once over the rows for all heads of all groups.

    Args:
        rows: the training rows.
        groups: one entry a training set.
        thetas: the parameters of each group, ``(d + 1, k, c)``; ``c`` may differ, and be 0.
        bounds: the blocks to read.
        link: ``softmax`` (classes exclude each other) or ``sigmoid`` (each column by itself).
        precision: of the matrix products; sums are kept in float32 or better.
        gradients: whether the training rows are evaluated.
        held_out: whether the held-out rows are.
    """
    work = torch.float64 if precision == "float64" else torch.float32
    factors = [_into_rows(theta, group, work) for theta, group in zip(thetas, groups, strict=True)]
    product = torch.bfloat16 if precision == "bfloat16" else work
    cast = [_product_form(factor.flatten(1), product) for factor in factors]
    found = [
        Evaluated(
            torch.zeros(theta.shape[2], dtype=torch.float64),
            torch.zeros(factor.shape[0], factor.shape[1] * factor.shape[2], dtype=work),
            torch.zeros(theta.shape[2], dtype=torch.float64),
            torch.zeros(theta.shape[2], dtype=torch.float64),
        )
        for theta, factor in zip(thetas, factors, strict=True)
    ]
    for start, stop, z in rows.blocks(bounds, precision):
        for group, theta, weights, into in zip(groups, thetas, cast, found, strict=True):
            if theta.shape[2] == 0:
                continue
            row_weight = group.weight[start:stop]
            trains, holds = bool(row_weight.any()), bool((row_weight == 0).any())
            if not ((trains and gradients) or (holds and held_out)):
                continue
            logits = _logits(z, weights, work).view(stop - start, *theta.shape[1:])
            target = _target(rows, start, stop, work)
            if link == "softmax" and group.absent.any():
                logits[:, torch.from_numpy(group.absent)] = -1e30
            if holds and held_out:
                out = torch.from_numpy(row_weight == 0).to(work)[:, None]
                into.correct += (_hits(logits, target, link) * out).sum(0)
            loss, residual = _residual(logits, target, link)
            if holds and held_out:
                into.held_out_loss += (loss * out).sum(0)
            if trains and gradients:
                if (row_weight != 1).any():
                    w = torch.from_numpy(row_weight).to(work)
                    loss *= w[:, None]
                    residual *= w[:, None, None]
                into.loss += loss.sum(0)
                if product is work:
                    into.gradient.addmm_(z.T, residual.flatten(1))
                else:
                    into.gradient += z.T @ residual.flatten(1).to(product)
    for group, theta, into in zip(groups, thetas, found, strict=True):
        into.loss /= group.total
        into.gradient = _from_rows(into.gradient.view(theta.shape) / group.total, group)
    return found


def _target(rows: Rows, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    if rows.labels is not None:
        return rows.labels[start:stop]
    assert rows.targets is not None
    return rows.targets[start:stop].to(dtype)


def _product_form(factor: Tensor, product: torch.dtype) -> Tensor:
    """Return the parameters ``(d + 1, m)`` as a factor of the product, ``(d + 1, m)`` or ``2 m``.

    Rounding the features or the residuals to bfloat16 errs differently in every row, and so
    averages out; rounding the parameters errs alike in all of them. So they are split in two:
    a leading part and what it leaves.
    """
    if product is not torch.bfloat16:
        return factor
    leading = factor.to(product)
    return torch.cat([leading, (factor - leading).to(product)], dim=1)


def _logits(z: Tensor, factor: Tensor, work: torch.dtype) -> Tensor:
    if z.dtype is not torch.bfloat16:
        return z @ factor
    leading, rest = (z @ factor).to(work).chunk(2, dim=1)
    return leading + rest


def _hits(logits: Tensor, target: Tensor, link: Link) -> Tensor:
    """Return 1 where a row is right, ``(m, k, c) -> (m, c)``; a share of the labels by sigmoid."""
    if link == "sigmoid":
        truth = (target[:, None] if target.ndim == 1 else target)[:, :, None] > 0.5
        return ((logits > 0) == truth).to(logits.dtype).mean(1)
    hard = target if target.ndim == 1 else target.argmax(1)
    return (logits.argmax(1) == hard[:, None]).to(logits.dtype)


def _residual(logits: Tensor, target: Tensor, link: Link) -> tuple[Tensor, Tensor]:
    """Return loss ``(m, c)`` and residual ``(m, k, c)``, the latter in the logits' memory."""
    tiny = torch.finfo(logits.dtype).tiny
    if link == "sigmoid":
        t = (target[:, None].to(logits.dtype) if target.ndim == 1 else target)[:, :, None]
        loss = (torch.nn.functional.softplus(logits) - t * logits).sum(1)
        return loss, logits.sigmoid_().sub_(t)
    probabilities = torch.softmax(logits, dim=1, out=logits)
    if target.ndim == 1:
        index = target[:, None, None].expand(-1, 1, logits.shape[2])
        own = probabilities.gather(1, index)
        loss = -own[:, 0].clamp_min(tiny).log()
        return loss, probabilities.scatter_(1, index, own - 1.0)
    loss = -(target[:, :, None] * probabilities.clamp_min(tiny).log()).sum(1)
    return loss, probabilities.sub_(target[:, :, None])


def _into_rows(theta: Tensor, group: Group, dtype: torch.dtype) -> Tensor:
    """Fold the group's standardisation into the parameters, so that the rows need not change."""
    inverse = torch.from_numpy(1.0 / group.scale)[:, None, None].to(theta.dtype)
    shift = torch.from_numpy(group.shift)[:, None, None].to(theta.dtype)
    folded = theta.clone()
    folded[:-1] *= inverse
    folded[-1] -= (folded[:-1] * shift).sum(0)
    return folded.to(dtype)


def _from_rows(gradient: Tensor, group: Group) -> Tensor:
    """Pull a gradient back through :func:`_into_rows` (its adjoint)."""
    inverse = torch.from_numpy(1.0 / group.scale)[:, None, None].to(gradient.dtype)
    shift = torch.from_numpy(group.shift)[:, None, None].to(gradient.dtype)
    gradient[:-1] -= shift * gradient[-1]
    gradient[:-1] *= inverse
    return gradient
