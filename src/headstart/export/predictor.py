"""A run as what predicts: the one description that modules and artefacts are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.backbones import Backbone
from headstart.core.errors import BackboneError
from headstart.core.records import Precision, Storage
from headstart.data.levels import ValueRange
from headstart.data.table_columns import Encodings
from headstart.heads import Head


@dataclass(frozen=True, eq=False)
class Predictor:
    """Backbone and head of a run, and what its features depend on.

    Attributes:
        head: the trained head, with its task, its temperature and its thresholds.
        classes: class names, in the order of the head's outputs; names of labels or targets.
        backbone: the network with its inputs, cut and pooled as the head was trained on.
        precision, storage: how its features were computed and stored.
        value_range: the values of black and white that its data were read with; None: by type.
        columns: of a table that join the features; empty where none do.
    """

    head: Head
    classes: tuple[str, ...]
    backbone: Backbone
    precision: Precision
    storage: Storage
    value_range: ValueRange | None = None
    columns: Encodings = ()

    def alone(self) -> Predictor:
        """Return the predictor, if an item alone is all that it needs.

        Raises:
            BackboneError: columns of a table join the features.
        """
        if self.columns:
            named = ", ".join(f"'{each.name}'" for each in self.columns)
            raise BackboneError(
                f"the run joins columns of a table to the features ({named}), which an item by"
                " itself does not have",
                hint="predict with the run itself, or fit without columns",
            )
        return self


def told_name(source: str) -> str:
    """Return what a backbone is called elsewhere: of a path of this machine only the last part."""
    family, _, name = source.partition("/")
    if name.startswith(("/", ".", "~")):
        return f"{family}/{Path(name).name}"
    return Path(source).name if source.startswith(("/", ".", "~")) else source


__all__ = ["Predictor", "told_name"]
