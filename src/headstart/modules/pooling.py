"""From a layer's output to one row an item: average, class token, generalised mean, or as it is."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from headstart.core.errors import BackboneError

Pooling = Literal["avg", "cls", "gem", "none"]
POOLINGS: tuple[str, ...] = get_args(Pooling)

GEM_POWER = 3.0
"""The exponent of the generalised mean (Radenović, Tolias, Chum 2018, §3.2 use 3)."""


def channels_last(module: nn.Module, layer: str) -> bool:
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


def prefix_tokens(module: nn.Module) -> int:
    """How many tokens of a transformer stand before the patches (class and register tokens)."""
    known = getattr(module, "num_prefix_tokens", None)
    if isinstance(known, int):
        return known
    return int(isinstance(getattr(module, "class_token", None), nn.Parameter))


def pool(output: Tensor, pooling: Pooling, *, last: bool = False, prefix: int = 0) -> Tensor:
    """Pool one layer's output.

    Args:
        output: ``(n, c)``, ``(n, tokens, c)``, ``(n, c, h, w)`` or, with ``last``,
            ``(n, h, w, c)``; floating.
        pooling: ``avg`` is the mean over positions (patch tokens only, as timm does), ``gem`` the
            generalised mean with exponent 3 over them, ``cls`` the first token, ``none`` leaves
            the output as it is. ``(n, c)`` has no positions and is returned as it is by ``avg``
            and ``gem``.
        last: whether a 4-D output has its channels last.
        prefix: tokens before the patches.

    Returns:
        ``(n, c)``, or the whole output for ``none``; half precision becomes float32. The result
        never shares memory with ``output``, which a later in-place layer may overwrite.

    Raises:
        BackboneError: ``cls`` without a class token, or an output of another rank.
    """
    # Sums of many half-precision numbers lose digits that the stored row has room for.
    output = output.float() if output.dtype in {torch.float16, torch.bfloat16} else output
    if pooling == "none":
        return output.clone()
    if pooling == "cls":
        if output.ndim != 3 or prefix < 1:
            raise BackboneError(
                f"pooling 'cls' expects tokens with a class token, "
                f"and this layer gives shape {tuple(output.shape[1:])} an item",
                hint="use --pooling avg",
            )
        return output[:, 0].clone()
    if output.ndim == 2:
        return output.clone()
    if output.ndim == 3:
        positions = output[:, prefix:]
    elif output.ndim == 4:
        positions = output.flatten(1, 2) if last else output.flatten(2).transpose(1, 2)
    else:
        raise BackboneError(
            f"pooling '{pooling}' expects 2 to 4 dimensions, "
            f"and this layer gives {output.ndim}: {tuple(output.shape)}",
            hint="use --pooling none or another layer",
        )
    if pooling == "avg":
        return positions.mean(dim=1)
    powers = positions.clamp(min=1e-6).pow(GEM_POWER).mean(dim=1)
    return torch.pow(powers, 1.0 / GEM_POWER)
