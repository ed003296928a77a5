"""AOTInductor: the program that ``torch.compile`` would make, as a file for later processes.

Compilation takes half a minute, loading the file a fraction of a second. The program holds the
weights and the machine's instructions, so that it is known by all of them.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headstart.backbones import Backbone
from headstart.core.arguments import Arguments
from headstart.core.records import Precision
from headstart.core.scratch import scratch_folder
from headstart.extraction.engines.exporting import by_shape, exported, first_line, recording
from headstart.extraction.engines.inductor import freezing, quiet_compiler
from headstart.extraction.engines.table import EngineUnfitError

if TYPE_CHECKING:
    from headstart.extraction.engines.table import Run, Slot


@contextlib.contextmanager
def open_engine(
    cuts: Sequence[Backbone],
    precision: Precision,
    device: torch.device,
    slot: Slot | None = None,
) -> Iterator[Run]:
    """Open the engine; see :class:`headstart.extraction.Engine`.

    Args:
        cuts, precision, device: as every engine takes them.
        slot: where programs are looked for, and kept; None: the program goes with the process.
    """
    if device.type not in ("cpu", "cuda"):
        raise EngineUnfitError(f"AOTInductor runs on CPUs and CUDA devices, not on {device}")
    yield by_shape(lambda inputs: _program(cuts, precision, inputs, slot))


def _program(
    cuts: Sequence[Backbone], precision: Precision, inputs: Arguments, slot: Slot | None
) -> Run:
    """Return what runs batches of one shape: a kept program, or one that is made now."""

    def make(path: Path) -> None:
        _make(cuts, precision, inputs, path)

    if slot is not None:
        path = slot.find(inputs) or slot.keep(inputs, make)
        if path is not None:
            return _loaded(path)
    with scratch_folder() as folder:
        path = folder / "program.pt2"
        make(path)
        return _loaded(path)


def _make(cuts: Sequence[Backbone], precision: Precision, inputs: Arguments, path: Path) -> None:
    """Compile a network up to its cuts, for batches of one shape, into a file.

    Raises:
        EngineUnfitError: it cannot be recorded or compiled.
    """
    device = inputs.device
    program = exported(cuts, inputs, precision)
    given, named = program.example_inputs
    with scratch_folder() as folder, freezing(device), recording(device):
        inductor: Any = importlib.import_module("torch._inductor")  # whose types are not exact
        package: Any = importlib.import_module("torch._inductor.package")
        options = {"aot_inductor.package": True, "aot_inductor.output_path": str(folder)}
        try:
            files = inductor.aot_compile(
                program.module(check_guards=False), given, named, options=options
            )
            package.package_aoti(str(path), files)
        except Exception as error:  # of the compiler, of many types
            reason = f"AOTInductor cannot take it: {first_line(error)}"
            raise EngineUnfitError(reason) from error


def _loaded(path: Path) -> Run:
    """Return what runs a program; the file may go afterwards."""
    try:
        with quiet_compiler():
            from torch._inductor import aoti_load_package

            program = aoti_load_package(str(path))
    except Exception as error:
        raise EngineUnfitError(f"AOTInductor cannot load it: {first_line(error)}") from error

    def run(inputs: Arguments) -> Sequence[Tensor]:
        found = program(*(tensor.contiguous() for tensor in inputs.tensors()))
        return list(found)

    return run
