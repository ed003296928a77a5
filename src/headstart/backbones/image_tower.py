"""The tower of images of a model of open_clip as one module: pixels → vector of an image."""

from __future__ import annotations

from torch import Tensor, nn


class ImageTower(nn.Module):
    """The tower of images of a model that has one for texts, too.

    Args:
        visual: returns vectors ``(n, d)``, or a tuple that begins with them, as CoCa's does.
    """

    way = "tower"
    """Rows are vectors in the space of images and texts."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        """Return one vector an image, not normalised to unit length.

        Args:
            images: ``(n, 3, h, w) float32``.

        Returns:
            ``(n, d) float32``.
        """
        found = self.visual(images)
        vectors: Tensor = found[0] if isinstance(found, tuple) else found
        return vectors


__all__ = ["ImageTower"]
