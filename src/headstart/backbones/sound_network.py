"""A model of sounds of transformers as one module: samples or spectra → one row a sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

Way = Literal["tower", "pooler", "mean"]
"""How outputs become one row: the tower for sounds of a model of two towers; the model's own
pooling; the mean over positions in time, without those that fill up the window."""


class SoundNetwork(nn.Module):
    """A model of transformers with its pooling.

    Args:
        model: takes samples or spectra of windows, all of one length.
        way: how its outputs become rows.
        settings: the configuration of the model as text, since some models read it in their
            forward pass: it is part of what they compute.
        axes: of the model's input, the axis of the items included. One axis more holds several
            windows a sound; a row is then the mean over their rows.
        blocks: names of the blocks, in forward order.
        fused: whether the model asks which sounds are longer than the window (CLAP with fusion);
            none is, since what is read of one is cut to it.
    """

    def __init__(
        self,
        model: nn.Module,
        way: Way,
        settings: str,
        axes: int,
        blocks: Sequence[str] = (),
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.way = way
        self.settings = settings
        self.axes = axes
        self.blocks = tuple(blocks)
        self.fused = fused

    def grouped_parameters(self) -> list[list[str]]:
        """Return the names of the parameters of what is before the blocks, of each, and behind.

        wav2vec2 and its kin have two lists of modules, of convolutions and of blocks.
        """
        names = [name for name, _ in self.named_parameters()]
        own = [[n for n in names if n.startswith(f"{block}.")] for block in self.blocks]
        listed = {name for group in own for name in group}
        first = next((i for i, name in enumerate(names) if name in listed), len(names))
        behind = [n for n in names[first:] if n not in listed]
        return [group for group in (names[:first], *own, behind) if group]

    def forward(self, sounds: Tensor, held: Tensor | None = None) -> Tensor:
        """Return one row a sound.

        Args:
            sounds: ``(n, samples)``, ``(n, bands, frames)``, ``(n, frames, bands)`` or
                ``(n, c, frames, bands)``, float32; or with several windows ``(n, windows, ...)``.
            held: ``(n, windows, positions) bool``, which positions of the output hold sound; None:
                all of them.

        Returns:
            ``(n, d) float32``.
        """
        several = sounds.ndim > self.axes
        windows = sounds.shape[1] if several else 1
        flat = sounds.flatten(0, 1) if several else sounds
        rows = self._rows(flat, None if held is None else held.flatten(0, 1))
        return rows.unflatten(0, (-1, windows)).mean(1) if several else rows  # type: ignore[no-untyped-call]

    def _rows(self, sounds: Tensor, held: Tensor | None) -> Tensor:
        if self.way == "tower":
            more: dict[str, Any] = {}
            if self.fused:
                more["is_longer"] = torch.zeros(len(sounds), 1, device=sounds.device)
            found = self.model.get_audio_features(input_features=sounds, **more)  # type: ignore[operator]
            vectors = found if isinstance(found, Tensor) else found.pooler_output
            return vectors.flatten(1)
        found = self.model(sounds)
        if self.way == "pooler":
            return found.pooler_output.flatten(1)  # type: ignore[no-any-return]
        states: Tensor = found[0]
        if held is None:
            return states.mean(1)
        weights = held.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


__all__ = ["SoundNetwork", "Way"]
