"""The sweep: every head on every cut, chosen inside the training split, tested once."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, Pooling
from headstart.cache import FeatureCache
from headstart.commands.backbone_spec import BackboneSpec
from headstart.commands.clock import Clock
from headstart.commands.embedding import complete_up_to, embed
from headstart.commands.environment import describe_environment
from headstart.commands.fingerprints import backbone_fingerprint, split_fingerprint
from headstart.commands.run_folder import Run, prepare_folder
from headstart.commands.run_report import write_run
from headstart.commands.sources import DataOptions, open_dataset
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Reporter, console_reporter
from headstart.core.records import Evaluation, to_plain
from headstart.core.seeds import seed_faults
from headstart.data.reading import OnBad
from headstart.evaluation import evaluate as score
from headstart.extraction import Extraction
from headstart.heads import DINO_GRID, Sweep
from headstart.heads import sweep as sweep_heads
from headstart.heads.checks import as_rows
from headstart.heads.registry import head_fault, head_names
from headstart.heads.sweeps import swept_heads


@dataclass(frozen=True)
class SweepConfig:
    """The settings of :func:`sweep`.

    Attributes:
        layers: cuts to try; None is the backbone's own feature. Empty: the backbone as it is.
        poolings: poolings to try at each layer; not at None, which is pooled already.
        heads: kinds of head to try; the perceptron (``mlp``) only if it is named, since it takes
            longer than all others together.
        grid: values of C for logistic regression; the 45 of DINOv2's evaluation by default.
        standardise: whether features are scaled to unit deviation; both may be tried.
        folds: of the cross-validation.
        seeds: one division into folds for each, no seed twice.
        extraction: batch size, precision, device; heads are solved on that device, too, where
            it is the processor or CUDA (``auto``: where the features are large enough to pay).
        on_bad: what to do with items that cannot be read.
    """

    layers: tuple[str | None, ...] = ()
    poolings: tuple[Pooling, ...] = ()
    heads: tuple[str, ...] = field(default_factory=swept_heads)
    grid: tuple[float, ...] = tuple(DINO_GRID)
    standardise: tuple[bool, ...] = (True,)
    folds: int = 5
    seeds: tuple[int, ...] = (0,)
    extraction: Extraction = field(default_factory=Extraction)
    on_bad: OnBad = "raise"

    def __post_init__(self) -> None:
        unknown = [f"there is no head '{kind}'" for kind in self.heads if head_fault(kind)]
        faults = unknown + [f"C must be positive, not {c}" for c in self.grid if not c > 0]
        faults += seed_faults(*self.seeds)
        if self.folds < 2:
            faults.append(f"folds must be at least 2, not {self.folds}")
        if not (self.heads and self.grid and self.seeds and self.standardise):
            faults.append("a sweep needs a head, a value of C, a seed and a standardisation")
        if faults:
            hint = f"the heads are {', '.join(head_names())}" if unknown else None
            raise ConfigError(tuple(faults), hint=hint)


@dataclass(frozen=True, eq=False)
class SweepResult:
    """The outcome of a sweep.

    Attributes:
        sweep: the table, the curves and the winner.
        evaluation: of the winner on the test split; None if the features have none.
        run: the winner as a run, which ``predict`` takes; None for a sweep over bare features.
    """

    sweep: Sweep
    evaluation: Evaluation | None
    run: Run | None


def sweep(
    data: Any,
    backbone: str | Path | BackboneSpec | Backbone = "headstart/glyphs",
    *,
    config: SweepConfig | None = None,
    out: Path | str | None = None,
    write: bool = True,
    cache: Path | str | FeatureCache | None = None,
    data_options: DataOptions | None = None,
    reporter: Reporter | None = None,
) -> SweepResult:
    """Try every head on every cut; choose by cross-validation inside the training split.

    The backbone runs once an item for all layers together. The test split is used once, for the
    winner.

    Args:
        data: as for :func:`headstart.fit`; or bare features: an ``.npz`` or a folder of ``.npy``
            with ``x_train (n, d)``, ``y_train (n,)`` and, if there is one, ``x_test``, ``y_test``.
        backbone, out, write, cache, data_options, reporter: as for :func:`headstart.fit`; without
            effect on bare features.
        config: what to try.

    Raises:
        ConfigError: nothing to try, features that are no rows, or poolings without a layer.
        BackboneError: weights are missing before the deepest of the layers.
        DataError: the data cannot be read, or tests a class that it does not train.
        HeadError: nothing can be held out, or features are not finite.
    """
    config, reporter = config or SweepConfig(), reporter or console_reporter()
    bare = read_features(data)
    if bare is not None:
        return _sweep_features(bare, config, reporter)
    store = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    clock = Clock()
    with clock("load"):
        network = complete_up_to(backbone, config.layers)
        cuts = _cuts(network, config)
        options = data_options or DataOptions()
        dataset, said = open_dataset(data, options, config.seeds[0], store, reporter)
    folder = prepare_folder(out, f"{dataset.name}-sweep") if write else None
    for note in (*said, *network.notes):
        reporter.note(note)
    with clock("extract"):
        embedded = embed(
            tuple(cuts.values()), dataset, store, config.extraction, config.on_bad, reporter
        )
    unseen = embedded.unseen_note()
    for note in unseen:
        reporter.note(note)
    views = {name: embedded.train_rows(i) for i, name in enumerate(cuts)}
    with clock("fit"):
        found = _run(views, embedded.train.labels, dataset.classes, config, reporter)
    place = list(cuts).index(found.winner.view)
    cut = cuts[found.winner.view]
    with clock("evaluate"):
        probabilities = found.head.predict_proba(embedded.test_rows(place))
        evaluation = score(embedded.test.labels, probabilities, dataset.classes)
    winner = {"view": found.winner.view, "head": found.winner.head, **found.winner.options}
    run = Run(
        head=found.head,
        classes=dataset.classes,
        evaluation=evaluation,
        baselines=(),
        curves=found.curves,
        configuration={
            **to_plain(config),
            "head": found.winner.head,
            "data": dataset.name,
            "chosen": winner,
            "candidates": to_plain(found.candidates[:50]),
        },
        environment=describe_environment(),
        fingerprints={
            "backbone": backbone_fingerprint(
                cut, config.extraction.precision, config.extraction.storage
            ),
            "train": split_fingerprint(embedded.train),
            "test": split_fingerprint(embedded.test),
        },
        cache=embedded.use,
        seconds=clock.seconds(),
        images_per_second=embedded.images_per_second,
        n_train=len(embedded.train),
        n_test=len(embedded.test),
        notes=(*said, *network.notes, *unseen, *found.notes),
        spec=BackboneSpec.of(cut),
        backbone=cut,
        folder=folder,
    )
    if folder is not None:
        write_run(run, folder, embedded.test, probabilities)
    return SweepResult(found, evaluation, run)


def read_features(source: Any) -> Mapping[str, NDArray[Any]] | None:
    """Read bare features from an ``.npz`` or a folder of ``.npy``; None if it is no such source.

    Returns:
        ``x_train (n, d)``, ``y_train (n,)`` and perhaps ``x_test``, ``y_test``.

    Raises:
        DataError: a file cannot be read, or labels are missing.
    """
    if not isinstance(source, str | Path):
        return None
    path = Path(source).expanduser()
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        if path.suffix == ".npz" and path.is_file():
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in names if name in file}
        elif (path / "x_train.npy").is_file():
            present = [name for name in names if (path / f"{name}.npy").is_file()]
            found = {
                name: np.load(path / f"{name}.npy", allow_pickle=False, mmap_mode="r")
                for name in present
            }
        else:
            return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"the features in '{path}' cannot be read: {error}",
            hint="save them anew with numpy.savez or numpy.save",
        ) from error
    if "x_train" not in found or found["x_train"].ndim != 2:
        return None  # pictures in an .npz
    if "y_train" not in found:
        raise DataError(f"'{path}' has x_train and no y_train")
    return found


def _cuts(network: Backbone, config: SweepConfig) -> dict[str, Backbone]:
    if not config.layers and not config.poolings:
        cuts = [network]
    else:
        layers = config.layers or (network.layer,)
        if config.poolings and set(layers) == {None}:
            named = ", ".join(config.poolings)
            raise ConfigError(
                (
                    f"poolings ({named}) belong to layers, and none is named: the network's own"
                    " output is pooled already",
                ),
                hint="name layers, such as --layers layer3,layer4, or leave --poolings out",
            )
        cuts = [
            network.at(layer, pooling)
            for layer in layers
            for pooling in (config.poolings if layer is not None else ()) or (None,)
        ]
    return {"output" if cut.layer is None else f"{cut.layer} {cut.pooling}": cut for cut in cuts}


def _run(
    views: Mapping[str, Any],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    config: SweepConfig,
    reporter: Reporter,
) -> Sweep:
    found = sweep_heads(
        views,
        labels,
        len(classes),
        heads=config.heads,
        grid=config.grid,
        standardise=config.standardise,
        folds=config.folds,
        seeds=config.seeds,
        names=classes,
        device=_head_device(config.extraction.device),
        reporter=reporter,
    )
    for note in found.notes:
        reporter.note(note)
    return found


def _head_device(device: str) -> str:
    """Return where heads are solved; a device that only networks run on leaves it to the CPU."""
    return device if device == "auto" or device.startswith(("cpu", "cuda")) else "cpu"


def _sweep_features(
    arrays: Mapping[str, NDArray[Any]], config: SweepConfig, reporter: Reporter
) -> SweepResult:
    tested = "x_test" in arrays and "y_test" in arrays
    _check_features(arrays, tested)
    # Before the sweep, not after it: bad test rows would throw its work away.
    x_test = as_rows(arrays["x_test"], name="features of x_test") if tested else None
    classes, labels = np.unique(arrays["y_train"], return_inverse=True)
    names = tuple(str(value) for value in classes)
    found = _run({"features": arrays["x_train"]}, labels.astype(np.int64), names, config, reporter)
    if x_test is None:
        return SweepResult(found, None, None)
    truth = np.searchsorted(classes, arrays["y_test"]).astype(np.int64)
    probabilities = found.head.predict_proba(x_test)
    return SweepResult(found, score(truth, probabilities, names), None)


def _check_features(arrays: Mapping[str, NDArray[Any]], tested: bool) -> None:
    """Refuse, before anything is trained, labels that do not fit the rows or each other."""
    faults = []
    for part in ("train", "test") if tested else ("train",):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if y.ndim != 1 or len(y) != len(x):
            faults.append(f"x_{part} has {len(x):,} rows and y_{part} has the shape {y.shape}")
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            faults.append(f"y_{part} has NaN or infinity among its labels")
    if tested:
        train, test = arrays["x_train"].shape, arrays["x_test"].shape
        if train[1:] != test[1:]:
            faults.append(f"rows of x_train have the shape {train[1:]}, of x_test {test[1:]}")
        unseen = np.setdiff1d(arrays["y_test"], arrays["y_train"])
        if len(unseen):
            count = int(np.isin(arrays["y_test"], unseen).sum())
            faults.append(
                f"y_test has the class {unseen[0].item()!r}, which y_train does not have"
                f" ({count:,} rows of {len(unseen):,} such classes)"
            )
    if faults:
        raise DataError("; ".join(faults), hint="mend or leave out those rows")
