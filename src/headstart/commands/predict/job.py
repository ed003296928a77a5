"""``predict`` and ``evaluate``: a run's head on other data, with the same preprocessing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.commands.run_folder import Run, SavedRun, open_run
from headstart.commands.sources import DataOptions, open_items, open_test_data
from headstart.core.errors import ConfigError, DataError
from headstart.core.files import replacing
from headstart.core.progress import Reporter, console_reporter
from headstart.core.records import CacheUse, Evaluation
from headstart.data import BadItem, Split
from headstart.data.reading import OnBad
from headstart.evaluation import evaluate as score
from headstart.extraction import Extraction, Precision, Storage
from headstart.heads import Head


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a head says of some items, in the order of the input.

    Attributes:
        origins: where each item stands in the input.
        classes: class names, in the order of the columns of ``probabilities``.
        probabilities: ``(n, n_classes) float64``; rows sum to 1.
        bad: items that could not be read and are left out (``on_bad="skip"``).
        cache: feature rows found and computed.
    """

    origins: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    bad: tuple[BadItem, ...]
    cache: CacheUse

    def __len__(self) -> int:
        return len(self.origins)

    @property
    def labels(self) -> tuple[str, ...]:
        """The most probable class of each item."""
        return tuple(self.classes[i] for i in self.probabilities.argmax(axis=1))

    def columns(self, top: int = 3) -> dict[str, list[Any]]:
        """Return a table: item, class, probability, and the next classes with theirs.

        Args:
            top: how many classes an item; at most the number of classes.
        """
        top = max(1, min(top, len(self.classes)))
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :top]
        values = np.take_along_axis(self.probabilities, order, axis=1)
        table: dict[str, list[Any]] = {"item": list(self.origins)}
        for rank in range(top):
            suffix = "" if rank == 0 else f"_{rank + 1}"
            table[f"class{suffix}"] = [self.classes[i] for i in order[:, rank]]
            table[f"probability{suffix}"] = [float(v) for v in values[:, rank]]
        return table

    def write(self, path: Path | str, top: int = 3) -> Path:
        """Write the table as CSV or Parquet, by the suffix of ``path``.

        Raises:
            ConfigError: another suffix, or the file cannot be written.
        """
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet

        target = check_table_path(path)
        table = pa.table(self.columns(top))
        try:
            with replacing(target) as file:
                if target.suffix.lower() == ".csv":
                    pyarrow.csv.write_csv(table, file)
                else:
                    pyarrow.parquet.write_table(table, file)
        except OSError as error:
            raise ConfigError(
                (f"'{target}' cannot be written: {error.strerror or error}",)
            ) from error
        return target


def check_table_path(path: Path | str) -> Path:
    """Return the path if it names a CSV or Parquet file in an existing folder.

    Raises:
        ConfigError: it does not; found out before any work is done.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() not in {".csv", ".parquet"}:
        raise ConfigError((f"'{target}' ends neither in .csv nor in .parquet",))
    if not target.parent.is_dir():
        raise ConfigError((f"there is no folder '{target.parent}' to write '{target.name}' to",))
    return target


@dataclass(frozen=True, eq=False)
class _Ready:
    head: Head
    classes: tuple[str, ...]
    backbone: Backbone
    precision: Precision
    storage: Storage


def predict(
    run: Run | SavedRun | Path | str,
    data: Any,
    *,
    backbone: Backbone | None = None,
    data_options: DataOptions | None = None,
    extraction: Extraction | None = None,
    on_bad: OnBad = "raise",
    cache: Path | str | FeatureCache | None = None,
    reporter: Reporter | None = None,
) -> Predictions:
    """Predict classes for items, labelled or not.

    Args:
        run: a run, or its folder.
        data: an image, a folder of images, a table, arrays, a
            :class:`~headstart.data.Split`, or anything :func:`headstart.load_data` takes.
        backbone: needed for a run that was made with a module of your own.
        data_options: columns of a table, where they are not obvious.
        extraction: batch size and device; precision and storage are the run's.
        on_bad: ``raise`` after reading everything, or ``skip`` items that cannot be read.
        cache: folder of the feature cache.
        reporter: where notes and progress go; None: standard error.

    Returns:
        Probabilities in the order of the input.

    Raises:
        DataError: not a run folder, or data that cannot be read.
        BadFilesError: items cannot be read (``on_bad="raise"``).
    """
    reporter = reporter or console_reporter()
    ready = _ready(run, backbone)
    store = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    split = open_items(data, data_options or DataOptions(), store, reporter)
    return _predict(ready, split, extraction, on_bad, store, reporter)


def evaluate(
    run: Run | SavedRun | Path | str,
    data: Any,
    *,
    backbone: Backbone | None = None,
    data_options: DataOptions | None = None,
    extraction: Extraction | None = None,
    on_bad: OnBad = "raise",
    cache: Path | str | FeatureCache | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score a run's head on labelled data: its test split where it has one, else all of it.

    Args:
        run: a run, or its folder.
        data: labelled data, as :func:`headstart.load_data` takes it, or a labelled split.
        backbone, data_options, extraction, on_bad, cache, reporter: as for :func:`predict`.

    Returns:
        Scores with 95 % intervals.

    Raises:
        DataError: the data has a class that the head does not know, or no labels.
    """
    reporter = reporter or console_reporter()
    ready = _ready(run, backbone)
    store = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    if isinstance(data, Split):
        split = data
    else:
        dataset = open_test_data(data, data_options or DataOptions(), store, reporter)
        for note in dataset.notes:
            reporter.note(note)
        split = dataset.test
    split = split.aligned_to(ready.classes)
    if len(split) == 0 or (split.labels < 0).any():
        raise DataError("the data has items without labels", hint="use predict for unlabelled data")
    said = _predict(ready, split, extraction, on_bad, store, reporter)
    left_out = {item.index for item in said.bad}
    kept = np.array([i for i in range(len(split)) if i not in left_out], dtype=np.int64)
    return score(split.labels[kept], said.probabilities, ready.classes)


def _ready(run: Run | SavedRun | Path | str, backbone: Backbone | None) -> _Ready:
    if isinstance(run, Run):
        settings = Extraction(**run.configuration["extraction"])
        return _Ready(
            run.head, run.classes, backbone or run.backbone, settings.precision, settings.storage
        )
    saved = run if isinstance(run, SavedRun) else open_run(run)
    network = saved.load_backbone(backbone)
    return _Ready(saved.head, saved.classes, network, saved.precision, saved.storage)


def _predict(
    ready: _Ready,
    split: Split,
    extraction: Extraction | None,
    on_bad: OnBad,
    store: FeatureCache,
    reporter: Reporter,
) -> Predictions:
    settings = dataclasses.replace(
        extraction or Extraction(), precision=ready.precision, storage=ready.storage
    )
    found = store.features(
        ready.backbone, split, settings=settings, on_bad=on_bad, reporter=reporter
    )
    return Predictions(
        origins=tuple(split.origins[i] for i in found.kept),
        classes=ready.classes,
        probabilities=np.asarray(ready.head.predict_proba(found.rows), dtype=np.float64),
        bad=found.bad,
        cache=found.use,
    )
