"""Both splits of a data set with their features, at one or several cuts of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.backbones import Backbone
from headstart.cache import CachedFeatures, FeatureCache
from headstart.commands.backbone_spec import BackboneSpec, resolve_backbone
from headstart.core.errors import BadFilesError, ConfigError
from headstart.core.progress import Reporter
from headstart.core.records import CacheUse
from headstart.data import Dataset, Split
from headstart.data.reading import OnBad
from headstart.extraction import Extraction, Extractor
from headstart.modules.layers import call_order
from headstart.store import FeatureSet


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

    def train_rows(self, cut: int = 0) -> FeatureSet:
        """Return the rows ``(n_train, d)`` at one of the cuts, unread.

        Heads and selection take them as they take arrays, and read in blocks what is too large
        for memory.
        """
        return self.found["train"].sets[cut]

    def test_rows(self, cut: int = 0) -> FeatureSet:
        """Return the rows ``(n_test, d)`` at one of the cuts, unread."""
        return self.found["test"].sets[cut]

    def unseen_note(self) -> tuple[str, ...]:
        """Return the note that test items have classes that no training item has, if so."""
        trained = np.unique(self.train.labels)
        unseen = np.setdiff1d(self.test.labels, trained)
        if not len(unseen):
            return ()
        named = ", ".join(f"'{self.test.classes[i]}'" for i in unseen[:5])
        more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
        count = int(np.isin(self.test.labels, unseen).sum())
        return (
            f"{count:,} of {len(self.test):,} test items are of a class that no training item has"
            f" ({named}{more}); every head gets them wrong",
        )

    @property
    def images_per_second(self) -> float | None:
        """The rate of extraction; None if nothing was computed."""
        if not self.use.misses or not self.seconds:
            return None
        return round(self.use.misses / self.seconds, 1)


def complete_up_to(
    backbone: str | Path | BackboneSpec | Backbone, layers: Iterable[str | None]
) -> Backbone:
    """Return a built backbone that may be cut at any of these layers.

    A checkpoint of the user's own has to be complete up to the cut that it is loaded for, and what
    lies behind that cut keeps random numbers. So it is loaded for the deepest of the layers.

    Args:
        backbone: as for :func:`headstart.fit`; a built one is taken as it is.
        layers: where it will be cut beside its own layer; None is the output.

    Raises:
        BackboneError: a layer does not exist, or weights are missing before the deepest one.
    """
    network = resolve_backbone(backbone)
    if not isinstance(backbone, BackboneSpec) or backbone.weights is None:
        return network
    deepest = _deepest(network, [network.layer, *layers])
    if deepest == network.layer:
        return network
    whole = dataclasses.replace(backbone, layer=deepest, pooling=None).load()
    return whole.at(network.layer, network.pooling)


def _deepest(network: Backbone, layers: Sequence[str | None]) -> str | None:
    """Return the layer that finishes last; None, the output, where a layer does not run."""
    named = [layer for layer in layers if network.at(layer).layer is not None]
    order = [name for name, _, _ in call_order(network.module, network.probe())]
    if len(named) < len(layers) or not set(named) <= set(order):
        return None
    return max(named, key=lambda layer: order.index(str(layer)))


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
        train.use + test.use,
        train.seconds + test.seconds,
    )
