"""The cache: feature space + items → rows, computing only what is missing.

A space holds the rows of one function: weights and buffers up to the cut, architecture, inputs,
layer, pooling, normalisation, precision. A row is known by the content of its item. So a second
run, another split, a renamed folder or added items cost only what is new.

:mod:`~headstart.cache.features` knows backbones; :mod:`~headstart.cache.fill` fills any space.
"""

from headstart.cache.computing import describe_space
from headstart.cache.features import CachedFeatures, FeatureCache
from headstart.cache.fill import Block, Filled, Filling, fill
from headstart.cache.parts import StoredPart, stored_parts
from headstart.store.places import default_location

__all__ = [
    "Block",
    "CachedFeatures",
    "FeatureCache",
    "Filled",
    "Filling",
    "StoredPart",
    "default_location",
    "describe_space",
    "fill",
    "stored_parts",
]
