"""Which items trained a run, known by their content: what ``evaluate`` must not take for new.

A run folder holds the content ids of its training items in ``training_items.json``, whose digest is
in ``run.json``. Names and places of files are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import DataError
from headstart.core.files import own_file, write_bytes
from headstart.core.fingerprints import sha256
from headstart.core.wording import count

if TYPE_CHECKING:
    from headstart.backbones import Backbone
    from headstart.cache import FeatureCache
    from headstart.data import Split
    from headstart.extraction import Extraction

TRAINING_FILE = "training_items.json"
_FORMAT = 1
_MOST_PAIRS = 2_000_000_000
"""Near copies are looked for among at most so many pairs: some ten seconds."""

Ids = Mapping[str, tuple[str, ...]]
"""Content ids by what they did: ``train``, and ``validation`` where items chose the epoch."""


def save_training_items(folder: Path, ids: Ids) -> None:
    """Write the ids into a run folder."""
    write_bytes(folder / TRAINING_FILE, _payload(ids))


def describe_training_items(ids: Ids) -> dict[str, Any]:
    """Return what ``run.json`` says of the file."""
    return {"file": TRAINING_FILE, "sha256": sha256(_payload(ids))}


def read_training_items(folder: Path, description: Mapping[str, Any]) -> Ids | None:
    """Return the ids of the items that trained a run; None where an older version kept none.

    Raises:
        DataError: the file is missing, or not the one that ``run.json`` names.
    """
    entry = description.get("training_items")
    if entry is None:
        return None
    path = own_file(folder, TRAINING_FILE)
    try:
        payload = path.read_bytes()
        if sha256(payload) != entry["sha256"]:
            raise ValueError("its SHA-256 is not the one in run.json")
        document = json.loads(payload)
        if document["format"] != _FORMAT:
            raise ValueError(f"its format is {document['format']!r}, expected {_FORMAT}")
        return {
            str(name): tuple(str(key) for key in keys) for name, keys in document["ids"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"'{path}' cannot be used: {error}", hint="restore the file, or fit again"
        ) from error


def new_items(split: Split, ids: Ids | None, *, include: bool) -> tuple[NDArray[np.int64], str]:
    """Return which items of a split are to be scored, and a note.

    Args:
        split: the items.
        ids: of the items that trained the run; None: not known.
        include: score the items that trained it, too.

    Returns:
        Positions in the split, ``(n,)``; and what is to be said, empty where there is nothing.

    Raises:
        DataError: every item trained the run.
    """
    everything = np.arange(len(split), dtype=np.int64)
    if ids is None:
        return everything, (
            "this run was written by an older version of headstart and does not record its"
            " training items: if any of these items are among them, the score is too optimistic"
        )
    trained = set().union(*ids.values())
    known = np.array([key in trained for key in split.ids], dtype=bool)
    if not known.any():
        return everything, ""
    one = known.sum() == 1
    which = f"{int(known.sum()):,} of {count(len(split), 'item')} {'has' if one else 'have'}"
    if include:
        return everything, f"{which} trained this run: the score is too optimistic"
    if known.all():
        raise DataError(
            f"all {count(len(split), 'item')} of the data trained this run: there is nothing new"
            " to score",
            hint="give other data; to score these anyway, pass include_training=True",
        )
    left = f"{which} trained this run and {'is' if one else 'are'} skipped"
    return everything[~known], f"{left}: {int((~known).sum()):,} are new and scored"


def near_copies_note(
    cache: FeatureCache, backbone: Backbone, settings: Extraction, split: Split, ids: Ids | None
) -> str:
    """Say which scored items nearly equal an item that trained the run, by their features.

    The features of both are in the cache where the run was made; elsewhere those of the training
    items are not, and nothing is looked for.

    Args:
        cache: of features.
        backbone: of the run.
        settings: how its features were computed and stored.
        split: the items that were scored.
        ids: of those that trained the run.
    """
    from headstart.cache.fill import missing_rows
    from headstart.heads import find_leaks

    trained: Sequence[str] = sorted(set().union(*ids.values())) if ids else ()
    space = cache.space(backbone, settings)
    if not 1 < len(trained) <= _MOST_PAIRS // max(len(split), 1):
        return ""
    if missing_rows((space,), (*trained, *split.ids)):
        return ""
    leaks = find_leaks(space.read(trained).array(), space.read(split.ids).array())
    if not leaks:
        return ""
    one = len(leaks) == 1
    return (
        f"{count(len(leaks), 'scored item')} nearly {'equals' if one else 'equal'} an item that"
        f" trained this run (such as {split.origins[leaks[0].test]}, cosine of the features"
        f" {leaks[0].similarity:.3f}): the score may be too optimistic"
    )


def _payload(ids: Ids) -> bytes:
    document = {"format": _FORMAT, "ids": {name: sorted(set(keys)) for name, keys in ids.items()}}
    return json.dumps(document, separators=(",", ":")).encode()


__all__ = [
    "TRAINING_FILE",
    "Ids",
    "describe_training_items",
    "near_copies_note",
    "new_items",
    "read_training_items",
    "save_training_items",
]
