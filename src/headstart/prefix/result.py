"""What the search for a cut returns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from headstart.prefix.boundary import RoundingError, TensorSpec
from headstart.prefix.checking import Check
from headstart.prefix.parts import Prefix, Suffix


@dataclass(frozen=True, eq=False)
class Cut:
    """A model in two parts, with ``suffix(*prefix(x)) == model(x)`` checked.

    Attributes:
        prefix: the frozen, deterministic part: from the arguments of the model to a tuple of the
            boundary tensors, each ``(n, *shape)``.
        suffix: the rest: from the boundary tensors to the output of the model. Both share the
            parameters, buffers and submodules of the model.
        boundary: the tensors that are stored.
        check: how far the two parts were from the whole model on the probe.
        rounding: for every boundary tensor, what its stored type costs on the probe.
        prefix_seconds: time to compute the boundary of one item, measured (``measure=True``) or
            estimated.
        recomputed_seconds: time an item of frozen operations that are computed in every epoch,
            because reading their result would take longer.
        read_seconds: time to read the boundary of one item at the assumed bandwidth.
        ends: why the frozen part ends where it does; one sentence for each branch of the graph.
    """

    prefix: Prefix
    suffix: Suffix
    boundary: tuple[TensorSpec, ...]
    check: Check
    rounding: tuple[RoundingError | None, ...]
    prefix_seconds: float
    recomputed_seconds: float
    read_seconds: float
    ends: tuple[str, ...]

    @property
    def bytes_per_item(self) -> int:
        """What one item takes in the cache, without its id."""
        return sum(spec.bytes for spec in self.boundary)

    def only_runs(self, names: Collection[str]) -> bool:
        """Return whether nothing but these submodules of the model is behind the boundary."""
        return self.suffix.only_runs(names)

    def describe(self) -> dict[str, Any]:
        """Return the function from inputs to boundary rows as plain values, for a cache key.

        Holds the tensors of the prefix by digest and its code, and nothing of the suffix. What
        comes before the model (decoding, resizing, normalisation) is the caller's to add. Reads
        all tensors of the prefix.
        """
        return described(self.prefix, self.boundary)

    def __str__(self) -> str:
        shown = ", ".join(
            f"{spec.name} {'×'.join(map(str, spec.shape))} {spec.dtype}" for spec in self.boundary
        )
        return (
            f"cut at {shown}: {self.bytes_per_item:,} bytes an item instead of"
            f" {1e3 * self.prefix_seconds:.3g} ms of computing; {self.check}"
        )


def described(prefix: Prefix, boundary: tuple[TensorSpec, ...]) -> dict[str, Any]:
    """Return the description of a cut; see :meth:`Cut.describe`."""
    return {
        "version": 2,
        "prefix": prefix.describe(),
        "boundary": [
            {"shape": list(spec.shape), "dtype": spec.dtype, "computed": spec.compute}
            for spec in boundary
        ],
    }


@dataclass(frozen=True)
class NoCut:
    """Nothing can be cut, or nothing is worth it. False in a condition.

    Attributes:
        reason: why, in one sentence.
        ends: what prevents it, operation by operation.
    """

    reason: str
    ends: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, eq=False)
class Placed:
    """A cut before its check; ``seconds`` are those of prefix, recomputation and reading."""

    prefix: Prefix
    suffix: Suffix
    boundary: tuple[TensorSpec, ...]
    seconds: tuple[float, float, float]
    ends: tuple[str, ...]
