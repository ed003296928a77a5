"""Which way of running the backbone is right for this data, and why.

A configuration is data (:class:`Configuration`). :func:`run_study` plans the forward passes that a
set of them needs, runs each distinct one once, trains a head in every repetition, measures causes
beside accuracies, and ends in findings and a recommendation. A :class:`Tuner` trains the backbone
for configurations that fine-tune.
"""

from headstart.study.configurations import (
    DEFAULT,
    PRESETS,
    REFERENCE,
    TERMS,
    Configuration,
    parse,
    register,
    resolve,
)
from headstart.study.findings import register_rule
from headstart.study.heads import Fitted, HeadSpec, tutorial_head
from headstart.study.plan import Tuning
from headstart.study.results import Comparison, Evidence, Finding, Outcome, Recommendation
from headstart.study.settings import CompareConfig
from headstart.study.study import run_study
from headstart.study.tuning import Tuner

__all__ = [
    "DEFAULT",
    "PRESETS",
    "REFERENCE",
    "TERMS",
    "CompareConfig",
    "Comparison",
    "Configuration",
    "Evidence",
    "Finding",
    "Fitted",
    "HeadSpec",
    "Outcome",
    "Recommendation",
    "Tuner",
    "Tuning",
    "parse",
    "register",
    "register_rule",
    "resolve",
    "run_study",
    "tutorial_head",
]
