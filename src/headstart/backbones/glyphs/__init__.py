"""``headstart/glyphs``: a small backbone for images of characters, bundled with its weights.

Nothing is downloaded. ``card.md`` in this folder says what it was trained on and what it is for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from headstart.backbones.glyphs.network import GlyphNet

WEIGHTS = "glyphs.safetensors"
BLOCKS = ("stem", "stage1.0", "stage2.0", "stage3.0")
"""The main blocks, in forward order."""


@contextmanager
def weights_file() -> Iterator[Path]:
    """Give the bundled weights as a file; it may be a temporary one (packages inside archives)."""
    with resources.as_file(resources.files(__package__) / WEIGHTS) as path:
        yield path


def load_glyphs() -> GlyphNet:
    """Build the network with its pre-trained weights.

    Returns:
        The network on the CPU in float32 and in evaluation mode. It maps ``(n, 3, 32, 32)
        float32``, preprocessed as :func:`glyphs_metadata` says, to ``(n, 128) float32``.
    """
    # On the meta device nothing is initialised, so the global random state stays as it was.
    with torch.device("meta"):
        network = GlyphNet()
    with weights_file() as path, safe_open(path, framework="pt", device="cpu") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval()


def glyphs_metadata() -> Mapping[str, Any]:
    """Return what the weights say about themselves, parsed from the file's own metadata.

    Returns:
        ``preprocessing`` (the fields of :class:`~headstart.data.preprocessing.Preprocessing`),
        ``architecture``, ``data``, ``recipe`` (with the training seed), ``figures`` and
        ``licence``.
    """
    with weights_file() as path, safe_open(path, framework="pt", device="cpu") as file:
        metadata: dict[str, str] = file.metadata() or {}
    prefix = "headstart."
    return {
        key.removeprefix(prefix): json.loads(value)
        for key, value in sorted(metadata.items())
        if key.startswith(prefix)
    }


def glyphs_card() -> str:
    """Return the model card, in Markdown."""
    return (resources.files(__package__) / "card.md").read_text(encoding="utf-8")


__all__ = ["BLOCKS", "GlyphNet", "glyphs_card", "glyphs_metadata", "load_glyphs", "weights_file"]
