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
        "Index of this process in the array, from 0; or slurm, kubernetes, torchrun: read from"
        " their variables.",
        metavar="I",
        panel=RUNNING,
        record=False,
    )
    of: int | None = option(
        None,
        "Number of members in the array.",
        metavar="N",
        at_least=1,
        panel=RUNNING,
        record=False,
    )
    patience: float | None = option(
        None,
        "Seconds without a commit from another member after which this one computes its part.",
        shown="three times the time of a shard, at least 60",
        metavar="SECONDS",
        at_least=0,
        panel=RUNNING,
        record=False,
    )

    def __post_init__(self) -> None:
        check(self)


_NOTHING = {
    "seed": "it makes no random choices",
    "out": "it writes no run folder",
    "write": "it writes no run folder",
    "label_column": "labels are not read",
    "task": "labels are not read",
    "columns": "only the network's features are stored",
    "group_column": "the data are not split",
    "group_pattern": "the data are not split",
    "train": "items of all splits are extracted",
    "test": "items of all splits are extracted",
    "splits": "items of all splits are extracted",
    "test_fraction": "no test split is set aside",
}
EXTRACT = Signature("extract", ExtractConfig(), without=_NOTHING)


__all__ = ["EXTRACT", "ExtractConfig"]
