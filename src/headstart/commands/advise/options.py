"""The options of ``advise``."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.commands.settings import Signature
from headstart.core.settings import check, option


@dataclass(frozen=True)
class AdviseConfig:
    """The settings of :func:`headstart.advise`.

    Attributes:
        epochs: of the trial. A few are enough to see whether it moves.
        lr: of the trial, with AdamW.
        repetitions: of the learning curve.
    """

    epochs: int = option(5, "Epochs of the trial of the last block.", at_least=1)
    lr: float = option(1e-4, "Learning rate of the trial.", above=0)
    repetitions: int = option(3, "Repetitions of the learning curve.", at_least=2)

    def __post_init__(self) -> None:
        check(self)


ADVISE = Signature(
    "advise",
    AdviseConfig(),
    without={
        "out": "it writes nothing",
        "write": "it writes nothing",
        "columns": "the trial trains the network, which takes only items",
        "precision": "it measures in float32",
        "storage": "it measures in float32",
        "engine": "the network is also trained",
        "on_bad": "it stops on an item that cannot be read",
    },
    weighs=False,
)

__all__ = ["ADVISE", "AdviseConfig"]
