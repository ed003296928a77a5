"""A run as a recorded program: pixels of the network's size, or tokens → probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError
from headstart.data.texts import Texts
from headstart.export.network import ImageModule, PredictorModule, TextModule
from headstart.extraction.engines.exporting import recorded
from headstart.extraction.engines.table import EngineUnfitError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_RECORDED = 2
"""Items that a program is recorded with; at one, sizes would be taken for constants."""


class PixelsGraph(nn.Module):
    """``(n, 3, h, w) uint8`` of the network's size, RGB → probabilities."""

    def __init__(self, module: ImageModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise, and predict."""
        return self.module.outputs_of(self.module.inputs.finish(Arguments((pixels,))))


@dataclass(frozen=True)
class Graph:
    """A program and what it takes.

    Attributes:
        program: it returns one tensor, the probabilities.
        inputs: names of what it takes.
        any_number: whether it takes any number of items at a time; else one.
    """

    program: ExportedProgram
    inputs: tuple[str, ...]
    any_number: bool


def recorded_graph(module: PredictorModule) -> Graph:
    """Record a run for any number of items at a time, or else for one.

    Raises:
        BackboneError: it cannot be recorded, or takes neither images nor texts.
    """
    whole, names, example, longest = _described(module)
    reasons = []
    for count in (_RECORDED, 1):
        some = [tensor[:1].expand(count, *tensor.shape[1:]) for tensor in example]
        free: dict[int, Any] = {0: torch.export.Dim("n", min=1)} if count > 1 else {}
        if longest:
            free[1] = torch.export.Dim("tokens", min=2, max=longest)
        axes = [free] * len(some) if free else None
        try:
            program = recorded(whole, some, axes)
            return Graph(_compact(program, some, axes), names, count > 1)
        except EngineUnfitError as unfit:
            reasons.append(str(unfit))
    raise BackboneError(
        f"{module.name} cannot be exported as a program: {reasons[-1]}",
        hint="predict with the run itself, or use run.to_torch()",
    )


def _described(
    module: PredictorModule,
) -> tuple[nn.Module, tuple[str, ...], Sequence[Tensor], int]:
    """Return what is recorded, names of what it takes, an example, and the longest text or 0."""
    if isinstance(module, ImageModule):
        pixels = torch.zeros((1, 3, *module.inputs.size), dtype=torch.uint8)  # type: ignore[attr-defined]
        return PixelsGraph(module).eval(), ("pixels",), (pixels,), 0
    if isinstance(module, TextModule):
        example = module.inputs.example(1)
        names = ("input_ids", *example.kwargs)
        assert isinstance(module.inputs, Texts)
        longest = module.inputs.max_length if module.inputs.ragged else 0
        return module, names, (*example.args, *example.kwargs.values()), longest
    raise BackboneError(
        f"{module.name} takes {module.inputs.unit}, which no artefact reads",
        hint="use run.to_torch()",
    )


def _compact(
    program: ExportedProgram,
    some: Sequence[Tensor],
    axes: Sequence[Mapping[int, Any]] | None,
) -> ExportedProgram:
    """Return a program without the operators and weights that it does not need, as behind a cut."""
    # Operators that write into what they are given would all count as needed.
    unlifted = program.run_decompositions({}).module()
    graph = unlifted.graph
    graph.eliminate_dead_code()
    unlifted.delete_all_unused_submodules()
    used = {node.target for node in graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*unlifted.named_parameters(), *unlifted.named_buffers())]:
        if name not in used:
            owner, _, last = name.rpartition(".")
            delattr(unlifted.get_submodule(owner), last)
    return recorded(unlifted, some, axes)


__all__ = ["Graph", "PixelsGraph", "recorded_graph"]
