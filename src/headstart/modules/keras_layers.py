"""What is known of a Keras layer: its variables, its graph, what it computes, how it runs best.

Nothing here runs a layer; :mod:`headstart.modules.keras` does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from headstart.core.errors import BackboneError

STATISTICS = {"moving_mean": "running_mean", "moving_variance": "running_var"}
"""Keras's names of batch-norm statistics, and the names that PyTorch's layers give them."""


def is_keras(value: Any) -> bool:
    """Return whether a value is a Keras layer or model, without importing Keras."""
    library = sys.modules.get("keras")
    return library is not None and isinstance(value, getattr(library, "Layer", ()))


def load_keras() -> Any:
    """Import Keras and check that it runs on PyTorch.

    Environment variables and Keras's configuration file are the user's; they are not changed.

    Raises:
        BackboneError: Keras is not installed, or is set to another backend.
    """
    choose = "set KERAS_BACKEND=torch in the environment before Keras is imported"
    try:
        import keras
    except ImportError as error:
        if error.name == "keras":
            raise BackboneError(
                "Keras is not installed", hint="pip install 'headstart[keras]'"
            ) from error
        raise BackboneError(
            f"Keras does not import with the backend it is set to: {error}", hint=choose
        ) from error
    if keras.config.backend() != "torch":
        raise BackboneError(
            f"Keras runs on {keras.config.backend()}, and headstart runs Keras models on PyTorch",
            hint=choose,
        )
    return keras


def graph_of(layer: Any) -> Any:
    """Return the graph of a functional or sequential model, or None for any other layer."""
    from keras import Sequential
    from keras.src.models.functional import Functional

    if isinstance(layer, Sequential):
        if layer._functional is None:
            raise BackboneError(
                f"the sequential model '{layer.name}' has no weights yet",
                hint="give it an Input(shape=...) or call it once on a batch",
            )
        return layer._functional
    own_call = type(layer).call is not Functional.call if isinstance(layer, Functional) else True
    return None if own_call else layer


def run_graph(graph: Any, inputs: Sequence[Any], run: Callable[[Any], Callable[..., Any]]) -> Any:
    """Run a graph, layer by layer, and let go of every tensor after its last use.

    Keras's own loop holds all of them until the end, which takes the memory of training.

    Args:
        graph: of a functional model.
        inputs: one tensor for each input of the graph.
        run: from a layer or operation to what is called in its place.

    Returns:
        The outputs, in the structure that the model gives them.
    """
    from keras import tree

    values = {id(x): y for x, y in zip(graph.inputs, inputs, strict=False)}
    for node, done in _steps(graph):
        args, kwargs = node.arguments.fill_in(values)
        outputs = run(node.operation)(*args, **kwargs)
        del args, kwargs
        values.update((id(x), y) for x, y in zip(node.outputs, tree.flatten(outputs), strict=False))
        del outputs
        for key in done:
            values.pop(key, None)
    return tree.pack_sequence_as(graph._outputs_struct, [values[id(x)] for x in graph.outputs])


def _steps(graph: Any) -> list[tuple[Any, list[int]]]:
    """Return the nodes of a graph in order, each with the tensors that nobody needs after it."""
    known = {id(x) for x in graph.inputs}
    nodes = []
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            # A layer may have been called elsewhere too, on what this graph does not compute.
            if (
                node.operation
                and not node.is_input
                and known >= {id(x) for x in node.input_tensors}
            ):
                nodes.append(node)
                known |= {id(x) for x in node.outputs}
    needed = {id(x) for x in graph.outputs}
    steps = []
    for node in reversed(nodes):
        own = {id(x) for x in (*node.input_tensors, *node.outputs)}
        steps.append((node, sorted(own - needed)))
        needed |= own
    return steps[::-1]


def output_in(graph: Any, layer: Any) -> Any:
    """Return the symbolic output that a layer has in a graph, a model inside it, too.

    Keras's ``layer.output`` of a model inside another is the output of the model alone.
    """
    (outputs,) = (node.outputs for node, _ in _steps(graph) if node.operation is layer)
    return outputs[0]


def default_mode(layer: Any) -> Any:
    """Return what ``training`` is where a call of the layer does not pass it."""
    signature = getattr(layer, "_call_signature", None)
    parameter = None if signature is None else signature.parameters.get("training")
    return None if parameter is None else parameter.default


def is_input(operation: Any) -> bool:
    """Return whether an operation of a graph is one of its inputs."""
    from keras.layers import InputLayer

    return isinstance(operation, InputLayer)


def wirings(graph: Any) -> dict[str, Any]:
    """Return what each layer of a graph is called with, by the layer's name."""
    layers = graph.get_config()["layers"]
    inputs = [entry["name"] for entry in layers if not entry["inbound_nodes"]]
    # Keras numbers inputs from the start of the process; their place in the model is their own.
    places = {name: f"input {number}" for number, name in enumerate(inputs)}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [renamed(item) for item in value]
        return places.get(value, value) if isinstance(value, str) else value

    return {entry["name"]: renamed(_plain(entry["inbound_nodes"])) for entry in layers}


def own_variables(layer: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield name, variable and role (weight, state, random state) of a layer's own variables."""
    weights = getattr(layer, "_trainable_variables", ())
    states = getattr(layer, "_non_trainable_variables", ())
    seeds = [seed.state for seed in getattr(layer, "_seed_generators", ())]
    paired = {variable.name for variable in states} >= set(STATISTICS)
    taken: set[str] = set()
    roles = (("weight", weights), ("state", states), ("random state", seeds))
    for role, variables in roles:
        for variable in variables:
            if variable._value is None:
                raise BackboneError(
                    f"the Keras layer '{layer.name}' has no weights yet",
                    hint="call the model once on a batch",
                )
            name = str(variable.name).replace(".", "_")
            name = STATISTICS.get(name, name) if paired and role == "state" else name
            while name in taken:
                name += "_"
            taken.add(name)
            yield name, variable, role


def config_of(layer: Any) -> Any:
    """Return what a layer computes, apart from its weights, as plain values.

    Raises:
        BackboneError: the layer cannot describe itself.
    """
    if not hasattr(layer, "get_config"):
        return sorted((k, repr(v)) for k, v in vars(layer).items() if not k.startswith("_"))
    try:
        config = dict(layer.get_config())
    except Exception as error:
        raise BackboneError(
            f"the Keras layer '{layer.name}' cannot be described in a cache key: {error}",
            hint="give its class a get_config() that returns the arguments of __init__",
        ) from error
    # Models list their layers, which are described one by one; the rest changes no output.
    for name in ("name", "trainable", "layers", "input_layers", "output_layers", "seed"):
        config.pop(name, None)
    return _plain(config)


def functions_of(layer: Any) -> list[Any]:
    """Return what functions a layer was given, such as ``Lambda``'s, whose code is part of it."""
    own = {key: value for key, value in vars(layer).items() if hasattr(value, "__code__")}
    # Keras wraps methods of each layer, such as `build`, which are the class's.
    return [value for key, value in sorted(own.items()) if not hasattr(type(layer), key)]


def unpacked(layer: Any) -> AbstractContextManager[object]:
    """Return a context in which a convolution takes its images as they lie in memory.

    Keras puts every image that lies with its channels last in the other order, and then back,
    before it calls PyTorch's convolution: two copies, which take longer than the convolution
    itself. In this context the first is left out, and the second finds nothing to do. PyTorch gets
    the same tensor, so that outputs are equal to the last bit.

    Args:
        layer: any layer; the context changes nothing for those that are no plain convolutions.
    """
    from keras import layers

    plain = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
    if type(layer) not in plain or layer.data_format != "channels_last":
        return nullcontext()
    return nullcontext() if torch.compiler.is_compiling() else _AsItLies()


class _AsItLies(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if (
            func is Tensor.contiguous
            and len(args) == 1
            and not kwargs
            and isinstance(args[0], Tensor)
        ):
            (images,) = args
            if images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last):
                return images
        return func(*args, **(kwargs or {}))


def _plain(value: Any) -> Any:
    from keras.saving import serialize_keras_object

    return json.loads(json.dumps(serialize_keras_object(value), default=repr, sort_keys=True))


__all__ = [
    "STATISTICS",
    "config_of",
    "default_mode",
    "functions_of",
    "graph_of",
    "is_input",
    "is_keras",
    "load_keras",
    "output_in",
    "own_variables",
    "run_graph",
    "unpacked",
    "wirings",
]
