"""What a page showed the last time, kept in the cache: it is there before the libraries are.

Opening a run or data takes seconds, of which most go to importing torch and timm. So a page begins
with what was kept of it, and the items are opened behind it. Then it is known whether they are
still the same; if not, the page is told, and loads anew. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.commands.run_place import RUN, whole_run
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.commands.view.options import ViewConfig
from headstart.core.records import to_plain
from headstart.core.settings import recorded
from headstart.store import Result, Results, result_key
from headstart.store.places import open_store

if TYPE_CHECKING:
    from headstart.commands.view.scene import Scene

_VERSION = 1
_MOST = 1_000_000
"""Items up to which a page is kept, 20 MB."""
_LOOKED = 1000
"""Folders inside a folder of data whose times are looked at."""


@dataclass(frozen=True, eq=False)
class KeptScene:
    """What a page asks for first, as it was the last time.

    Attributes:
        said: what :meth:`~headstart.commands.view.scene.Scene.describe` returned.
        identity: what it depends on: items, features, head.
        body: all points.
        known: what the list shows of the first items, by item.
        pictures: their thumbnails, by item.
    """

    said: Mapping[str, Any]
    identity: str
    body: bytes
    known: Mapping[int, Mapping[str, Any]]
    pictures: Mapping[int, bytes]

    @classmethod
    def of(cls, scene: Scene) -> KeptScene:
        """Return what is kept of a scene."""
        first = scene.first()
        known = scene.named(first)
        pictures = {}
        for i in first if scene.pictures else ():
            found = scene.excerpt(i)
            if found is not None and found.picture:
                pictures[i] = found.picture
        return cls(
            scene.describe(),
            scene.identity,
            scene.points(),
            {each["i"]: each for each in known},
            pictures,
        )

    def pack(self) -> Result:
        """Return arrays and plain values; :meth:`unpack` is the inverse."""
        sizes = [[i, len(picture)] for i, picture in self.pictures.items()]
        arrays: dict[str, np.ndarray] = {
            "points": np.frombuffer(self.body, np.uint8),
            "pictures": np.frombuffer(b"".join(self.pictures.values()), np.uint8),
            "sizes": np.array(sizes, dtype=np.int64).reshape(-1, 2),
        }
        values = {
            "scene": dict(self.said),
            "identity": self.identity,
            "known": [dict(each) for each in self.known.values()],
        }
        return Result(arrays, values)

    @classmethod
    def unpack(cls, result: Result) -> KeptScene:
        """Return what :meth:`pack` described."""
        pictures, begin, whole = {}, 0, result.arrays["pictures"].tobytes()
        for i, size in result.arrays["sizes"].tolist():
            pictures[i] = whole[begin : begin + size]
            begin += size
        values = result.values
        return cls(
            dict(values["scene"]),
            str(values["identity"]),
            result.arrays["points"].tobytes(),
            {int(each["i"]): each for each in values["known"]},
            pictures,
        )


@dataclass(frozen=True, eq=False)
class Shelf:
    """Where the page of a call is kept.

    Attributes:
        results: of the cache.
        key: of the call, of the run or of the data, as far as they can be looked at quickly.
    """

    results: Results
    key: str

    def get(self) -> KeptScene | None:
        """Return what was kept; None: nothing, or nothing that can be read."""
        found = self.results.get(self.key)
        if found is None:
            return None
        try:
            return KeptScene.unpack(found)
        except (KeyError, TypeError, ValueError):
            return None

    def put(self, scene: Scene) -> None:
        """Keep what a page shows; a cache that takes nothing keeps nothing."""
        from headstart.core.errors import StoreError

        if len(scene.among) > _MOST:
            return
        packed = KeptScene.of(scene).pack()
        try:
            self.results.put(self.key, packed.arrays, packed.values)
        except StoreError:
            return


def shelf_for(
    items: Any, config: ViewConfig, run: RunOptions, reading: ReadOptions, spec: Any
) -> Shelf | None:
    """Return where the page of a call is kept; None where items or cache are not on this disk.

    Args:
        items: a run folder, or data.
        config, run, reading, spec: the settings of the call.
    """
    named = isinstance(items, str | Path) and isinstance(spec, BackboneSpec)
    place = run.cache
    if not named or not (place is None or isinstance(place, str | Path)):
        return None
    store = open_store(place)
    if store.remote is not None or (config.data is not None and not _is_name(config.data)):
        return None
    path = Path(items).expanduser()
    source = config.data
    folder = whole_run(path)
    if (folder / RUN).is_file() and source is None:
        source = _source_of(folder)
    about = {
        "version": _VERSION,
        "items": [str(path.absolute()) if path.exists() else str(items), state_of(path)],
        "run": state_of(folder / RUN),
        "data": None if source is None else [str(source), state_of(Path(str(source)))],
        "settings": [to_plain(recorded(each)) for each in (config, run, reading)],
        "backbone": spec.plain(),
    }
    return Shelf(store.results("views"), result_key(json.loads(json.dumps(about, default=str))))


def _is_name(data: Any) -> bool:
    return isinstance(data, str | Path)


def _source_of(folder: Path) -> str | None:
    """Return where the data of a run lie, as its description says; None where it does not."""
    try:
        found = json.loads((folder / RUN).read_bytes())["configuration"].get("source")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def state_of(path: Path) -> Any:
    """Return what changes when a file or the entries of a folder do, at a glance; None: nothing.

    Files deep inside a folder are not looked at, nor is what is in a file.
    """
    try:
        path = path.expanduser()
        own = path.stat()
        inside = []
        if path.is_dir():
            for entry in sorted(path.iterdir())[:_LOOKED]:
                found = entry.stat()
                inside.append([entry.name, found.st_mtime_ns])
    except (OSError, ValueError, RuntimeError):
        return None
    return [own.st_mtime_ns, own.st_size, own.st_ino, inside]


__all__ = ["KeptScene", "Shelf", "shelf_for", "state_of"]
