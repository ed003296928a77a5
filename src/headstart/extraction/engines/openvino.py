"""OpenVINO on the CPU, in float32 or bfloat16."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
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

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


@contextlib.contextmanager
def open_engine(
    cuts: Sequence[Backbone], precision: Precision, device: torch.device
) -> Iterator[Run]:
    """Open the engine; see :class:`headstart.extraction.Engine`."""
    if device.type != "cpu":
        raise EngineUnfitError(f"OpenVINO runs on the CPU here, not on {device}")
    if precision not in _HINTS:
        raise EngineUnfitError(f"OpenVINO runs in float32 or bfloat16 on the CPU, not {precision}")
    yield by_shape(lambda inputs: _built(cuts, precision, inputs))


def _built(cuts: Sequence[Backbone], precision: Precision, inputs: Arguments) -> Run:
    program = exported(cuts, inputs)
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",  # all threads work on one batch
    }
    model = as_openvino(program)
    try:
        request = openvino_core().compile_model(model, "CPU", settings).create_infer_request()
    except Exception as error:
        raise EngineUnfitError(f"OpenVINO cannot run it: {first_line(error)}") from error

    def run(batch: Arguments) -> Sequence[Tensor]:
        given: list[Any] = [tensor.contiguous().numpy() for tensor in batch.tensors()]
        request.infer(given, share_inputs=True)
        count = len(model.outputs)
        return [torch.from_numpy(request.get_output_tensor(i).data.copy()) for i in range(count)]

    return run


_REPORTER = "openvino_telemetry"
_swapping = threading.RLock()


def load_openvino() -> Any:
    """Import OpenVINO as it is where its package of telemetry is not installed.

    With that package it reports to its makers that it was imported, and every conversion with the
    framework and the parameters, from processes that it forks off the user's.
    """
    if "openvino.tools.ovc" in sys.modules:  # the user has imported it
        return sys.modules["openvino"]
    with without_reporter():
        import openvino
        import openvino.tools.ovc
    return openvino


@functools.cache
def openvino_core() -> Any:
    """Return the process's only ``openvino.Core``, its CPU plugin loaded.

    Each one gives the thread a stack for signals of its own, and takes that back when it goes. Of
    two that go in the order in which they came, the second leaves the thread with the stack of the
    first, which is memory that is gone: the next signal, Ctrl-C say, ends the process at once,
    without a word (OpenVINO 2026.4). One that stays is the last to go, whatever the others do.
    """
    core = load_openvino().Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin, which is what sets the stack
    return core


@contextlib.contextmanager
def without_reporter() -> Iterator[None]:
    """Import inside as if the package of telemetry were not installed."""
    with _swapping:
        before = sys.modules.get(_REPORTER)
        sys.modules[_REPORTER] = None  # type: ignore[assignment]  # an import of it fails
        try:
            yield
        finally:
            del sys.modules[_REPORTER]
            if before is not None:
                sys.modules[_REPORTER] = before


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """Convert without a report, also where the user has imported OpenVINO with its reporter."""
    from openvino.tools.ovc import telemetry_stub

    with _swapping:
        modules = [m for n, m in list(sys.modules.items()) if n.startswith("openvino.tools.ovc")]
        swapped = [(m, m.tm) for m in modules if getattr(m, "tm", telemetry_stub) != telemetry_stub]
        for module, _ in swapped:
            module.tm = telemetry_stub  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for module, reporter in swapped:
                module.tm = reporter  # type: ignore[attr-defined]


def as_openvino(program: ExportedProgram) -> Any:
    """Return a program as an ``openvino.Model``.

    Args:
        program: of :mod:`headstart.extraction.engines.exporting`; where it has several outputs,
            they are made distinct.

    Raises:
        EngineUnfitError: it holds operations that OpenVINO lacks.
    """
    openvino = load_openvino()
    if len(program.graph_signature.output_specs) > 1:
        _make_distinct(program)
    with recording(torch.device("cpu")), _unreported():
        try:
            return openvino.convert_model(program)
        except Exception as error:  # operations that OpenVINO lacks, of many types
            raise EngineUnfitError(f"OpenVINO cannot take it: {first_line(error)}") from error


def _make_distinct(program: ExportedProgram) -> None:
    """Give every output of a program, as it returns, an operation of its own.

    To OpenVINO a copy is the tensor that was copied, and one tensor cannot be two outputs: that of
    a layer that is read with two poolings which leave rows alone, or before and after dropout. It
    drops the multiplication again when it compiles (OpenVINO 2026.4).
    """
    graph, signature = program.graph, program.graph_signature
    output = graph.output_node()
    returned = list(output.args[0])
    with graph.inserting_before(output):
        for at, (node, spec) in enumerate(zip(returned, signature.output_specs, strict=True)):
            if node.meta["val"].dtype != torch.bool:  # a product of which is a number
                product = graph.call_function(torch.ops.aten.mul.Tensor, (node, 1))
                product.meta = dict(node.meta)
                spec.arg.name, returned[at] = product.name, product
    output.args = (tuple(returned),)
    program.graph_module.recompile()
