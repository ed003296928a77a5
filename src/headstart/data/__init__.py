"""Items with labels from anywhere: known by content, in splits, decoded into batches.

:func:`load_data` reads a source into a :class:`Dataset` of :class:`Split` objects;
:func:`read_batches` decodes a split into batches, ahead in threads, by the :class:`Inputs` of a
backbone (for images a :class:`Preprocessing`).
"""

from headstart.core.arguments import Arguments
from headstart.core.records import Excerpt
from headstart.data.bands import Bands
from headstart.data.content import Content, UndecodableError, digest
from headstart.data.dataset import UNLABELLED, Dataset, Split
from headstart.data.inputs import (
    INPUT_KINDS,
    Inputs,
    NumberedView,
    Variant,
    inputs_kind,
    register_inputs,
)
from headstart.data.item_files import DigestMemo
from headstart.data.items import Items
from headstart.data.loading import (
    load_data,
    load_items,
    load_parts,
    load_test_data,
    load_training_data,
)
from headstart.data.patches import Patches
from headstart.data.preprocessing import Preprocessing
from headstart.data.reading import (
    BadItem,
    Batch,
    BatchReader,
    decode_seconds,
    read_batches,
    settle_bad_items,
    unreadable,
)
from headstart.data.sounds import Sounds
from headstart.data.source import Part, Request, Source, SourceKind, register_source
from headstart.data.texts import Texts
from headstart.data.transforms import TransformView, transform_views
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
    "INPUT_KINDS",
    "STANDARD",
    "UNLABELLED",
    "Arguments",
    "BadItem",
    "Bands",
    "Batch",
    "BatchReader",
    "ColourJitter",
    "Content",
    "Dataset",
    "DigestMemo",
    "Excerpt",
    "Flip",
    "Inputs",
    "Items",
    "NumberedView",
    "Part",
    "Patches",
    "Preprocessing",
    "RandomResizedCrop",
    "Request",
    "Rotation",
    "Sounds",
    "Source",
    "SourceKind",
    "Split",
    "Texts",
    "TransformView",
    "UndecodableError",
    "Variant",
    "View",
    "decode_seconds",
    "digest",
    "inputs_kind",
    "load_data",
    "load_items",
    "load_parts",
    "load_test_data",
    "load_training_data",
    "numbered_views",
    "read_batches",
    "register_inputs",
    "register_source",
    "settle_bad_items",
    "transform_views",
    "unreadable",
]
