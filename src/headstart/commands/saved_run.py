"""A run folder that another job opens: the head, and how to get the backbone again.

``run.json`` says how the run was made and ``metrics.json`` what it scored; the head lies beside
them as safetensors and JSON. Opening a run executes nothing.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from headstart.commands.hands_on import HandsOn
from headstart.commands.kept_rows import ROWS_FILE, KeptRows, read_rows
from headstart.commands.packed_file import CALIBRATION_FILE, OUTLIERS_FILE, read_packed
from headstart.commands.run_description import check_files, guarded, read_description
from headstart.commands.run_facts import accuracy_of, main_score
from headstart.commands.run_methods import RunMethods, run_card
from headstart.commands.run_place import RUN, whole_run
from headstart.commands.saved_backbone import SavedBackbone
from headstart.commands.scoring import AnyEvaluation
from headstart.commands.settings import BackboneLike, BackboneSpec
from headstart.commands.training_items import Ids, read_training_items
from headstart.commands.trust import Named, read_files
from headstart.commands.tuned import Tuned, find_tuned
from headstart.core.cards import Card
from headstart.core.errors import DataError, HeadError
from headstart.core.files import own_file
from headstart.core.records import (
    NamedScore,
    from_plain,
)
from headstart.core.wording import clean, count, quoted
from headstart.data.levels import ValueRange, checked_range
from headstart.data.table_columns import Encodings, read_encodings
from headstart.evaluation.tasks import task_named
from headstart.export.predictor import Predictor
from headstart.extraction import Precision, Storage
from headstart.heads import Head, load_head
from headstart.heads.base import ARRAYS_FILE, OPTIONS_FILE
from headstart.heads.held_out import Calibration
from headstart.heads.outliers import Outliers

_ATTEMPTS = 3
"""So often a run that another job is replacing is read."""


_NAMED = {"multi-label": ("label", "labels"), "regression": ("target", "targets")}


@dataclass(frozen=True, eq=False, repr=False)
class SavedRun(SavedBackbone, RunMethods, HandsOn):
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
        words = _NAMED.get(self.head.task, ("class", "classes"))
        named = f"{count(len(self.classes), *words)}: {quoted(self.classes, 5)}"
        return (
            f"SavedRun('{clean(self.folder)}': {self.head.kind} head on {self.backbone_name},"
            f" {named})"
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
        raise ValueError("its label_column is not a name")
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


__all__ = [
    "SavedRun",
    "open_run",
]
