"""Backbones: a module with its preprocessing, its ordered blocks and its cut."""

from headstart.backbones.backbone import Backbone, Layer, features_of
from headstart.backbones.load import load_backbone
from headstart.modules.pooling import Pooling

__all__ = ["Backbone", "Layer", "Pooling", "features_of", "load_backbone"]
