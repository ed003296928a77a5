"""Where the batch, the channels and the positions of a layer's output are.

A layout is a plain value, so that pooling knows nothing of networks. Whoever changes how layouts
are found changes :func:`find_layout` and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from headstart.modules.forward import aside, capture
from headstart.modules.modes import evaluation_mode


@dataclass(frozen=True)
class Layout:
    """The axes of a layer's output.

    Attributes:
        batch: the axis of the items.
        channels: the axis of the features; None where it is not known.
        positions: the axes that a pooling reduces, in order: none for a row ``(n, c)``, the tokens
            of ``(n, tokens, c)``, height and width of a map.
        prefix: how many tokens precede the patches (class and register tokens).
    """

    batch: int = 0
    channels: int | None = None
    positions: tuple[int, ...] = ()
    prefix: int = 0


ROWS = Layout(channels=1)
"""``(n, c)``."""
CHANNELS_FIRST = Layout(channels=1, positions=(2, 3))
"""``(n, c, h, w)``."""
CHANNELS_LAST = Layout(channels=3, positions=(1, 2))
"""``(n, h, w, c)``."""


def tokens(prefix: int = 0) -> Layout:
    """Return the layout of ``(n, tokens, c)``, of which the first ``prefix`` are no patches."""
    return Layout(channels=2, positions=(1,), prefix=prefix)


def find_layout(module: nn.Module, layer: str | None, *args: Any, **kwargs: Any) -> Layout:
    """Find the layout of a layer's output.

    Args:
        module: the network; it is left as it was.
        layer: a name, or None for the output of the network.
        args, kwargs: a batch, as the network takes it.

    Returns:
        The layout; of an output that has neither 2, 3 nor 4 axes only the batch is known.
    """
    with torch.no_grad(), evaluation_mode(module), aside():
        found = capture(module, [layer], lambda _layer, output: output.ndim, *args, **kwargs)
    axes = found[layer]
    if axes == 2:
        return ROWS
    if axes == 3:
        return tokens(_prefix_tokens(module))
    if axes == 4:
        return CHANNELS_LAST if _channels_last(module, layer or "") else CHANNELS_FIRST
    return Layout()


def _channels_last(module: nn.Module, layer: str) -> bool:
    """Whether the 4-D output of ``layer`` is ``(n, h, w, c)`` rather than ``(n, c, h, w)``.

    timm says so in ``output_fmt``; torchvision's Swin transformers keep their channels last in
    ``features`` without saying it. Everything else is taken as channels first.
    """
    if str(getattr(module, "output_fmt", "NCHW")).upper().endswith("NHWC"):
        return True
    return type(module).__name__ == "SwinTransformer" and layer.split(".")[0] in {
        "features",
        "norm",
    }


def _prefix_tokens(module: nn.Module) -> int:
    """Return how many tokens of a transformer precede the patches (class and register tokens)."""
    known = getattr(module, "num_prefix_tokens", None)
    if isinstance(known, int):
        return known
    return int(isinstance(getattr(module, "class_token", None), nn.Parameter))


__all__ = ["CHANNELS_FIRST", "CHANNELS_LAST", "ROWS", "Layout", "find_layout", "tokens"]
