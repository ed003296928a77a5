"""headstart: transfer learning on frozen backbones.

Embed once, train heads in seconds, thaw only what pays, and prove that what was frozen stayed
frozen. This module is a table of contents: every name loads its package on first use, so that
``import headstart`` itself imports no heavy library. The packages ``headstart.audit``,
``headstart.freezing``, ``headstart.heads`` and ``headstart.store`` are documented for use on their
own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart._version import __version__
from headstart.core.errors import HeadstartError
from headstart.core.lazy import contents

if TYPE_CHECKING:
    from headstart.backbones import Backbone as Backbone
    from headstart.backbones import load_backbone as load_backbone
    from headstart.backbones.groups import param_groups as param_groups
    from headstart.backbones.weights import load_weights as load_weights
    from headstart.cache import FeatureCache as FeatureCache
    from headstart.commands import BackboneSpec as BackboneSpec
    from headstart.commands import ReadOptions as ReadOptions
    from headstart.commands import Run as Run
    from headstart.commands import RunOptions as RunOptions
    from headstart.commands import open_run as open_run
    from headstart.commands.advise.job import advise as advise
    from headstart.commands.card.job import card as card
    from headstart.commands.compare.job import compare as compare
    from headstart.commands.examine.job import examine as examine
    from headstart.commands.export.job import export as export
    from headstart.commands.finetune.job import finetune as finetune
    from headstart.commands.fit.job import fit as fit
    from headstart.commands.predict.job import evaluate as evaluate
    from headstart.commands.predict.job import predict as predict
    from headstart.commands.push.job import push as push
    from headstart.commands.serve.job import serve as serve
    from headstart.commands.serve.job import serving as serving
    from headstart.commands.similar.job import similar as similar
    from headstart.commands.suggest.job import suggest as suggest
    from headstart.commands.sweep.job import sweep as sweep
    from headstart.commands.sweep.rank.job import rank as rank
    from headstart.commands.update.job import update as update
    from headstart.commands.view.job import view as view
    from headstart.data import Dataset as Dataset
    from headstart.data import Preprocessing as Preprocessing
    from headstart.data import Split as Split
    from headstart.data import load_data as load_data
    from headstart.data import load_items as load_items
    from headstart.extraction import extract as extract
    from headstart.finetuning import Recipe as Recipe
    from headstart.finetuning import Stage as Stage
    from headstart.finetuning import freeze_and_cache as freeze_and_cache
    from headstart.freezing import FreezePolicy as FreezePolicy
    from headstart.freezing import freeze as freeze
    from headstart.freezing import guard as guard
    from headstart.freezing import reestimate as reestimate

__getattr__, __dir__, _names = contents(
    __name__,
    {
        "data": (
            "Dataset",
            "Preprocessing",
            "Split",
            "load_data",
            "load_items",
        ),
        "backbones": (
            "Backbone",
            "load_backbone",
        ),
        "backbones.groups": ("param_groups",),
        "backbones.weights": ("load_weights",),
        "freezing": (
            "FreezePolicy",
            "freeze",
            "guard",
            "reestimate",
        ),
        "extraction": ("extract",),
        "cache": ("FeatureCache",),
        "finetuning": (
            "Recipe",
            "Stage",
            "freeze_and_cache",
        ),
        "commands": (
            "BackboneSpec",
            "ReadOptions",
            "Run",
            "RunOptions",
            "open_run",
        ),
        "commands.fit.job": ("fit",),
        "commands.predict.job": (
            "evaluate",
            "predict",
        ),
        "commands.sweep.rank.job": ("rank",),
        "commands.suggest.job": ("suggest",),
        "commands.sweep.job": ("sweep",),
        "commands.update.job": ("update",),
        "commands.card.job": ("card",),
        "commands.export.job": ("export",),
        "commands.push.job": ("push",),
        "commands.examine.job": ("examine",),
        "commands.serve.job": (
            "serve",
            "serving",
        ),
        "commands.similar.job": ("similar",),
        "commands.view.job": ("view",),
        "commands.compare.job": ("compare",),
        "commands.finetune.job": ("finetune",),
        "commands.advise.job": ("advise",),
    },
    packages=("audit", "freezing", "heads", "store"),
)

__all__ = ["HeadstartError", "__version__", *_names]
