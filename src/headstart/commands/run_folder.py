"""The run folder: what a job leaves behind, and how another job opens it again.

``run.json`` says how the run was made and ``metrics.json`` what it scored; the head lies beside
them as safetensors and JSON. Opening a run executes nothing.
"""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from headstart._version import __version__
from headstart.backbones import Backbone
from headstart.cache import describe_space
from headstart.commands.hands_on import HandsOn
from headstart.commands.invocation import Commands
from headstart.commands.kept_rows import ROWS_FILE, KeptRows, read_rows
from headstart.commands.packed_file import CALIBRATION_FILE, OUTLIERS_FILE, read_packed
from headstart.commands.run_description import FORMAT, check_files, guarded, read_description
from headstart.commands.run_methods import RunMethods, memory_facts, run_card
from headstart.commands.run_place import RUN, whole_run
from headstart.commands.scoring import AnyEvaluation
from headstart.commands.settings import BackboneLike, BackboneSpec
from headstart.commands.training_items import Ids, describe_training_items, read_training_items
from headstart.commands.trust import Named, read_files
from headstart.commands.tuned import Tuned, describe_tuned, find_tuned
from headstart.core.cards import Card
from headstart.core.errors import DataError, HeadError, HeadstartError
from headstart.core.files import own_file
from headstart.core.fingerprints import canonical_json, fingerprint, sha256
from headstart.core.records import (
    Baseline,
    CacheUse,
    Curve,
    Evaluation,
    NamedScore,
    Reference,
    from_plain,
    to_plain,
)
from headstart.core.wording import clean, count, quoted, shorten
from headstart.data import Split
from headstart.data.levels import ValueRange, checked_range
from headstart.data.table_columns import Encodings, read_encodings
from headstart.evaluation.tasks import task_named
from headstart.export.predictor import Predictor
from headstart.extraction import Precision, Storage
from headstart.heads import Head, load_head
from headstart.heads.base import ARRAYS_FILE, OPTIONS_FILE
from headstart.heads.held_out import Calibration
from headstart.heads.outliers import Outliers
from headstart.store import space_key

_ATTEMPTS = 3
"""So often a run that another job is replacing is read."""

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pillow", "pyarrow")


@dataclass(frozen=True, eq=False, repr=False)
class Run(RunMethods, HandsOn):
    """The outcome of ``fit``, ``sweep`` or ``finetune``.

    Attributes:
        head: the trained head; ``run.predict`` needs it together with ``backbone``.
        classes: class names, in the order of the head's probabilities; names of the labels or
            targets of another task.
        evaluation: scores on the test split; None if there was nothing to evaluate on.
        baselines: figures to beat, on the same test items.
        curves: how the head was chosen or trained.
        configuration: every setting, in plain values.
        environment: versions, machine, time.
        fingerprints: content digests of the data and of the backbone up to the cut.
        cache: rows found and rows computed.
        seconds: wall time by step: ``load``, ``extract``, ``fit``, ``evaluate``, ``total``.
        images_per_second: rate of extraction; None if nothing was computed.
        n_train, n_test: items used.
        notes: what was decided on the user's behalf.
        spec: how to build the backbone again.
        backbone: the backbone itself.
        folder: where the run was written; None if it was not.
        training: stages and epochs of a fine-tuning, in plain values; empty for a frozen backbone.
        tuned: the tensors of the backbone that a fine-tuning has changed, by name.
        commands: the command that made the run, and those that may follow.
        trained_on: content ids of the items that trained it (``train``) or chose its best epoch
            (``validation``).
        rows: its items with their features, so that others can join it; None: not kept.
        columns: how columns of a table join the features; empty where none do.
        extraction: seconds by stage, and what each stage could do, in plain values; empty where
            nothing was computed.
        calibration: scores of held-out training items, which sets of a coverage are made of.
        uncalibrated: why there are none.
        outliers: what tells items that are unlike the training items; None: not asked for.
        around: the tested items with their features and those that trained; None: not at hand.
    """

    head: Head
    classes: tuple[str, ...]
    evaluation: AnyEvaluation
    baselines: tuple[Baseline | Reference, ...]
    curves: tuple[Curve, ...]
    configuration: Mapping[str, Any]
    environment: Mapping[str, Any]
    fingerprints: Mapping[str, Any]
    cache: CacheUse
    seconds: Mapping[str, float]
    images_per_second: float | None
    n_train: int
    n_test: int
    notes: tuple[str, ...]
    spec: BackboneSpec
    backbone: Backbone = field(repr=False)
    folder: Path | None = None
    training: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tuned: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    commands: Commands = field(default=Commands(), repr=False)
    trained_on: Ids = field(default_factory=dict, repr=False)
    rows: KeptRows | None = field(default=None, repr=False)
    columns: Encodings = ()
    extraction: Mapping[str, Any] = field(default_factory=dict, repr=False)
    calibration: Calibration | None = field(default=None, repr=False)
    uncalibrated: str = ""
    outliers: Outliers | None = field(default=None, repr=False)
    around: Any = field(default=None, repr=False)

    def card(self) -> Card:
        """Return what there is to see: scores, classes, items, where it is."""
        layer = self.backbone.layer
        name = self.backbone.name if layer is None else f"{self.backbone.name} up to {layer}"
        return run_card(self, name, self.evaluation, memory_facts(self))

    @property
    def accuracy(self) -> float:
        """Accuracy on the test split, a fraction in [0, 1].

        Raises:
            DataError: the task has none.
        """
        return accuracy_of(self.evaluation)

    @property
    def task(self) -> str:
        """What the head predicts: ``classification``, ``multi-label`` or ``regression``."""
        return self.head.task

    @property
    def score(self) -> NamedScore:
        """The figure that runs of this task are compared by, on the test split."""
        return main_score(self.evaluation)

    def predictor(self) -> Predictor:
        """Return what predicts: backbone, head, and what the features depend on."""
        made = self.configuration
        return Predictor(
            self.head,
            self.classes,
            self.backbone,
            made["precision"],
            made["storage"],
            made.get("value_range"),
            self.columns,
        )

    def show_mistakes(self, most: int = 24, **how: Any) -> Any:
        """Return the worst mistakes; see :func:`headstart.commands.mistakes.show_mistakes`."""
        # By name: it opens runs, and this module is what it opens.
        return importlib.import_module("headstart.commands.mistakes").show_mistakes(
            self, most, **how
        )

    def metrics(self) -> dict[str, Any]:
        """Return what ``metrics.json`` holds."""
        return {
            **(
                {"accuracy": self.accuracy}
                if isinstance(self.evaluation, Evaluation)
                else {
                    "task": self.task,
                    "score": self.score.score.value,
                    "score_name": self.score.name,
                }
            ),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "seconds": {key: round(value, 3) for key, value in self.seconds.items()},
            "images_per_second": self.images_per_second,
            "cache": to_plain(self.cache),
            "evaluation": to_plain(self.evaluation),
            "baselines": to_plain(self.baselines),
            **({"training": to_plain(dict(self.training))} if self.training else {}),
        }

    def description(self) -> dict[str, Any]:
        """Return what ``run.json`` holds."""
        return {
            "format": FORMAT,
            "backbone": self.spec.plain(),
            "about": to_plain(self.backbone.about),
            "built_from": to_plain(self.backbone.origin.get("files", {})),
            "task": self.task,
            "items": self.backbone.inputs.kind,
            "classes": list(self.classes),
            "configuration": to_plain(dict(self.configuration)),
            "fingerprints": to_plain(dict(self.fingerprints)),
            "environment": to_plain(dict(self.environment)),
            "notes": list(self.notes),
            "training_items": describe_training_items(self.trained_on),
            "command": self.commands.made,
            **({"columns": to_plain(self.columns)} if self.columns else {}),
            **({"tuned": describe_tuned(self.tuned)} if self.tuned else {}),
            **({"extraction": to_plain(dict(self.extraction))} if self.extraction else {}),
            **({"uncalibrated": self.uncalibrated} if self.uncalibrated else {}),
        }


@dataclass(frozen=True, eq=False, repr=False)
class SavedRun(RunMethods, HandsOn):
    """What ``predict`` and ``evaluate`` need of a run folder.

    Attributes:
        folder: the run folder.
        head: the trained head.
        classes: class names, in the order of the head's probabilities.
        spec: how to build the backbone.
        precision, storage: how its features were computed and stored.
        fingerprint: of the backbone, its inputs and the cut.
        tuned: where fine-tuned weights lie; None for a frozen backbone.
        built_from: the files that the backbone was built from, with their digests.
        trust_code: whether the code that the run folder names may run.
        notes: what an older version of headstart did not record.
        trained_on: content ids of the items that trained the run; None: not recorded.
        value_range: the values of black and white that its data were read with.
        files: SHA-256 of its files by name; empty where an older version kept none.
        label_column: the columns that its labels were read from, where they were named.
        columns: how columns of a table join the features; empty where none do.
        uncalibrated: why there is nothing to make sets of a coverage of, where it says so.
    """

    folder: Path
    head: Head
    classes: tuple[str, ...]
    spec: BackboneSpec
    precision: Precision
    fingerprint: str
    tuned: Tuned | None = None
    storage: Storage = "float32"
    built_from: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trust_code: bool = False
    notes: tuple[str, ...] = ()
    trained_on: Ids | None = field(default=None, repr=False)
    value_range: ValueRange | None = None
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    label_column: str | None = None
    columns: Encodings = ()
    uncalibrated: str = ""

    def __repr__(self) -> str:
        """Name folder, head, backbone and classes in one line."""
        named = quoted(self.classes, 5)
        return (
            f"SavedRun('{clean(self.folder)}': {self.head.kind} head on {self.backbone_name},"
            f" {count(len(self.classes), 'class', 'classes')}: {named})"
        )

    def card(self) -> Card:
        """Return what there is to see; a folder without readable scores shows none."""
        try:
            evaluation = self.evaluation
        except DataError:
            evaluation = None
        return run_card(self, self.backbone_name, evaluation, ())

    @property
    def backbone_name(self) -> str:
        """The backbone by name, and the layer where it is cut, if it is."""
        source, layer = clean(self.spec.source), self.spec.layer
        return source if layer is None else f"{source} up to {clean(layer)}"

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """What ``metrics.json`` holds: scores, baselines, times, number of items.

        Raises:
            DataError: the file is missing, damaged, or of another run.
        """
        place = whole_run(self.folder)
        path = own_file(place, "metrics.json")
        check_files(place, self.files, "metrics.json")
        values = guarded(path, lambda: json.loads(path.read_bytes()))
        if not isinstance(values, dict):
            raise DataError(f"{path} is damaged (it holds no object)", hint="fit again")
        return values

    @cached_property
    def calibration(self) -> Calibration | None:
        """Scores of held-out training items, which sets of a coverage are made of; None: not kept.

        Raises:
            DataError: the file is damaged, or of another run.
        """
        place = whole_run(self.folder)
        if CALIBRATION_FILE not in self.files:
            return None
        check_files(place, self.files, CALIBRATION_FILE)
        found = read_packed(place, CALIBRATION_FILE, Calibration.unpack)
        try:
            found.check(self.head)
        except HeadError as error:
            fault = f"{place / CALIBRATION_FILE} is not of this run ({error})"
            raise DataError(fault, hint="fit again") from error
        return found

    @cached_property
    def outliers(self) -> Outliers | None:
        """What tells items that are unlike the training items; None where nobody asked.

        Raises:
            DataError: the file is damaged, or of another run.
        """
        place = whole_run(self.folder)
        if OUTLIERS_FILE not in self.files:
            return None
        check_files(place, self.files, OUTLIERS_FILE)
        return read_packed(place, OUTLIERS_FILE, Outliers.unpack)

    @cached_property
    def evaluation(self) -> AnyEvaluation:
        """The scores of the run on its test split, with their intervals.

        Raises:
            DataError: as for :attr:`metrics`.
        """
        path = self.folder / "metrics.json"
        record = task_named(self.head.task).record
        found: AnyEvaluation = guarded(path, lambda: from_plain(record, self.metrics["evaluation"]))
        return found

    @property
    def accuracy(self) -> float:
        """Accuracy on the test split of the run, a fraction in [0, 1].

        Raises:
            DataError: the task has none.
        """
        return accuracy_of(self.evaluation)

    @property
    def score(self) -> NamedScore:
        """The figure that runs of this task are compared by, on the test split of the run."""
        return main_score(self.evaluation)

    def predictor(self, given: BackboneLike | None = None, **how: Any) -> Predictor:
        """Return what predicts: backbone, head, and what the features depend on.

        Args:
            given, **how: as for :meth:`load_backbone`.
        """
        return Predictor(
            self.head,
            self.classes,
            self.load_backbone(given, **how),
            self.precision,
            self.storage,
            self.value_range,
            self.columns,
        )

    def kept_rows(self) -> KeptRows | None:
        """Return what the run has kept of its items; None: nothing.

        Raises:
            DataError: the file is damaged, or not that of this run.
        """
        if ROWS_FILE not in self.files:
            return None
        place = whole_run(self.folder)
        check_files(place, self.files, ROWS_FILE)
        width, head = sum(each.width for each in self.columns), self.head
        return read_rows(place, len(self.classes), head.n_features, task=head.task, width=width)

    def show_mistakes(self, most: int = 24, **how: Any) -> Any:
        """Return the worst mistakes; see :func:`headstart.commands.mistakes.show_mistakes`."""
        return importlib.import_module("headstart.commands.mistakes").show_mistakes(
            self, most, **how
        )

    def load_backbone(
        self,
        given: BackboneLike | None = None,
        *,
        weights: str | Path | None = None,
        trust_code: bool = False,
        load: Callable[[BackboneSpec], Backbone] | None = None,
    ) -> Backbone:
        """Build the backbone and check that it is the one the head was trained on.

        Args:
            given: the backbone, where the run was made with a module of the user's own (as it was
                before a fine-tuning, or after), or where what run.json names has moved: a name, a
                module or a built backbone. What is given is trusted.
            weights: the file of weights, where it has moved; trusted, likewise.
            trust_code: run the file of code that run.json names, if it is the one that the run
                was made with.
            load: loads what runs no code of the user's; None: it is built.

        Raises:
            BackboneError: code is not trusted or has changed.
            DataError: weights or preprocessing have changed since.
        """
        if isinstance(given, Backbone):
            backbone = given
        else:
            backbone = self._described(lambda: self._build(given, weights, trust_code, load), given)
        if self.tuned is not None and not self._fits(backbone):
            backbone = self.tuned.apply(backbone)
        self.check(backbone)
        return backbone

    def _described(self, build: Callable[[], Backbone], given: BackboneLike | None) -> Backbone:
        """Build what run.json describes; values that no library expects end in one line."""
        try:
            return build()
        except HeadstartError:
            raise
        except Exception as error:
            if given is not None:
                raise
            reason = shorten(f"{type(error).__name__}: {error}", 200)
            raise DataError(
                f"the backbone that {self.folder / RUN} describes cannot be built ({reason})",
                hint="fit again, or name the backbone: backbone='NAME'",
            ) from error

    def _build(
        self,
        given: BackboneLike | None,
        weights: str | Path | None,
        trust_code: bool,
        load: Callable[[BackboneSpec], Backbone] | None,
    ) -> Backbone:
        if isinstance(given, BackboneSpec):
            return given.load()
        named = Named(self.folder, self.spec, self.built_from)
        module = given if isinstance(given, nn.Module) else None
        name = None if given is None or module is not None else str(given)
        spec, digest = named.admitted(
            trust_code=trust_code or self.trust_code,
            given=self.spec.source if module is not None else name,
            weights=None if weights is None else str(weights),
        )
        if module is not None:
            return spec.load_module(module)
        return spec.load(digest) if load is None or digest is not None else load(spec)

    def _fits(self, backbone: Backbone) -> bool:
        return backbone_fingerprint(backbone, self.precision, self.storage) == self.fingerprint

    def check(self, backbone: Backbone) -> None:
        """Refuse a backbone whose features are not those the head was trained on."""
        found = backbone_fingerprint(backbone, self.precision, self.storage)
        if found != self.fingerprint:
            raise DataError(
                f"the backbone is not the one that {self.folder} was trained with "
                f"(fingerprint {found[:12]}, expected {self.fingerprint[:12]}): "
                "its weights, code or preprocessing have changed",
                hint="restore the weights file, or fit again",
            )


def main_score(evaluation: AnyEvaluation) -> NamedScore:
    """Return the figure that runs of a task are compared by."""
    if isinstance(evaluation, Evaluation):
        return NamedScore("accuracy", evaluation.accuracy)
    return evaluation.figures()[0]


def accuracy_of(evaluation: AnyEvaluation) -> float:
    """Return the accuracy of a classifier.

    Raises:
        DataError: it is none.
    """
    if isinstance(evaluation, Evaluation):
        return evaluation.accuracy.value
    names = ", ".join(each.name for each in evaluation.figures())
    raise DataError(
        f"there is no accuracy, because no item is of one class; the scores are {names}",
        hint="use run.score or run.evaluation",
    )


def open_run(folder: Path | str, *, trust_code: bool = False) -> SavedRun:
    """Open a run folder. That runs no code, whatever the folder says.

    Args:
        folder: the run folder.
        trust_code: let :meth:`SavedRun.load_backbone` run the file of code that the run was made
            with.

    Raises:
        DataError: it is not a run folder, or it is damaged.
    """
    try:
        folder = Path(folder).expanduser()
    except RuntimeError as error:  # the home of an unknown user
        raise DataError(f"'{folder}' cannot be found: {error}") from error
    for _ in range(_ATTEMPTS):
        seen = _state(folder)
        try:
            return _open(folder, whole_run(folder), trust_code)
        except (DataError, HeadError):
            if seen == _state(folder):
                raise
    return _open(folder, whole_run(folder), trust_code)


def _state(folder: Path) -> tuple[Any, ...]:
    """Return what changes when another job replaces the run: then it is read anew."""
    place = whole_run(folder)
    try:
        found = (place / RUN).stat()
    except OSError:
        return (place,)
    return place, found.st_ino, found.st_mtime_ns


def _values_of(said: Mapping[str, Any]) -> ValueRange | None:
    """Return the values of black and white that the data of a run were read with."""
    limits = said["configuration"].get("value_range")
    return None if limits is None else checked_range(limits)


def _label_column(said: Mapping[str, Any]) -> str | None:
    found = said["configuration"].get("label_column")
    if found is not None and not isinstance(found, str):
        raise ValueError("its label_column is no name")
    return found


def _open(folder: Path, place: Path, trust_code: bool) -> SavedRun:
    said = read_description(place, folder)
    check_files(place, said.files, "plan.json")
    path = place / RUN
    tuned = guarded(path, lambda: find_tuned(place, said.values))
    built_from = guarded(path, lambda: read_files(said.values))
    trained_on = read_training_items(place, said.values)
    value_range = guarded(path, lambda: _values_of(said.values))
    head_file = own_file(place, OPTIONS_FILE)
    own_file(place, ARRAYS_FILE)
    try:
        head = load_head(place)
    except HeadError:
        raise
    except Exception as error:
        raise DataError(f"{head_file} is damaged ({error!r:.200})", hint="fit again") from error
    if head.n_classes != len(said.classes):
        raise DataError(
            f"{folder} is damaged: its head knows {count(head.n_classes, 'class', 'classes')}, "
            f"run.json names {len(said.classes)}",
            hint="fit again",
        )
    older = f"{folder} was written by an older version: it has no digests that tie its files"
    return SavedRun(
        folder,
        head,
        said.classes,
        said.spec,
        said.precision,
        said.fingerprint,
        tuned,
        said.storage,
        built_from,
        trust_code,
        ((older,) if not said.files else ())
        + guarded(path, Named(folder, said.spec, built_from).lacks),
        trained_on,
        value_range,
        said.files,
        guarded(path, lambda: _label_column(said.values)),
        guarded(path, lambda: read_encodings(said.values.get("columns", ()))),
        clean(said.values.get("uncalibrated", "")),
    )


def backbone_fingerprint(
    backbone: Backbone, precision: Precision, storage: Storage = "float32"
) -> str:
    """Return the key of the backbone's feature space: weights, code, preprocessing, cut."""
    return space_key(describe_space(backbone, precision, storage=storage))


def split_fingerprint(split: Split) -> str:
    """Return the digest of a split's items, labels and groups, in order."""
    # The canonical JSON of [classes, [[id, label], ...], groups], in the time of large splits.
    labels = split.labels.tolist()
    lines = ", ".join([f'["{key}", {label}]' for key, label in zip(split.ids, labels, strict=True)])
    classes = canonical_json(list(split.classes), compact=False)
    groups = (
        "" if split.groups is None else f", {canonical_json(split.groups.tolist(), compact=False)}"
    )
    targets = (
        ""
        if split.targets is None
        else f", {sha256(np.ascontiguousarray(split.targets).tobytes())}"
    )
    return fingerprint(f"[{classes}, [{lines}]{groups}{targets}]")


def describe_environment() -> dict[str, Any]:
    """Return versions of Python and the packages that decide results, and the hardware."""
    import psutil
    import torch

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "headstart": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": versions,
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
