"""A Kronecker-factored model of the Hessian, which makes L-BFGS converge in few passes.

The Hessian of the mean softmax loss is ``mean_i (diag(p_i) - p_i p_i^T) (x) z_i z_i^T``. Its two
factors are averaged apart (as Martens and Grosse, 2015, do for networks): ``A (x) G`` with the
class curvature ``A: (k, k)`` of each head and the Gram matrix ``G: (d, d)`` of the rows. With both
eigendecomposed, ``(A (x) G + lambda I)^-1`` is two rotations and a division. Of many classes
the diagonal of ``A`` alone is kept: its eigenvectors would cost more than they save. The model only
steers the search: a poor one costs passes, never correctness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh as scipy_eigh
from torch import Tensor

from headstart.heads.logistic.objective import Group, Link
from headstart.heads.logistic.rows import Rows

_FLOOR = 1e-3
# Beyond this size an eigendecomposition costs more than the passes that it saves.
_LARGEST_BASIS = 2048
_MOST_CLASSES = 256


@dataclass(frozen=True)
class GramBasis:
    """Eigenvectors of the Gram matrix of some rows.

    Attributes:
        vectors: ``(d, r)``, orthonormal.
        values: ``(r,)``, their eigenvalues.
        rest: the mean eigenvalue of all other directions (0 where the basis is complete).
    """

    vectors: Tensor
    values: Tensor
    rest: float


@dataclass(frozen=True)
class Curvature:
    """The model of the Hessian for the heads of one group.

    Attributes:
        basis: of the group's rows.
        class_vectors: ``(c, k, k)``, eigenvectors of the class curvature of each head; None where
            it is taken as diagonal.
        class_values: ``(c, k)``, its eigenvalues.
        penalty: ``(c,)``, lambda.
    """

    basis: GramBasis
    class_vectors: Tensor | None
    class_values: Tensor
    penalty: Tensor

    def __call__(self, gradient: Tensor, index: Tensor) -> Tensor:
        """Solve with the model for the heads ``index``: ``(d + 1, k, c) -> (d + 1, k, c)``."""
        u = None if self.class_vectors is None else self.class_vectors[index].to(gradient.dtype)
        curvature = self.class_values[index].T.to(gradient.dtype)  # (k, c)
        penalty = self.penalty[index].to(gradient.dtype)
        vectors = self.basis.vectors.to(gradient.dtype)
        values = self.basis.values.to(gradient.dtype)[:, None, None]
        turned = gradient if u is None else torch.einsum("dkc,ckl->dlc", gradient, u)
        weights, intercept = turned[:-1], turned[-1:]
        shape = weights.shape
        inner = (vectors.T @ weights.flatten(1)).view(-1, *shape[1:])
        factor = 1.0 / (values * curvature + penalty)
        if vectors.shape[1] < shape[0]:
            rest = 1.0 / (self.basis.rest * curvature + penalty)
            solved = (vectors @ (inner * (factor - rest)).flatten(1)).view(shape) + weights * rest
        else:
            solved = (vectors @ (inner * factor).flatten(1)).view(shape)
        out = torch.cat([solved, intercept / curvature])
        return out if u is None else torch.einsum("dlc,ckl->dkc", out, u)


def class_curvature(
    probabilities: Tensor, link: Link, labels: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """Return eigenvectors ``(c, k, k)`` and eigenvalues ``(c, k)`` of the class curvature.

    With more than 256 classes, or independent ones, it is diagonal: no eigenvectors.

    Args:
        probabilities: ``(m, k, c)`` of some rows.
        link: ``softmax`` or ``sigmoid``.
        labels: ``(m, k)``, what each label of a row weighs; None: 1.
    """
    p = probabilities.double()
    if link == "sigmoid" or p.shape[1] > _MOST_CLASSES:
        weights = 1.0 if labels is None else labels.double()[:, :, None]
        values = (p * (1 - p) * weights).mean(0).T
        return None, _floored(values, values.amax(dim=1, keepdim=True))
    a = torch.diag_embed(p.mean(0).T) - torch.einsum("mkc,mlc->ckl", p, p) / len(p)
    values, vectors = eigh(a)
    return vectors, _floored(values, values[:, -1:])


def _floored(values: Tensor, largest: Tensor) -> Tensor:
    # The direction common to all classes has no curvature and no gradient: a floor keeps the
    # division from blowing up what rounding leaves there.
    return torch.maximum(values, _FLOOR * largest.clamp_min(1e-6))


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return ascending eigenvalues ``(..., n)`` and eigenvectors ``(..., n, n)``.

    The matrices are scaled by a power of two, which changes no digit, since LAPACK's divide and
    conquer does not converge on some that are tiny (rounding of what is nearly zero, as the
    curvature of a head that is sure of every row).

    Args:
        matrices: symmetric and finite, ``(..., n, n)``.
    """
    largest = matrices.abs().amax(dim=(-2, -1), keepdim=True)
    most = 1000 if matrices.dtype == torch.float64 else 100
    exponent = torch.where(largest > 0, torch.frexp(largest).exponent, 0).clamp(-most, most)
    exponent = exponent.to(matrices.dtype)
    scaled = torch.ldexp(matrices, -exponent)
    try:
        values, vectors = torch.linalg.eigh(scaled)
    except RuntimeError:  # slower, and converges where divide and conquer does not
        flat = scaled.reshape(-1, *scaled.shape[-2:])
        found = [scipy_eigh(one, driver="ev") for one in flat.cpu().numpy()]
        values = torch.from_numpy(np.stack([one[0] for one in found])).to(scaled)
        vectors = torch.from_numpy(np.stack([one[1] for one in found])).to(scaled)
        values, vectors = values.view(scaled.shape[:-1]), vectors.view(scaled.shape)
    return torch.ldexp(values, exponent[..., 0]), vectors


def gram_basis(rows: Rows, group: Group, bounds: list[tuple[int, int]]) -> GramBasis:
    """Eigendecompose the Gram matrix of a group's rows, in its own standardisation.

    With fewer rows than features, the small ``(n, n)`` matrix of inner products is decomposed
    instead; where both are large, that of an evenly spaced subset of the rows.
    """
    d = rows.width - 1
    members = np.flatnonzero(group.weight)
    if len(members) >= d and d <= _LARGEST_BASIS:
        return _primal_basis(rows, group, bounds)
    if len(members) > _LARGEST_BASIS:
        members = members[:: -(-len(members) // _LARGEST_BASIS)]
    z = gather(rows, group, members)
    trace = float((z * z).sum()) / len(members)
    values, left = eigh(z @ z.T / len(members))
    kept = values > values[-1] * 1e-10
    values, left = values[kept], left[:, kept]
    vectors = z.T @ left / (len(members) * values).sqrt()
    complete = len(members) == np.count_nonzero(group.weight)
    spare = max(d - len(values), 1)
    rest = 0.0 if complete else max(trace - float(values.sum()), 0.0) / spare
    if not complete:
        rest += float(values[0])
    return GramBasis(vectors, values, rest)


def gather(rows: Rows, group: Group, members: np.ndarray) -> Tensor:
    """Return the rows ``members`` (in reading order), standardised: ``(m, d) float64``."""
    z = rows.x[rows.order[members]].astype(np.float64)
    z -= rows.shift
    z /= rows.scale
    z -= group.shift
    z /= group.scale
    return torch.from_numpy(z).to(rows.device)


def _primal_basis(rows: Rows, group: Group, bounds: list[tuple[int, int]]) -> GramBasis:
    # Single precision will do for a model that only steers.
    d = rows.width - 1
    gram, total = torch.zeros(d, d, device=rows.device), torch.zeros(d, device=rows.device)
    for start, stop, z in rows.standardised(bounds, torch.float32):
        weight = group.weight[start:stop]
        if weight.any():
            w = torch.from_numpy(weight).to(gram)
            gram.addmm_(z.T, z if (weight == 1).all() else z * w[:, None])
            total += w @ z
    gram, mean = gram / group.total, total / group.total
    shift = torch.from_numpy(group.shift).to(gram)
    inverse = torch.from_numpy(1.0 / group.scale).to(gram)
    cross = torch.outer(mean, shift)
    gram += torch.outer(shift, shift) - cross - cross.T
    gram *= inverse[:, None] * inverse
    values, vectors = eigh(gram)
    return GramBasis(vectors, values.clamp_min(0.0), 0.0)
