"""A private copy of a network in which batch norm is part of the convolutions before it.

In evaluation mode a batch norm multiplies each channel by a constant and adds another: ``norm(conv
(x))`` is a convolution with other weights. Which norms follow which convolution shows when the
network runs: a pair is folded only where nothing else reads what the convolution puts out, neither
another layer nor a tap. The user's module is never altered; tensors that stay as they are, are
shared with it.
"""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headstart.backbones import Backbone, features_of
from headstart.core.arguments import Arguments
from headstart.core.devices import doubled
from headstart.core.records import Precision
from headstart.extraction.engines.table import EngineUnfitError
from headstart.extraction.precision import HALF_TYPES
from headstart.modules.forward import hooked
from headstart.modules.keras import KerasPart
from headstart.modules.keras_inference import for_inference
from headstart.modules.values import library_of

Convolution: TypeAlias = (
    nn.Linear
    | nn.Conv1d
    | nn.Conv2d
    | nn.Conv3d
    | nn.ConvTranspose1d
    | nn.ConvTranspose2d
    | nn.ConvTranspose3d
)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_PROBE = 2


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how many operations read each memory, and whether values decide what runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads: Counter[int] = Counter()
        self.decides = False
        self._alive: list[Tensor] = []  # so that no address is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.permute.default:  # reads nothing: what reads its result counts
            return func(*args, **(kwargs or {}))
        given = {t.data_ptr(): t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        self.reads.update(given.keys())
        self._alive += given.values()
        self.decides |= func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def folded(
    cuts: Sequence[Backbone], inputs: Arguments, precision: Precision
) -> tuple[Backbone, ...]:
    """Return the cuts around a private copy that is prepared for fast passes.

    Batch norms are folded, weights of convolutions lie with their channels last, and in half
    precision the weights that autocast would convert in every pass are converted once.

    Args:
        cuts: one network, in evaluation mode.
        inputs: some items; the first two are run.
        precision: of the passes.

    Raises:
        EngineUnfitError: the network has no copy that is sure to do the same.
    """
    module = cuts[0].module
    _refuse(module)
    own = for_inference(module)  # of a Keras network; its convolutions and norms are not the user's
    if own is module and any(isinstance(part, KerasPart) for part in module.modules()):
        raise EngineUnfitError("a Keras model with its own call runs as written")
    if own is not module:
        cuts = tuple(_around(cut, own) for cut in cuts)
    uses, pairs = _pairs(cuts, inputs[:_PROBE])
    if uses.decides:
        raise EngineUnfitError("which of its layers run depends on the values of the items")
    twin = _copied(module) if own is module else own
    for convolution, norm in pairs:
        _fold(twin.get_submodule(convolution), twin.get_submodule(norm))
        _replace(twin, norm)
    _convert(twin, uses, precision)
    return tuple(_around(cut, twin) for cut in cuts)


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy that shares its tensors with the module."""
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    try:
        return copy.deepcopy(module, cast("dict[int, Any]", dict(shared)))
    except Exception as error:  # whatever a user's module raises
        raise EngineUnfitError(f"it cannot be copied ({type(error).__name__})") from error


def _refuse(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise EngineUnfitError("TorchScript runs as written")
        if library_of(type(part)) == "keras":
            raise EngineUnfitError("a Keras model runs as written")
        if part._forward_hooks or part._forward_pre_hooks or "_orig_mod" in part._modules:
            raise EngineUnfitError("hooks on its layers, or compiled parts, run as written")


def _pairs(cuts: Sequence[Backbone], some: Arguments) -> tuple[_Uses, list[tuple[str, str]]]:
    """Run the network, and return the convolutions and norms that can become one, by name."""
    module = cuts[0].module
    for cut in cuts:
        _ = cut.layout  # found by runs of its own, whose operations are not those of a pass
    names = {id(part): name for name, part in module.named_modules()}  # one name a module
    layers = {
        name: part
        for name, part in module.named_modules()
        if names[id(part)] == name and (_is_convolution(part) or _is_norm(part))
    }
    made: dict[int, tuple[str, tuple[int, ...]]] = {}
    follows: list[tuple[str, str, int]] = []
    runs: Counter[str] = Counter()

    def before(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if not _is_norm(layers[name]) or len(values) != 1:
            return
        source = made.get(values[0].data_ptr())
        if source is not None and source[1] == tuple(values[0].shape):
            follows.append((source[0], name, values[0].data_ptr()))

    def after(name: str, output: Any) -> None:
        runs[name] += 1
        part = layers[name]
        # A convolution of one item without an axis for items would have its channels first.
        if not _is_norm(part) and isinstance(output, Tensor) and output.ndim == _axes(part):
            made[output.data_ptr()] = (name, tuple(output.shape))

    with hooked(layers, before=before, after=after), _Uses() as uses:
        features_of(cuts, some)
    owners = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    pairs = [
        (convolution, norm)
        for convolution, norm, place in follows
        if runs[convolution] == runs[norm] == uses.reads[place] == 1
        and all(owners[id(p)] == 1 for p in layers[convolution].parameters())
        and all(uses.reads[t.data_ptr()] == 1 for t in _tensors(layers[convolution]))
        and all(uses.reads[t.data_ptr()] == 1 for t in _tensors(layers[norm]))
    ]
    return uses, pairs


def _tensors(part: nn.Module) -> list[Tensor]:
    """Return the floating parameters and buffers of a layer; a norm's counter is not read."""
    own = (*part.parameters(recurse=False), *part.buffers(recurse=False))
    return [tensor for tensor in own if tensor.is_floating_point()]


def _is_convolution(part: nn.Module) -> bool:
    return type(part) in (nn.Linear, *_PLAIN, *_TRANSPOSED) and "forward" not in part.__dict__


def _is_norm(part: nn.Module) -> bool:
    """Whether a layer is a batch norm with running statistics, perhaps one of timm's."""
    if type(part) not in _NORMS and not _has_activation(part):
        return False
    norm = cast("nn.BatchNorm2d", part)
    return norm.running_mean is not None and not norm.training and "forward" not in part.__dict__


def _has_activation(part: nn.Module) -> bool:
    """Whether a layer is timm's batch norm with activation."""
    kind = type(part)
    return kind.__name__ == "BatchNormAct2d" and kind.__module__.startswith("timm.")


def _axes(part: nn.Module) -> int:
    return 2 if isinstance(part, nn.Linear) else cast("nn.Conv2d", part).weight.ndim


def _fold(convolution: nn.Module, norm: nn.Module) -> None:
    """Give a convolution the weights with which it does what norm after convolution did."""
    layer, after = cast("nn.Conv2d", convolution), cast("nn.BatchNorm2d", norm)
    assert after.running_mean is not None
    assert after.running_var is not None
    kind = layer.weight.dtype
    scale = (doubled(after.running_var.detach()) + after.eps).rsqrt()
    if after.weight is not None:
        scale = scale * doubled(after.weight.detach())
    weight = doubled(layer.weight.detach())
    if isinstance(convolution, _TRANSPOSED):  # (in, out / groups, *kernel)
        groups = layer.groups
        parts = weight.unflatten(0, (groups, -1))  # type: ignore[no-untyped-call]
        by_group = scale.view(groups, 1, -1, *(1,) * (weight.ndim - 2))
        weight = (parts * by_group).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *(1,) * (weight.ndim - 1))
    bias = torch.zeros_like(scale) if layer.bias is None else doubled(layer.bias.detach())
    bias = (bias - doubled(after.running_mean.detach())) * scale
    if after.bias is not None:
        bias = bias + doubled(after.bias.detach())
    layer.weight = nn.Parameter(weight.to(layer.weight.device, kind), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(layer.weight.device, kind), requires_grad=False)


def _replace(twin: nn.Module, name: str) -> None:
    """Put what remains of a folded norm in its place, wherever it is registered."""
    norm: Any = twin.get_submodule(name)
    rest = nn.Sequential(norm.drop, norm.act) if _has_activation(norm) else nn.Identity()
    rest.eval()
    for part in list(twin.modules()):
        for key, child in part._modules.items():
            if child is norm:
                part._modules[key] = rest


def _convert(twin: nn.Module, uses: _Uses, precision: Precision) -> None:
    """Lay weights of convolutions out with their channels last, in the type they are used in."""
    owners = Counter(id(p) for _, p in twin.named_parameters(remove_duplicate=False))
    for part in twin.modules():
        if not _is_convolution(part):
            continue
        layer = cast("nn.Conv2d", part)
        alone = all(owners[id(p)] == 1 for p in part.parameters())
        half = HALF_TYPES.get(precision) if alone and layer.weight.dtype == torch.float32 else None
        image = type(part) is nn.Conv2d and layer.weight.device.type in {"cpu", "cuda"}
        if (
            not alone
            or not (half or image)
            or any(uses.reads[t.data_ptr()] > 1 for t in part.parameters())
        ):
            continue
        for name, tensor in list(part.named_parameters(recurse=False)):
            value = tensor.detach() if half is None else tensor.detach().to(half)
            if image and name == "weight":
                value = value.contiguous(memory_format=torch.channels_last)
            setattr(part, name, nn.Parameter(value, requires_grad=False))


def _around(cut: Backbone, twin: nn.Module) -> Backbone:
    """Return a cut of the copy; which axis is which is known from the original."""
    known = dataclasses.replace(cut, module=twin, _layouts=type(cut._layouts)())
    if cut.layer is not None or cut.pooling != "none":
        key = (cut.layer, cut.inputs.decoding)
        known._layouts[key] = (weakref.ref(twin), cut.layout)
    return known


def close(one: Sequence[Tensor], two: Sequence[Tensor], tolerance: float) -> bool:
    """Whether rows are equal up to a part of the largest of them, at every cut."""
    for a, b in zip(one, two, strict=True):
        scale = float(a.float().abs().max()) or 1.0
        if not float((a.float() - b.float()).abs().max()) / scale <= tolerance:
            return False
    return True


__all__ = ["close", "folded"]
