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
        "Items that the artefact is measured on, as predict takes them.",
        shown="those that the run was made with",
        metavar="DATA",
        record=False,
    )
    tolerance: float = option(
        TOLERANCE, "Largest difference of a probability that is allowed.", above=0
    )
    items: int = option(32, "Items that are measured.", at_least=1)


EXPORT = Signature(
    "export",
    ExportConfig(),
    without={
        "precision": "it is that of the run",
        "storage": "it is that of the run",
        "seed": "nothing is drawn",
        "out": "there is no run folder; the artefact's is output",
        "write": "there is no run folder",
        "train": "nothing is trained",
        "test_fraction": "nothing is set aside",
        "label_column": "labels are not read",
        "columns": "they are those of the run",
        "task": "it is that of the run",
        "group_column": "nothing is divided",
        "group_pattern": "nothing is divided",
    },
    builds=False,
)

__all__ = ["EXPORT", "TOLERANCE", "ExportConfig"]
