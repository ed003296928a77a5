"""All checks, in one table. A check is one small file; to add one:

1. Write ``checks/NAME.py`` with a subclass of :class:`headstart.audit.check.Check`. It has a
   ``code``, overrides the events that it needs, and yields findings from ``finish``::

       class BatchOfOne(Check):
           \"\"\"A batch of one item under batch norm.\"\"\"

           code = "batch-of-one"
           severity = "warning"
           cost = "the item is normalised by itself"

           def finish(self, scene: Scene) -> Iterator[Finding]:
               for seen in scene.passes_for("training"):
                   for call in seen.calls:
                       if call.training and call.part.normalises and seen.rows == 1:
                           yield self.finding(
                               f"{call.part.name} normalised a batch of one",
                               module=call.part.name, place=seen.place,
                               evidence={"rows": seen.rows}, fix="DataLoader(..., drop_last=True)",
                           )

Return:
   ``headstart.audit.events`` lists what is observed, ``headstart.audit.scene`` what is known of the
   run as a whole (passes by purpose, parameters, optimizers, schedulers, loaders).
2. Enter the class in ``CHECKS``, below. From outside the package: :func:`register_check`.
3. Write ``docs/findings/CODE.md``, and a faulty script with its mended twin in
   ``tests/audit/scripts``: ``CODE_faulty.py``, ``CODE_mended.py``.

What a script computes must not change: run a network again only inside of
:func:`headstart.audit.measuring.trial`. Decide by what runs, never by names.
"""

from __future__ import annotations

from headstart.audit.check import Check
from headstart.audit.checks.accumulation_with_batch_norm import AccumulationWithBatchNorm
from headstart.audit.checks.augmented_evaluation import AugmentedEvaluation
from headstart.audit.checks.augmented_features import AugmentedFeatures
from headstart.audit.checks.averaged_statistics import AveragedStatistics
from headstart.audit.checks.batch_of_one import BatchOfOne
from headstart.audit.checks.batch_statistics_in_evaluation import BatchStatisticsInEvaluation
from headstart.audit.checks.batch_statistics_in_extraction import BatchStatisticsInExtraction
from headstart.audit.checks.class_ordered_batches import ClassOrderedBatches
from headstart.audit.checks.classifier_not_removed import ClassifierNotRemoved
from headstart.audit.checks.copies import TrainTestCopies
from headstart.audit.checks.dropout_in_extraction import DropoutInExtraction
from headstart.audit.checks.dropout_in_frozen_part import DropoutInFrozenPart
from headstart.audit.checks.eval_undone import EvalUndone
from headstart.audit.checks.evaluation_in_training_mode import EvaluationInTrainingMode
from headstart.audit.checks.feature_scale import FeatureScale
from headstart.audit.checks.frozen_batch_statistics import FrozenBatchStatistics
from headstart.audit.checks.frozen_parameter_moved import FrozenParameterMoved
from headstart.audit.checks.frozen_statistics_moved import FrozenStatisticsMoved
from headstart.audit.checks.group_without_effect import GroupWithoutEffect
from headstart.audit.checks.head_from_embeddings import HeadFromEmbeddings
from headstart.audit.checks.hooks_differ import HooksDiffer
from headstart.audit.checks.inference_tensors import InferenceTensors
from headstart.audit.checks.input_mismatch import InputMismatch
from headstart.audit.checks.input_resolution import InputResolution
from headstart.audit.checks.keras_batch_norm_moved import KerasBatchNormMoved
from headstart.audit.checks.keras_input_mismatch import KerasInputMismatch
from headstart.audit.checks.keras_random_in_predict import KerasRandomInPredict
from headstart.audit.checks.keras_trainable_after_compile import KerasTrainableAfterCompile
from headstart.audit.checks.keras_training_overridden import KerasTrainingOverridden
from headstart.audit.checks.optimizer_holds_frozen import OptimizerHoldsFrozen
from headstart.audit.checks.optimizer_holds_stale import OptimizerHoldsStale
from headstart.audit.checks.optimizer_misses_trainable import OptimizerMissesTrainable
from headstart.audit.checks.pooling import WrongPooling
from headstart.audit.checks.preprocessing_differs import PreprocessingDiffers
from headstart.audit.checks.rows_depend_on_batch import RowsDependOnBatch
from headstart.audit.checks.rows_differ import RowsDiffer
from headstart.audit.checks.schedulers import SchedulerMisstepped
from headstart.audit.checks.selection import TestDataSelects
from headstart.audit.checks.softmax_before_loss import SoftmaxBeforeLoss
from headstart.audit.checks.train_evaluation_gap import TrainEvaluationGap
from headstart.audit.checks.trained_in_evaluation_mode import TrainedInEvaluationMode
from headstart.audit.checks.wasted_gradients import WastedGradients
from headstart.core.errors import ConfigError

CHECKS: list[type[Check]] = [
    InputMismatch,
    TestDataSelects,
    KerasTrainingOverridden,
    KerasTrainableAfterCompile,
    KerasRandomInPredict,
    KerasInputMismatch,
    KerasBatchNormMoved,
    TrainEvaluationGap,
    SoftmaxBeforeLoss,
    PreprocessingDiffers,
    WrongPooling,
    InputResolution,
    HooksDiffer,
    HeadFromEmbeddings,
    FeatureScale,
    TrainTestCopies,
    ClassifierNotRemoved,
    ClassOrderedBatches,
    AugmentedFeatures,
    AugmentedEvaluation,
    FrozenParameterMoved,
    EvalUndone,
    FrozenStatisticsMoved,
    FrozenBatchStatistics,
    DropoutInFrozenPart,
    BatchStatisticsInExtraction,
    DropoutInExtraction,
    RowsDependOnBatch,
    RowsDiffer,
    EvaluationInTrainingMode,
    BatchStatisticsInEvaluation,
    AveragedStatistics,
    TrainedInEvaluationMode,
    OptimizerMissesTrainable,
    OptimizerHoldsStale,
    GroupWithoutEffect,
    SchedulerMisstepped,
    InferenceTensors,
    WastedGradients,
    BatchOfOne,
    AccumulationWithBatchNorm,
    OptimizerHoldsFrozen,
]
"""Every kind of finding, in the order in which equally bad ones are told."""


def register_check(check: type[Check]) -> type[Check]:
    """Add a check of your own behind the others, and return it; usable as a decorator.

    Raises:
        ConfigError: its code is taken.
    """
    if any(check.code == each.code for each in CHECKS):
        raise ConfigError((f"there is a check '{check.code}' already",))
    CHECKS.append(check)
    return check


def all_checks() -> tuple[Check, ...]:
    """Make one instance of every check, for one audit."""
    return tuple(check() for check in CHECKS)


__all__ = ["CHECKS", "all_checks", "register_check"]
