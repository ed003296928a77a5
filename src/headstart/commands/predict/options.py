"""The options of ``predict`` and ``evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from headstart.commands.opening import OpenConfig
from headstart.commands.settings import Signature
from headstart.core.settings import Fault, option

if TYPE_CHECKING:
    from headstart.commands.abstaining import Asked
    from headstart.commands.unlike import Wanted


@dataclass(frozen=True)
class AnswerConfig(OpenConfig):
    """How sure an answer has to be.

    Attributes:
        coverage: the share of items whose truth is to be in the set of what is said of it; see
            :class:`headstart.heads.held_out.Calibration`. None: every item is answered.
        by_class: that share of every class, not only of all items together.
        set_score: how badly a class fits an item: ``lac`` makes the smallest sets, ``aps`` and
            ``raps`` make them larger where an item is hard.
        ood: how items are told that are unlike anything that trained the run; see
            :mod:`headstart.heads.outliers`. None: they are not.
        false_alarms: the share of ordinary items that may be flagged.
    """

    coverage: float | None = option(
        None,
        "Predict sets that contain the truth for this share of items (0.95), and abstain where a"
        " set is not a single answer.",
        above=0,
        below=1,
        shown="a single answer per item",
    )
    by_class: bool = option(False, "Promise that share for every class separately.")
    set_score: Literal["lac", "aps", "raps"] = option(
        "lac",
        "lac: the smallest sets. aps: sets that grow for hard items. raps: aps, with a penalty"
        " on classes far down the list.",
    )
    ood: Literal["knn", "mahalanobis"] | None = option(
        None,
        "Flag items that are unlike anything in the training split. knn: by the nearest training"
        " items; mahalanobis: by the nearest class mean.",
        shown="none are flagged",
    )
    false_alarms: float = option(
        0.05, "With --ood: the share of ordinary items that may be flagged.", above=0, below=1
    )

    def faults(self) -> list[str]:
        """Refuse what belongs to a coverage, or to flagging, where that is not asked for."""
        given = {"by_class": self.by_class, "set_score": self.set_score != "lac"}
        faults = [Fault(n, "requires coverage") for n, on in given.items() if on]
        faults = faults if self.coverage is None else []
        if self.ood is None and self.false_alarms != type(self).false_alarms:
            faults.append(Fault("false_alarms", "requires ood"))
        return [*faults]

    @property
    def wanted(self) -> Wanted | None:
        """How strange items are to be told; None: not at all."""
        from headstart.commands.unlike import Wanted

        return None if self.ood is None else Wanted(self.ood, self.false_alarms)

    @property
    def asked(self) -> Asked | None:
        """What was asked for; None: nothing."""
        from headstart.commands.abstaining import Asked

        if self.coverage is None:
            return None
        return Asked(self.coverage, self.by_class, self.set_score)


@dataclass(frozen=True)
class EvaluateConfig(AnswerConfig):
    """The settings of :func:`headstart.evaluate`.

    Attributes:
        include_training: score items that trained the run, too.
    """

    include_training: bool = option(
        False,
        "Also score items that the run was trained on, which are skipped otherwise.",
    )


@dataclass(frozen=True)
class PredictConfig(AnswerConfig):
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
    "precision": "the run determines it",
    "storage": "the run determines it",
    "seed": "it makes no random choices",
    "out": "it writes no run folder",
    "write": "it writes no run folder",
    "train": "nothing is trained",
    "columns": "the run determines them",
    "test_fraction": "no test split is set aside",
}
PREDICT = Signature(
    "predict",
    PredictConfig(),
    without={
        **_OF_THE_RUN,
        "label_column": "labels are not read",
        "task": "the run determines it",
        "group_column": "the data are not split",
        "group_pattern": "the data are not split",
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


__all__ = ["EVALUATE", "PREDICT", "AnswerConfig", "EvaluateConfig", "PredictConfig"]
