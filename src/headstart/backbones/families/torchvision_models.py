"""torchvision: classification models without their last linear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headstart.backbones.family import (
    NOTHING_STATED,
    About,
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

_NOT_TRUNK = {"fc", "classifier", "head", "heads", "avgpool", "dropout", "pre_classifier"}


def build_torchvision(request: Request) -> Built:
    """Build a torchvision model with its own weights (downloaded) or a local file's."""
    from torchvision import models

    architecture, _, tag = request.name.partition(".")
    available = models.list_models(module=models)
    if architecture not in available:
        raise unknown("torchvision", architecture, available)
    enum = models.get_model_weights(architecture)
    tags = [str(entry.name) for entry in enum]
    if tag and tag not in [*tags, "DEFAULT"]:
        raise unknown("torchvision", request.name, [f"{architecture}.{name}" for name in tags])
    weights = enum[tag] if tag else enum.DEFAULT
    wanted = weights if request.weights is None else None
    try:
        module: nn.Module = models.get_model(architecture, weights=wanted, **request.model_args)
    except TypeError as error:
        raise bad_arguments(f"torchvision/{request.name}", error) from error
    except Exception as error:
        reason = first_line(error)
        if request.weights is not None:
            raise BackboneError(f"torchvision cannot build '{request.name}': {reason}") from error
        raise no_download(f"torchvision/{request.name}", reason) from error
    classifier = remove_classifier(module)
    known = preprocessing_of(weights.transforms())
    if request.weights is None:
        note = f"preprocessing from torchvision's {weights}"
    else:
        known = {key: known[key] for key in ("size", "crop_fraction", "interpolation")}
        note = (
            f"size, crop and interpolation are taken from torchvision's {architecture} where not"
            " given, since a local file does not state them"
        )
    removed = (classifier, *(() if request.weights is None else remove_auxiliary(module)))
    about = NOTHING_STATED if request.weights is not None else about_of(weights)
    return Built(module, known, _blocks(module), removed, (note,), about=about)


def about_of(weights: Any) -> About:
    """Return what torchvision says of its weights; it states no licence of their own."""
    data = "ImageNet-1k" if weights.name.startswith("IMAGENET1K") else ""
    return About(origin=str(weights.meta.get("recipe") or weights.url), data=data)


def preprocessing_of(transforms: Any) -> dict[str, Any]:
    """Translate torchvision's ``weights.transforms()`` (its ImageClassification preset)."""
    crop, box = int(transforms.crop_size[0]), int(transforms.resize_size[0])
    return {
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        "size": (crop, crop),
        "crop_fraction": crop / box,
        "interpolation": str(transforms.interpolation.value),
    }


def torchvision_names() -> list[str]:
    """Return the names of all classification weights."""
    from torchvision import models

    return [
        f"{name}.{entry.name}"
        for name in models.list_models(module=models)
        for entry in models.get_model_weights(name)
    ]


def remove_classifier(module: nn.Module) -> str:
    """Replace the last linear layer by the identity; return its name.

    The feature is then the input of the classifier, as in thread 002 of the questions that
    headstart answers. SqueezeNet's classifier is a convolution.
    """
    from torch import nn

    candidates = [
        name for name, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)
    ]
    name = str(candidates[-1])
    if isinstance(module.get_submodule(name), nn.Conv2d) and not name.startswith("classifier"):
        raise BackboneError(
            f"{type(module).__name__} does not end in a linear classifier",
            hint="choose a layer: layer='NAME'",
        )
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, nn.Identity())
    return name


def remove_auxiliary(module: nn.Module) -> tuple[str, ...]:
    """Remove the auxiliary classifiers of GoogLeNet and Inception; return their names.

    They run in training only, torchvision takes them out of its own pre-trained networks, and so
    files have them or not.
    """
    names = [name for name in ("aux1", "aux2", "AuxLogits") if name in module._modules]
    for name in names:
        setattr(module, name, None)
    return tuple(names)


def _blocks(module: nn.Module) -> tuple[str, ...]:
    """Return the trunk's children; the long sequences inside it are opened."""
    from torch import nn

    names: list[str] = []
    for name, part in module.named_children():
        if name in _NOT_TRUNK:
            continue
        layers = getattr(part, "layers", None)
        if name == "encoder" and isinstance(layers, nn.Module):
            names += [f"encoder.layers.{child}" for child, _ in layers.named_children()]
        elif name == "features":
            names += [f"features.{child}" for child, _ in part.named_children()]
        else:
            names.append(name)
    return tuple(names)


TORCHVISION = Family(
    "torchvision",
    "torchvision/NAME[.WEIGHTS]",
    "weights and preprocessing from torchvision",
    build_torchvision,
    names=torchvision_names,
    loading=("weights", "weights_backbone"),
    fixed=lambda request: request.weights is not None,
)
