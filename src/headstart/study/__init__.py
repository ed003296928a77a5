"""Which way of running the backbone is right for this data, and why.

A configuration is data (:class:`Configuration`). :func:`run_study` plans the forward passes that a
set of them needs, runs each distinct one once, trains a head in every repetition, measures causes
beside accuracies, and ends in findings and a recommendation. A :class:`Tuner` trains the backbone
for configurations that fine-tune.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.core.lazy import contents

if TYPE_CHECKING:
    from headstart.study.comparison import Comparison as Comparison
    from headstart.study.configurations import Configuration as Configuration
    from headstart.study.findings import register_rule as register_rule
    from headstart.study.heads import Fitted as Fitted
    from headstart.study.heads import HeadSpec as HeadSpec
    from headstart.study.heads import tutorial_head as tutorial_head
    from headstart.study.names import DEFAULT as DEFAULT
    from headstart.study.names import PRESETS as PRESETS
    from headstart.study.names import REFERENCE as REFERENCE
    from headstart.study.names import TERMS as TERMS
    from headstart.study.names import parse as parse
    from headstart.study.names import register as register
    from headstart.study.names import resolve as resolve
    from headstart.study.plan import Tuning as Tuning
    from headstart.study.results import Evidence as Evidence
    from headstart.study.results import Finding as Finding
    from headstart.study.results import Outcome as Outcome
    from headstart.study.results import Recommendation as Recommendation
    from headstart.study.settings import CompareConfig as CompareConfig
    from headstart.study.study import run_study as run_study
    from headstart.study.tuning import Tuner as Tuner

__getattr__, __dir__, __all__ = contents(
    __name__,
    {
        "comparison": ("Comparison",),
        "configurations": ("Configuration",),
        "findings": ("register_rule",),
        "heads": ("Fitted", "HeadSpec", "tutorial_head"),
        "names": (
            "DEFAULT",
            "PRESETS",
            "REFERENCE",
            "TERMS",
            "parse",
            "register",
            "resolve",
        ),
        "plan": ("Tuning",),
        "results": ("Evidence", "Finding", "Outcome", "Recommendation"),
        "settings": ("CompareConfig",),
        "study": ("run_study",),
        "tuning": ("Tuner",),
    },
)
