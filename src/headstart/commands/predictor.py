"""A run, in memory or in a folder, opened to predict."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from headstart.backbones import Backbone
from headstart.commands.opening import OpenConfig
from headstart.commands.run import Run
from headstart.commands.saved_run import SavedRun, open_run
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions
from headstart.commands.training_items import Ids
from headstart.core.errors import ConfigError
from headstart.export.predictor import Predictor
from headstart.extraction import Extraction


@dataclass(frozen=True, eq=False)
class RunPredictor(Predictor):
    """A predictor that knows what its run was made with.

    Attributes:
        trained_on: content ids of the items that trained the run; None: not recorded.
        label_column: the columns that its labels were read from, where they were named.
    """

    trained_on: Ids | None = None
    label_column: str | None = None

    @classmethod
    def of(cls, trained: Run | SavedRun | Path | str, config: OpenConfig, session: Session) -> Self:
        """Open a run.

        Args:
            trained: a run, or its folder.
            config: how it is opened.
            session: says what an older version of headstart did not record.

        Raises:
            ConfigError: it is no run.
            DataError, BackboneError: see :func:`~headstart.commands.saved_run.open_run` and
                :meth:`~headstart.commands.saved_run.SavedRun.load_backbone`.
        """
        if not isinstance(trained, Run | SavedRun | Path | str):
            raise ConfigError(
                (f"expected a run or its folder after the data, found {type(trained).__name__}",),
                hint="the data comes first: predict(data, run), evaluate(data, run)",
            )
        if isinstance(trained, Run):
            network = config.backbone or trained.backbone
            if not isinstance(network, Backbone):
                raise ConfigError(
                    (
                        "a run in memory has its own backbone; to replace it, pass one that is"
                        " already built",
                    ),
                    hint="pass backbone=load_backbone(...), or omit it",
                )
            found = dataclasses.replace(trained.predictor(), backbone=network)
            column = trained.configuration.get("label_column")
            return cls(**vars(found), trained_on=trained.trained_on, label_column=column)
        saved = trained if isinstance(trained, SavedRun) else open_run(trained)
        session.say(*saved.notes)
        found = saved.predictor(
            config.backbone, weights=config.weights, trust_code=config.trust_code
        )
        return cls(**vars(found), trained_on=saved.trained_on, label_column=saved.label_column)

    def reading(self, given: ReadOptions, session: Session) -> ReadOptions:
        """Return how data are read: with the run's values of black and white, unless others are
        given.
        """
        if self.columns:
            given = dataclasses.replace(given, columns=",".join(c.name for c in self.columns))
        limits = self.value_range
        if limits is None or given.value_range is not None:
            return given
        low, high = limits
        session.say(f"values are read as in the run: value_range=({low:g}, {high:g})")
        return dataclasses.replace(given, value_range=(low, high))

    def labels(self, given: ReadOptions) -> ReadOptions:
        """Return how labels are read: for the task of the run, and from the columns of its targets.

        Raises:
            ConfigError: another task is asked for.
        """
        if given.task not in ("auto", self.head.task):
            raise ConfigError(
                (f"task='{given.task}' does not match the run, whose task is {self.head.task}",),
                hint="leave it out",
            )
        if self.head.task == "classification":
            return dataclasses.replace(given, task="classification")
        task: Any = self.head.task
        column = given.label_column or self.label_column
        return dataclasses.replace(given, task=task, label_column=column)

    def settings(self, session: Session) -> Extraction:
        """Return how features are computed: as they were when the head was trained."""
        return dataclasses.replace(
            session.run.extraction(), precision=self.precision, storage=self.storage
        )


__all__ = ["RunPredictor"]
