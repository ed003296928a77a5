"""A private tree of a Keras model whose convolutions and batch norms are PyTorch's own.

Keras transposes the kernel of a convolution in every call, and computes a batch norm in three
passes over the images. In evaluation mode ``nn.Conv2d`` and ``nn.BatchNorm2d`` compute the same up
to rounding, without either, and an engine can make the two one layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from headstart.modules.keras import KerasNetwork, KerasPart


class ImageLayer(nn.Module):
    """Takes the place of a Keras layer: images as Keras lays them out, an own layer inside.

    Args:
        layer: the Keras layer.
        inner: takes and returns ``(n, c, h, w)``.
        channels_last: whether the Keras layer takes ``(n, h, w, c)``.
        activation: of the Keras layer, behind the inner one; None: none.
        padding: of TensorFlow's kind, before the inner layer: for each side of the images the
            stride and the length of the kernel, dilated; None: none.
    """

    def __init__(
        self,
        layer: Any,
        inner: nn.Conv2d | nn.BatchNorm2d,
        *,
        channels_last: bool,
        activation: Callable[[Tensor], Tensor] | None = None,
        padding: tuple[tuple[int, int], ...] | None = None,
    ) -> None:
        super().__init__()
        vars(self).update(_headstart_layer=layer)  # nn.Module would register it
        self.inner = inner
        self.is_norm, self.dtype = isinstance(inner, nn.BatchNorm2d), inner.weight.dtype
        self.channels_last, self.activation, self.padding = channels_last, activation, padding

    def forward(self, images: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        """Run the inner layer, in evaluation mode: the other arguments change nothing."""
        del training, mask
        if isinstance(self.inner, nn.Identity):  # a norm that is part of the convolution before it
            return images
        if self.is_norm or not torch.is_autocast_enabled(images.device.type):
            images = images.to(self.dtype)  # as Keras does, where layers compute in several types
        x = images.permute(0, 3, 1, 2) if self.channels_last else images
        if self.padding is not None:
            x = nn.functional.pad(x, _same(x, self.padding))
        x = self.inner(x)
        x = x.permute(0, 2, 3, 1) if self.channels_last else x
        return x if self.activation is None else self.activation(x)


def for_inference(tree: nn.Module) -> nn.Module:
    """Return a tree that computes what a Keras tree computes in evaluation mode, up to rounding.

    Args:
        tree: in evaluation mode. It is not changed; parts that stay as they are, are shared.

    Returns:
        The tree, with the same names, or ``tree`` itself where it is no Keras network that runs
        its own graph.
    """
    return _copied(tree, {}) if isinstance(tree, KerasNetwork) else tree


def _copied(part: KerasNetwork, made: dict[int, nn.Module]) -> nn.Module:
    twin = made[id(part)] = copy.copy(part)  # shallow: the Keras layer and its tensors are shared
    own = {key: dict(value) for key, value in vars(part).items() if type(value) is dict}
    hooks = {key: type(value)() for key, value in vars(part).items() if key.endswith("_hooks")}
    vars(twin).update({**own, **hooks, "_modules": {}})
    for name, child in part.named_children():
        if id(child) not in made:
            whole = isinstance(child, KerasNetwork)
            made[id(child)] = _copied(child, made) if whole else _own(child)  # type: ignore[arg-type]
        twin._modules[name] = made[id(child)]
    return twin


def _own(part: nn.Module) -> nn.Module:
    """Return PyTorch's layer in place of a plain convolution or norm, or the part as it is."""
    from keras import layers

    if not isinstance(part, KerasPart) or part.training or not _is_plain(part.keras_layer):
        return part
    kind = type(part.keras_layer)
    if kind in (layers.Conv2D, layers.DepthwiseConv2D):
        return _convolution(part)
    return _norm(part) if kind is layers.BatchNormalization else part


def _is_plain(layer: Any) -> bool:
    """Whether a layer computes in the type of its weights, with its class's own call."""
    policy = getattr(layer, "dtype_policy", None)
    return (
        policy is not None
        and policy.compute_dtype == policy.variable_dtype
        and getattr(layer, "quantization_mode", None) is None
        and not getattr(layer, "lora_enabled", False)
        and "call" not in vars(layer)
    )


def _convolution(part: KerasPart) -> nn.Module:
    layer = part.keras_layer
    kernel = part.get_parameter("kernel").detach()
    if type(layer).__name__ == "DepthwiseConv2D":  # (h, w, in, times) to (h, w, 1, in * times)
        groups, kernel = kernel.shape[2], kernel.flatten(2)[:, :, None]
    else:
        groups = layer.groups
    sides, strides = _pair(kernel.shape[:2]), _pair(layer.strides)
    dilation = _pair(layer.dilation_rate)
    reach = [d * (side - 1) for side, d in zip(sides, dilation, strict=True)]
    same = layer.padding == "same"
    even = same and strides == (1, 1) and not any(one % 2 for one in reach)
    with torch.device("meta"):
        inner = nn.Conv2d(
            kernel.shape[2] * groups, kernel.shape[3], sides, strides,
            (reach[0] // 2, reach[1] // 2) if even else 0, dilation, groups, bias=False,
        )  # fmt: skip
    weight = kernel.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    inner.weight = nn.Parameter(weight, requires_grad=False)
    bias = part._parameters.get("bias")
    if bias is not None:
        inner.bias = nn.Parameter(bias.detach(), requires_grad=False)
    from keras.activations import linear

    return ImageLayer(
        layer,
        inner.eval(),
        channels_last=layer.data_format == "channels_last",
        activation=None if layer.activation is linear else layer.activation,
        padding=tuple(zip(strides, (one + 1 for one in reach), strict=True))
        if same and not even
        else None,
    ).eval()


def _norm(part: KerasPart) -> nn.Module:
    layer = part.keras_layer
    axes = getattr(layer.input_spec, "ndim", None)
    axis = part.channel_axis % 4
    if axes != 4 or axis not in (1, 3) or getattr(layer, "renorm", False):
        return part
    mean, variance = part.get_buffer("running_mean"), part.get_buffer("running_var")
    with torch.device("meta"):
        inner = nn.BatchNorm2d(len(mean), eps=part.eps)
    scale, shift = part._parameters.get("gamma"), part._parameters.get("beta")
    scale = nn.Parameter(torch.ones_like(mean)) if scale is None else scale
    shift = nn.Parameter(torch.zeros_like(mean)) if shift is None else shift
    inner.weight = nn.Parameter(scale.detach(), requires_grad=False)
    inner.bias = nn.Parameter(shift.detach(), requires_grad=False)
    inner.running_mean, inner.running_var = mean.detach(), variance.detach()
    inner.num_batches_tracked = None
    return ImageLayer(layer, inner.eval(), channels_last=axis == 3).eval()


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _same(images: Tensor, padding: tuple[tuple[int, int], ...]) -> list[int]:
    """Return what TensorFlow's ``same`` adds to each side: left, right, top, bottom."""
    found: list[int] = []
    for length, (stride, reach) in zip(images.shape[2:], padding, strict=True):
        total = max(0, (-(-length // stride) - 1) * stride + reach - length)
        found = [total // 2, total - total // 2, *found]
    return found


__all__ = ["ImageLayer", "for_inference"]
