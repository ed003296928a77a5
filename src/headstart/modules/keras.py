"""A Keras model as a tree of PyTorch modules that share its tensors.

With Keras's PyTorch backend a Keras model is an ``nn.Module``, but PyTorch cannot see into it:
``named_modules()`` finds no layer, batch-norm statistics are parameters, and ``train()`` and
``eval()`` change nothing, since Keras passes the mode as an argument of every call.
:func:`torch_network` builds a tree of modules, one per layer, under the layers' own names. Each
holds the very tensors of its Keras layer (moving statistics as the buffers ``running_mean`` and
``running_var``) and runs the layer's own code. Whatever changes the tree changes the Keras model,
and the other way round.

A layer runs in training mode if its ``training`` flag is on *and* nothing says
``training=False``: neither the caller nor the graph of a functional model
(``base(x, training=False)``, which Keras's ``fit`` overrides up to 3.15; keras issue 20285).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.core.errors import BackboneError, HeadstartError
from headstart.modules.keras_calls import bridge_of, here, own_forward, running
from headstart.modules.keras_layers import (
    config_of,
    default_mode,
    functions_of,
    graph_of,
    is_input,
    is_keras,
    load_keras,
    own_variables,
    run_graph,
    unpacked,
    wirings,
)


class KerasPart(nn.Module):
    """A Keras layer or operation, with the layers inside it, as modules that share its tensors.

    Attributes:
        channels_first: whether images arrive as ``(n, c, h, w)`` although Keras takes
            ``(n, h, w, c)``. Outputs of layers stay as Keras makes them.
    """

    channels_first = False

    _headstart_layer: Any
    _headstart_wiring: Any
    _headstart_variables: dict[str, Any]
    _headstart_random_state: tuple[str, ...]

    def __init__(self, layer: Any, wiring: Any = None) -> None:
        super().__init__()
        # Through __dict__, since nn.Module would register the layer as a submodule.
        vars(self).update(_headstart_layer=layer, _headstart_wiring=wiring)
        variables: dict[str, Any] = {}
        states: list[str] = []
        for name, variable, role in own_variables(layer):
            variables[name] = variable
            (self._parameters if role == "weight" else self._buffers)[name] = variable._value
            if role == "random state":
                states.append(name)
        vars(self).update(_headstart_variables=variables, _headstart_random_state=tuple(states))

    @property
    def keras_layer(self) -> Any:
        """The Keras layer or operation that this module runs."""
        return self._headstart_layer

    @property
    def eps(self) -> float:
        """What a norm adds to the variance.

        Raises:
            AttributeError: the layer has no ``epsilon``.
        """
        return float(self._headstart_layer.epsilon)

    @property
    def channel_axis(self) -> int:
        """The axis of a norm's channels in its input.

        Raises:
            AttributeError: the layer has no ``axis``.
        """
        axis = self._headstart_layer.axis
        return int(axis[0] if isinstance(axis, list | tuple) else axis)

    @property
    def input_channels(self) -> int | None:
        """The axis of the channels of what the layer takes, where its kind says it."""
        layer, own = self._headstart_layer, self._parameters
        if "kernel" in own or "depthwise_kernel" in own:
            return 1 if getattr(layer, "data_format", None) == "channels_first" else -1
        return self.channel_axis if own and hasattr(layer, "axis") else None

    @property
    def output_units(self) -> tuple[str, int] | None:
        """The weight whose slices make single channels of the output, and its axis of them."""
        layer, own = self._headstart_layer, self._parameters
        kind = type(layer).__name__
        for name in ("pointwise_kernel", "kernel", "embeddings"):
            weight = own.get(name)
            if weight is None:
                continue
            if kind.startswith("Depthwise"):
                return (name, -2) if weight.shape[-1] == 1 else None
            return name, -2 if kind.endswith("Transpose") else -1
        return None

    @property
    def track_running_stats(self) -> bool:
        """Whether a batch norm updates its statistics in training mode.

        Off by a momentum of 1, with which Keras's update adds nothing.
        """
        return "_headstart_momentum" not in vars(self)

    @track_running_stats.setter
    def track_running_stats(self, on: bool) -> None:
        if not on and self.track_running_stats:
            vars(self)["_headstart_momentum"] = self._headstart_layer.momentum
            self._headstart_layer.momentum = 1.0
        elif on and not self.track_running_stats:
            self._headstart_layer.momentum = vars(self).pop("_headstart_momentum")

    @property
    def is_random(self) -> bool:
        """Whether the layer itself draws random numbers in training mode."""
        rate = getattr(self._headstart_layer, "rate", None)
        return bool(self._headstart_random_state) and rate != 0

    def forward(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Run the layer's own code; ``training=False`` wins over the module's own mode."""
        layer = self._headstart_layer
        takes_mode = getattr(layer, "_call_has_training_arg", None)  # None: no layer
        mode = self.training and training is not False
        if takes_mode:
            kwargs["training"] = mode
        if here().entering is self:  # Keras called the layer, which called this part
            here().entering = None
            with unpacked(layer):
                return own_forward(layer)(*args, **kwargs)
        if takes_mode is False:
            kwargs["training"] = mode  # for the layers inside; Keras keeps it from the layer's call
        with _bound(self), running(self, _inside(self)), unpacked(layer):
            try:
                return layer(*self._ordered(args), **kwargs)
            except HeadstartError as error:
                raise _as_raised(error) from None

    def _ordered(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.channels_first:
            return args
        return tuple(
            x.permute(0, 2, 3, 1) if isinstance(x, Tensor | fx.Proxy) and x.ndim == 4 else x
            for x in args
        )

    def extra_repr(self) -> str:
        """Return the class of the Keras layer, for ``print``."""
        return type(self._headstart_layer).__name__

    def __headstart_identity__(self) -> Any:
        """Return what the layer computes as plain values, for cache keys.

        Raises:
            BackboneError: the layer cannot describe itself.
        """
        layer = self._headstart_layer
        return [type(layer), config_of(layer), self._headstart_wiring, *functions_of(layer)]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # Moving a module replaces its buffers, and the Keras variables have to follow.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, variable in self._headstart_variables.items():
            if name in self._parameters:
                variable._value = self._parameters[name]
            elif self._buffers[name] is not variable._value:
                value = self._buffers[name]
                assert value is not None
                variable._value = nn.Parameter(value, requires_grad=False)
                self._buffers[name] = variable._value
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasPart:
        """Copy the Keras layer once, then the modules around it, holds included."""
        layer = self._headstart_layer
        if id(layer) not in memo:
            _copy_layer(self, memo)
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        vars(made).update({k: copy.deepcopy(v, memo) for k, v in vars(self).items()})
        return made


class KerasNetwork(KerasPart):
    """A functional or sequential Keras model, whose graph is run here, module by module."""

    def sources(self, name: str) -> tuple[str, ...]:
        """Return the layers whose outputs a layer of this network takes, by name."""
        layers = {
            str(part.keras_layer.name): key
            for key, part in self.named_children()
            if isinstance(part, KerasPart)
        }
        text = json.dumps(self.get_submodule(name)._headstart_wiring)
        used = re.findall(r'"keras_history": \["([^"]*)"', text)
        return tuple(dict.fromkeys(layers[one] for one in used if one in layers))

    def forward(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Run the graph; ``training=False`` holds for everything inside."""
        if here().entering is self:
            return super().forward(*args, training=training, **kwargs)
        from keras import tree

        args = self._ordered(args)
        inputs = tree.flatten(args[0] if len(args) == 1 else list(args))
        graph = graph_of(self._headstart_layer)
        if not all(isinstance(x, Tensor | fx.Proxy) for x in inputs):
            inputs = graph._standardize_inputs(inputs)
        parts = {id(vars(part)["_headstart_layer"]): part for part in self.children()}

        def run(operation: Any) -> Any:
            part = parts[id(operation)]

            def call(*args: Any, **kwargs: Any) -> Any:
                if training is False:  # what a call says holds for everything inside
                    kwargs["training"] = False
                elif default_mode(operation) is False:
                    # The graph has recorded the default, which nobody chose.
                    kwargs.pop("training", None)
                return part(*args, **kwargs)

            return call

        outputs = run_graph(graph, inputs, run)
        single = isinstance(outputs, list | tuple) and len(outputs) == 1
        return outputs[0] if single else outputs


def torch_network(model: Any, *, channels_first: bool = False) -> KerasPart:
    """Build the tree of modules of a Keras model or layer.

    Args:
        model: any Keras model or layer that has its weights.
        channels_first: whether images are passed as ``(n, c, h, w)``, PyTorch's order, to a model
            that takes ``(n, h, w, c)``.

    Returns:
        The tree. The model itself is not changed.

    Raises:
        BackboneError: the model has no weights yet.
    """
    load_keras()
    tree = _build(model, None, {})
    if channels_first:
        vars(tree)["channels_first"] = True
    return tree


def _build(layer: Any, wiring: Any, built: dict[int, KerasPart]) -> KerasPart:
    if id(layer) in built:
        return built[id(layer)]
    graph = graph_of(layer)
    part = built[id(layer)] = (KerasPart if graph is None else KerasNetwork)(layer, wiring)
    wires = {} if graph is None else wirings(graph)
    operations = [] if graph is None else [op for op in graph.operations if not is_input(op)]
    inner = getattr(layer, "_flatten_layers", None)
    layers = [] if inner is None else inner(include_self=False, recursive=False)
    known = {id(operation) for operation in operations}
    others = [one for one in layers if id(one) not in known and not is_input(one)]
    for child in (*operations, *(one for one in others if one is not graph)):
        name = str(child.name).replace(".", "_")
        while name in part._modules or hasattr(part, name):
            name += "_"
        part._modules[name] = _build(child, wires.get(child.name), built)
        if graph is None:
            bridge_of(child)
    return part


def _as_raised(error: HeadstartError) -> HeadstartError:
    """Return an error as it was raised; Keras replaces it by one with the arguments of the call."""
    while isinstance(error.__context__, HeadstartError):
        error = error.__context__
    return error


def _inside(part: KerasPart) -> dict[int, KerasPart]:
    """Return the parts inside a part, by the ``id`` of their Keras layers."""
    parts = {id(one.keras_layer): one for one in part.modules() if isinstance(one, KerasPart)}
    del parts[id(part.keras_layer)]
    return parts


@contextmanager
def _bound(part: KerasPart) -> Iterator[None]:
    """Run with the tensors that the modules hold, also where somebody has swapped them.

    ``torch.func.functional_call`` puts other tensors in a module for one call; Keras reads its
    variables instead.
    """
    held = [
        (variable, tensor)
        for each in part.modules()
        if isinstance(each, KerasPart)
        for name, variable in each._headstart_variables.items()
        if (tensor := each._parameters.get(name, each._buffers.get(name))) is not None
        and tensor is not variable._value
    ]
    if not held:
        yield
        return
    from keras import StatelessScope

    with StatelessScope(state_mapping=held) as scope:
        yield
    with torch.no_grad():
        for variable, tensor in held:
            value = scope.get_current_value(variable)
            if value is not None and value is not tensor and not tensor.requires_grad:
                tensor.copy_(value)


def _copy_layer(part: KerasPart, memo: dict[int, Any]) -> None:
    """Copy a Keras layer, and let ``memo`` know the copy of every layer and variable in it."""
    layer = part.keras_layer
    try:
        made = type(layer).from_config(layer.get_config())
        if not made.built and getattr(layer, "_build_shapes_dict", None):
            made.build_from_config(layer.get_build_config())
        made.set_weights(layer.get_weights())
    except Exception as error:
        raise BackboneError(
            f"the Keras layer '{layer.name}' cannot be copied: {type(error).__name__}:"
            f" {[*str(error).splitlines(), ''][0]}",
            hint="give its class a get_config() that returns the arguments of __init__, and let"
            " __init__ pass others (**kwargs) to super().__init__",
        ) from error
    pairs = zip(part.modules(), _build(made, None, {}).modules(), strict=True)
    for old, new in pairs:
        assert isinstance(old, KerasPart)
        assert isinstance(new, KerasPart)
        memo[id(old.keras_layer)] = new.keras_layer
        twins = zip(
            old._headstart_variables.values(), new._headstart_variables.values(), strict=True
        )
        for before, after in twins:
            after.assign(before)
            after._trainable = before._trainable
            after._value.requires_grad_(before._value.requires_grad)
            memo[id(before)], memo[id(before._value)] = after, after._value


__all__ = [
    "KerasNetwork",
    "KerasPart",
    "is_keras",
    "load_keras",
    "torch_network",
]
