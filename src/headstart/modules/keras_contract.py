"""What a freeze contract means to Keras: the tree it is laid on, and the flags it sets.

The contract itself (:mod:`headstart.freezing`) speaks of modules; a Keras model stands for the tree
of :mod:`headstart.modules.keras`, always the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from headstart.modules.keras import KerasPart, torch_network
from headstart.modules.keras_calls import Bridge, bridge_of
from headstart.modules.keras_layers import is_keras

_TREE = "_headstart_network"
_TRAINABLE = "_headstart_trainable"


def tree_of(model: Any) -> KerasPart:
    """Return the tree that stands for a Keras model in freezing, always the same one."""
    found = vars(model).get(_TREE)
    if found is None:
        found = vars(model)[_TREE] = torch_network(model)
    return found  # type: ignore[no-any-return]


def as_module(model: Any) -> Any:
    """Return the tree of a Keras model, and anything else unchanged."""
    return tree_of(model) if is_keras(model) and not isinstance(model, KerasPart) else model


def named_by_keras(tree: nn.Module, spec: Any) -> Any:
    """Let the keys of a mapping be Keras layers, or their names where these have dots in them.

    Args:
        tree: of a Keras model; for other modules ``spec`` is returned unchanged.
        spec: what :func:`headstart.freeze` takes.
    """
    if not isinstance(spec, Mapping) or not isinstance(tree, KerasPart):
        return spec
    parts = [(name, part) for name, part in tree.named_modules() if isinstance(part, KerasPart)]
    layers = {id(part.keras_layer): name for name, part in parts}
    names = {
        str(part.keras_layer.name): name for name, part in parts if "." in part.keras_layer.name
    }

    def named(key: Any) -> Any:
        return names.get(key, key) if isinstance(key, str) else layers.get(id(key), key)

    return {named(key): policy for key, policy in spec.items()}


def hold_keras(tree: nn.Module, held: Iterable[str] | None) -> None:
    """Carry a contract over to Keras, whose own loops read other flags than PyTorch's.

    Variables are trainable where their tensors require a gradient, so that ``fit`` and
    ``train_on_batch`` update those and no others; held layers run in inference mode whatever
    ``training`` Keras passes.

    Args:
        tree: where the contract is; nothing happens to modules that are not Keras's.
        held: names of the parts that stay in evaluation mode; None after a release, when every
            layer's ``trainable`` is what it was.
    """
    names = set(held or ())
    for name, part in tree.named_modules():
        if not isinstance(part, KerasPart) or not hasattr(part.keras_layer, "_trainable"):
            continue
        layer = part.keras_layer
        if name in names:
            bridge_of(layer).held = part
        elif isinstance(bridge := vars(layer).get("forward"), Bridge):
            bridge.held = None
        for key, parameter in part._parameters.items():
            assert parameter is not None
            part._headstart_variables[key]._trainable = parameter.requires_grad
        if held is None:
            layer._trainable = vars(part).pop(_TRAINABLE, layer._trainable)
            continue
        vars(part).setdefault(_TRAINABLE, layer._trainable)
        # A norm that may follow the batch has to be trainable: Keras couples the two.
        free = name not in names and "running_mean" in part._buffers
        inside = list(part.parameters())
        if inside or free:
            layer._trainable = free or any(parameter.requires_grad for parameter in inside)


__all__ = ["as_module", "hold_keras", "named_by_keras", "tree_of"]
