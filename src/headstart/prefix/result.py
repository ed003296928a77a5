"""What the search for a cut returns."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from headstart.prefix.boundary import TensorSpec
from headstart.prefix.checking import Check
from headstart.prefix.precision import RoundingError

Method = Literal["graph", "modules"]


@dataclass(frozen=True, eq=False)
class Cut:
    """A model in two parts, with ``suffix(*prefix(x)) == model(x)`` checked.

    Attributes:
        prefix: the frozen, deterministic part: takes what the model takes, gives a tuple of the
            boundary tensors, each ``(n, *shape)``.
        suffix: the rest: takes the boundary tensors, gives what the model gives. Both share the
            parameters, buffers and submodules of the model.
        boundary: the tensors that are stored.
        method: ``graph`` (cut in the graph of operations) or ``modules`` (cut between modules,
            for models that cannot be recorded).
        check: how far the two parts were from the whole model on the probe.
        rounding: for every boundary tensor, what its stored type costs on the probe.
        prefix_seconds: time to compute the boundary of one item, measured (``measure=True``) or
            estimated.
        recomputed_seconds: time an item of frozen operations that are computed in every epoch,
            because reading their result would take longer.
        read_seconds: time to read the boundary of one item at the assumed bandwidth.
        ends: why it is here and not further on; one sentence for each branch of the graph.
    """

    prefix: nn.Module
    suffix: nn.Module
    boundary: tuple[TensorSpec, ...]
    method: Method
    check: Check
    rounding: tuple[RoundingError | None, ...]
    prefix_seconds: float
    recomputed_seconds: float
    read_seconds: float
    ends: tuple[str, ...]
    _describe: Callable[[], dict[str, Any]]

    @property
    def bytes_per_item(self) -> int:
        """What one item takes in the cache, without its id."""
        return sum(spec.bytes for spec in self.boundary)

    def only_runs(self, names: Collection[str]) -> bool:
        """Return whether nothing but these submodules of the model is behind the boundary."""
        return only_runs(self.suffix, names)

    def describe(self) -> dict[str, Any]:
        """Return the function from inputs to boundary rows as plain values, for a cache key.

        Holds the tensors of the prefix by digest and its code, and nothing of the suffix. What
        comes before the model (decoding, resizing, normalisation) is the caller's to add. Reads
        all tensors of the prefix.
        """
        return described(self.method, self.boundary, self._describe())

    def __str__(self) -> str:
        shown = ", ".join(
            f"{spec.name} {'×'.join(map(str, spec.shape))} {spec.dtype}" for spec in self.boundary
        )
        return (
            f"cut at {shown}: {self.bytes_per_item:,} bytes an item instead of"
            f" {1e3 * self.prefix_seconds:.3g} ms of computing; {self.check}"
        )


def only_runs(suffix: nn.Module, names: Collection[str]) -> bool:
    """Return whether a suffix runs these submodules of the model and no other operation."""
    graph = getattr(suffix, "_graph", None)  # a cut between modules has none
    return graph is not None and all(
        node.op in ("placeholder", "output") or (node.op == "call_module" and node.target in names)
        for node in graph.nodes
    )


def described(
    method: Method, boundary: tuple[TensorSpec, ...], prefix: dict[str, Any]
) -> dict[str, Any]:
    """Return the description of a cut; see :meth:`Cut.describe`."""
    return {
        "version": 1,
        "method": method,
        "prefix": prefix,
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
        ends: what stands in the way, operation by operation.
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

    prefix: nn.Module
    suffix: nn.Module
    boundary: tuple[TensorSpec, ...]
    method: Method
    seconds: tuple[float, float, float]
    ends: tuple[str, ...]
    describe: Callable[[], dict[str, Any]]


__all__ = ["Cut", "Method", "NoCut", "Placed", "described", "only_runs"]
