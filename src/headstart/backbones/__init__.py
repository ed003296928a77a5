"""Backbones: a network with its inputs, its blocks and the layer that features are taken from."""

from typing import TYPE_CHECKING

from headstart.core.lazy import contents

if TYPE_CHECKING:
    from headstart.backbones.backbone import Backbone as Backbone
    from headstart.backbones.backbone import Layer as Layer
    from headstart.backbones.choice import AUTO as AUTO
    from headstart.backbones.choice import Choice as Choice
    from headstart.backbones.choice import choose as choose
    from headstart.backbones.choice import misfit as misfit
    from headstart.backbones.families import register_family as register_family
    from headstart.backbones.family import About as About
    from headstart.backbones.family import Family as Family
    from headstart.backbones.load import load_backbone as load_backbone
    from headstart.backbones.passes import features_of as features_of
    from headstart.modules.pooling import Pooling as Pooling

__getattr__, __dir__, __all__ = contents(
    __name__,
    {
        "backbone": ("Backbone", "Layer"),
        "choice": ("AUTO", "Choice", "choose", "misfit"),
        "families": ("register_family",),
        "family": ("About", "Family"),
        "load": ("load_backbone",),
        "passes": ("features_of",),
        "headstart.modules.pooling": ("Pooling",),
    },
)
