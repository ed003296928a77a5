"""Content digests that tie a run to its backbone and its data."""

from __future__ import annotations

from headstart.backbones import Backbone
from headstart.cache import describe_space
from headstart.core.fingerprints import canonical_json, fingerprint
from headstart.data import Split
from headstart.extraction import Precision, Storage
from headstart.store import space_key


def backbone_fingerprint(
    backbone: Backbone, precision: Precision, storage: Storage = "float32"
) -> str:
    """Return the key of the backbone's feature space: weights, code, preprocessing, cut."""
    return space_key(describe_space(backbone, precision, storage=storage))


def split_fingerprint(split: Split) -> str:
    """Return the digest of a split's items and labels, in order."""
    lines = [[key, int(label)] for key, label in zip(split.ids, split.labels, strict=True)]
    return fingerprint(canonical_json([list(split.classes), lines], compact=False))
