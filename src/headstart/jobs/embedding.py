"""Both splits of a data set with their features, at one or several cuts of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.cache import CachedFeatures, FeatureCache
from headstart.data import Dataset, Split
from headstart.data.reading import OnBad
from headstart.errors import BadFilesError, ConfigError
from headstart.extraction import Extraction, Extractor
from headstart.progress import Reporter
from headstart.records import CacheUse


@dataclass(frozen=True, eq=False)
class Embedded:
    """Both splits with their rows; unreadable items are left out.

    Attributes:
        train, test: the readable items of each split.
        found: the rows by split; they are read when asked for.
        use: rows found and computed, over both splits.
        seconds: of reading and computing.
    """

    train: Split
    test: Split
    found: Mapping[str, CachedFeatures]
    use: CacheUse
    seconds: float

    def train_rows(self, cut: int = 0) -> NDArray[np.float32]:
        """Return ``(n_train, d) float32`` at one of the cuts."""
        return self._rows("train", cut)

    def test_rows(self, cut: int = 0) -> NDArray[np.float32]:
        """Return ``(n_test, d) float32`` at one of the cuts."""
        return self._rows("test", cut)

    def _rows(self, split: str, cut: int) -> NDArray[np.float32]:
        return np.asarray(self.found[split].sets[cut].array(), dtype=np.float32)

    @property
    def images_per_second(self) -> float | None:
        """The rate of extraction; None if nothing was computed."""
        if not self.use.misses or not self.seconds:
            return None
        return round(self.use.misses / self.seconds, 1)


def embed(
    cuts: Sequence[Backbone],
    dataset: Dataset,
    store: FeatureCache,
    settings: Extraction,
    on_bad: OnBad,
    reporter: Reporter,
) -> Embedded:
    """Embed both splits before complaining about either: nothing readable is left undone.

    Args:
        cuts: one network at one or several cuts; each gives one row an item.
        dataset: with the splits ``train`` and ``test``.
        store: the cache.
        settings: batch size, precision, device.
        on_bad: ``raise`` or ``skip`` items that cannot be read.
        reporter: shown progress.

    Raises:
        ConfigError: a cut gives more than one row an item.
        BadFilesError: items of either split cannot be read; all are listed.
    """
    for cut in cuts:
        shape = cut.feature_shape()
        if len(shape) != 1:
            raise ConfigError(
                (f"a head needs one row an item, and these features have shape {shape} an item",),
                hint="use --pooling avg",
            )
    found: dict[str, CachedFeatures] = {}
    unreadable: list[tuple[str, str]] = []
    hint = None
    with Extractor(cuts, settings) as extractor:
        for name in ("train", "test"):
            try:
                found[name] = store.features(
                    extractor, dataset.splits[name], on_bad=on_bad, reporter=reporter
                )
            except BadFilesError as error:
                unreadable += error.files
                hint = error.hint
    if unreadable:
        raise BadFilesError(tuple(dict(unreadable).items()), hint=hint)
    train, test = found["train"], found["test"]
    return Embedded(
        dataset.train.take(train.kept),
        dataset.test.take(test.kept),
        found,
        CacheUse(train.use.hits + test.use.hits, train.use.misses + test.use.misses),
        train.seconds + test.seconds,
    )
