"""The items of a fine-tuning as features, and which of them cannot be decoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.cache import CachedFeatures, FeatureCache
from headstart.commands.clock import Clock
from headstart.commands.finetune.data import Decode, undecodable
from headstart.commands.finetune.settings import FinetuneConfig
from headstart.core.progress import Reporter
from headstart.core.records import CacheUse
from headstart.data import BadItem, Split
from headstart.data.reading import OnBad


class Items:
    """Reads the items of the parts through the backbone as it is.

    Args:
        backbone: the backbone.
        config: settings of the job.
        cache: where features are found and kept.
        clock: takes the time of extracting.
        reporter: shown progress.

    Attributes:
        use: features found and computed so far.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: FinetuneConfig,
        cache: FeatureCache,
        clock: Clock,
        reporter: Reporter,
    ) -> None:
        self.backbone, self.config, self.cache = backbone, config, cache
        self.clock, self.reporter = clock, reporter
        self.use = CacheUse(0, 0)
        self._extracted: dict[str, NDArray[np.float32]] = {}

    def rows(self, split: Split) -> NDArray[np.float32]:
        """Return the features of a split, ``(n, d)``."""
        return self._features(split, "raise").rows

    def start_rows(self, name: str) -> NDArray[np.float32]:
        """Return the features that were extracted while broken files were looked for, once.

        Args:
            name: ``train`` or ``test``.
        """
        return self._extracted.pop(name)

    def decoders(self) -> tuple[Decode, Decode, Decode]:
        """Return what finds the items of the three parts that cannot be decoded.

        Without it a broken file would end an epoch. Where a probe needs their features, these are
        extracted at the same time, and no item is decoded for the check alone.
        """
        test = partial(self._extract, "test") if self.config.baselines else self.decode
        return partial(self._extract, "train"), self.decode, test

    def decode(self, part: Split) -> Sequence[BadItem]:
        """Decode the items that no features are stored of; return those that cannot be."""
        space = self.cache.space(self.backbone, self.config.extraction)
        known = set(part.ids) - set(space.missing(part.ids))
        workers = self.config.extraction.workers
        return undecodable(part, self.backbone.inputs, known, workers, self.reporter)

    def _extract(self, name: str, part: Split) -> Sequence[BadItem]:
        with self.clock("start"):
            found = self._features(part, "skip")
        self._extracted[name] = found.rows
        return found.bad

    def _features(self, split: Split, on_bad: OnBad) -> CachedFeatures:
        found = self.cache.features(
            self.backbone,
            split,
            settings=self.config.extraction,
            on_bad=on_bad,
            reporter=self.reporter,
        )
        self.use += found.use
        return found


__all__ = ["Items"]
