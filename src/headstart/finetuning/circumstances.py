"""What a plan depends on beside network and recipe: the parts, the store, the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart.data import Preprocessing, Split, View, numbered_views
from headstart.finetuning.network import Classifier
from headstart.finetuning.rows import BoundaryRows
from headstart.finetuning.stages import Stage
from headstart.prefix import Candidate, Cut
from headstart.store import Store

CacheMode = Literal["auto", "on", "off"]
Dtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, eq=False)
class Circumstances:
    """What a plan depends on beside network and recipe.

    Attributes:
        train, validation: the parts.
        preprocessing: of the backbone.
        store: where rows lie.
        cache: ``auto`` stores rows where that is faster, ``on`` wherever something can be cut
            (and refuses a recipe where nothing can), ``off`` never.
        dtype: type of stored rows.
        batch_size: items a forward pass of the prefix.
        workers: threads that decode.
        seed: of the views.
        decisions: what an unfinished run decided for every stage, the same of which is decided
            again: the place of the cut, or nothing where the stage begins with the images.
    """

    train: Split
    validation: Split
    preprocessing: Preprocessing
    store: Store
    cache: CacheMode = "auto"
    dtype: Dtype = "float32"
    batch_size: int = 64
    workers: int | None = None
    seed: int = 0
    decisions: tuple[str, ...] = ()

    def views(self, stage: Stage) -> tuple[View, ...]:
        """Return the numbered views of a stage."""
        return numbered_views(stage.views, seed=self.seed) if stage.views else ()

    def rows_of(self, network: Classifier, cut: Cut | Candidate, stage: Stage) -> BoundaryRows:
        """Return the rows of a cut, on the network as it is now."""
        return BoundaryRows(
            cut,
            self.preprocessing,
            self.store,
            precision=stage.precision,
            device=network.source.device,
            batch_size=self.batch_size,
            workers=self.workers,
        )


__all__ = ["CacheMode", "Circumstances", "Dtype"]
