"""Where the images of a table are: its paths, a folder elsewhere, ids without an ending.

Paths start from the table's own folder. ``image_folder=`` says that they start elsewhere, and
``image_suffix=`` that their ending has to be added: the usual layout of competitions
(``train.csv`` with ``image_id`` beside ``train_images/``). Neither is guessed; where paths lead
nowhere, the error looks for the files and names what would find them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headstart.core.errors import DataError
from headstart.core.wording import count, did_you_mean, shorten
from headstart.data import columns
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.names import composed
from headstart.data.source import Request
from headstart.data.walking import files_in, subfolders

_SAMPLE = 50
_MOST_FOLDERS = 200


def image_folder(folder: Path, request: Request) -> Path:
    """Return the folder that the paths of a table start from.

    Args:
        folder: of the table.
        request: may name another one, from here or from the table's folder.

    Raises:
        DataError: there is no such folder.
    """
    asked = request.image_folder
    if asked is None:
        return folder
    given = Path(asked).expanduser()
    for found in (folder / given, given):
        if found.is_dir():
            return found
    names = [path.name for path in subfolders(folder)] if folder.is_dir() else []
    raise DataError(
        f"there is no folder '{asked}' (image_folder='{asked}'), from here or from '{folder}'",
        hint=did_you_mean(str(asked), names),
    )


def with_suffix(paths: Any, request: Request) -> Any:
    """Return paths with the ending that the request names, where they do not have it already."""
    if request.image_suffix is None:
        return paths
    suffix = "." + request.image_suffix.lstrip(".")
    done = pc.ends_with(paths, suffix, ignore_case=True)
    return pc.if_else(done, paths, pc.binary_join_element_wise(paths, pa.scalar(suffix), ""))


def require_some_file(paths: Any, folder: Path, name: str) -> None:
    """Refuse a table whose paths lead nowhere: they start from somewhere else, most likely.

    Raises:
        DataError: none of the first files exists; with where the first one is, if it is found.
    """
    sample = [text for text in paths.slice(0, _SAMPLE).to_pylist() if text and "://" not in text]
    found = (folder / text.replace("\\", "/") for text in sample)
    if sample and not any(_exists(path) for path in found):
        raise DataError(
            f"none of the first {count(len(sample), 'file')} that {name} names exists, such as"
            f" '{shorten(folder / sample[0], 200)}'",
            hint="paths in a table are relative to the table's folder: "
            + (
                _found_elsewhere(sample[0], folder)
                or "give another base folder with image_folder=FOLDER, or correct the paths"
            ),
        )


def ids_hint(table: Any, folder: Path) -> str | None:
    """Return what to do about a table that names its images without their endings, or None."""
    for column in columns.id_columns(table):
        value = next((str(v) for v in table.column(column).slice(0, _SAMPLE).to_pylist() if v), "")
        if not value:
            continue
        for place, path in _near(folder):
            if path.stem == PurePosixPath(value).name and path.suffix.lower() in IMAGE_SUFFIXES:
                where = f" and image_folder='{place}'" if place else ""
                return (
                    f"the column '{column}' names images without their extension: read them with"
                    f" image_column='{column}', image_suffix='{path.suffix}'{where}"
                )
    return None


def _found_elsewhere(text: str, folder: Path) -> str | None:
    """Return how a file that a table names would be found near the table, or None."""
    wanted = PurePosixPath(text.replace("\\", "/"))
    other = None
    for place, path in _near(folder):
        full = PurePosixPath(place, path.name)
        beyond = full.parts[: len(full.parts) - len(wanted.parts)]
        tail = PurePosixPath(*full.parts[len(beyond) :])
        where = f"image_folder='{'/'.join(beyond)}'" if beyond else ""
        if tail == wanted and where:
            return f"these are in '{'/'.join(beyond)}', so say {where}"
        if tail.with_suffix("") == wanted and tail.suffix.lower() in IMAGE_SUFFIXES:
            ways = [f"image_suffix='{tail.suffix}'", *([where] if where else [])]
            return f"the file is called '{tail}', so say {' and '.join(ways)}"
        if composed(str(tail)).casefold() == composed(str(wanted)).casefold():
            other = f"the file is called '{full}', so correct the names"
        elif path.name == wanted.name:
            other = other or f"'{path.name}' is in '{place or '.'}', so correct the paths"
    return other


def _near(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files in a folder and in the folders up to two levels below, with these's paths."""
    if not folder.is_dir():
        return
    level = [folder]
    seen = 0
    for _ in range(3):
        deeper: list[Path] = []
        for place in level:
            seen += 1
            if seen > _MOST_FOLDERS:
                return
            try:
                inside = "" if place == folder else place.relative_to(folder).as_posix()
                for path in files_in(place):
                    yield inside, path
                deeper += subfolders(place)
            except DataError:
                continue
        level = deeper


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


__all__ = ["ids_hint", "image_folder", "require_some_file", "with_suffix"]
