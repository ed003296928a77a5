"""Weights from a file into an architecture, up to the cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from headstart.backbones.weights import load_weights
from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError
from headstart.modules.layers import live_parts


def load_up_to(
    module: nn.Module,
    file: Path,
    layer: str | None,
    example: Arguments,
    *,
    classifier: Sequence[str] = (),
) -> tuple[str, ...]:
    """Load a checkpoint of which only the part up to ``layer`` needs to be complete.

    Args:
        module: the network, changed in place.
        file: a safetensors file, or a torch file of tensors.
        layer: the cut; None means the whole module.
        example: what the module is called with, to find out what runs before the cut.
        classifier: names of removed classifiers; the file may have them.

    Returns:
        Notes: what the file lacks or has beyond the cut, one sentence each.

    Raises:
        BackboneError: a tensor before the cut is missing or misshaped, or the file has unexpected
            names; all of them are listed.
    """
    allow_missing: list[str] = []
    if layer is not None:
        used = set(live_parts(module, layer, *example.args, **example.kwargs).tensors)
        names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
        names += [name for name, _ in module.named_buffers()]
        allow_missing = [name for name in names if name not in used]
    present = _names_in(file)
    extra = [
        name
        for name in classifier
        if any(key == name or key.startswith(name + ".") for key in present)
    ]
    try:
        report = load_weights(module, file, allow_missing=allow_missing, allow_unexpected=extra)
    except BackboneError as error:
        # What the caller can do about it is on the command line, not in load_weights' arguments.
        raise BackboneError(
            error.message,
            hint="cut the network before what is missing with --layer NAME, "
            "or give the --model-args that the weights were made with",
        ) from error
    module.eval()
    beyond = [name for name in report.allowed if name in set(allow_missing)]
    notes = [f"{len(report.matched)} tensors loaded from {file.name}"]
    if beyond:
        notes.append(
            f"{file.name} lacks {len(beyond)} tensors behind the cut at {layer} "
            f"(the first is {beyond[0]}); they do not run"
        )
    return tuple(notes)


def _names_in(file: Path) -> set[str]:
    """Names in a safetensors header; empty for other files (load_weights reports on them)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as handle:
            return set(handle.keys())
    except (OSError, SafetensorError):
        try:
            content = torch.load(file, map_location="meta", weights_only=True)
        except Exception:
            return set()  # load_weights says what is wrong with the file
        return {str(key) for key in content} if isinstance(content, dict) else set()
