"""Models of sounds of transformers, with their feature extractor and their pooling.

The row of a sound is what the model's own pooling gives (AST: its class and distillation tokens),
or else the mean over the positions in time: what a classifier of this architecture is given. Of
CLAP, which has a tower for sounds and one for texts, it is the sound's vector in the space of both.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.families.hf_folder import (
    Loaded,
    blocks_of,
    load_model,
    quiet,
    settings_of,
)
from headstart.backbones.family import Built
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.wording import first_line

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones.sound_network import Way

USUAL_SECONDS = 30.0
"""What is read of a sound where the model states no window: as much as Whisper hears at once."""
_AUGMENTATION = {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0}
_STATED_IN = ("preprocessor_config.json", "processor_config.json")
_TRAINING_ONLY = ("masked_spec_embed",)
"""Tensors that no checkpoint needs to have: they take the place of what training hides."""
_AXES = {"Wav2Vec2FeatureExtractor": 2, "ClapFeatureExtractor": 4}
_SHORTEST = {"ASTFeatureExtractor": 400, "SeamlessM4TFeatureExtractor": 800}


def has_sound_towers(kind: Any) -> bool:
    """Return whether a class has a tower for sounds and one for texts."""
    return hasattr(kind, "get_audio_features") and hasattr(kind, "get_text_features")


def build_sounds(
    transformers: Any, folder: Path, config: Any, who: str, given: Collection[str] = ()
) -> Built:
    """Build a model of sounds.

    SpecAugment, which hides parts of a sound, and LayerDrop, which skips blocks, are off unless the
    user has set them: while other blocks train they would change what frozen ones give.

    Args:
        transformers: the library.
        folder: of the model.
        config: its configuration.
        who: what to call it, in messages.
        given: names of values of the configuration that are the user's.
    """
    from headstart.backbones.sound_network import SoundNetwork
    from headstart.data.sound_extractors import longest, name_of, written
    from headstart.data.sound_files import require_audio

    require_audio()
    extractor = _extractor(transformers, folder, who)
    text = written(extractor)
    kind, window = name_of(text), longest(text)
    for name, off in _AUGMENTATION.items():
        if hasattr(config, name) and name not in given:
            setattr(config, name, off)
    loaded = load_model(transformers, folder, config, who)
    model, way, notes = _model(loaded, config, who)
    rate = int(extractor.sampling_rate)
    if window is None:
        notes.append(f"{who} does not state a maximum length: {USUAL_SECONDS:g} s are read")
    fused = bool(getattr(getattr(config, "audio_config", config), "enable_fusion", False))
    if fused:
        notes.append(f"{who} fuses randomly drawn parts of long sounds: one window is read instead")
    known = {
        "extractor": text,
        "rate": rate,
        "seconds": USUAL_SECONDS if window is None else window / rate,
        "stride": 2 * int(extractor.hop_length) if kind == "WhisperFeatureExtractor" else 0,
        "least": _shortest(config, kind),
    }
    blocks = tuple(f"model.{name}" for name in blocks_of(model, without="conv"))
    network = SoundNetwork(model, way, settings_of(config), _AXES.get(kind, 3), blocks, fused)
    return Built(
        network.eval(),
        known,
        blocks,
        notes=tuple(notes),
        kind="audio",
        loaded=True,
        tokens="model.audio_model" if way == "tower" else "model",
    )


def _extractor(transformers: Any, folder: Path, who: str) -> Any:
    """Read the feature extractor; refuse one of which it is not known what it does to a sound."""
    from headstart.data.sound_extractors import KNOWN, written

    if not any((folder / name).is_file() for name in _STATED_IN):
        raise BackboneError(
            f"{who} has no feature extractor in '{folder}': there is no {_STATED_IN[0]}",
            hint="save it next to the model: feature_extractor.save_pretrained(FOLDER)",
        )
    try:
        with quiet(transformers):
            found = transformers.AutoFeatureExtractor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        raise BackboneError(
            f"the feature extractor of {who} cannot be loaded: {first_line(error)[:160]}",
            hint="save it next to the model: feature_extractor.save_pretrained(FOLDER)",
        ) from error
    name = type(found).__name__
    if name not in KNOWN:
        raise BackboneError(
            f"{who} has the feature extractor {name}, expected one that headstart supports:"
            f" {', '.join(each.removesuffix('FeatureExtractor') for each in KNOWN)}",
            hint="use wav2vec2, HuBERT, WavLM, AST, CLAP, Whisper or another with one of these",
        )
    if getattr(found, "dither", 0.0):
        raise BackboneError(
            f"the feature extractor of {who} adds noise (dither {found.dither:g}), and features"
            " that depend on chance are not cached",
            hint="set dither to 0 in preprocessor_config.json",
        )
    try:
        written(found)
    except (TypeError, ValueError, ConfigError) as error:
        raise BackboneError(f"the feature extractor of {who} cannot be written: {error}") from error
    return found


def _model(loaded: Loaded, config: Any, who: str) -> tuple[nn.Module, Way, list[str]]:
    """Return what embeds sounds, and how its output becomes rows."""
    model, missing = loaded.model, loaded.missing
    if has_sound_towers(type(model)):
        for name, _ in list(model.named_children()):
            if name.startswith("text"):
                delattr(model, name)
        loaded.refuse(who, frozenset(n for n in missing if not n.startswith(("text", "logit"))))
        note = f"{who} has an audio tower and a text tower: only sounds are embedded"
        return model, "tower", [note]
    notes = []
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()  # type: ignore[operator]
        missing = loaded.used_by(model)
        notes.append(f"{who} is an encoder-decoder: only the encoder is used")
    loaded.refuse(who, frozenset(n for n in missing if not n.endswith(_TRAINING_ONLY)))
    pools = config.model_type in ("audio-spectrogram-transformer", "clap_audio_model")
    if not pools:
        notes.append(f"{who} does not state its pooling: the mean over time is used")
    return model, "pooler" if pools else "mean", notes


def _shortest(config: Any, kind: str) -> int:
    """Return the samples of the shortest sound that a model takes: those of one position."""
    kernels, strides = (getattr(config, f"conv_{name}", None) for name in ("kernel", "stride"))
    if kind != "Wav2Vec2FeatureExtractor" or not kernels or not strides:
        return _SHORTEST.get(kind, 1)
    size = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        size = (size - 1) * stride + kernel
    return int(size)


__all__ = ["USUAL_SECONDS", "build_sounds", "has_sound_towers"]
