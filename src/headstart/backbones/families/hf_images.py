"""Models of images of transformers, with their image processor and their pooling.

The row of an image is what the model's own pooling gives, or else the class token, or else the mean
over the positions: what a classifier of this architecture is given. Of CLIP, SigLIP and their kin,
which have a tower for images and one for texts, it is the image's vector in the space of both.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.channels import COLOURS
from headstart.backbones.families.hf_channels import channels_of, load_for_channels
from headstart.backbones.families.hf_folder import (
    Loaded,
    blocks_of,
    quiet,
    settings_of,
    takes,
)
from headstart.backbones.family import Built
from headstart.core.wording import first_line

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones.image_network import Way

_USUAL = 224


def has_towers(kind: Any) -> bool:
    """Return whether a class has a tower for images and one for texts."""
    return hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features")


def build_images(transformers: Any, folder: Path, config: Any, who: str) -> Built:
    """Build a model of images.

    Args:
        transformers: the library.
        folder: of the model.
        config: its configuration.
        who: what to call it, in messages.
    """
    from headstart.backbones.image_network import ImageNetwork

    channels = channels_of(config)
    loaded, said = load_for_channels(transformers, folder, config, who)
    known, unstated = _preprocessing(transformers, folder)
    sides = (known["size"] if known else None) or _native(config) or (_USUAL, _USUAL)
    if has_towers(type(loaded.model)):
        way, notes = _image_tower(loaded, who)
    else:
        way, notes = _way(loaded, (channels, *sides), who)
    model = loaded.model
    forward = model.get_image_features if way == "tower" else model.forward
    native = _native(config) if takes(forward, "interpolate_pos_encoding") else None
    if not known:
        known = {} if native is None else {"size": native}
    if channels != COLOURS:
        # Three colours' mean and standard deviation are not those of other channels.
        known = {name: value for name, value in known.items() if name not in ("mean", "std")}
        known, unstated = {**known, "in_channels": channels}, ""
    network = ImageNetwork(model, way, settings_of(config), native)
    return Built(
        network.eval(),
        known,
        tuple(f"model.{name}" for name in blocks_of(model)),
        notes=(*said, *notes),
        kind="image" if channels == COLOURS else "bands",
        loaded=True,
        tokens="model.vision_model" if way == "tower" else "model",
        unstated=unstated,
    )


def _preprocessing(transformers: Any, folder: Path) -> tuple[dict[str, Any], str]:
    """Return what the image processor says, or why nothing is known."""
    from headstart.backbones.image_processor import (
        has_processor,
        preprocessing_of,
        read_processor,
    )

    if not has_processor(folder):
        return {}, "there is no preprocessor_config.json"
    try:
        with quiet(transformers):
            processor = read_processor(transformers, folder)
            found = preprocessing_of(processor)
    except Exception as error:
        return {}, f"its image processor cannot be loaded: {first_line(error).rstrip('.')}"
    if found is None:
        kind = type(processor).__name__.removesuffix("Pil")
        return {}, f"{kind} does more than resize, crop, scale and normalise"
    return found.values(), ""


def _native(config: Any) -> tuple[int, int] | None:
    """Return height and width that a model is made for; None where it does not say."""
    sides = getattr(getattr(config, "vision_config", config), "image_size", None)
    if isinstance(sides, int):
        return (sides, sides)
    if isinstance(sides, list | tuple) and len(sides) == 2:
        return (int(sides[0]), int(sides[1]))
    return None


def _image_tower(loaded: Loaded, who: str) -> tuple[Way, list[str]]:
    """Leave the tower of texts out."""
    for name, _ in list(loaded.model.named_children()):
        if name.startswith("text"):
            delattr(loaded.model, name)
    loaded.refuse(who, frozenset(n for n in loaded.missing if not n.startswith(("text", "logit"))))
    return "tower", [f"{who} has an image tower and a text tower: only images are embedded"]


def _way(loaded: Loaded, shape: tuple[int, int, int], who: str) -> tuple[Way, list[str]]:
    """Find how a model pools, by what it returns for one image.

    A pooler that was made for another task than to classify images (a dense layer and a hyperbolic
    tangent, as BERT's), or that the weights lack, is left out.
    """
    import torch
    from torch import nn

    model, notes = loaded.model, []
    missing, pooler = loaded.missing, getattr(loaded.model, "pooler", None)
    lacking = {name for name in missing if name.startswith("pooler.")}
    if isinstance(pooler, nn.Module):
        tanh = any(isinstance(part, nn.Tanh) for part in pooler.modules())
        if tanh or lacking:
            model.pooler = None  # type: ignore[assignment]
            why = "" if tanh else ", since the weights lack its pooling"
            notes.append(f"{who} gives {_WORDS[_token(model)]}{why}")
    loaded.refuse(who, missing - lacking)
    with torch.no_grad():
        try:
            found = model(pixel_values=torch.zeros(1, *shape))
        except Exception:
            return "mean", notes  # trying the whole network says what is wrong with it
    if getattr(found, "pooler_output", None) is not None:
        return "pooler", notes
    if getattr(found, "cls_token_value", None) is not None:
        return "class", notes
    return _token(model) if found.last_hidden_state.ndim == 3 else "mean", notes


_WORDS = {"first": "its class token", "mean": "the mean over its tokens"}


def _token(model: nn.Module) -> Way:
    """Return whether the first token of the output is a class token."""
    from headstart.modules.layout import has_class_token

    return "first" if has_class_token(model) else "mean"


__all__ = ["build_images", "has_towers"]
