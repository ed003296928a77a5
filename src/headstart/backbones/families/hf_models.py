"""transformers: models of texts, images and sounds, with their tokenizer or processor.

``hf/NAME`` is a model of the Hugging Face hub, as it lies in the local cache or is downloaded;
``hf/PATH`` a folder. Weights are read from safetensors files alone, and code that comes with a
model is never run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart.backbones.families.hf_folder import (
    class_of,
    find_folder,
    library,
    local_folder,
    read_config,
)
from headstart.backbones.families.hf_images import build_images, has_towers
from headstart.backbones.families.hf_sounds import build_sounds, has_sound_towers
from headstart.backbones.families.hf_texts import build_texts
from headstart.backbones.families.hf_towers import vectors_of_texts
from headstart.backbones.families.static import is_static, static_of
from headstart.backbones.family import Built, Family, Request
from headstart.backbones.sentence_folder import read_sentence_folder
from headstart.core.errors import BackboneError
from headstart.core.fingerprints import stamp

_KINDS = {"pixel_values": "image", "input_values": "audio", "input_features": "audio"}
"""Kinds of items by the name of a model's main argument; texts by any other."""


def build_hf(request: Request) -> Built:
    """Build a model of texts, images or sounds with what comes with it."""
    who = f"hf/{request.name}"
    folder = find_folder(request)
    if is_static(folder):
        return static_of(folder, who)
    transformers = library()
    sentences = read_sentence_folder(folder, who)
    place = folder if sentences is None else sentences.transformer
    config = read_config(transformers, place, who, request)
    kind = _kind_of(transformers, config, who)
    if kind == "image":
        built = build_images(transformers, place, config, who)
    elif kind == "audio":
        built = build_sounds(transformers, place, config, who, request.model_args)
    else:
        built = build_texts(transformers, place, config, who, sentences)
    files = _stamps(place) if local_folder(request.name) is not None else {}
    return dataclasses.replace(built, files=files)


def _kind_of(transformers: Any, config: Any, who: str) -> str:
    """Return whether a model takes images, sounds or texts; refuse what takes none alone."""
    kind = class_of(transformers, config, who)
    if has_towers(kind):
        return "image"
    if has_sound_towers(kind):
        return "audio"
    if config.model_type == "timm_wrapper":
        raise BackboneError(
            f"{who} is a timm model", hint="use its timm name: backbone='timm/NAME'"
        )
    if hasattr(config, "vision_config") or hasattr(config, "audio_config"):
        raise BackboneError(
            f"{who} takes texts together with images or sounds",
            hint="hf/ is for models that take only one of them, or have a tower for each",
        )
    main = getattr(kind, "main_input_name", "input_ids")
    if main == "pixel_values_videos":
        raise BackboneError(
            f"{who} takes videos, and hf/ is for models of texts, images and sounds",
            hint="'headstart backbones' lists the families",
        )
    return _KINDS.get(main, "text")


def _stamps(folder: Path) -> dict[str, Any]:
    """Describe the weights of a folder, which a run folder may name only with their digest."""
    files: Sequence[Path] = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    chosen = index if index.is_file() else folder / "model.safetensors"
    file = chosen if chosen.is_file() else files[0]
    return {"weights": stamp(file)}


HF = Family(
    "hf",
    "hf/NAME or hf/FOLDER",
    "transformers models for texts, images and sounds, with their tokenizer or processor",
    build_hf,
    folder=local_folder,
    texts=vectors_of_texts,
)

__all__ = ["HF"]
