"""A network up to its cuts, poolings included, as one program of PyTorch's: for other runtimes."""

from __future__ import annotations

import contextlib
import inspect
import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from headstart.backbones.backbone import Backbone
from headstart.backbones.passes import recordable_features
from headstart.core.arguments import Arguments
from headstart.core.records import Precision
from headstart.extraction.engines.table import EngineUnfitError
from headstart.extraction.precision import HALF_TYPES, autocast
from headstart.modules.values import library_of

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from headstart.extraction.engines.table import Run

_SHAPES = 4
"""Shapes of batches that a program is made for; texts of many lengths would need one each."""


class _Flat(nn.Module):
    """A network up to its cuts: from a flat tuple of tensors to the features at every cut."""

    def __init__(
        self, cuts: Sequence[Backbone], like: Arguments, precision: Precision = "float32"
    ) -> None:
        super().__init__()
        self.network = cuts[0].module
        self.cuts, self.like, self.precision = tuple(cuts), like, precision

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        # No pass is ended early while it is recorded: the recorder keeps account of open layers.
        half = self.precision in HALF_TYPES  # a context that does nothing would be recorded, too
        casting = autocast(self.precision, self.like.device) if half else contextlib.nullcontext()
        with recordable_features(self.cuts) as run, casting:
            return tuple(run(rebuilt(self.like, tensors)))


def rebuilt(like: Arguments, tensors: Sequence[Tensor]) -> Arguments:
    """Return arguments of the form of ``like`` with other tensors, ordered as ``tensors()``."""
    given = iter(tensors)
    return like.map(lambda _: next(given))


def exported(
    cuts: Sequence[Backbone], inputs: Arguments, precision: Precision = "float32"
) -> ExportedProgram:
    """Record a network up to its cuts for batches of one shape.

    The network's own code runs to its end, and hooks read its layers; what is behind the last of
    them is left out of the program. The user's module stays as it is.

    Raises:
        EngineUnfitError: it cannot be recorded: its path depends on values, say.
    """
    for cut in cuts:
        _ = cut.layout  # found by runs of its own, which have no place in a program
    return recorded(_Flat(cuts, inputs, precision), tuple(inputs.tensors()))


def recorded(
    module: nn.Module, tensors: Sequence[Tensor], dynamic: Sequence[Mapping[int, Any]] | None = None
) -> ExportedProgram:
    """Record a module as a program, in float32; what it runs behind its outputs is left out.

    Args:
        module: in evaluation mode.
        tensors: what it takes, such as the program will be given.
        dynamic: for each of them the axes whose length may change, as ``torch.export`` takes
            them; None: the program is for this shape.

    Raises:
        EngineUnfitError: it cannot be recorded.
    """
    foreign = _cannot_record(module)
    if foreign:
        raise EngineUnfitError(f"{foreign} cannot be recorded as a program")
    with recording(tensors[0].device):
        # What inference mode made has no place in a program.
        plain = tuple(tensor.clone().contiguous() for tensor in tensors)
        shapes = None if dynamic is None else _for_signature(module, dynamic)
        try:
            program = torch.export.export(module, plain, dynamic_shapes=shapes, strict=False)
            _end_at_outputs(program.graph_module.graph)
            return program
        except Exception as error:  # whatever a network's own code, or torch, raises
            raise EngineUnfitError(f"it cannot be recorded: {first_line(error)}") from error


def _for_signature(module: nn.Module, dynamic: Sequence[Mapping[int, Any]]) -> dict[str, Any]:
    names = list(inspect.signature(module.forward).parameters)
    return {name: dict(axes) for name, axes in zip(names, dynamic, strict=False)}


def _end_at_outputs(graph: fx.Graph) -> None:
    """Drop what was recorded behind the last value that is returned.

    Dead code by torch's own count is less: an operation in place counts as needed.
    """
    *nodes, output = graph.nodes
    for node in reversed(nodes):
        if node.op != "call_function" or node in output.all_input_nodes:
            return
        graph.erase_node(node)


def _cannot_record(module: nn.Module) -> str | None:
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            return "TorchScript"
        if library_of(type(part)) == "keras" or type(part).__module__ == "headstart.modules.keras":
            return "a Keras model"
    return None


@contextlib.contextmanager
def recording(device: torch.device) -> Iterator[None]:
    """Leave inference mode and autocast, and keep warnings of the recorder from the user."""
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        warnings.catch_warnings(),
        start_method_left_open(),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def start_method_left_open() -> Iterator[None]:
    """Leave it to the user how processes are started, if that is still open.

    PyTorch's recorder shows a progress bar of tqdm, even if nobody sees it, whose lock decides.
    """
    undecided = multiprocessing.get_start_method(allow_none=True) is None
    try:
        yield
    finally:
        if undecided:
            multiprocessing.set_start_method(None, force=True)


def first_line(error: BaseException) -> str:
    """Return the first line of an error, shortened."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0].strip()}"[:160].rstrip(".: ")


def by_shape(build: Callable[[Arguments], Run]) -> Run:
    """Return a function that builds a program for each shape of batch, and runs it.

    Args:
        build: from a batch to what runs batches of its shape.

    Raises:
        EngineUnfitError: at a batch of too many shapes.
    """
    known: dict[Any, Run] = {}

    def run(inputs: Arguments) -> Sequence[Tensor]:
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs.tensors())
        if key not in known:
            if len(known) >= _SHAPES:
                raise EngineUnfitError(
                    "items have many lengths, and each would need its own program"
                )
            known[key] = build(inputs)
        return known[key](inputs)

    return run


__all__ = [
    "by_shape",
    "exported",
    "first_line",
    "rebuilt",
    "recorded",
    "recording",
    "start_method_left_open",
]
