"""ONNX Runtime on the CPU, in float32."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headstart.backbones import Backbone
from headstart.core.arguments import Arguments
from headstart.core.records import Precision
from headstart.extraction.engines.exporting import by_shape, exported, first_line, recording
from headstart.extraction.engines.table import EngineUnfitError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from headstart.extraction.engines.table import Run

_MOST_BYTES = 1_900_000_000
"""A model in memory is one protocol buffer, which holds less than 2 GB."""


@contextlib.contextmanager
def open_engine(
    cuts: Sequence[Backbone], precision: Precision, device: torch.device
) -> Iterator[Run]:
    """Open the engine; see :class:`headstart.extraction.Engine`."""
    if device.type != "cpu":
        raise EngineUnfitError(f"ONNX Runtime runs on the CPU here, not on {device}")
    if precision != "float32":
        raise EngineUnfitError(f"ONNX Runtime runs in float32 on the CPU, not in {precision}")
    if sum(tensor.nbytes for tensor in cuts[0].module.state_dict().values()) > _MOST_BYTES:
        raise EngineUnfitError("its weights are larger than an ONNX model in memory may be")
    yield by_shape(lambda inputs: _built(cuts, inputs))


def _built(cuts: Sequence[Backbone], inputs: Arguments) -> Run:
    import onnxruntime

    program = exported(cuts, inputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    made = as_onnx(program)
    try:
        session = onnxruntime.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # operations that ONNX Runtime lacks, of many types
        raise EngineUnfitError(f"ONNX Runtime cannot take it: {first_line(error)}") from error
    names = [each.name for each in session.get_inputs()]

    def run(batch: Arguments) -> Sequence[Tensor]:
        given: dict[str, Any] = {
            name: tensor.contiguous().numpy()
            for name, tensor in zip(names, batch.tensors(), strict=True)
        }
        return [torch.from_numpy(rows) for rows in session.run(None, given)]

    return run


def as_onnx(program: ExportedProgram, **names: Any) -> Any:
    """Return a program as an ``onnx.ModelProto``.

    Args:
        program: of :mod:`headstart.extraction.engines.exporting`.
        **names: ``input_names`` and ``output_names``; those of the program where they are left out.

    Raises:
        EngineUnfitError: it holds operations that ONNX lacks.
    """
    with recording(torch.device("cpu")), _quiet("torch.onnx", "onnxscript"):
        try:
            made = torch.onnx.export(program, dynamo=True, verbose=False, optimize=True, **names)
            assert made is not None
            return made.model_proto
        except Exception as error:  # of many types
            raise EngineUnfitError(
                f"ONNX cannot express it: {first_line(_origin(error))}"
            ) from error


def _origin(error: BaseException) -> BaseException:
    """Return the error that others were raised from: theirs say how far the exporter came."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Keep what converters print and log from the user's terminal."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
