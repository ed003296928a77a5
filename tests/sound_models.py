"""Sounds made of numbers, and small models of sounds with random weights, saved as folders."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.data import Split
from headstart.data.items import ObjectItems
from tests.text_models import tokenizer

RATE = 16_000


def tone(seconds: float, pitch: float = 440.0, rate: int = RATE, seed: int = 0) -> NDArray[Any]:
    """Return a tone with a little noise, ``(samples,) float32``."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.01, len(time))
    return (0.5 * np.sin(2 * np.pi * pitch * time) + noise).astype(np.float32)


def chirp(seconds: float, seed: int = 0, rate: int = RATE) -> NDArray[Any]:
    """Return a tone that rises, with a little noise."""
    time = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(200, 500), rng.uniform(2_000, 4_000)
    phase = 2 * np.pi * (low * time + (high - low) * time**2 / (2 * max(seconds, 1e-3)))
    return (0.5 * np.sin(phase) + rng.normal(0, 0.01, len(time))).astype(np.float32)


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> NDArray[Any]:
    """Return white noise."""
    found = np.random.default_rng(seed).normal(0, 0.2, round(seconds * rate))
    return found.astype(np.float32)


KINDS_OF_SOUND = {
    "chirp": chirp,
    "noise": noise,
    "tone": lambda seconds, seed=0, rate=RATE: tone(seconds, 200 + 37 * (seed % 50), rate, seed),
}


def encoded(samples: NDArray[Any], rate: int = RATE, format: str = "WAV", **how: Any) -> bytes:
    """Return the bytes of a sound file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, **how)
    return buffer.getvalue()


def sounds(
    count: int, seed: int = 0, seconds: tuple[float, ...] = (1.0,)
) -> list[tuple[str, bytes]]:
    """Return sounds of three kinds in turn, of some lengths in turn: name of the kind, WAV file."""
    names = list(KINDS_OF_SOUND)
    found = []
    for i in range(count):
        name = names[i % 3]
        made = KINDS_OF_SOUND[name](seconds[(i // 3) % len(seconds)], seed=seed + i)
        found.append((name, encoded(made)))
    return found


def save_sounds(
    folder: Path, train: int = 36, test: int = 18, seconds: tuple[float, ...] = (1.0,)
) -> Path:
    """Write class folders of sounds below ``train`` and ``test``."""
    for split, number, seed in (("train", train, 0), ("test", test, 1_000)):
        for i, (name, data) in enumerate(sounds(number, seed, seconds)):
            path = folder / split / name / f"{i:03}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return folder


def split_of(contents: list[bytes]) -> Split:
    """Return a split of sounds without labels."""
    items = ObjectItems(len(contents), contents.__getitem__, "sounds")
    return Split(items, np.arange(len(contents)), np.full(len(contents), -1))


SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
}  # fmt: skip
CONVOLUTIONS: dict[str, Any] = {
    **SIZES, "conv_dim": (16, 16, 16), "conv_kernel": (20, 8, 8), "conv_stride": (10, 4, 4),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "vocab_size": 12,
}  # fmt: skip
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
SAMPLES = ("Wav2Vec2FeatureExtractor", {"do_normalize": True, "return_attention_mask": False})
KINDS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2Config", CONVOLUTIONS, *SAMPLES),
    "wav2vec2-layer": ("Wav2Vec2Config", {**CONVOLUTIONS, **LAYER_NORM}, *SAMPLES),
    "hubert": ("HubertConfig", CONVOLUTIONS, *SAMPLES),
    "wavlm": ("WavLMConfig", {**CONVOLUTIONS, "num_buckets": 32}, *SAMPLES),
    "wav2vec2-bert": (
        "Wav2Vec2BertConfig",
        {**SIZES, "feature_projection_input_dim": 32, "vocab_size": 12,
         "left_max_position_embeddings": 8, "right_max_position_embeddings": 4},
        "SeamlessM4TFeatureExtractor",
        {"feature_size": 16, "num_mel_bins": 16},
    ),
    "ast": (
        "ASTConfig",
        {**SIZES, "max_length": 128, "num_mel_bins": 32, "patch_size": 16},
        "ASTFeatureExtractor",
        {"max_length": 128, "num_mel_bins": 32},
    ),
    "whisper": (
        "WhisperConfig",
        {"d_model": 32, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
         "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 48,
         "num_mel_bins": 16, "max_source_positions": 100, "vocab_size": 60, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        "WhisperFeatureExtractor",
        {"feature_size": 16, "chunk_length": 2},
    ),
    "clap": (
        "ClapConfig",
        {"projection_dim": 32,
         "text_config": {**SIZES, "vocab_size": 80, "max_position_embeddings": 66,
                         "pad_token_id": 0, "projection_dim": 32},
         "audio_config": {"window_size": 4, "num_mel_bins": 16, "spec_size": 64, "patch_size": 2,
                          "patch_stride": 2, "hidden_size": 32, "patch_embeds_hidden_size": 16,
                          "projection_dim": 32, "depths": [2, 2], "num_attention_heads": [2, 2],
                          "num_hidden_layers": 2, "enable_fusion": False}},
        "ClapFeatureExtractor",
        {"feature_size": 16, "max_length_s": 1, "truncation": "rand_trunc"},
    ),
}  # fmt: skip
"""By name: the classes of configuration and feature extractor, each with small sizes."""
OF_SAMPLES = ("wav2vec2", "wav2vec2-layer", "hubert", "wavlm", "wav2vec2-bert")
"""Those that take a sound at its own length."""


def save_model(folder: Path, kind: str = "wav2vec2", *, seed: int = 0, **more: Any) -> Path:
    """Save a model with random weights and its feature extractor; return the folder.

    Args:
        folder: where.
        kind: of :data:`KINDS`.
        seed: of the weights.
        more: further values of the feature extractor.
    """
    import transformers

    name, sizes, extractor, values = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(getattr(transformers, name)(**sizes))
        for parameter in model.parameters():  # so that positions and attention matter
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    getattr(transformers, extractor)(**{**values, **more}).save_pretrained(folder)
    if kind == "clap":
        tokenizer().save_pretrained(folder)
    return folder
