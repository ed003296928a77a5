"""Passes of a network that are read at several cuts: as it is written, recorded or compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError
from headstart.data.inputs import Inputs
from headstart.modules.forward import capture, compilable
from headstart.modules.layout import Layout


class Cut(Protocol):
    """A network and the layer that it is read at; see :class:`headstart.backbones.Backbone`."""

    @property
    def name(self) -> str: ...

    @property
    def module(self) -> nn.Module: ...

    @property
    def inputs(self) -> Inputs: ...

    @property
    def layer(self) -> str | None: ...

    @property
    def layout(self) -> Layout: ...

    def pool(self, output: Tensor, mask: Tensor | None = None) -> Tensor: ...


def features_of(backbones: Sequence[Cut], inputs: Arguments) -> list[Tensor]:
    """Run one network once and return its features at several layers.

    Args:
        backbones: the same network, with several layers or poolings.
        inputs: of ``n`` items, on the module's device.

    Returns:
        One tensor for each, as :meth:`Backbone.features` returns it.
    """
    read = _reading(backbones, lambda: inputs.mask)
    layers = {backbone.layer for backbone in backbones}
    found = capture(backbones[0].module, layers, read, *inputs.args, **inputs.kwargs)
    return _checked(backbones, _in_order(found.values()), len(inputs))


def _checked(backbones: Sequence[Cut], rows: list[Tensor], count: int) -> list[Tensor]:
    """Refuse rows that are not one an item."""
    for backbone, some in zip(backbones, rows, strict=True):
        if not some.ndim or some.shape[0] != count:
            where = f"layer '{backbone.layer}' of " if backbone.layer else ""
            raise BackboneError(
                f"{where}{backbone.name} gives {tuple(some.shape)} for {count} items, expected"
                " one row per item",
                hint="use another layer, or the size of items that the backbone was loaded with",
            )
    return rows


@contextmanager
def recordable_features(
    backbones: Sequence[Cut],
) -> Iterator[Callable[[Arguments], list[Tensor]]]:
    """Open a function that does what :func:`features_of` does, for what records programs.

    The whole network runs, see :func:`headstart.modules.forward.compilable`; what is behind the
    last layer has to be left out by the recorder.
    """
    with _recordable(backbones) as run:
        yield lambda inputs: _checked(
            backbones, run(inputs.args, dict(inputs.kwargs), inputs.mask), inputs.count
        )


@contextmanager
def compiled_features(
    backbones: Sequence[Cut], options: Mapping[str, bool] | None = None
) -> Iterator[Callable[[Arguments], list[Tensor]]]:
    """Open a function that does what :func:`features_of` does, compiled with ``torch.compile``.

    Args:
        backbones: as for :func:`features_of`.
        options: of the compiler; None: its own.
    """
    with _recordable(backbones) as run:
        # The compiler keeps a bounded number of programs for each piece of code: this is its own.
        code = run.__code__.replace(co_name="extract_features")
        own = FunctionType(code, run.__globals__, "features", None, run.__closure__)
        # Else the compiler remembers, by file and line, that another network had another shape, and
        # makes a program for all shapes: slower, and minutes to make for some networks.
        dynamic = None if backbones[0].inputs.ragged else False
        compiled = torch.compile(own, dynamic=dynamic, options=dict(options) if options else None)
        yield lambda inputs: _checked(
            backbones, compiled(inputs.args, dict(inputs.kwargs), inputs.mask), len(inputs)
        )


@contextmanager
def _recordable(backbones: Sequence[Cut]) -> Iterator[FunctionType]:
    masks: list[Tensor | None] = [None]
    read = _reading(backbones, lambda: masks[0])
    layers = {backbone.layer for backbone in backbones}
    with compilable(backbones[0].module, layers, read) as run:

        def masked(
            args: tuple[Tensor, ...], kwargs: dict[str, Tensor], mask: Tensor | None
        ) -> list[Tensor]:
            masks[0] = mask
            return _in_order(run(*args, **kwargs).values())

        yield cast(FunctionType, masked)


def _reading(
    backbones: Sequence[Cut], mask: Callable[[], Tensor | None]
) -> Callable[[str | None, Tensor], dict[int, Tensor]]:
    """Return a function that pools a layer's output for each backbone that takes it."""
    for backbone in backbones:
        if backbone.module is not backbones[0].module:
            raise ValueError("features are taken from one network at a time")
        _ = backbone.layout  # found by a run of its own, not in the middle of this one
    return lambda layer, output: {
        position: backbone.pool(output, mask())
        for position, backbone in enumerate(backbones)
        if backbone.layer == layer
    }


def _in_order(found: Iterable[Mapping[int, Tensor]]) -> list[Tensor]:
    pooled = {position: rows for part in found for position, rows in part.items()}
    return [pooled[position] for position in range(len(pooled))]


__all__ = ["compiled_features", "features_of", "recordable_features"]
