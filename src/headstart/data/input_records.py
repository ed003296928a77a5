"""What inputs return besides samples: numbered views, and the rows of a baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headstart.core.progress import Reporter

if TYPE_CHECKING:
    from headstart.data.dataset import Split


class NumberedView(Protocol):
    """One numbered augmentation of every item: a pure function of seed, number and item id."""

    @property
    def number(self) -> int:
        """0 is the item without augmentation; 1, 2, ... are augmented."""

    def describe(self) -> dict[str, Any]:
        """Return what decides the view, as plain JSON values, with ``number`` among them."""


@dataclass(frozen=True)
class PlainRows:
    """Rows made without any network: what a transferred backbone has to beat.

    Attributes:
        name: of the baseline ("raw pixels").
        about: what the rows are ("8×8 pixels").
        of: returns the rows of a split, ``(n, d) float32``, and shows progress; SciPy's sparse
            rows where most values are zero.
        most: training items that are enough; the baseline is there for orientation.
    """

    name: str
    about: str
    of: Callable[[Split, Reporter], Any]
    most: int = 5_000


__all__ = ["NumberedView", "PlainRows"]
