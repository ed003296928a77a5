"""``torch.compile`` with weights frozen into the program."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headstart.backbones import Backbone
from headstart.backbones.passes import compiled_features
from headstart.core.arguments import Arguments
from headstart.core.errors import HeadstartError
from headstart.core.records import Precision
from headstart.extraction.engines.eager import arranged
from headstart.extraction.engines.exporting import first_line, start_method_left_open
from headstart.extraction.engines.inductor import freezing
from headstart.extraction.engines.table import EngineUnfitError

if TYPE_CHECKING:
    from headstart.extraction.engines.table import Run


@contextlib.contextmanager
def open_engine(
    cuts: Sequence[Backbone],
    precision: Precision,  # noqa: ARG001
    device: torch.device,
) -> Iterator[Run]:
    """Open the engine; see :class:`headstart.extraction.Engine`.

    Weights are constants of the program, so that batch norms are folded and weights are laid out
    once. The compiler's own setting for that is set while it compiles, and restored.
    """
    with _compiled(cuts, device, {}) as run:
        yield run


@contextlib.contextmanager
def open_with_graphs(
    cuts: Sequence[Backbone],
    precision: Precision,  # noqa: ARG001
    device: torch.device,
) -> Iterator[Run]:
    """Open the engine that also records the program as CUDA graphs, one a shape of batch.

    A graph is launched at once, where a small network's kernels take less time than their launches.
    Its outputs lie in memory that the next batch overwrites, and are copied.

    Raises:
        EngineUnfitError: the device is none of CUDA's.
    """
    if device.type != "cuda":
        raise EngineUnfitError(f"CUDA graphs need a CUDA device, and this is {device}")
    if cuts[0].inputs.ragged:
        raise EngineUnfitError("items have many lengths, and each would need its own graph")
    with _compiled(cuts, device, {"triton.cudagraphs": True}) as run:
        begin: Any = torch.compiler.cudagraph_mark_step_begin  # torch leaves it without types

        def recorded(inputs: Arguments) -> Sequence[Tensor]:
            begin()
            return [rows.clone() for rows in run(inputs)]

        yield recorded


@contextlib.contextmanager
def _compiled(
    cuts: Sequence[Backbone], device: torch.device, options: Mapping[str, bool]
) -> Iterator[Run]:
    with compiled_features(cuts, options) as compiled:

        def run(inputs: Arguments) -> Sequence[Tensor]:
            with freezing(device), start_method_left_open():
                try:
                    return compiled(arranged(inputs))
                except HeadstartError:
                    raise
                except Exception as error:  # of the compiler, or of a network's own code
                    reason = f"torch.compile cannot take it: {first_line(error)}"
                    raise EngineUnfitError(reason) from error

        yield run
