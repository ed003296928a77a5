"""The classifier that pre-trained weights bring along, and its classes by name.

The features of a backbone are what its classifier reads, so that a few columns of the classifier
tell one's own classes apart without a label, where these are among those of pre-training. Which
they are is found by their names: of ImageNet's 1,000 classes the WordNet identifiers and words, as
timm carries them. A name that no class has, or several, is never guessed at.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from headstart.backbones.family import IMAGENET, Classifier, Request
from headstart.core.wording import count, listed, quoted, shorten, verb

if TYPE_CHECKING:
    from headstart.backbones.backbone import Backbone


@dataclass(frozen=True)
class NamedClass:
    """A class of pre-training.

    Attributes:
        identifier: of its WordNet synset ("n02219486").
        words: those that mean it, the usual one first ("ant", "emmet", "pismire").
        meaning: its definition there.
    """

    identifier: str
    words: tuple[str, ...]
    meaning: str = ""

    def __str__(self) -> str:
        return self.words[0]


@dataclass(frozen=True)
class Match:
    """Which classes of pre-training one's own classes are.

    Attributes:
        members: by own class the positions of those that it is; complete where there is no fault.
        faults: what is in the way, one sentence for each own class.
    """

    members: Mapping[str, tuple[int, ...]]
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        known = imagenet_classes()
        return ", ".join(
            f"'{name}' is {quoted((known[i] for i in found), 3)}"
            for name, found in self.members.items()
        )


@functools.cache
def imagenet_classes() -> tuple[NamedClass, ...]:
    """Return ImageNet's 1,000 classes in the usual order, that of their identifiers."""
    from timm.data.imagenet_info import ImageNetInfo

    info: Any = ImageNetInfo("imagenet-1k")
    found = []
    for name in info.label_names():
        words = info.label_name_to_description(name)
        meaning = info.label_name_to_description(name, detailed=True).removeprefix(f"{words}: ")
        found.append(NamedClass(name, tuple(map(str.strip, words.split(","))), meaning))
    return tuple(found)


def classifier_of(backbone: Backbone) -> Callable[[], Classifier | None] | None:
    """Return what loads the classifier that reads the features of a backbone; None: it has none.

    A layer before the last, weights of the user's own, and modules have none. What is returned
    may find that there is none after all.
    """
    from headstart.backbones.families import family_of

    origin = backbone.origin
    if backbone.layer is not None or backbone.pooling != "none":
        return None
    if not origin.get("rebuildable") or origin.get("weights") is not None:
        return None
    family, name = family_of(backbone.name)
    load = family.classifier(Request(name, None, dict(origin.get("model_args", {}))))
    if load is None:
        return None

    def fitting() -> Classifier | None:
        found = load()
        fits = found is not None and found.weight.shape[:1] == backbone.feature_shape()
        return found if fits else None

    return fitting


def match_classes(
    names: Sequence[str], given: Mapping[str, str | Sequence[str]] | None = None
) -> Match:
    """Find one's own classes among ImageNet's.

    A name is an identifier, one of the words of a class, or the plural of one; case, underscores
    and hyphens do not matter. Words mean what WordNet means by them: its ``mouse`` is that of a
    computer, so whoever uses a match says it.

    Args:
        names: of one's own classes.
        given: by own class which it is, or which several: identifiers, words, or all words of a
            class as ImageNet lists them; none is in the way of the others.
    """
    stated = {} if given is None else given
    members: dict[str, tuple[int, ...]] = {}
    faults = [
        f"there is no class '{name}' ({listed(names)})" for name in stated if name not in names
    ]
    for name in names:
        several = stated.get(name, name)
        wanted = [several] if isinstance(several, str) else list(several)
        found: list[int] = []
        if not wanted:
            faults.append(f"'{name}' is given no class")
        for word in wanted:
            hits = _meant(word, exactly=name in stated)
            if len(hits) == 1:
                found += hits
            else:
                faults.append(_unclear(name, word, hits))
        if found and len(found) == len(wanted):
            members[name] = tuple(dict.fromkeys(found))
    faults += _shared(members)
    return Match(members, tuple(faults))


def _shared(members: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    owners: dict[int, list[str]] = {}
    for name, found in members.items():
        for position in found:
            owners.setdefault(position, []).append(name)
    for position, both in owners.items():
        if len(both) > 1:
            yield f"{quoted(both)} would be the same class, '{imagenet_classes()[position]}'"


def _meant(word: str, *, exactly: bool) -> list[int]:
    """Return the positions of the classes that a name can mean, those of its own spelling first."""
    table = _by_word()
    plain = _plain(word)
    forms = [plain] if exactly else [plain, *_singulars(plain)]
    for form in forms:
        if form in table:
            return table[form]
    return []


@functools.cache
def _by_word() -> dict[str, list[int]]:
    table: dict[str, list[int]] = {}
    for position, known in enumerate(imagenet_classes()):
        whole = ", ".join(known.words)
        for name in dict.fromkeys(map(_plain, (known.identifier, whole, *known.words))):
            table.setdefault(name, []).append(position)
    return table


def _plain(name: str) -> str:
    spaced = unicodedata.normalize("NFKC", name).replace("_", " ").replace("-", " ")
    return " ".join(spaced.casefold().split())


_ENDINGS = (
    ("ches", "ch"), ("shes", "sh"), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ies", "y"),
    ("ves", "f"), ("men", "man"), ("s", ""),
)  # fmt: skip
"""What WordNet takes from the end of a noun in the plural (its ``morphy``)."""


def _singulars(word: str) -> list[str]:
    return [
        word.removesuffix(end) + instead
        for end, instead in _ENDINGS
        if word.endswith(end) and len(word) > len(end) + 1
    ]


def _unclear(name: str, word: str, hits: Sequence[int]) -> str:
    """Say that a name means several classes, or none; with those that it might mean."""
    known = imagenet_classes()
    of = "" if word == name else f" (of '{name}')"
    if hits:
        meanings = " or ".join(
            f"{known[i].identifier} ({shorten(known[i].meaning, 60)})" for i in hits
        )
        number = count(len(hits), "class", "classes")
        return f"{number} of {IMAGENET} {verb(len(hits))} called '{word}'{of}: {meanings}"
    near = _nearest(_plain(word))
    hint = f"; the nearest: {quoted(near, 3)}" if near else ""
    return f"no class of {IMAGENET} is called '{word}'{of}{hint}"


def _nearest(word: str) -> list[str]:
    """Return the words that end in a word, or else are spelled nearly alike."""
    forms = tuple(f" {form}" for form in (word, *_singulars(word)) if form)
    words = {_plain(text): text for one in imagenet_classes() for text in one.words}
    holding = [text for plain, text in words.items() if forms and plain.endswith(forms)]
    return holding or [words[each] for each in get_close_matches(word, words, 2, cutoff=0.75)]


__all__ = [
    "IMAGENET",
    "Classifier",
    "Match",
    "NamedClass",
    "classifier_of",
    "imagenet_classes",
    "match_classes",
]
