"""timm: architectures, weights and the preprocessing that travels with them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlparse

from headstart.backbones.channels import adaptation, adapted_filters
from headstart.backbones.family import (
    IMAGENET,
    NOTHING_STATED,
    About,
    Built,
    Classifier,
    Family,
    Request,
    bad_arguments,
    no_download,
    unknown,
)
from headstart.core.errors import BackboneError
from headstart.core.wording import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn


def build_timm(request: Request) -> Built:
    """Build a timm model, with timm's own weights (downloaded by timm) or a local file's."""
    import timm

    architecture = request.name.split(".")[0]
    if not timm.is_model(architecture):
        raise unknown("timm", architecture, timm.list_models())
    tags = timm.list_pretrained(architecture + ".*")
    if "." in request.name and request.name not in tags:
        raise unknown("timm", request.name, tags)
    module = _create(request, has_weights=bool(tags))
    config = cast("dict[str, Any]", module.pretrained_cfg)
    known = preprocessing_of(config)
    if request.weights is None:
        note = f"preprocessing from timm's metadata for {config['architecture']}.{config['tag']}"
    else:
        # What the file was trained on is not what timm's own weights were trained on: geometry
        # is the architecture's, the user has to state the colours.
        known = {key: known[key] for key in ("size", "crop_fraction", "interpolation", "resize")}
        note = (
            f"size, crop and interpolation are taken from timm's {architecture} where not given,"
            " since a local file does not state them"
        )
    if type(module).__name__ == "NaFlexVit":
        return _of_sequences(request, module, known, note)
    channels = int(request.model_args.get("in_chans", 3))
    notes: tuple[str, ...] = (note,)
    if channels != 3:
        # Three colours' mean and standard deviation are not those of other channels.
        known = {key: value for key, value in known.items() if key not in ("mean", "std")}
        known["in_channels"] = channels
        notes += (adaptation(channels),) if request.weights is None else ()
    return Built(
        module,
        known,
        blocks=blocks_of(module),
        classifier=() if request.weights is None else _removed(request, module, config),
        notes=notes,
        kind="image" if channels == 3 else "bands",
        adapt=None if channels == 3 else partial(adapted, config, channels),
        about=NOTHING_STATED if request.weights is not None else about_of(config),
    )


def _of_sequences(
    request: Request, module: nn.Module, known: Mapping[str, Any], note: str
) -> Built:
    """Return a network of sequences of patches, which keep the aspect ratio of an image."""
    model = cast("Any", module)
    if int(request.model_args.get("in_chans", 3)) != 3:
        raise BackboneError(
            f"timm/{request.name} takes patches of colour images", hint="omit in_chans"
        )
    patch = tuple(int(side) for side in model.embeds.patch_size)
    height, width = known["size"]
    fields: dict[str, Any] = {
        "patch": patch,
        "max_length": (height // patch[0]) * (width // patch[1]),
        "interpolation": known["interpolation"],
        "channels_last": bool(getattr(model.embeds, "channels_last", True)),
        **{name: known[name] for name in ("mean", "std") if name in known},
    }
    config = cast("dict[str, Any]", model.pretrained_cfg)
    return Built(
        module,
        fields,
        blocks=blocks_of(module),
        classifier=() if request.weights is None else _removed(request, module, config),
        notes=(note, f"images keep their aspect ratio: up to {fields['max_length']} patches"),
        kind="patches",
        about=NOTHING_STATED if request.weights is not None else about_of(config),
    )


def adapted(
    config: Mapping[str, Any], channels: int, flat: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Make the first filters of a file for three colours those of other channels, as timm does.

    Args:
        config: timm's metadata, which name the first layer.
        channels: of the network.
        flat: the tensors of the file, under any prefix; a file of that many channels stays as it
            is.

    Returns:
        The tensors, and what was done; empty: nothing.
    """
    named = config.get("first_conv") or ()
    ends = tuple(f"{n}.weight" for n in ((named,) if isinstance(named, str) else named))
    made = dict(flat)
    found = [
        name
        for name, tensor in flat.items()
        if name.endswith(ends) and tensor.ndim == 4 and tensor.shape[1] == 3
    ]
    for name in found if ends else ():
        made[name] = adapted_filters(channels, flat[name])
    return made, adaptation(channels) if found and ends else ""


def blocks_of(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the main blocks of a timm model."""
    info = cast("list[dict[str, Any]]", getattr(module, "feature_info", None) or [])
    return tuple(str(entry["module"]) for entry in info)


def about_of(config: Mapping[str, Any]) -> About:
    """Return what timm's metadata say of its weights: licence, origin, and data by their tag."""
    hub = config.get("hf_hub_id")
    origin = f"huggingface.co/{hub}" if hub else str(config.get("origin_url") or "")
    parts = str(config.get("tag") or "").split("_")
    data = [_DATA[part] for part in parts if part in _DATA]
    licence = str(config.get("license") or "")
    licence = _LICENCES.get(licence, licence)
    return About(licence=licence, origin=origin, data=", then ".join(dict.fromkeys(data)))


_LICENCES = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "bsd-3-clause": "BSD-3-Clause",
}
_DATA = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "inat21": "iNaturalist 2021",
    "laion2b": "LAION-2B",
    "laion400m": "LAION-400M",
    "laiona": "LAION-aesthetic",
    "yfcc15m": "YFCC-15M",
    "cc12m": "CC-12M",
    "ig1b": "one billion pictures of Instagram",
    "dfn2b": "DFN-2B",
    "dfn5b": "DFN-5B",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
}
"""Data by the words of timm's tags, such as ``augreg_in21k_ft_in1k``."""


def preprocessing_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate timm's ``pretrained_cfg`` into the fields of ``Preprocessing``."""
    size = config["input_size"]
    return {
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "size": (int(size[1]), int(size[2])),
        "crop_fraction": float(config.get("crop_pct") or 1.0),
        "interpolation": str(config.get("interpolation") or "bicubic"),
        "resize": "squash" if config.get("crop_mode") == "squash" else "shortest",
    }


def timm_names() -> list[str]:
    """Return the names of all models with weights."""
    import timm

    return [str(name) for name in timm.list_pretrained()]


def _create(request: Request, *, has_weights: bool) -> nn.Module:
    import timm

    name = f"timm/{request.name}"
    if request.weights is None:
        if not has_weights:
            raise BackboneError(f"{name} has no pre-trained weights", hint="pass weights='FILE'")
        _check_reachable(request.name)
    arguments = {key: _tuple(value) for key, value in request.model_args.items()}
    try:
        with _hub_silence():
            module: nn.Module = timm.create_model(
                request.name, pretrained=request.weights is None, num_classes=0, **arguments
            )
    except TypeError as error:
        raise bad_arguments(name, error) from error
    except Exception as error:
        if request.weights is not None:
            raise BackboneError(
                f"timm cannot build '{request.name}': {first_line(error)}"
            ) from error
        raise no_download(name, first_line(error)) from error
    return module


def _removed(request: Request, module: nn.Module, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classifier's tensors: those that the whole architecture has more."""
    import timm
    import torch

    arguments = {key: _tuple(value) for key, value in request.model_args.items()}
    try:
        with torch.device("meta"):
            whole = timm.create_model(request.name, pretrained=False, **arguments)
    except Exception:  # an architecture that computes with its weights while it is built
        named = config.get("classifier") or ()
        return (named,) if isinstance(named, str) else tuple(named)
    return tuple(whole.state_dict().keys() - module.state_dict().keys())


def _check_reachable(name: str) -> None:
    """Say at once that the hub cannot be reached; its client would retry for half a minute."""
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    repository = getattr(config, "hf_hub_id", None)
    if not repository or constants.HF_HUB_OFFLINE:
        return
    names = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in names):
        return
    host = urlparse(constants.ENDPOINT).hostname or ""
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise no_download(f"timm/{name}", f"{host} is not reachable") from error


@contextmanager
def _hub_silence() -> Iterator[None]:
    """Keep the hub's client from logging each retry; our one line says what is wrong."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def classifier_of_timm(request: Request) -> Callable[[], Classifier | None] | None:
    """Return what loads the ImageNet classifier of timm's own weights, where they state one."""
    import timm

    config: Any = timm.get_pretrained_cfg(request.name)
    stated = {} if config is None else config.to_dict()
    last = about_of(stated).data.rpartition(", then ")[2]
    if last != IMAGENET or stated.get("num_classes") != 1000:
        return None
    return lambda: _linear_classifier(request)


def _linear_classifier(request: Request) -> Classifier | None:
    """Return the classifier of a timm model if it is one linear layer.

    That it reads what the network without it returns is seen by running both on one input.
    """
    import timm
    import torch
    from torch import nn

    arguments = {key: _tuple(value) for key, value in request.model_args.items()}
    with _hub_silence():
        whole: Any = timm.create_model(request.name, pretrained=True, **arguments).eval()
    layer = whole.get_classifier()
    if not isinstance(layer, nn.Linear) or layer.out_features != 1000:
        return None
    generator = torch.Generator().manual_seed(0)
    sample = torch.rand(2, *whole.pretrained_cfg["input_size"], generator=generator)
    with torch.no_grad():
        features = whole.forward_head(whole.forward_features(sample), pre_logits=True)
        if not torch.allclose(layer(features), whole(sample), atol=1e-4):
            return None
    bias = torch.zeros(1000) if layer.bias is None else layer.bias.detach()
    return Classifier(layer.weight.detach().double().numpy().T, bias.double().numpy())


def timm_groups(model: nn.Module) -> list[list[str]] | None:
    """Return the parameter names of every block, as timm's own ``group_matcher`` groups them."""
    if not callable(getattr(model, "group_matcher", None)):
        return None
    from timm.models import group_parameters

    matcher = model.group_matcher(coarse=False)  # type: ignore[operator]
    grouped: dict[int, list[str]] = group_parameters(model, matcher)
    return [grouped[index] for index in sorted(grouped)]


TIMM = Family(
    "timm",
    "timm/NAME[.TAG]",
    "weights and preprocessing from timm",
    build_timm,
    names=timm_names,
    groups=timm_groups,
    loading=("pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
    fixed=lambda request: request.weights is not None,
    classifier=classifier_of_timm,
)
