"""headstart: transfer learning on frozen backbones.

Embed once, train heads in seconds, thaw only what pays, and prove that what was frozen stayed
frozen. This module is the table of contents; every name loads its room on first use, so that
``import headstart`` itself imports no heavy library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headstart._version import __version__
from headstart.core.errors import HeadstartError

if TYPE_CHECKING:
    # Type checkers see the names here; at run time __getattr__ loads them from _ROOMS.
    from headstart.backbones import Backbone as Backbone
    from headstart.backbones import load_backbone as load_backbone
    from headstart.backbones.groups import block_groups as block_groups
    from headstart.backbones.groups import param_groups as param_groups
    from headstart.backbones.weights import load_weights as load_weights
    from headstart.cache import FeatureCache as FeatureCache
    from headstart.commands.advise.job import advise as advise
    from headstart.commands.compare.job import compare as compare
    from headstart.commands.examine.job import examine as examine
    from headstart.commands.finetune.job import finetune as finetune
    from headstart.commands.fit.job import FitConfig as FitConfig
    from headstart.commands.fit.job import fit as fit
    from headstart.commands.predict.job import evaluate as evaluate
    from headstart.commands.predict.job import predict as predict
    from headstart.commands.run_folder import Run as Run
    from headstart.commands.run_folder import open_run as open_run
    from headstart.commands.sweep.job import sweep as sweep
    from headstart.data import Dataset as Dataset
    from headstart.data import Preprocessing as Preprocessing
    from headstart.data import Split as Split
    from headstart.data import View as View
    from headstart.data import load_data as load_data
    from headstart.data import load_items as load_items
    from headstart.extraction import Extraction as Extraction
    from headstart.extraction import extract as extract
    from headstart.finetuning import Recipe as Recipe
    from headstart.finetuning import Stage as Stage
    from headstart.finetuning import freeze_and_cache as freeze_and_cache
    from headstart.freezing import FreezePolicy as FreezePolicy
    from headstart.freezing import blend as blend
    from headstart.freezing import digest as digest
    from headstart.freezing import digests as digests
    from headstart.freezing import drift as drift
    from headstart.freezing import freeze as freeze
    from headstart.freezing import guard as guard
    from headstart.freezing import reestimate as reestimate
    from headstart.prefix import find_cut as find_cut

_ROOMS: dict[str, str] = {
    # data
    "load_data": "headstart.data",
    "load_items": "headstart.data",
    "Dataset": "headstart.data",
    "Split": "headstart.data",
    "Preprocessing": "headstart.data",
    "View": "headstart.data",
    # backbones
    "load_backbone": "headstart.backbones",
    "Backbone": "headstart.backbones",
    "load_weights": "headstart.backbones.weights",
    "block_groups": "headstart.backbones.groups",
    "param_groups": "headstart.backbones.groups",
    # the freeze contract
    "FreezePolicy": "headstart.freezing",
    "freeze": "headstart.freezing",
    "guard": "headstart.freezing",
    "reestimate": "headstart.freezing",
    "blend": "headstart.freezing",
    "drift": "headstart.freezing",
    "digest": "headstart.freezing",
    "digests": "headstart.freezing",
    # features
    "extract": "headstart.extraction",
    "Extraction": "headstart.extraction",
    "FeatureCache": "headstart.cache",
    # jobs
    "fit": "headstart.commands.fit.job",
    "FitConfig": "headstart.commands.fit.job",
    "Run": "headstart.commands.run_folder",
    "open_run": "headstart.commands.run_folder",
    "predict": "headstart.commands.predict.job",
    "evaluate": "headstart.commands.predict.job",
    "sweep": "headstart.commands.sweep.job",
    "examine": "headstart.commands.examine.job",
    "compare": "headstart.commands.compare.job",
    "finetune": "headstart.commands.finetune.job",
    "advise": "headstart.commands.advise.job",
    "Recipe": "headstart.finetuning",
    "Stage": "headstart.finetuning",
    # the cut
    "find_cut": "headstart.prefix",
    "freeze_and_cache": "headstart.finetuning",
}

__all__ = ["HeadstartError", "__version__", *_ROOMS]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    value = getattr(importlib.import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
