"""The options of ``examine``."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.commands.settings import Signature
from headstart.core.settings import check, option
from headstart.heads.contract import NEAR


@dataclass(frozen=True)
class ExamineConfig:
    """The settings of :func:`headstart.examine`.

    Attributes:
        repetitions: of the learning curve.
        threshold: cosine of centred features from which two items are near copies.
        most: how many rows of each list the terminal shows; the report and the JSON have more.
    """

    repetitions: int = option(5, "Repetitions of the learning curve.", at_least=1)
    threshold: float = option(
        NEAR, "Cosine from which two items are near copies.", at_least=-1, at_most=1
    )
    most: int = option(20, "Rows of each list that are printed.", at_least=1, record=False)

    def __post_init__(self) -> None:
        check(self)


EXAMINE = Signature("examine", ExamineConfig())


__all__ = ["EXAMINE", "ExamineConfig"]
