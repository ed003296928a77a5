"""Sounds outside of a network: spectrograms for reports, statistics of bands for a baseline."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.progress import Reporter
from headstart.data.content import Content
from headstart.data.inputs import PlainRows
from headstart.data.pictures import thumbnail
from headstart.data.reading import read_batches
from headstart.data.sound_files import read_sound

if TYPE_CHECKING:
    from headstart.data.dataset import Split
    from headstart.data.inputs import Inputs

BANDS = 64
"""Mel bands between 0 and half the rate."""
_WINDOW, _HOP = 0.025, 0.010  # seconds, as recognisers of speech have it
_FLOOR = 1e-10
_RANGE = 80.0  # decibels below the loudest band that are still drawn
_SIDE = 128


def log_mel(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Return the logarithm of the power in mel bands.

    Args:
        samples: ``(samples,) float32``.
        rate: samples a second.

    Returns:
        ``(BANDS, frames) float32``: natural logarithms; frames of 25 ms, 10 ms apart, the last one
        filled up with zeros.
    """
    size, hop = round(_WINDOW * rate), max(1, round(_HOP * rate))
    short = max(0, size - len(samples))
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (0, short)), size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)) ** 2
    return np.asarray(np.log(_filters(size, rate) @ power.T + _FLOOR), dtype=np.float32)


@functools.lru_cache(maxsize=8)
def _filters(size: int, rate: int) -> NDArray[np.float64]:
    from transformers.audio_utils import mel_filter_bank

    bins = 1 + size // 2
    bands = min(BANDS, bins // 2)  # as many as have a frequency of their own
    made = mel_filter_bank(bins, bands, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    return np.ascontiguousarray(made.T)


def spectrograms(contents: Sequence[Content], rate: int, seconds: float) -> bytes:
    """Return spectrograms side by side as PNG, what is read of each sound; low tones are below."""
    return thumbnail(*(_drawn(content, rate, seconds) for content in contents))


def _drawn(content: Content, rate: int, seconds: float) -> Image.Image:
    import matplotlib

    levels = log_mel(read_sound(content, rate, seconds).parts[0], rate) * (10 / np.log(10))
    shown = np.clip(1 + (levels - levels.max()) / _RANGE, 0, 1)[::-1]
    colours = (matplotlib.colormaps["magma"](shown)[..., :3] * 255).round().astype(np.uint8)
    image = Image.fromarray(colours)
    return image.resize((_SIDE, _SIDE), Image.Resampling.BOX)


def band_statistics(sounds: Inputs, rate: int) -> PlainRows:
    """Return mean and deviation over time of the log-mel bands: a baseline without a network.

    Args:
        sounds: inputs whose samples are windows, each ``(samples,) float32``.
        rate: samples a second.
    """
    about = f"mean and deviation over time of {BANDS} log-mel bands"
    return PlainRows("log-mel bands", about, partial(_statistics, sounds, rate))


def _statistics(sounds: Inputs, rate: int, split: Split, reporter: Reporter) -> NDArray[np.float32]:
    rows = []
    with reporter.task("measure bands for the baseline", len(split), "sounds") as task:
        for batch in read_batches(split, None, sounds, batch_size=32):
            for windows in batch.samples:
                bands = np.concatenate([log_mel(each, rate) for each in windows], axis=1)
                rows.append(np.concatenate([bands.mean(axis=1), bands.std(axis=1)]))
            task.advance(len(batch))
    return np.stack(rows)


__all__ = ["BANDS", "band_statistics", "log_mel", "spectrograms"]
