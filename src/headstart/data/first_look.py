"""A look at a few files of a source: what would be read without harm, and hardly be seen."""

from __future__ import annotations

import numpy as np

from headstart.core.wording import count
from headstart.data.content import UndecodableError
from headstart.data.decoding import highest
from headstart.data.items import Items
from headstart.data.levels import DARK, likely_white
from headstart.data.source import Source

_LOOKS = 8
"""Files that are looked at, spread over each split; a set is dark if all of them are."""


def first_look(source: Source) -> tuple[str, ...]:
    """Return notes about files that are nearly black: of fewer bits than their format has, mostly.

    Files that cannot be read are left to whoever reads them in earnest.
    """
    notes = []
    for part in source.parts.values():
        if not part.items.encoded:
            continue
        found = _highest(part.items)
        if found and found[0][1] > 255:
            notes.append(
                f"Images in {part.where} have more than 8 bits per sample, of which only the"
                " upper 8 are read; bands=(1, 1, 1) for grey ones, or bands=(1, 2, 3), read all"
                " of them."
            )
        if not found or not all(top / white * 255 < DARK for top, white in found):
            continue
        top, white = max(top for top, _ in found), max(white for _, white in found)
        if top > 0:
            notes.append(
                f"The values of {count(len(found), 'image')} of {part.where} that were looked at"
                f" reach {top:g}, and white is {white:g}: nearly black images; if"
                f" {likely_white(top):g} is meant as white, give"
                f" value_range=(0, {likely_white(top):g})."
            )
    return tuple(notes)


def _highest(items: Items) -> list[tuple[float, float]]:
    places = np.unique(np.linspace(0, len(items) - 1, num=min(_LOOKS, len(items)), dtype=np.int64))
    found = []
    for i in places.tolist():
        try:
            content = items.content(i)
            if isinstance(content, bytes):
                found.append(highest(content))
        except UndecodableError:
            continue
        if found and found[-1][0] / found[-1][1] * 255 >= DARK:
            break  # one bright image is enough to know that the set is not dark
    return found


__all__ = ["first_look"]
