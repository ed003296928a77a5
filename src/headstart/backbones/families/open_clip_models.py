"""open_clip: towers of images with their stated preprocessing, and the towers of texts beside them.

``open_clip/NAME.TAG`` is an architecture with weights that open_clip names; ``open_clip/NAME`` with
a file of weights takes that; ``open_clip/FOLDER`` is a folder with ``open_clip_config.json``, which
states the preprocessing, as open_clip saves for the hub. The row of an image is its vector in the
space of images and texts, before it is normalised to unit length.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.family import (
    NOTHING_STATED,
    About,
    Built,
    Family,
    Request,
    TextVectors,
    bad_arguments,
    no_download,
    unknown,
)
from headstart.core.errors import BackboneError, MissingExtraError
from headstart.core.fingerprints import stamp
from headstart.core.wording import first_line

if TYPE_CHECKING:
    from torch import nn

_CONFIG = "open_clip_config.json"
_WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors",
    "open_clip_pytorch_model.bin", "pytorch_model.bin",
)  # fmt: skip
"""Files of weights of a folder, the first that is there."""


def build_open_clip(request: Request) -> Built:
    """Build the tower of images of a model."""
    from headstart.backbones.image_tower import ImageTower

    open_clip, who = library(), f"open_clip/{request.name}"
    folder = local_folder(request.name)
    name, tag = (request.name, "") if folder is not None else named(open_clip, request.name)
    if folder is None and request.weights is None and not tag:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise BackboneError(
            f"{who} names an architecture without weights",
            hint=f"name the weights, such as {who}.{tags[-1]}, or pass weights='FILE'"
            if tags
            else "pass weights='FILE'",
        )
    model = whole_model(open_clip, request, tag, who)
    known, unstated = _preprocessing(model, stated=folder is not None or bool(tag))
    tower = ImageTower(model.visual)
    kept = tower.state_dict().keys()
    left = tuple(sorted(n for n in model.state_dict() if n not in kept))
    loaded = folder is not None or request.weights is None
    return Built(
        tower.eval(),
        known,
        blocks_of(tower),
        classifier=left,
        notes=(f"{who} has an image tower and a text tower: only images are embedded",),
        loaded=loaded,
        about=_about(open_clip, name, tag) if tag else NOTHING_STATED,
        unstated=unstated,
        files={} if folder is None else {"weights": stamp(weights_of(folder))},
    )


def library() -> Any:
    """Import open_clip.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import open_clip
    except ImportError:
        raise MissingExtraError("open_clip", "open-clip", "a backbone open_clip/NAME") from None
    return open_clip


def named(open_clip: Any, source: str) -> tuple[str, str]:
    """Return the architecture and the tag of ``NAME.TAG``; names may hold dots themselves.

    Raises:
        BackboneError: there is no such architecture, or no such tag.
    """
    known = open_clip.list_models()
    cleaned = source.replace("/", "-")
    if cleaned in known:
        return cleaned, ""
    fitting = [name for name in known if cleaned.startswith(f"{name}.")]
    if not fitting:
        raise unknown("open_clip", source, known)
    name = max(fitting, key=len)
    tag = cleaned[len(name) + 1 :]
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise unknown("open_clip", source, [f"{name}.{each}" for each in tags])
    return name, tag


def whole_model(open_clip: Any, request: Request, tag: str, who: str) -> Any:
    """Build a model with both towers, with the weights of its folder or tag.

    Raises:
        BackboneError: arguments that it does not take, or weights that cannot be had.
    """
    folder = local_folder(request.name)
    source = request.name if folder is None else f"local-dir:{folder}"
    if folder is None and tag:
        source = source.replace("/", "-").removesuffix(f".{tag}")
    elif folder is not None:
        weights_of(folder)  # says so where there are none
    try:
        with _silence():
            return open_clip.create_model(
                source, pretrained=tag or None, pretrained_text=False, **dict(request.model_args)
            ).eval()
    except TypeError as error:
        raise bad_arguments(who, error) from error
    except Exception as error:
        if tag:
            raise no_download(who, first_line(error)) from error
        raise BackboneError(f"open_clip cannot build {who}: {first_line(error)}") from error


def weights_of(folder: Path) -> Path:
    """Return the file of weights of a folder.

    Raises:
        BackboneError: there is none.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise BackboneError(
        f"'{folder}' holds no weights of open_clip", hint=f"expected {_WEIGHTS[0]} in it"
    )


def local_folder(name: str) -> Path | None:
    """Return the folder that ``open_clip/NAME`` names; None where NAME is an architecture."""
    try:
        path = Path(name).expanduser()
        return path if (path / _CONFIG).is_file() else None
    except (OSError, RuntimeError):
        return None


def _preprocessing(model: Any, *, stated: bool) -> tuple[dict[str, Any], str]:
    """Return what a model says of its images; of an architecture alone, no colours.

    What a file of the user's own was trained on is not what open_clip's defaults are for.
    """
    from open_clip.model import get_model_preprocess_cfg

    said: Mapping[str, Any] = get_model_preprocess_cfg(model)
    size = said["size"]
    known: dict[str, Any] = {
        "size": (size, size) if isinstance(size, int) else tuple(int(side) for side in size),
        "resize": said.get("resize_mode") or "shortest",
        "interpolation": said.get("interpolation") or "bicubic",
    }
    if known["interpolation"] == "random":
        known["interpolation"] = "bicubic"  # as open_clip evaluates such models
    if known["resize"] == "longest":
        return {"size": known["size"]}, (
            "open_clip pads its images to a square, which headstart does not do"
        )
    if stated:
        return {**known, "mean": tuple(said["mean"]), "std": tuple(said["std"])}, ""
    return known, (
        "the file does not state them, and open_clip's own are those of CLIP, mean=(0.4815,"
        " 0.4578, 0.4082) and std=(0.2686, 0.2613, 0.2758), or of SigLIP, 0.5 and 0.5"
    )


def blocks_of(tower: nn.Module) -> tuple[str, ...]:
    """Return the names of the main blocks: of a transformer, of a ResNet, or of timm's trunk."""
    from headstart.backbones.families.timm_models import blocks_of as trunk_blocks

    visual: Any = tower.visual
    if hasattr(visual, "trunk"):
        return tuple(f"visual.trunk.{name}" for name in trunk_blocks(visual.trunk))
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is not None:
        return tuple(f"visual.transformer.resblocks.{i}" for i in range(len(blocks)))
    return tuple(f"visual.layer{i}" for i in range(1, 5) if hasattr(visual, f"layer{i}"))


def _about(open_clip: Any, name: str, tag: str) -> About:
    config = open_clip.get_pretrained_cfg(name, tag)
    hub = str(config.get("hf_hub") or "").rstrip("/")
    return About(origin=f"huggingface.co/{hub}" if hub else str(config.get("url") or ""))


def vectors_of_texts(request: Request, texts: Sequence[str]) -> TextVectors:
    """Embed texts by the tower of texts.

    Raises:
        BackboneError: the weights lack it, or its tokenizer cannot be loaded.
    """
    import torch

    open_clip, who = library(), f"open_clip/{request.name}"
    folder = local_folder(request.name)
    name, tag = (request.name, "") if folder is not None else named(open_clip, request.name)
    model = whole_model(open_clip, request, tag, who)
    if request.weights is not None:
        _load_texts(model, request.weights, who)
    tokens, cut = _tokens(open_clip, f"local-dir:{folder}" if folder else name, model, texts, who)
    with torch.no_grad():
        vectors = model.encode_text(tokens, normalize=False)
        factor = float(model.logit_scale.detach().exp())
    return TextVectors(vectors.double().numpy(), factor, cut)


def _load_texts(model: Any, file: Path, who: str) -> None:
    from open_clip.factory import load_checkpoint

    before = {name for name in model.state_dict() if not name.startswith("visual.")}
    try:
        found = load_checkpoint(model, str(file), strict=False, weights_only=True)
    except Exception as error:
        raise BackboneError(f"{file.name} does not fit {who}: {first_line(error)}") from error
    lacking = sorted(before & set(getattr(found, "missing_keys", ())))
    if lacking:
        raise BackboneError(
            f"{file.name} lacks {len(lacking)} tensors of the text tower, such as {lacking[0]}",
            hint="use a file of the whole model, or omit start='text'",
        )


def _tokens(
    open_clip: Any, name: str, model: Any, texts: Sequence[str], who: str
) -> tuple[Any, tuple[str, ...]]:
    longest = int(getattr(model, "context_length", None) or model.text.context_length)
    try:
        with _silence():
            tokenizer = open_clip.get_tokenizer(name, context_length=longest)
            tokens = tokenizer(list(texts))
            long = tokenizer(list(texts), context_length=4 * longest)
    except Exception as error:
        raise BackboneError(
            f"the tokenizer of {who} cannot be loaded: {first_line(error)}",
            hint="use a model with CLIP's own tokenizer, or put this one's files into the folder",
        ) from error
    cut = tuple(t for t, ids in zip(texts, long, strict=True) if bool((ids[longest:] != 0).any()))
    return tokens, cut


def names() -> list[str]:
    """Return the names of all architectures with weights, and their tags."""
    return [f"{name}.{tag}" for name, tag in library().list_pretrained()]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep open_clip's log of every step away; it speaks through the root logger."""
    root = logging.getLogger()
    disabled, root.disabled = root.disabled, True
    try:
        yield
    finally:
        root.disabled = disabled


OPEN_CLIP = Family(
    "open_clip",
    "open_clip/NAME[.TAG] or open_clip/FOLDER",
    "image towers of open_clip, with their preprocessing and text towers",
    build_open_clip,
    names=names,
    folder=local_folder,
    loading=("pretrained_image_path", "pretrained_text_path", "cache_dir", "pretrained"),
    fixed=lambda request: request.weights is not None,
    texts=vectors_of_texts,
)

__all__ = ["OPEN_CLIP"]
