"""Keras networks for images of other channels than three."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from headstart.backbones.channels import COLOURS, adapted_filters
from headstart.core.errors import BackboneError
from headstart.core.wording import count, first_line


def takes_channels_last(model: Any) -> bool:
    """Return whether a model takes images ``(n, h, w, c)``.

    One, three or four entries are channels, and so are those of an axis that alone differs from
    two that are equal; else it is Keras's own setting.
    """
    from headstart.modules.keras import load_keras

    default = bool(load_keras().config.image_data_format() == "channels_last")
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple):  # a model with a call of its own says nothing
        return default
    if len(shape) != 4:
        return False
    first, middle, last = shape[1:]
    if last in (1, 3, 4) or first in (1, 3, 4):
        return last in (1, 3, 4)
    if (first == middle) != (middle == last):
        return bool(first == middle)
    return default


def channels_of(model: Any) -> int | None:
    """Return how many channels the images of a model have; None where it does not say."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        return None
    found = shape[-1] if takes_channels_last(model) else shape[1]
    return None if found is None else int(found)


def named_channels(arguments: Mapping[str, Any]) -> int:
    """Return the channels that ``input_shape`` names; three where it names none."""
    shape = arguments.get("input_shape")
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        return COLOURS
    from headstart.modules.keras import load_keras

    last = load_keras().config.image_data_format() == "channels_last"
    found = shape[-1] if last else shape[0]
    return COLOURS if found is None else int(found)


def of_colours(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the same network for images of three colours."""
    from headstart.modules.keras import load_keras

    sides = list(arguments["input_shape"])
    last = load_keras().config.image_data_format() == "channels_last"
    sides[-1 if last else 0] = COLOURS
    return {**arguments, "input_shape": tuple(sides)}


def for_channels(make: Callable[..., Any], arguments: Mapping[str, Any], colours: Any) -> Any:
    """Make a network for other channels from the same one for three colours.

    Args:
        make: of ``keras.applications``.
        arguments: of the network to make, ``input_shape`` among them.
        colours: the network for three colours, with weights.

    Raises:
        BackboneError: more than filters depend on the number of channels, as where a network
            normalises colours itself.
    """
    channels = named_channels(arguments)
    shape = tuple(arguments["input_shape"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one and three channels are usual
            model = make(**{**arguments, "weights": None, "input_shape": shape})
    except Exception as error:
        raise BackboneError(
            f"Keras cannot build {colours.name} for {count(channels, 'channel')}:"
            f" {first_line(error)}",
            hint="if it normalises colours itself, model_args={'include_preprocessing': False}"
            " switches that off",
        ) from error
    for theirs, own in zip(colours.weights, model.weights, strict=True):
        value = theirs.value.detach()
        if tuple(own.shape) != tuple(value.shape):
            if value.ndim != 4 or value.shape[2] != COLOURS:
                raise BackboneError(
                    f"'{theirs.path}' of {colours.name} is for three colours, and not a filter"
                    f" that can be converted to {count(channels, 'channel')}",
                    hint="use a network that does not normalise colours itself, or choose three"
                    f" bands of the images, such as bands={(1,) * COLOURS}",
                )
            value = adapted_filters(channels, value.permute(3, 2, 0, 1)).permute(2, 3, 1, 0)
        own.assign(value)
    return model


__all__ = ["channels_of", "for_channels", "named_channels", "of_colours", "takes_channels_last"]
