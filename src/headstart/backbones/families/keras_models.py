"""Keras: ``keras.applications``, ``.keras`` files, and any ``keras.Model``, run on PyTorch.

Networks are trees of :mod:`headstart.modules.keras`. Images arrive as everywhere in headstart,
``(n, c, h, w)``, and are put in the order that the model takes by the tree's root, once.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.channels import COLOURS, adaptation
from headstart.backbones.families.keras_channels import (
    channels_of,
    for_channels,
    named_channels,
    of_colours,
    takes_channels_last,
)
from headstart.backbones.family import (
    Built,
    Family,
    Request,
    bad_arguments,
    no_download,
    unknown,
)
from headstart.core.errors import BackboneError
from headstart.core.wording import first_line

if TYPE_CHECKING:
    from torch import nn

    from headstart.modules.keras import KerasNetwork

_SIZES = {
    "Xception": 299, "InceptionV3": 299, "InceptionResNetV2": 299, "NASNetLarge": 331,
    "EfficientNetB1": 240, "EfficientNetB2": 260, "EfficientNetB3": 300, "EfficientNetB4": 380,
    "EfficientNetB5": 456, "EfficientNetB6": 528, "EfficientNetB7": 600,
    "EfficientNetV2B1": 240, "EfficientNetV2B2": 260, "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384, "EfficientNetV2M": 480, "EfficientNetV2L": 480,
}  # fmt: skip
"""Sides of inputs that are not 224: ``keras.applications`` states them only with the classifier."""

_RESIZING = {"interpolation": "bilinear", "resize": "squash"}


_PIXELS = {"scale": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
_SHARES = {"mean": 0.0, "std": 1 / 255}
"""Bands come as shares from 0 to 1: divided by this they are pixels of 0 to 255."""


def build_keras(request: Request) -> Built:
    """Build a network of ``keras.applications`` without its classifier, or load a saved model."""
    from headstart.modules.keras import load_keras

    keras = load_keras()
    if request.name == "model":
        return _load_file(keras, request)
    architecture, _, tag = request.name.partition(".")
    makers = _applications(keras)
    if architecture not in makers:
        raise unknown("keras", architecture, list(makers))
    make = makers[architecture]
    own_file = request.weights if request.weights and request.weights.suffix == ".h5" else None
    arguments = {
        "include_top": False,
        "pooling": "avg",
        "weights": None if request.weights is not None else tag or "imagenet",
        **request.model_args,
    }
    channels = named_channels(arguments)
    try:
        with _numbered_anew():
            model = make(**(arguments if channels == COLOURS else of_colours(arguments)))
    except TypeError as error:
        raise bad_arguments(f"keras/{request.name}", error) from error
    except Exception as error:
        if arguments["weights"] is None:
            raise BackboneError(
                f"Keras cannot build '{request.name}': {first_line(error)}"
            ) from error
        raise no_download(f"keras/{request.name}", first_line(error)) from error
    if own_file is not None:
        _load_weights(model, own_file)
    known = {**_RESIZING, **_preprocessing(make)}
    notes: tuple[str, ...] = (
        f"inputs as keras.applications' preprocess_input for {architecture}, images resized as"
        " image_dataset_from_directory does (both sides, bilinear)",
    )
    if channels != COLOURS:
        with _numbered_anew():
            model = for_channels(make, arguments, model)
        known, notes = dict(_RESIZING), (adaptation(channels),)
    size = _size_of(model) or (_SIZES.get(architecture, 224),) * 2
    return built_from(model, {"size": size, **known}, notes, loaded=own_file is not None)


def built_from(
    model: Any, known: dict[str, Any], notes: tuple[str, ...] = (), *, loaded: bool = False
) -> Built:
    """Return what is built around a Keras model.

    Args:
        model: the model, with weights.
        known: what is known of its inputs.
        notes: what was decided on the user's behalf.
        loaded: whether the weights that were requested are in it already.
    """
    from headstart.modules.keras import torch_network

    _check_inputs(model)
    scaling, channels = own_scaling(model), channels_of(model)
    colours = channels in (None, COLOURS)
    if scaling and not {"scale", "mean", "std"} & known.keys():
        known = {**known, **(_PIXELS if colours else _SHARES)}
        notes = (
            *notes,
            f"'{scaling}' of the model scales its inputs, so it gets pixels of 0 to 255",
        )
    tree = torch_network(model, channels_first=takes_channels_last(model))
    tree.eval()  # as Keras calls a model where nothing says training=True
    blocks = tuple(_ending(names) for names in segments(tree))
    names = getattr(model, "output_names", None) or ()
    if len(names) > 1:
        notes = (*notes, f"the first of the outputs {', '.join(names)} is used as the feature;"
                         " pass layer=… for another")  # fmt: skip
    if not colours:
        known = {**known, "in_channels": channels}
    kind = "image" if colours else "bands"
    return Built(tree, known, blocks, (), notes, kind, loaded=loaded, scaling=scaling)


def _check_inputs(model: Any) -> None:
    """Refuse a model that takes more than images."""
    inputs = getattr(model, "inputs", None) or ()
    if len(inputs) > 1:
        names = ", ".join(str(one.name) for one in inputs)
        raise BackboneError(
            f"{model.name} takes {len(inputs)} inputs ({names}), and a backbone takes only images",
            hint="pass a keras.Model of the part that takes the images",
        )


def own_scaling(model: Any) -> str:
    """Return the layer of a model that scales pixels of 0 to 255; empty where none does.

    That is a ``Rescaling`` that divides by more than 50, or a ``Normalization`` by a deviation
    above 10, before any layer with weights to train.
    """
    import numpy as np
    from keras.layers import Normalization, Rescaling

    for layer in getattr(model, "layers", None) or ():
        if isinstance(layer, Rescaling) and np.max(np.abs(layer.scale)) < 1 / 50:
            return str(layer.name)
        if isinstance(layer, Normalization) and layer.built and layer.variance is not None:
            variance = np.asarray(layer.variance.detach() if hasattr(layer.variance, "detach")
                                  else layer.variance)  # fmt: skip
            if np.max(variance) > 100:
                return str(layer.name)
        if layer.trainable_weights:
            return ""
    return ""


def known_of(model: Any) -> dict[str, Any]:
    """Return what a Keras model itself says of its inputs: the size, where it is fixed."""
    size = _size_of(model)
    return {} if size is None else {"size": size, **_RESIZING}


def segments(tree: nn.Module) -> list[list[str]]:
    """Divide a Keras network where a single tensor crosses from one layer to the next.

    Returns:
        Names of the layers of each segment in the order of the graph, of the segments that have
        weights of two axes or more (a norm or an activation belongs to the layer before it).
    """
    found: list[list[str]] = []
    for names, opens in _segments(tree, ""):
        if found and not (opens and any(_has_kernel(tree, name) for name in names)):
            found[-1] += names
        else:
            found.append(names)
    return found


def _segments(part: nn.Module, prefix: str) -> Iterator[tuple[list[str], bool]]:
    from headstart.modules.keras import KerasNetwork

    names = [name for name, _ in part.named_children()]
    if not isinstance(part, KerasNetwork) or not names:
        yield [prefix + name for name in names] or [prefix.rstrip(".")], True
        return
    current: list[str] = []
    for name, single in _crossings(part, names):
        child = part.get_submodule(name)
        if isinstance(child, KerasNetwork):
            if current:
                yield current, True
                current = []
            yield from _segments(child, f"{prefix}{name}.")
            continue
        current.append(prefix + name)
        if single:
            yield current, True
            current = []
    if current:
        yield current, True


def _crossings(part: KerasNetwork, names: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield each layer, and whether only its own output crosses to the layers behind it."""
    sources = {name: set(part.sources(name)) for name in names}
    last_use = dict.fromkeys(names, -1)
    for position, name in enumerate(names):
        for source in sources[name]:
            last_use[source] = position
    for position, name in enumerate(names):
        open_ones = [n for n in names[: position + 1] if last_use[n] > position]
        yield name, open_ones == [name]


def _ending(names: Sequence[str]) -> str:
    """Return the last layer of a segment, before the padding for the next convolution."""
    own = [n for n in names if not n.rpartition(".")[2].endswith("pad") and "_pad_" not in n]
    return (own or list(names))[-1]


def _has_kernel(tree: nn.Module, name: str) -> bool:
    return any(parameter.ndim >= 2 for parameter in tree.get_submodule(name).parameters())


def groups_of(module: nn.Module) -> list[list[str]] | None:
    """Return the parameter names of a Keras network, segment by segment."""
    from headstart.modules.keras import KerasPart

    if not isinstance(module, KerasPart):
        return None
    seen: set[int] = set()
    found: list[list[str]] = []
    for names in segments(module):
        group = []
        for name in names:
            for key, parameter in module.get_submodule(name).named_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    group.append(f"{name}.{key}" if name else key)
        if group:
            found.append(group)
    rest = [name for name, p in module.named_parameters() if id(p) not in seen]
    return [*found, rest] if rest else found


def _load_file(keras: Any, request: Request) -> Built:
    path = request.weights
    if path is None:
        raise BackboneError(
            "keras/model loads a model from a file", hint="also pass weights='FILE.keras'"
        )
    if request.model_args:
        raise BackboneError(
            f"{path.name} holds a whole model, which takes no model_args",
            hint="omit model_args",
        )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise BackboneError(
            f"Keras cannot load {path.name} without running code from it: {first_line(error)}",
            hint="load it yourself with keras.saving.load_model(...) and pass the model",
        ) from error
    note = f"the feature of {path.name} is the model's output, where no layer is given"
    return built_from(model, known_of(model), (note,), loaded=True)


@contextmanager
def _numbered_anew() -> Iterator[None]:
    """Let Keras number layers without a name as it does in a new process.

    It counts on from model to model: a network that is built twice would have other layers and
    other cache keys the second time.
    """
    from keras.src.backend.common import global_state

    counts = "object_name_uids"
    before = global_state.get_global_attribute(counts)
    global_state.set_global_attribute(counts, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(counts, before)


def _load_weights(model: Any, file: Path) -> None:
    try:
        model.load_weights(file)
    except Exception as error:
        raise BackboneError(
            f"{file.name} does not fit {model.name}: {first_line(error)}",
            hint="pass the model_args=… that the weights were made with",
        ) from error


def _size_of(model: Any) -> tuple[int, int] | None:
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        return None
    sides = shape[1:3] if takes_channels_last(model) else shape[2:4]
    return None if None in sides else (int(sides[0]), int(sides[1]))


def _preprocessing(make: Any) -> dict[str, Any]:
    """Find scale, mean, std and channel order of an application's ``preprocess_input``.

    It is affine per channel, so black and one bright pixel per channel say all of it; that they
    do is checked on other pixels.
    """
    import numpy as np

    function = inspect.getmodule(inspect.unwrap(make)).preprocess_input  # type: ignore[union-attr]
    pixels = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3), [[10.0, 100.0, 200.0]]])
    values = np.asarray(function(pixels.reshape(1, 1, 5, 3).astype("float64")))[0, 0]
    offset, slopes = values[0], (values[1:4] - values[0]) / 255
    order = np.abs(slopes).argmax(axis=0)
    slope = slopes[order, np.arange(3)]
    if not np.allclose(offset + pixels[4][order] * slope, values[4], atol=1e-4):
        raise BackboneError("preprocess_input of this application is not affine per channel")
    scale = 1.0 if np.allclose(slope, 1) else 1 / 255
    std = scale / slope
    return {
        "scale": scale,
        "mean": tuple(float(round(m, 6)) for m in -offset * std),
        "std": tuple(float(round(s, 6)) for s in std),
        "channels": "BGR" if list(order) == [2, 1, 0] else "RGB",
    }


def _applications(keras: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in sorted(vars(keras.applications).items())
        if name[0].isupper() and callable(value)
    }


def keras_names() -> Iterable[str]:
    """Return the networks of ``keras.applications``; none where Keras cannot run on PyTorch."""
    from headstart.modules.keras import load_keras

    try:
        return [f"{name}.imagenet" for name in _applications(load_keras())]
    except BackboneError:
        return ()


KERAS = Family(
    "keras",
    "keras/NAME[.WEIGHTS] or FILE.keras",
    "weights and preprocessing from keras.applications, on PyTorch",
    build_keras,
    names=keras_names,  # type: ignore[arg-type]
    suffix=".keras",
    groups=groups_of,
    loading=("weights",),
)
