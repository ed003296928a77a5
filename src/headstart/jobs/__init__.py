"""Whole jobs, from data to a run folder; the command line and Python call the same ones."""

from headstart.jobs.advise import Advice, AdviseConfig, advise
from headstart.jobs.finetune import FinetuneConfig, finetune, plan_finetune
from headstart.jobs.fit import FitConfig, fit
from headstart.jobs.predict import Predictions, evaluate, predict
from headstart.jobs.runs import Run, SavedRun, open_run
from headstart.jobs.sources import DataOptions
from headstart.jobs.spec import BackboneSpec

__all__ = [
    "Advice",
    "AdviseConfig",
    "BackboneSpec",
    "DataOptions",
    "FinetuneConfig",
    "FitConfig",
    "Predictions",
    "Run",
    "SavedRun",
    "advise",
    "evaluate",
    "finetune",
    "fit",
    "open_run",
    "plan_finetune",
    "predict",
]
