"""First filters for images of other channels than the weights were made for.

They are timm's: for one channel the filters of three colours are summed, for more they are repeated
in turn and scaled, so that their sum stays what it was as nearly as the channels allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.core.wording import count

if TYPE_CHECKING:
    from torch import Tensor

COLOURS = 3


def adapted_filters(channels: int, weight: Tensor) -> Tensor:
    """Make filters for other channels from those of three colours.

    Args:
        channels: of the images.
        weight: ``(outputs, 3, h, w)``.

    Returns:
        ``(outputs, channels, h, w)``, of the same type.
    """
    from timm.models import adapt_input_conv

    made: Tensor = adapt_input_conv(channels, weight)
    return made


def adaptation(channels: int) -> str:
    """Return what was done to the first filters, as a note."""
    return (
        f"the first filters are made for {count(channels, 'channel')} from those of three"
        " colours, as timm does: summed for one channel, else repeated and scaled"
    )


__all__ = ["COLOURS", "adaptation", "adapted_filters"]
