"""The curves of a training in TensorBoard, MLflow or Weights & Biases.

After every epoch the loggers receive the records that they lack, of all records so far: a run that
resumes after a kill logs no epoch twice and leaves none out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.commands.loggers import Loggers, open_loggers
from headstart.commands.scoring import tested_figures
from headstart.core.progress import Reporter
from headstart.core.records import FIELDS, to_plain
from headstart.finetuning.outcome import EpochRecord
from headstart.finetuning.plan import Plan

if TYPE_CHECKING:
    from lightning.fabric.loggers.logger import Logger

    from headstart.commands.scoring import AnyEvaluation


class EpochLoggers(Loggers):
    """The loggers of a training; steps are epochs counted over all stages, the start being 0."""

    _step = 0

    def epochs(self, records: Sequence[EpochRecord]) -> None:
        """Log the records that are not logged yet; ``records`` are all so far."""
        self._step = len(records) - 1

        def log(name: str, logger: Logger) -> None:
            for step in range(self._logged[name], len(records)):
                logger.log_metrics(_figures(records[step]), step)
                logger.save()
                self._logged[name] = step + 1

        self._each(log)

    def test(self, evaluation: AnyEvaluation) -> None:
        """Log the scores on the test split, at the last step."""
        self.figures(tested_figures(evaluation), self._step)


def open_epoch_loggers(
    names: Sequence[str],
    folder: Path,
    settings: Mapping[str, Any],
    plan: Plan,
    *,
    resumed: bool,
    reporter: Reporter,
) -> AbstractContextManager[EpochLoggers]:
    """Open loggers of a training; see :func:`headstart.commands.loggers.open_loggers`.

    Args:
        names, folder, settings, resumed, reporter: as there.
        plan: kept whole; its main figures are hyper-parameters, too.
    """
    return open_loggers(
        names,
        folder,
        {**settings, "plan": _planned_figures(plan)},
        reporter,
        plan=to_plain(plan),
        resumed=resumed,
        made=EpochLoggers,
    )


def _figures(record: EpochRecord) -> dict[str, float]:
    """Return what is logged of an epoch; the start has no training figures."""
    named = FIELDS[record.figure]
    figures = {
        "train/loss": record.train_loss,
        f"train/{named}": record.train_score,
        "validation/loss": record.validation_loss,
        f"validation/{named}": record.validation_score,
        "rate": record.rate,
        "seconds": record.seconds,
        "stage": float(record.stage),
    }
    return {name: value for name, value in figures.items() if value is not None}


def _planned_figures(plan: Plan) -> dict[str, Any]:
    """Return what of a plan is worth comparing runs by."""
    stages = [
        {
            "groups": stage.groups,
            "trainable": stage.trainable,
            "parameters": stage.parameters,
            "stored_rows": stage.cut is not None and stage.cut.read,
        }
        for stage in plan.stages
    ]
    return {"n_train": plan.n_train, "n_validation": plan.n_validation, "stage": stages}


__all__ = ["EpochLoggers", "open_epoch_loggers"]
