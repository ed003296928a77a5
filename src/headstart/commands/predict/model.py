"""A run, opened to predict: head and backbone, and what its features depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.cache import CachedFeatures
from headstart.commands.abstaining import Asked, answers
from headstart.commands.kept_rows import (
    KeptRows,
    KeptSplit,
    features_of,
    joined_rows,
)
from headstart.commands.opening import OpenConfig
from headstart.commands.prediction_table import Probabilities
from headstart.commands.predictor import RunPredictor
from headstart.commands.results import outliers_once
from headstart.commands.run import Run
from headstart.commands.run_description import read_description
from headstart.commands.run_place import whole_run
from headstart.commands.saved_run import SavedRun, open_run
from headstart.commands.scoring import outputs_of
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions
from headstart.commands.unlike import OWN, Strangeness, Wanted, named_views, views_of
from headstart.core.errors import DataError
from headstart.data import Dataset, Split
from headstart.data.table_columns import encoded_columns
from headstart.evaluation.sets import AnySets
from headstart.heads import Head
from headstart.heads.outliers import Outliers, fit_outliers

_GROUPS = ("group_column", "group_pattern")


@dataclass(frozen=True, eq=False)
class Said:
    """What a run says of items.

    Attributes:
        found: their features, at the cut of the run and behind it at other layers.
        rows: what the head takes, ``(n, d)``: features with columns of the table.
        outputs: ``(n, k)``, probabilities or values.
        sets: what is plausible of each at the coverage that was asked for; None: none was.
        strange: how far out each is; None: nobody asked.
    """

    found: CachedFeatures
    rows: Any
    outputs: Probabilities
    sets: AnySets | None
    strange: Strangeness | None


@dataclass(frozen=True, eq=False)
class Model:
    """A run that is opened to predict, with what it has kept of the items that trained it.

    Attributes:
        source: the run.
        predictor: its backbone and its head.
    """

    source: Run | SavedRun
    predictor: RunPredictor

    @classmethod
    def of(
        cls, trained: Run | SavedRun | Path | str, config: OpenConfig, session: Session
    ) -> Model:
        """Open a run; see :meth:`~headstart.commands.predictor.RunPredictor.of`."""
        source = open_run(trained) if isinstance(trained, str | Path) else trained
        return cls(source, RunPredictor.of(source, config, session))

    @property
    def head(self) -> Head:
        """The head of the run."""
        return self.predictor.head

    @property
    def classes(self) -> tuple[str, ...]:
        """Its classes, labels or targets."""
        return self.predictor.classes

    def say(
        self,
        split: Split,
        session: Session,
        asked: Asked | None = None,
        wanted: Wanted | None = None,
    ) -> Said:
        """Embed items and say what they are.

        Args:
            split: one item or more.
            session: with the cache, and the settings of the run.
            asked: a coverage.
            wanted: how strange items are told.

        Raises:
            DataError, HeadError: the run cannot promise what is asked for; before anything is
                computed.
        """
        judge = self.judge(session, asked, wanted)
        found, rows, outputs = outputs_for(self.predictor, split, session, judge.layers)
        with session.clock("predict"):
            ids = split.take(found.kept).ids
            sets, strange = judge.judged(found.sets, rows, outputs, ids)
        return Said(found, rows, outputs, sets, strange)

    def judge(
        self, session: Session, asked: Asked | None = None, wanted: Wanted | None = None
    ) -> Judge:
        """Return what says more of items than the head does.

        Args:
            session: with the cache, and the settings of the run.
            asked: a coverage.
            wanted: how strange items are told.

        Raises:
            DataError, HeadError: the run cannot promise what is asked for.
        """
        self.require(asked)
        outliers = None if wanted is None else self.outliers(wanted, session)
        return Judge(self, asked, wanted, outliers)

    def require(self, asked: Asked | None) -> None:
        """Refuse a coverage that the run cannot promise.

        Raises:
            DataError, HeadError: with the reason.
        """
        nothing = np.empty((0, len(self.classes)))
        self.answers(asked, nothing, np.empty((0, self.head.n_features), np.float32), ())

    def answers(
        self, asked: Asked | None, outputs: Probabilities, rows: Any, ids: Sequence[str]
    ) -> AnySets | None:
        """Return what is plausible at the coverage that was asked for; None: none was."""
        if asked is None:
            return None
        return answers(
            self.source.calibration,
            self.source.uncalibrated,
            asked,
            outputs,
            rows=rows,
            keys=ids,
            names=self.classes,
        )

    def outliers(self, wanted: Wanted, session: Session) -> Outliers:
        """Return what tells strange items: what ``fit`` has kept, or what its rows say.

        Raises:
            DataError: the run has kept neither.
            HeadError: its items are too few for the rate of false alarms.
        """
        found = self.source.outliers
        if found is None or found.method != wanted.method:
            found = self._from_rows(wanted, session)
        found.require(wanted.false_alarms)
        return found

    def _from_rows(self, wanted: Wanted, session: Session) -> Outliers:
        """Return what tells strange items by the rows that the run has kept.

        Raises:
            DataError: it has kept none, or an older version kept them without their groups.
        """
        kept, grouped, hint = self.kept(), self._grouped(), f"fit again with ood='{wanted.method}'"
        if kept is None:
            written = not isinstance(self.source, Run) or self.source.folder is not None
            why = (
                "it was written by an older version, or by a command other than fit"
                if written
                else "it was not written to a folder"
            )
            raise DataError(f"the run has no stored rows of its training items: {why}", hint=hint)
        train = kept.train
        if grouped and train.groups is None:
            raise DataError(
                f"the run was made with {grouped}, and its stored rows do not record their"
                " groups: items of one group would judge each other",
                hint=hint,
            )
        rows = self.features_of(train, session)
        labels = train.labels if train.targets is None else None
        key = {
            "backbone": self.source.fingerprints["backbone"]
            if isinstance(self.source, Run)
            else self.source.fingerprint,
            "rows": list(train.ids),
            "labels": None if labels is None else labels.tolist(),
            "groups": None if train.groups is None else train.groups.tolist(),
            "method": wanted.method,
        }
        return outliers_once(
            session.cache.store,
            key,
            lambda: fit_outliers(
                {OWN: rows}, labels, method=wanted.method, keys=train.ids, groups=train.groups
            ),
        )

    def features_of(self, kept: KeptSplit, session: Session) -> NDArray[Any]:
        """Return the features of items of the run ``(n, d)``, which it or the cache has kept.

        Raises:
            DataError: they are in neither.
        """
        model = self.predictor
        return features_of(kept, session.cache, model.backbone, model.settings(session))

    def kept(self) -> KeptRows | None:
        """Return what the run has kept of its items; None: nothing."""
        if isinstance(self.source, Run):
            return self.source.rows
        return self.source.kept_rows()

    def _grouped(self) -> str:
        """Return the option by which items of the run were grouped; empty: by none."""
        made = self._configuration()
        return next((name for name in _GROUPS if made.get(name)), "")

    def _configuration(self) -> Mapping[str, Any]:
        if isinstance(self.source, Run):
            return self.source.configuration
        place = whole_run(self.source.folder)
        found: Mapping[str, Any] = read_description(place, self.source.folder).values[
            "configuration"
        ]
        return found

    def labelled_data(self, data: Any, given: ReadOptions, session: Session) -> Dataset:
        """Open labelled data, their labels and groups where those of the run were, if they are.

        Raises:
            DataError: they cannot be read.
        """
        predictor, made = self.predictor, self._configuration()
        plain = predictor.labels(predictor.reading(given, session))
        asked = given.group_column or given.group_pattern
        names = ("label_column", *(() if asked else _GROUPS))
        known = {n: made[n] for n in names if isinstance(made.get(n), str)}
        known = {n: value for n, value in known.items() if getattr(plain, n) is None}
        kind = predictor.backbone.inputs.kind
        if not known or isinstance(data, Dataset):
            return session.open_test_data(data, plain, kind=kind)
        try:
            found = session.open_test_data(data, dataclasses.replace(plain, **known), kind=kind)
        except DataError:  # other columns, or a folder
            return session.open_test_data(data, plain, kind=kind)
        told = " and ".join(f"{name}='{value}'" for name, value in known.items())
        session.say(f"labels and groups are read as in the run: {told}")
        return found


@dataclass(frozen=True, eq=False)
class Judge:
    """What says more of items than the head does: what is plausible, and how far out they are.

    Attributes:
        model: the run.
        asked: a coverage; None: every item has one answer.
        wanted: how strange items are told; None: they are not.
        outliers: what tells them.
    """

    model: Model
    asked: Asked | None
    wanted: Wanted | None
    outliers: Outliers | None

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose features are needed beside those of the head."""
        if self.outliers is None or self.outliers.layers == (OWN,):
            return ()
        return self.outliers.layers

    def judged(
        self, views: Sequence[Any], rows: Any, outputs: Probabilities, ids: Sequence[str]
    ) -> tuple[AnySets | None, Strangeness | None]:
        """Return what is plausible of items, and how far out each is; None: nobody asked.

        Args:
            views: features ``(n, d)`` at the cut of the run and, behind them, at :attr:`layers`.
            rows: what the head takes.
            outputs: ``(n, k)``, what it says.
            ids: n content ids.
        """
        sets, strange = self.model.answers(self.asked, outputs, rows, ids), None
        if self.outliers is not None and self.wanted is not None:
            named = views_of(self.outliers, named_views(views, self.layers))
            strange = Strangeness.of(self.outliers, named, self.wanted.false_alarms)
        return sets, strange

    def of_nothing(
        self, rows: Any, outputs: Probabilities
    ) -> tuple[AnySets | None, Strangeness | None]:
        """Return what :meth:`judged` says of no item at all: the same columns, and no rows.

        Args:
            rows, outputs: ``(0, d)`` and ``(0, k)``.
        """
        widths = () if self.outliers is None else self.outliers.widths
        views = [np.empty((0, width)) for width in widths]
        return self.judged([rows, *views] if self.layers else views or [rows], rows, outputs, ())


def outputs_for(
    model: RunPredictor, split: Split, session: Session, layers: Sequence[str] = ()
) -> tuple[CachedFeatures, Any, Probabilities]:
    """Embed items and let the head speak.

    Args:
        model: backbone and head.
        split: one item or more.
        session: with the cache, and the settings of the run.
        layers: further ones whose features are wanted.

    Returns:
        Features at the cut of the run and, behind them, at the layers; what the head takes,
        ``(n, d)``: features with columns of the table; and what it says, ``(n, k)``.
    """
    table = encoded_columns(split, model.columns) if model.columns else np.empty(0)
    with session.clock("extract"):
        found = session.cache.features(
            (model.backbone, *(model.backbone.at(layer) for layer in layers)),
            split,
            settings=model.settings(session),
            on_bad=session.run.on_bad,
            reporter=session.reporter,
        )
    rows: Any = found.sets[0]
    if model.columns:
        rows = joined_rows(rows, table[found.kept])
    with session.clock("predict"):
        outputs = outputs_of(model.head, rows)
    return found, rows, outputs


__all__ = ["Judge", "Model", "Said", "outputs_for"]
