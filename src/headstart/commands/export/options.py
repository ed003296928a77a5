"""The options of ``export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.commands.card.options import CardConfig
from headstart.commands.opening import OpenConfig
from headstart.commands.settings import Signature
from headstart.core.settings import option
from headstart.export.formats import describe_formats, format_names

TOLERANCE = 1e-4
"""The largest difference of a probability, in float32."""


@dataclass(frozen=True)
class ExportConfig(CardConfig, OpenConfig):
    """The settings of :func:`headstart.export`.

    Attributes:
        to: the format.
        output: the folder of the artefact; None: that of the run, with ``-`` and the format behind
            its name.
        data: items that the artefact is measured on; None: those that the run was made with, where
            they still are.
        tolerance: the largest difference of a probability from the run's that is allowed.
        items: so many items are measured, spread evenly over the data.
    """

    to: str = option(
        "onnx",
        lambda: f"Format of the artefact. {describe_formats()}",
        choices=format_names,
        metavar="FORMAT",
    )
    output: Path | None = option(
        None,
        "Folder of the artefact.",
        shown="RUN-FORMAT",
        metavar="DIR",
        flags=("--out", "-o"),
        record=False,
    )
    data: str | None = option(
        None,
        "Items to check the artefact on, in any form that predict takes.",
        shown="the run's own",
        metavar="DATA",
        record=False,
    )
    tolerance: float = option(
        TOLERANCE,
        "Largest allowed difference between probabilities of the run and the artefact.",
        above=0,
    )
    items: int = option(32, "Number of items to check.", at_least=1)


EXPORT = Signature(
    "export",
    ExportConfig(),
    without={
        "precision": "the run determines it",
        "storage": "the run determines it",
        "seed": "it makes no random choices",
        "out": "it writes no run folder; output names the artefact's folder",
        "write": "it writes no run folder",
        "train": "nothing is trained",
        "test_fraction": "no test split is set aside",
        "label_column": "labels are not read",
        "columns": "the run determines them",
        "task": "the run determines it",
        "group_column": "the data are not split",
        "group_pattern": "the data are not split",
    },
    builds=False,
)

__all__ = ["EXPORT", "TOLERANCE", "ExportConfig"]
