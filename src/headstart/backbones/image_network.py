"""A model of images of transformers as one module: pixels → outputs → one row an image."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

Way = Literal["tower", "pooler", "first", "mean", "class"]
"""How outputs become one row: the image tower of a model of two towers; the model's own pooling;
the first token; the mean over tokens or positions; the class token that stands apart (CvT)."""


class ImageNetwork(nn.Module):
    """A model of transformers with its pooling.

    Args:
        model: takes ``pixel_values``.
        way: how its outputs become rows.
        settings: the configuration of the model as text, since some models read it in their
            forward pass: it is part of what they compute.
        native: height and width that the model's positions are made for; at any other they are
            interpolated. None: the model takes any, or says itself what it takes.
    """

    def __init__(
        self, model: nn.Module, way: Way, settings: str, native: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.way = way
        self.settings = settings
        self.native = native

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return one row an image.

        Args:
            pixel_values: ``(n, c, h, w) float32``.

        Returns:
            ``(n, d) float32``.
        """
        more: dict[str, Any] = {}
        if self.native is not None and tuple(pixel_values.shape[-2:]) != self.native:
            more["interpolate_pos_encoding"] = True
        if self.way == "tower":
            found = self.model.get_image_features(pixel_values=pixel_values, **more)  # type: ignore[operator]
            rows = found if isinstance(found, Tensor) else found.pooler_output
            return rows.flatten(1)
        found = self.model(pixel_values=pixel_values, **more)
        return pooled(found, self.way)


def pooled(found: Any, way: Way) -> Tensor:
    """Return rows ``(n, d)`` of a model's outputs."""
    if way == "pooler":
        return found.pooler_output.flatten(1)  # type: ignore[no-any-return]
    if way == "class":
        return found.cls_token_value.flatten(1)  # type: ignore[no-any-return]
    states: Tensor = found.last_hidden_state
    if way == "first":
        return states[:, 0]
    return states.mean(1) if states.ndim == 3 else states.mean((2, 3))


__all__ = ["ImageNetwork", "Way", "pooled"]
