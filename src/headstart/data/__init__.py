"""Images with labels from anywhere: items known by content, splits, preprocessing, batches.

The road: :func:`load_data` reads a source into a :class:`Dataset` of :class:`Split` objects;
:func:`read_batches` turns a split into batches of pixels, decoded ahead in threads by the rules
of a :class:`Preprocessing`. :mod:`~headstart.data.splits` divides items, pure functions only.
"""

from headstart.data.dataset import UNLABELLED, Dataset, Split
from headstart.data.items import DigestMemo, Items, digest
from headstart.data.loading import load_data, load_items, load_test_data
from headstart.data.preprocessing import Preprocessing
from headstart.data.reading import BadItem, Batch, BatchReader, read_batches, settle_bad_items
from headstart.data.views import (
    STANDARD,
    ColourJitter,
    Flip,
    RandomResizedCrop,
    Rotation,
    View,
    numbered_views,
)

__all__ = [
    "STANDARD",
    "UNLABELLED",
    "BadItem",
    "Batch",
    "BatchReader",
    "ColourJitter",
    "Dataset",
    "DigestMemo",
    "Flip",
    "Items",
    "Preprocessing",
    "RandomResizedCrop",
    "Rotation",
    "Split",
    "View",
    "digest",
    "load_data",
    "load_items",
    "load_test_data",
    "numbered_views",
    "read_batches",
    "settle_bad_items",
]
