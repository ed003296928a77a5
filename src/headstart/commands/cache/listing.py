"""What ``headstart cache ls`` says about a feature space, so that its rows can be told apart."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.wording import clean

if TYPE_CHECKING:
    from headstart.store import SpaceInfo, Store

_SHOWN = 3  # differences after which a summary is long enough
_UNTOLD = "–"


def summary(info: SpaceInfo) -> str:
    """Say in a few words what the rows are: network, layer, pooling, input size, precision."""
    description = info.description
    backbone = description.get("backbone", {})
    size = description.get("preprocessing", {}).get("size", [])
    words = [
        str(backbone.get("class", "stored rows")),
        str(backbone.get("layer") or ""),
        str(backbone.get("pooling") or "").replace("none", ""),
        "×".join(map(str, size)),
        str(description.get("precision", "")).replace("float32", ""),
        str(description.get("storage", "")).replace("float32", ""),
        "views" if description.get("views") else "",
        str(description.get("kind", "")),
    ]
    return " ".join(word for word in words if word)


def summaries(infos: Sequence[SpaceInfo]) -> dict[str, str]:
    """Return the summaries by key; equal ones are followed by what differs."""
    texts = {info.key: info.problem or summary(info) for info in infos}
    often = Counter(texts.values())
    for text in (text for text, count in often.items() if count > 1):
        alike = [info for info in infos if texts[info.key] == text and info.problem is None]
        paths = _differing(alike)
        for info in alike:
            told = [f"{path.rpartition('.')[2]} {_value(info, path)}" for path in paths]
            texts[info.key] = ", ".join([text, *told])
    return texts


def data_names(store: Store, infos: Sequence[SpaceInfo]) -> dict[str, str]:
    """Return by key the folder that the items of a space are from, as far as it is remembered.

    Items are known by content; their files are those of the memo of digests. The rows of tables and
    arrays have none.
    """
    places = store.memo().places({item for info in infos for item in info.sample})
    names = {}
    for info in infos:
        found = [places[item] for item in info.sample if item in places]
        names[info.key] = clean(_name(found)) if found else _UNTOLD
    return names


def _name(files: Sequence[str]) -> str:
    try:
        folder = Path(os.path.commonpath([os.path.dirname(file) for file in files]))  # noqa: PTH120
    except ValueError:  # on several drives
        return _UNTOLD
    return str(Path(*folder.parts[-2:])) if len(folder.parts) > 2 else str(folder)


def _differing(infos: Iterable[SpaceInfo]) -> list[str]:
    from headstart.store import differences

    paths: dict[str, None] = {}
    for one, other in itertools.pairwise(infos):
        found = differences(one.description, other.description)
        paths.update(dict.fromkeys(each.path for each in found))
    return list(paths)[:_SHOWN]


def _value(info: SpaceInfo, path: str) -> str:
    value: Any = info.description
    for part in path.replace("[", ".").replace("]", "").split("."):
        if isinstance(value, Mapping):
            value = value.get(part, "none")
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return "none"
    text = str(value)
    return text[:8] if len(text) == 32 else text[:24]


__all__ = ["data_names", "summaries", "summary"]
