"""Which way of running the backbone is right for this data, and why.

A configuration is data (:class:`Configuration`); :func:`run_study` plans the forward passes that a
set of them needs, runs each distinct one once, trains a head on every repetition, measures causes
beside accuracies, and ends in findings and a recommendation. A :class:`Tuner` trains the backbone
for configurations that fine-tune.
"""

from headstart.study.configuration import Configuration
from headstart.study.heads import Fitted, HeadSpec, tutorial_head
from headstart.study.names import DEFAULT, PRESETS, REFERENCE, TERMS, parse, register, resolve
from headstart.study.plan import Tuning
from headstart.study.results import Comparison, Evidence, Finding, Outcome, Recommendation
from headstart.study.settings import StudySettings
from headstart.study.study import run_study
from headstart.study.tuning import Tuner

__all__ = [
    "DEFAULT",
    "PRESETS",
    "REFERENCE",
    "TERMS",
    "Comparison",
    "Configuration",
    "Evidence",
    "Finding",
    "Fitted",
    "HeadSpec",
    "Outcome",
    "Recommendation",
    "StudySettings",
    "Tuner",
    "Tuning",
    "parse",
    "register",
    "resolve",
    "run_study",
    "tutorial_head",
]
