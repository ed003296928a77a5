"""The run that new items join: opened, with the items and features that its folder keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.commands.kept_rows import ROWS_FILE, KeptRows, KeptSplit, features_of
from headstart.commands.recall import recalled_backbone
from headstart.commands.run_description import read_description
from headstart.commands.run_place import whole_run
from headstart.commands.saved_run import SavedRun, open_run
from headstart.commands.session import Session
from headstart.commands.settings import ReadOptions
from headstart.commands.update.options import UpdateConfig
from headstart.core.errors import ConfigError, DataError
from headstart.core.records import INT8
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.extraction import Extraction


@dataclass(frozen=True, eq=False)
class OldRun:
    """A run that items are to join.

    Attributes:
        saved: the run.
        kept: its items with their features.
        configuration: how it was made.
        backbone: of the run.
    """

    saved: SavedRun
    kept: KeptRows
    configuration: Mapping[str, Any]
    backbone: Backbone

    @classmethod
    def of(cls, folder: Path, config: UpdateConfig, session: Session) -> OldRun:
        """Open a run of ``fit``, with its backbone.

        Raises:
            DataError: it cannot be updated: fine-tuned, without kept rows, or without what its
                options need of old items.
        """
        saved = open_run(folder)
        session.say(*saved.notes)
        if saved.precision == INT8:
            raise DataError(
                f"the network of '{folder}' is in int8, calibrated on the old training items",
                hint="fit again on all items",
            )
        if saved.tuned is not None:
            raise DataError(
                f"'{folder}' was fine-tuned, and its backbone was trained only on the old items",
                hint="fine-tune again on all items; update is for runs of fit",
            )
        place = whole_run(folder)
        configuration = read_description(place, folder).values["configuration"]
        if configuration.get("ood_layers"):
            raise DataError(
                f"'{folder}' flags unusual items by the layers"
                f" {', '.join(configuration['ood_layers'])}, and the features of old items there"
                " are not kept",
                hint="fit again on the old and new items",
            )
        kept = saved.kept_rows()
        if kept is None:
            raise DataError(
                f"'{folder}' has no {ROWS_FILE}, so nothing can be added to it: it was written"
                " by an older version, or by a command other than fit",
                hint="fit again on the old items",
            )
        grouped = [n for n in ("group_column", "group_pattern") if configuration.get(n)]
        if grouped and kept.train.groups is None:
            raise DataError(
                f"'{folder}' was made with {grouped[0]}='{configuration[grouped[0]]}', and its"
                " stored rows do not record their groups: groups would be split",
                hint="fit again on the old and new items",
            )
        network = saved.load_backbone(
            config.backbone,
            weights=config.weights,
            trust_code=config.trust_code,
            load=lambda spec: recalled_backbone(spec, session.cache.store),
        )
        return cls(saved, kept, configuration, network)

    def reading(self, given: ReadOptions) -> ReadOptions:
        """Return how new items are read: as those of the run, unless something else is given.

        Raises:
            ConfigError: another task is asked for, or groups that the run does not know.
        """
        saved, made = self.saved, self.configuration
        if given.task not in ("auto", saved.head.task):
            raise ConfigError(
                (f"task='{given.task}' does not match the run, whose task is {saved.head.task}",),
                hint="leave it out",
            )
        asked = given.group_column or given.group_pattern
        if asked and self.kept.train.groups is None:
            raise ConfigError(
                (
                    "the run does not record groups of its items, so new items cannot be assigned"
                    " to them",
                ),
                hint="fit again on the old and new items",
            )
        changed: dict[str, Any] = {"task": saved.head.task}
        if saved.value_range is not None and given.value_range is None:
            changed["value_range"] = saved.value_range
        if saved.head.task != CLASSIFICATION.name:
            changed["label_column"] = given.label_column or saved.label_column
        if saved.columns:
            changed["columns"] = ",".join(column.name for column in saved.columns)
        if self.kept.train.groups is not None and not asked:
            changed |= {n: made.get(n) for n in ("group_column", "group_pattern")}
        return dataclasses.replace(given, **changed)

    def settings(self, session: Session) -> Extraction:
        """Return how items are extracted: in the precision and storage of the run."""
        return dataclasses.replace(
            session.run.extraction(), precision=self.saved.precision, storage=self.saved.storage
        )

    def rows(self, split: KeptSplit, session: Session) -> NDArray[Any]:
        """Return the features of old items: those that were kept, or those of the cache."""
        return features_of(split, session.cache, self.backbone, self.settings(session))


def targets_of(kept: KeptSplit, classes: tuple[str, ...]) -> NDArray[Any]:
    """Return what old items are labelled with; a label that is new to the run, no old one has."""
    if kept.targets is None:
        return kept.labels
    more = len(classes) - kept.targets.shape[1]
    return np.pad(kept.targets, ((0, 0), (0, more)))


__all__ = ["OldRun", "targets_of"]
