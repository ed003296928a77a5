"""Feature extractors of transformers: from the samples of a sound to what a network takes.

Inputs hold an extractor as JSON text, so that they stay plain values that a cache key and a run
folder can hold. It is rebuilt by the name of its class, of those in :data:`KNOWN` alone: what they
do to one sound does not depend on others, nor on chance.
"""

from __future__ import annotations

import functools
import json
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import ConfigError, MissingExtraError

KNOWN = (
    "Wav2Vec2FeatureExtractor",
    "ASTFeatureExtractor",
    "ClapFeatureExtractor",
    "WhisperFeatureExtractor",
    "SeamlessM4TFeatureExtractor",
)
"""Extractors of wav2vec2, HuBERT, WavLM and their kin; AST; CLAP; Whisper; wav2vec2-BERT."""

_LEFT_OUT = ("processor_class", "name_or_path", "_processor_class", "image_processor_type")
_LOCK = threading.Lock()


def written(extractor: Any) -> str:
    """Return an extractor as JSON text, the same for the same values."""
    plain = json.loads(extractor.to_json_string())
    return json.dumps({k: v for k, v in plain.items() if k not in _LEFT_OUT}, sort_keys=True)


def values_of(text: str) -> dict[str, Any]:
    """Return the values of an extractor.

    Raises:
        ConfigError: it is not one of those that are known.
    """
    try:
        plain = json.loads(text)
        name = plain["feature_extractor_type"]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(("extractor must be the JSON text of a feature extractor",)) from None
    if name not in KNOWN:
        raise ConfigError((f"extractor must be one of {', '.join(KNOWN)}, not {name!r}",))
    return dict(plain)


def name_of(text: str) -> str:
    """Return the class of an extractor."""
    return str(values_of(text)["feature_extractor_type"])


def longest(text: str) -> int | None:
    """Return the samples of the window that an extractor fills up; None: it takes any length."""
    values = values_of(text)
    known = {
        "WhisperFeatureExtractor": lambda: int(values["n_samples"]),
        "ClapFeatureExtractor": lambda: int(values["nb_max_samples"]),
        # frames of 25 ms that begin 10 ms after each other, at 16 kHz
        "ASTFeatureExtractor": lambda: 400 + 160 * (int(values["max_length"]) - 1),
    }.get(str(values["feature_extractor_type"]))
    try:
        return None if known is None else known()
    except (KeyError, TypeError, ValueError):
        raise ConfigError(("extractor does not say how long its window is",)) from None


def features(text: str, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a network takes of one window of a sound; called in several threads.

    Args:
        text: the extractor.
        samples: ``(samples,) float32``, one channel, at the extractor's rate.

    Returns:
        ``(samples,)`` for networks of samples, ``(frames, bands)`` or ``(bands, frames)`` for
        networks of spectra; CLAP's have one axis of channels before.
    """
    with _LOCK:
        extractor = _opened(text)
    found: Any = extractor([samples], sampling_rate=extractor.sampling_rate, return_tensors="np")
    if "input_values" in found:
        return np.asarray(found["input_values"][0], dtype=np.float32)
    rows = np.asarray(found["input_features"][0], dtype=np.float32)
    if type(extractor).__name__ == "SeamlessM4TFeatureExtractor":
        rows = rows[: int(found["attention_mask"][0].sum())]  # the last pair may lack a frame
    return rows


def library(text: str) -> str:
    """Return name and version of what computes the features."""
    transformers = _library()
    said = f"transformers {transformers.__version__}"
    if name_of(text) == "ASTFeatureExtractor" and transformers.utils.is_speech_available():
        import torchaudio

        said += f", torchaudio {torchaudio.__version__}"  # which computes the bands where it is
    return said


@functools.lru_cache(maxsize=32)
def _opened(text: str) -> Any:
    values = values_of(text)
    name = values.pop("feature_extractor_type")
    try:
        return getattr(_library(), name)(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError((f"extractor has values that {name} does not take: {error}",)) from error


def _library() -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "audio", "a backbone of sounds") from None
    return transformers


__all__ = ["KNOWN", "features", "library", "longest", "name_of", "values_of", "written"]
