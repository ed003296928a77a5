"""The options of ``extract``."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.commands.settings import RUNNING, Signature
from headstart.core.settings import check, option


@dataclass(frozen=True)
class ExtractConfig:
    """The settings of :func:`headstart.commands.extract.job.extract_features`.

    Attributes:
        index: which member of a job array this process is, from 0; or ``slurm``, ``kubernetes`` or
            ``torchrun``, whose variables then say it. Nothing is taken from them unasked.
        of: how many members the array has; the variables of Slurm and torchrun say it, too.
        patience: seconds without a commit of another member after which its part is computed here,
            where members share no disk that locks files. None: three times what a shard takes, and
            a minute at least.
    """

    index: str | None = option(
        None,
        "Which member of the array this process is, from 0; or slurm, kubernetes, torchrun: from"
        " their variables.",
        metavar="I",
        panel=RUNNING,
        record=False,
    )
    of: int | None = option(
        None,
        "How many members the array has.",
        metavar="N",
        at_least=1,
        panel=RUNNING,
        record=False,
    )
    patience: float | None = option(
        None,
        "Seconds without a commit of another member after which its part is computed here.",
        shown="three times what a shard takes, at least 60",
        metavar="SECONDS",
        at_least=0,
        panel=RUNNING,
        record=False,
    )

    def __post_init__(self) -> None:
        check(self)


_NOTHING = {
    "seed": "nothing is drawn",
    "out": "there is no run folder",
    "write": "there is no run folder",
    "label_column": "labels are not read",
    "task": "labels are not read",
    "columns": "rows of the network alone are stored",
    "group_column": "nothing is divided",
    "group_pattern": "nothing is divided",
    "train": "the items of all splits are extracted",
    "test": "the items of all splits are extracted",
    "splits": "the items of all splits are extracted",
    "test_fraction": "nothing is set aside",
}
EXTRACT = Signature("extract", ExtractConfig(), without=_NOTHING)


__all__ = ["EXTRACT", "ExtractConfig"]
