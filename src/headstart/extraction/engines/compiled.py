"""``torch.compile`` with weights frozen into the program."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart.backbones import Backbone
from headstart.backbones.passes import compiled_features
from headstart.core.arguments import Arguments
from headstart.core.errors import HeadstartError
from headstart.core.records import Precision
from headstart.extraction.engines.eager import arranged
from headstart.extraction.engines.exporting import first_line, start_method_left_open
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
    with compiled_features(cuts) as compiled:

        def run(inputs: Arguments) -> Sequence[Tensor]:
            with _freezing(device), start_method_left_open():
                try:
                    return compiled(arranged(inputs))
                except HeadstartError:
                    raise
                except Exception as error:  # of the compiler, or of a network's own code
                    reason = f"torch.compile cannot take it: {first_line(error)}"
                    raise EngineUnfitError(reason) from error

        yield run


@contextlib.contextmanager
def _freezing(device: torch.device) -> Iterator[None]:
    import torch._inductor.config as settings

    logger = logging.getLogger("torch.utils.cpp_extension")  # says on CPUs that there is no CUDA
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        # On CUDA, weights as constants would be held twice for a gain that is small.
        with settings.patch(freezing=device.type == "cpu"):
            yield
    finally:
        logger.setLevel(level)
