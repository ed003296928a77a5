"""Content digests: whether a tensor holds the same bits as before, and by how much it moved.

A digest is XXH3-128 (128 bits, not cryptographic: it guards against accidents, not against an
attacker) over the dtype, the shape and the bytes in row-major order. Equal digests mean equal
bits: ``-0.0`` differs from ``0.0``, and two NaNs with different payloads differ.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from headstart.core.errors import FreezeError
from headstart.core.wording import quoted

# Tensors up to this many elements are sampled whole, larger ones evenly: enough to say by how
# much a tensor moved (an optimizer step or weight decay moves nearly every element), at 16 KiB a
# tensor instead of a second copy of the model.
SAMPLE_SIZE = 4096


def digest(value: Tensor | nn.Module) -> str:
    """Return the digest of a tensor, or of all parameters and buffers of a module with their names.

    Args:
        value: a dense tensor of any dtype, shape and device; or a module.

    Returns:
        32 hexadecimal digits.

    Raises:
        FreezeError: a tensor holds no memory (meta device, lazy) or is not dense.
    """
    if isinstance(value, nn.Module):
        hasher = xxhash.xxh3_128()
        for name, content in sorted(digests(value).items()):
            hasher.update(f"{name}\0{content}\n".encode())
        return hasher.hexdigest()
    return _digest_tensor(value)


def digests(model: nn.Module) -> dict[str, str]:
    """Return the digest of every parameter and buffer, by name, aliases of a tied one included.

    Buffers that are not persistent are included too: they shape the output as much as the others
    (rotary frequencies, relative position tables).

    Raises:
        FreezeError: some tensors hold no memory or are not dense; all are named.
    """
    named = dict(named_tensors(model))
    require_readable(named)
    once: dict[int, str] = {}
    for tensor in named.values():
        if id(tensor) not in once:
            once[id(tensor)] = _digest_tensor(tensor)
    return {name: once[id(tensor)] for name, tensor in named.items()}


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer with its name; a tied one under each of its names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def require_readable(named: Mapping[str, Tensor]) -> None:
    """Refuse tensors that have no bytes to digest, all of them by name.

    Raises:
        FreezeError: some are lazy, on the meta device, or not dense.
    """
    bad = [name for name, tensor in named.items() if not _is_readable(tensor)]
    if bad:
        raise FreezeError(
            f"{quoted(bad)} cannot be read: lazy, on the meta device, or not dense",
            hint="run one batch through lazy modules, and load the weights, before this",
        )


def _is_readable(tensor: Tensor) -> bool:
    return not is_lazy(tensor) and not tensor.is_meta and tensor.layout == torch.strided


def _digest_tensor(tensor: Tensor) -> str:
    if not _is_readable(tensor):
        raise FreezeError(
            f"a tensor of layout {tensor.layout} on {tensor.device} has no bytes to digest",
            hint="make it dense and give it values first",
        )
    shape = ",".join(str(size) for size in tensor.shape)
    hasher = xxhash.xxh3_128(f"{tensor.dtype}({shape})".encode())
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    # By address: no copy for a contiguous tensor on the CPU, and unlike numpy's view it leaves the
    # storage resizable, as quantization observers need theirs.
    held = flat.view(torch.uint8).cpu()
    hasher.update((ctypes.c_ubyte * held.numel()).from_address(held.data_ptr()))
    return hasher.hexdigest()


@dataclass(frozen=True, eq=False)
class Record:
    """What a tensor was when it was frozen.

    Attributes:
        digest: its digest.
        kind: shape and dtype as text, such as ``(64,) float32``, for messages.
        sample: up to ``SAMPLE_SIZE`` of its values, evenly spread, on the CPU; all of them for a
            smaller tensor. None where only the digest is known, from a checkpoint.
        size: its number of elements.
    """

    digest: str
    kind: str
    sample: Tensor | None
    size: int


@dataclass(frozen=True)
class Change:
    """How far a tensor is from its record.

    Attributes:
        name: the tensor.
        largest: the largest absolute difference of a value, over the compared ones.
        relative: Euclidean norm of the difference over that of the recorded values.
        compared: how many values were compared; ``size`` for tensors up to 4,096 elements.
        size: how many values the tensor has.
        reshaped: "expected … found …" if shape or dtype changed, when nothing was compared.
    """

    name: str
    largest: float
    relative: float
    compared: int
    size: int
    reshaped: str = ""

    def __str__(self) -> str:
        if self.compared == 0 and not self.reshaped:
            return f"{self.name} (bits differ; the values before are not known any more)"
        if self.reshaped:
            return f"{self.name} ({self.reshaped})"
        if self.compared < self.size and self.largest == 0.0:
            return f"{self.name} (bits differ outside the {self.compared:,} sampled values)"
        over = (
            f" over {self.compared:,} of {self.size:,} values" if self.compared < self.size else ""
        )
        share = "" if self.relative == float("inf") else f", {self.relative:.2%}"
        return f"{self.name} (largest change {self.largest:.3g}{share}{over})"


def record(tensor: Tensor) -> Record:
    """Record a tensor: its digest, and a sample of its values to say later how far it moved."""
    return Record(_digest_tensor(tensor), _kind(tensor), _sample(tensor), tensor.numel())


def change(name: str, tensor: Tensor, before: Record) -> Change | None:
    """Compare a tensor with its record; None if it holds the same bits.

    Differences are computed in float64 over the sampled positions.
    """
    if _digest_tensor(tensor) == before.digest:
        return None
    size = tensor.numel()
    if _kind(tensor) != before.kind:
        found = f"expected {before.kind}, found {_kind(tensor)}"
        return Change(name, float("nan"), float("nan"), 0, size, found)
    if before.sample is None or not before.sample.numel():
        return Change(name, float("nan"), float("nan"), 0, size)
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    old, new = before.sample.to(wide), _sample(tensor).to(wide)
    difference = (new - old).abs()
    norm = float(old.abs().square().sum().sqrt())
    moved = float(difference.square().sum().sqrt())
    relative = moved / norm if norm else (float("inf") if moved else 0.0)
    return Change(name, float(difference.max()), relative, old.numel(), size)


def compare_digests(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names whose digests differ, or that are on one side only, in sorted order."""
    return tuple(
        sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    )


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    step = max(1, -(-flat.numel() // SAMPLE_SIZE))
    return flat[::step].to("cpu", copy=True)


__all__ = [
    "Change",
    "Record",
    "change",
    "compare_digests",
    "digest",
    "digests",
    "named_tensors",
    "record",
    "require_readable",
]
