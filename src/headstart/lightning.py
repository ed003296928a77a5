"""Lightning: the freeze contract as a callback, and rows of the feature cache as a data module.

::

    from headstart.lightning import CachedFeatures, Freeze

    trainer = Trainer(max_epochs=5, callbacks=[Freeze({"backbone": "frozen"})])
    trainer.fit(model, CachedFeatures("photos", "headstart/photos"))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from headstart.backbones import Backbone, load_backbone
from headstart.cache import FeatureCache
from headstart.core.division import stratified_split
from headstart.core.errors import DataError, FreezeError, MissingExtraError
from headstart.core.progress import Reporter, console_reporter
from headstart.data import Dataset as Items
from headstart.data import NumberedView, Split, load_data
from headstart.extraction import Extraction
from headstart.finetuning.rng import item_order
from headstart.freezing import FreezeHandle, Verification, freeze
from headstart.store import FeatureSet

try:
    from lightning.pytorch import Callback, LightningDataModule
    from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision
except ImportError:
    raise MissingExtraError("lightning", "lightning", "headstart.lightning") from None

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from headstart.freezing.governance import Spec


class Freeze(Callback):
    """Hold a model to the freeze contract while it trains, and prove it at the end.

    The model is frozen before its optimizers are made. Lightning puts it into training mode at
    the start and after every validation; what is frozen stays in evaluation mode all the same, so
    that statistics and dropout do not move. A checkpoint keeps the contract: where a run is
    resumed, what was frozen is compared with what it was at the first start.

    Args:
        spec: what is frozen and how, as for :func:`headstart.freeze`; names are those of the
            ``LightningModule``'s parts. None: the model has been frozen already.
        every_epoch: verify after every epoch, too, which costs one digest of what is frozen.

    Attributes:
        handle: of the contract, once training has begun. The contract stays on the model
            afterwards; ``handle.release()`` ends it.
        verification: what the last comparison found.
    """

    def __init__(self, spec: Spec | None = None, *, every_epoch: bool = False) -> None:
        super().__init__()
        self.spec, self.every_epoch = spec, every_epoch
        self.handle: FreezeHandle | None = None
        self.verification: Verification | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze, before optimizers and wrappers are made.

        With precision ``bf16-true``, ``16-true`` or ``64-true`` Lightning converts the model only
        later, which would look like weights that moved: it is converted here already.

        Raises:
            FreezeError: as for :func:`headstart.freeze`.
        """
        if stage == "fit":
            if self.spec is not None and isinstance(
                trainer.precision_plugin, (DoublePrecision, HalfPrecision)
            ):
                trainer.precision_plugin.convert_module(pl_module)
            self.handle = (
                FreezeHandle.of(pl_module) if self.spec is None else freeze(pl_module, self.spec)
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Verify, where every epoch is to be verified."""
        if self.every_epoch:
            self._verify()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Verify by digest.

        Raises:
            FreezeError: something that is frozen has moved; the message names it.
        """
        self._verify()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Verify once more: callbacks behind this one put averaged weights in at the end.

        Raises:
            FreezeError: the average of what is frozen is not what it was; such an average rounds.
        """
        self._verify()

    def _verify(self) -> None:
        if self.handle is None:
            raise FreezeError(
                "the callback has not seen the start of the training",
                hint="give it to the Trainer: Trainer(callbacks=[Freeze(...)])",
            )
        self.verification = self.handle.verify()


class CachedFeatures(LightningDataModule):
    """Batches of features ``(b, d) float32`` with what is learnt from them, out of the cache.

    The backbone runs once an item, before the first epoch and only for rows that are missing. The
    order of the training items follows from seed and epoch alone, so that a run that is resumed
    goes on with the order that it would have had.

    Args:
        data: as for :func:`headstart.load_data`, or a data set.
        backbone: a name, or one that is built.
        batch_size: rows of a batch.
        validation: share of the training split that validates, where the data have no split for
            it; 0: none.
        views: numbered augmentations; epoch e trains on the rows of view ``e mod len(views)``.
        settings: how the backbone runs.
        cache: a folder or a cache; None: as for :class:`headstart.FeatureCache`.
        seed: of the order, and of splits that are drawn.
        workers: processes that read rows; 0 is right for rows in memory or in the page cache.
        reporter: shown progress; None: the console.
        **reading: further arguments of :func:`headstart.load_data`, such as ``label_column``.

    Attributes:
        n_features: width of a row, once rows are there.
        classes: names of the classes, labels or targets.
    """

    def __init__(
        self,
        data: Any,
        backbone: Backbone | str,
        *,
        batch_size: int = 64,
        validation: float = 0.2,
        views: Sequence[NumberedView] = (),
        settings: Extraction | None = None,
        cache: FeatureCache | str | None = None,
        seed: int = 0,
        workers: int = 0,
        reporter: Reporter | None = None,
        **reading: Any,
    ) -> None:
        super().__init__()
        if not 0 <= validation < 1:
            raise DataError(f"validation must lie in [0, 1), not {validation!r}")
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self._data, self._reading, self._validation = data, reading, validation
        self._backbone, self._views = backbone, tuple(views)
        self._settings = settings or Extraction()
        self._cache = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
        self._reporter = reporter or console_reporter()
        self._rows: dict[str, _Rows] = {}
        self.classes: tuple[str, ...] = ()
        self.n_features = 0

    def prepare_data(self) -> None:
        """Compute the rows that are missing, in one process of each machine."""
        self._fill()

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002
        """Open the rows of all splits."""
        if not self._rows:
            self._fill()

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the training items, in an order of each epoch."""
        rows = self._split("train")
        return self._loader(rows, _Order(len(rows), len(rows.rows), self.seed))

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Batches of the items that validate; none where none are held out."""
        return self._loader(self._split("validation")) if "validation" in self._rows else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of the test items."""
        return self._loader(self._split("test"))

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of the test items."""
        return self.test_dataloader()

    def _loader(self, rows: _Rows, order: Sampler[int] | None = None) -> DataLoader[Any]:
        return DataLoader(
            rows,
            self.batch_size,
            sampler=order,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            persistent_workers=self.workers > 0,
        )

    def _split(self, name: str) -> _Rows:
        if name not in self._rows:
            raise DataError(f"the data have no {name} split", hint="call setup() first")
        return self._rows[name]

    def _fill(self) -> None:
        network = (
            load_backbone(self._backbone) if isinstance(self._backbone, str) else self._backbone
        )
        self._backbone = network
        dataset = self._items(network)
        self.classes = dataset.classes
        for name, split in self._divided(dataset).items():
            views = self._views if name == "train" and self._views else (None,)
            found = [
                self._cache.features(
                    network, split, settings=self._settings, view=view, reporter=self._reporter
                )
                for view in views
            ]
            rows = tuple(each.rows for each in found)
            y = split.y[found[0].kept]
            self._rows[name] = _Rows(rows, torch.from_numpy(np.ascontiguousarray(y)))
            self.n_features = int(rows[0].shape[1])

    def _items(self, network: Backbone) -> Items:
        if isinstance(self._data, Items):
            return self._data
        kind = network.inputs.kind
        with self._cache.memo() as memo:
            return load_data(
                self._data,
                **{"kind": kind, "seed": self.seed, "digest_memo": memo, **self._reading},
            )

    def _divided(self, dataset: Items) -> dict[str, Split]:
        """Return the splits, with one that validates out of the training split where it is due."""
        splits = dict(dataset.splits)
        if "validation" in splits or not self._validation:
            return splits
        train = splits["train"]
        groups = None if train.groups is None else train.groups.tolist()
        kept, held = stratified_split(
            train.labels, self._validation, seed=self.seed, keys=train.ids, groups=groups
        )
        return {**splits, "train": train.take(kept), "validation": train.take(held)}


class _Rows(Dataset[tuple[Tensor, Tensor]]):
    """Rows of one split with what is learnt; several views of each where training has them.

    Index ``view * n + i`` is item i in that view: processes that read, which outlive an epoch, and
    samplers that share it out among devices know nothing else of the epoch.
    """

    def __init__(self, rows: Sequence[FeatureSet | NDArray[Any]], y: Tensor) -> None:
        self.rows, self.y = tuple(rows), y

    def __len__(self) -> int:
        return len(self.y)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a whole batch: rows ``(b, d) float32``, and classes, memberships or values."""
        views, chosen = np.divmod(np.asarray(indices, dtype=np.int64), len(self))
        x = np.empty((len(chosen), self.rows[0].shape[1]), dtype=np.float32)
        for view in np.unique(views):
            of_it = views == view
            x[of_it] = self.rows[view][chosen[of_it]]
        y = self.y[torch.from_numpy(chosen)]
        return torch.from_numpy(x), y.float() if y.is_floating_point() else y

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.__getitems__([index])
        return x[0], y[0]


class _Order(Sampler[int]):
    """The order of an epoch and its view, by its number, which Lightning says, and the seed."""

    def __init__(self, n: int, views: int, seed: int) -> None:
        self.n, self.views, self.seed, self.epoch = n, views, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Any:
        order = item_order(self.n, self.seed, 0, self.epoch)
        return iter((order + self.epoch % self.views * self.n).tolist())


def _as_it_is(batch: Any) -> Any:
    return batch


__all__ = ["CachedFeatures", "Freeze"]
