"""What is said or refused before the first forward pass: why rows are missing, and disk space."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headstart.core.errors import StoreError
from headstart.core.progress import Reporter
from headstart.core.wording import format_bytes
from headstart.extraction import Extractor
from headstart.store import Space

_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def explain(space: Space, reporter: Reporter) -> None:
    """Say why stored features of these very weights do not serve: a setting differs."""
    nearest = space.nearest()
    other = {"backbone.weights", "kind"}  # other weights, or rows of another kind
    if nearest is None or any(d.path in other for d in nearest.differences):
        return
    shown = "; ".join(str(difference) for difference in nearest.differences[:3])
    reporter.note(f"features of these weights are stored, but with other settings: {shown}")


def check_room(
    extractor: Extractor, spaces: Sequence[Space], ids: Sequence[str], view: int
) -> None:
    """Refuse, before the first forward pass, what the disk has no room for."""
    needed, free = 0, None
    for cut, space in zip(extractor.cuts, spaces, strict=True):
        row_bytes = math.prod(cut.feature_shape()) * _BYTES[extractor.settings.storage]
        plan = space.preflight(ids, view, row_bytes=row_bytes)
        needed += plan.bytes_needed or 0
        free = plan.bytes_free
    if free is not None and needed > free:
        raise StoreError(
            f"the features need {format_bytes(needed)}, "
            f"and {spaces[0].folder.parent} has {format_bytes(free)} free",
            hint="choose another place with cache=PLACE, free space with 'headstart cache gc',"
            " or store them smaller with storage='float16'",
        )


__all__ = ["check_room", "explain"]
