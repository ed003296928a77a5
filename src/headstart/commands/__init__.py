"""Commands: one folder for each, the same from Python and from the command line.

Every one is called as ``command(data, backbone, *, config=None, run=None, reading=None,
**overrides)``: its own settings, those that all commands share, how to read the data, and single
values that override any of them. The functions themselves are names of ``headstart``; here are
their settings and results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.core.lazy import contents

if TYPE_CHECKING:
    from headstart.commands.advise.indicators import Advice as Advice
    from headstart.commands.advise.options import AdviseConfig as AdviseConfig
    from headstart.commands.backbone_spec import BackboneSpec as BackboneSpec
    from headstart.commands.card.options import CardFileConfig as CardFileConfig
    from headstart.commands.compare.job import ComparisonRun as ComparisonRun
    from headstart.commands.compare.options import CompareConfig as CompareConfig
    from headstart.commands.examine.examination import Examination as Examination
    from headstart.commands.examine.options import ExamineConfig as ExamineConfig
    from headstart.commands.export.job import Exported as Exported
    from headstart.commands.export.options import ExportConfig as ExportConfig
    from headstart.commands.finetune.job import plan_finetune as plan_finetune
    from headstart.commands.finetune.options import FinetuneConfig as FinetuneConfig
    from headstart.commands.fit.options import FitConfig as FitConfig
    from headstart.commands.predict.options import EvaluateConfig as EvaluateConfig
    from headstart.commands.predict.options import PredictConfig as PredictConfig
    from headstart.commands.predict.predictions import Predictions as Predictions
    from headstart.commands.push.options import PushConfig as PushConfig
    from headstart.commands.run import Run as Run
    from headstart.commands.saved_run import SavedRun as SavedRun
    from headstart.commands.saved_run import open_run as open_run
    from headstart.commands.settings import ReadOptions as ReadOptions
    from headstart.commands.settings import RunOptions as RunOptions
    from headstart.commands.sweep.job import SweepResult as SweepResult
    from headstart.commands.sweep.options import SweepConfig as SweepConfig
    from headstart.commands.update.options import UpdateConfig as UpdateConfig

__getattr__, __dir__, __all__ = contents(
    __name__,
    {
        "settings": (
            "ReadOptions",
            "RunOptions",
        ),
        "backbone_spec": ("BackboneSpec",),
        "run": ("Run",),
        "saved_run": (
            "SavedRun",
            "open_run",
        ),
        "card.options": ("CardFileConfig",),
        "push.options": ("PushConfig",),
        "export.options": ("ExportConfig",),
        "export.job": ("Exported",),
        "fit.options": ("FitConfig",),
        "predict.options": (
            "EvaluateConfig",
            "PredictConfig",
        ),
        "predict.predictions": ("Predictions",),
        "sweep.options": ("SweepConfig",),
        "sweep.job": ("SweepResult",),
        "examine.options": ("ExamineConfig",),
        "examine.examination": ("Examination",),
        "compare.options": ("CompareConfig",),
        "compare.job": ("ComparisonRun",),
        "finetune.options": ("FinetuneConfig",),
        "finetune.job": ("plan_finetune",),
        "advise.options": ("AdviseConfig",),
        "advise.indicators": ("Advice",),
        "update.options": ("UpdateConfig",),
    },
)
