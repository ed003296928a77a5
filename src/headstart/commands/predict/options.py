"""The options of ``predict`` and ``evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.commands.opening import OpenConfig
from headstart.commands.settings import Signature
from headstart.core.settings import option


@dataclass(frozen=True)
class EvaluateConfig(OpenConfig):
    """The settings of :func:`headstart.evaluate`.

    Attributes:
        include_training: score items that trained the run, too.
    """

    include_training: bool = option(
        False,
        "Score items that trained the run, too, which are left out otherwise.",
    )


@dataclass(frozen=True)
class PredictConfig(OpenConfig):
    """The settings of :func:`headstart.predict`.

    Attributes:
        table: write the predictions to this CSV or Parquet file.
        top: how many classes the table has per item.
    """

    table: Path | None = option(
        None,
        "Write predictions to this .csv or .parquet file.",
        metavar="FILE",
        flags=("--out", "-o"),
        record=False,
    )
    top: int = option(3, "Classes per item.", at_least=1)


_OF_THE_RUN = {
    "precision": "it is that of the run",
    "storage": "it is that of the run",
    "seed": "nothing is drawn",
    "out": "there is no run folder",
    "write": "there is no run folder",
    "train": "nothing is trained",
    "test_fraction": "nothing is set aside",
}
PREDICT = Signature(
    "predict",
    PredictConfig(),
    without={
        **_OF_THE_RUN,
        "label_column": "labels are not read",
        "task": "it is that of the run",
        "group_column": "nothing is divided",
        "group_pattern": "nothing is divided",
        "test": "all items are used",
    },
    builds=False,
)
EVALUATE = Signature(
    "evaluate",
    EvaluateConfig(),
    without={name: why for name, why in _OF_THE_RUN.items() if name != "out"},
    shown={"out": "nothing is written"},
    builds=False,
)


__all__ = ["EVALUATE", "PREDICT", "EvaluateConfig", "PredictConfig"]
