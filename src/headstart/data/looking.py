"""A look at a sample of items: what kind of thing they are, so that a backbone can be proposed.

The sample is drawn by content, so that neither order nor file names change the answer, and only
the headers of large files are read in full. Kinds are named in the plural, for use in a sentence.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.fingerprints import fingerprint
from headstart.data.content import Content, UndecodableError
from headstart.data.dataset import Split
from headstart.data.decoding import image_of, to_rgb
from headstart.data.formats import open_header
from headstart.data.sample_files import extent_of_dicom, is_samples_file, levels_rgb
from headstart.data.sound_files import is_sound

DRAWINGS, PHOTOGRAPHS, TEXTS, SOUNDS = "drawings", "photographs", "texts", "sounds"
"""The kinds. Pictures that are not drawings of one character count as photographs."""

LOOKS = 32
"""Items that are looked at: with a tenth of another kind among them, 97 samples in 100 show it."""

CHARACTER = 32
"""Pixels a side to which a drawing is reduced, to see whether its lines survive."""

_WORK = 256  # pixels a side of what is measured
_GREY = 6.0  # mean difference of channels, in levels; a grey JPEG in colour stays below
_VIVID, _VIVID_SHARE = 64, 0.003  # such a difference, in such a share of the pixels, is a colour
_NEAR = 26  # levels from the paper that still are paper
_PAPER, _PAPER_MEDIAN = 0.3, 0.45  # least share of paper among the pixels: of one, of the median
_SHADES, _SHADES_MEDIAN = 0.5, 0.36  # most of the rest that is neither paper nor ink, likewise
_BARE = 0.8  # share of paper from which lines are thin, so that many of their pixels are shades
_DRAWN = 0.9  # least share of pictures that look like drawings where all are said to be
_TOLD = 0.2  # least share of them that is told among others: a cut-out on white may look like one
_KEPT = 0.55  # least share of the contrast of ink after reduction
_DECODED = 1_000_000  # pixels beyond which only a JPEG is decoded, which can be reduced meanwhile
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")


@dataclass(frozen=True)
class Look:
    """What a sample of items looks like.

    Attributes:
        kind: that of nearly all of them; of pictures that differ, photographs.
        looked: items that were looked at and could be read.
        about: what they are, in words ("small grey drawings of about 8×8 px").
    """

    kind: str
    looked: int
    about: str


@dataclass(frozen=True)
class _Seen:
    """One picture.

    Attributes:
        size: (width, height).
        grey: whether it has no colours; None: only its pixels would say so, which are not decoded.
        paper: share of the pixels that are paper: as its border mostly is, whether dark or light.
        shades: share of the others that are neither paper nor nearly as far from it as ink is.
        kept: share of the contrast of ink that is left at 32×32 pixels.
        blank: whether there is nothing to see.
    """

    size: tuple[int, int]
    grey: bool | None
    paper: float = 0.0
    shades: float = 1.0
    kept: float = 0.0
    blank: bool = False

    @property
    def inked(self) -> bool:
        """Whether it may be ink on paper; half of all grey photographs may be, too."""
        shaded = self.shades > _SHADES and self.paper < _BARE
        return self.grey is True and self.paper >= _PAPER and not shaded


def look_at(split: Split) -> Look:
    """Look at up to 32 items of a split.

    Returns:
        What they are. Items that cannot be read are left to whoever reads them in earnest; where
        none can, the kind is empty.
    """
    texts, sounds, seen = 0, 0, []
    for i in _sample(split):
        try:
            content = split.items.content(int(split.rows[i]))
            if isinstance(content, str):
                texts += 1
            elif split.items.kind == "audio" or (isinstance(content, bytes) and is_sound(content)):
                sounds += 1
            else:
                seen.append(_see(content))
        except UndecodableError:
            continue
    if sounds > max(texts, len(seen)):
        return Look(SOUNDS, sounds, "sounds")
    if texts > len(seen):
        return Look(TEXTS, texts, "texts")
    if not seen:
        return Look("", 0, "nothing that could be read")
    return _summary([each for each in seen if not each.blank] or seen)


def _sample(split: Split) -> list[int]:
    """Return positions of up to 32 items, drawn by content: those of the smallest ids.

    Where all would have to be fetched to be identified, they are drawn by name.
    """
    if split.items.far and "ids" not in vars(split):
        drawn = sorted((fingerprint(name), i) for i, name in enumerate(split.origins))
        return [i for _, i in drawn[:LOOKS]]
    first = {key: i for i, key in reversed(list(enumerate(split.ids)))}
    return [first[key] for key in sorted(first)[:LOOKS]]


def _summary(seen: list[_Seen]) -> Look:
    grey = [each for each in seen if each.grey]
    drawn, told = _are_drawings(grey), len(grey) >= max(2, _TOLD * len(seen))
    legible = [each for each in grey if each.kept >= _KEPT]
    colours = {len(seen): "grey ", 0: "colour "}.get(len(grey), "grey and colour ")
    if any(each.grey is None for each in seen):
        colours = ""
    width, height = (int(np.median([each.size[k] for each in seen])) for k in (0, 1))
    about = "" if len({each.size for each in seen}) == 1 else "about "
    size = f"{about}{width}×{height} px"
    if drawn and len(grey) >= _DRAWN * len(seen):
        if len(legible) >= _DRAWN * len(grey):
            return Look(DRAWINGS, len(seen), f"grey drawings on plain ground, {size}")
        fine = f"with lines too fine for {CHARACTER}×{CHARACTER} px"
        return Look(PHOTOGRAPHS, len(seen), f"grey drawings, {size}, {fine}")
    some = f", of which {len(grey)} are grey drawings" if drawn and told else ""
    return Look(PHOTOGRAPHS, len(seen), f"{colours}pictures, {size}{some}")


def _are_drawings(grey: list[_Seen]) -> bool:
    """Return whether grey pictures, taken together, are ink on plain paper."""
    if not grey:
        return False
    inked = sum(each.inked for each in grey)
    paper, shades = (float(np.median([getattr(e, n) for e in grey])) for n in ("paper", "shades"))
    if paper >= _BARE:
        shades = 0.0
    return inked >= _DRAWN * len(grey) and paper >= _PAPER_MEDIAN and shades <= _SHADES_MEDIAN


def _see(content: Content) -> _Seen:
    size, grey, image = _opened(content)
    if image is None:
        return _Seen(size, grey)
    pixels = np.asarray(image, dtype=np.float32)
    levels = pixels.mean(axis=2)
    colour = pixels.max(axis=2) - pixels.min(axis=2)
    if float(colour.mean()) > _GREY or float((colour > _VIVID).mean()) > _VIVID_SHARE:
        return _Seen(size, False)
    away = np.abs(levels - _paper(levels))
    ink = float(np.percentile(away, 99.5))
    if ink < 2 * _NEAR:
        return _Seen(size, True, blank=True)
    plain = away <= _NEAR
    marks = away[~plain]
    shades = float(((marks > ink / 3) & (marks < ink * 2 / 3)).mean())
    return _Seen(size, True, float(plain.mean()), shades, _contrast_kept(levels, ink))


def _opened(content: Content) -> tuple[tuple[int, int], bool | None, Image.Image | None]:
    """Open a picture, no larger than is needed.

    Returns:
        Its size, whether its file says that it is grey (None: only its pixels would), and the
        picture in RGB: None where it is large and would have to be decoded as a whole, which no
        small drawing is.
    """
    grey: bool | None
    if isinstance(content, bytes) and is_samples_file(content):
        dicom = extent_of_dicom(content)
        if dicom is not None and dicom[0][0] * dicom[0][1] > _DECODED:
            return (*dicom, None)
        image = Image.fromarray(levels_rgb(content))
        size, grey = image.size, None
    elif isinstance(content, bytes):
        file = open_header(content)
        size, grey = file.size, file.mode.partition(";")[0] in _GREY_MODES or None
        if file.format == "JPEG":
            file.draft(None, (_WORK, _WORK))
        elif size[0] * size[1] > _DECODED:
            return size, grey, None
        try:
            file.load()
            image = to_rgb(file)
        except UndecodableError:
            raise
        except Exception as error:  # decoders raise nearly anything
            raise UndecodableError(str(error)) from error
    else:
        image = image_of(content)
        size, grey = image.size, None
    if max(image.size) > _WORK:
        image = image.copy()
        image.thumbnail((_WORK, _WORK), Image.Resampling.BOX)
    return size, grey, image


def _paper(levels: NDArray[np.float32]) -> float:
    """Return the level of the paper: the commonest one along the border, in steps of 16."""
    border = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    ((step, _),) = Counter((border // 16).astype(int).tolist()).most_common(1)
    return float(np.median(border[border // 16 == step]))


def _contrast_kept(levels: NDArray[np.float32], ink: float) -> float:
    """Return the share of the contrast of lines that is left at 32×32 pixels."""
    image = Image.fromarray(levels)
    if max(image.size) <= CHARACTER:
        return 1.0
    small = np.asarray(image.resize((CHARACTER, CHARACTER), Image.Resampling.BOX))
    marks = np.abs(small - _paper(levels))
    inked = marks[marks > _NEAR / 2]
    return float(np.percentile(inked, 75)) / ink if inked.size else 0.0


__all__ = [
    "DRAWINGS",
    "PHOTOGRAPHS",
    "SOUNDS",
    "TEXTS",
    "Look",
    "look_at",
]
