"""Names of tar files: which are, what stands in braces, and which sources hold nothing else."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from headstart.core.addresses import is_address
from headstart.core.errors import DataError
from headstart.data.far.packed import PACKED
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.roles import folder_role
from headstart.data.source import Request
from headstart.data.walking import files_in, subfolders

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_MOST_NAMES = 1_000_000


def is_tar(name: str) -> bool:
    """Return whether a file's name is that of a tar file, packed or not."""
    low = name.split("?")[0].lower()
    return low.endswith((".tar", *PACKED))


def tar_title(name: str) -> str:
    """Return a file's name without its folder and without the ending of a tar."""
    base = PurePosixPath(name.split("?")[0]).name
    end = next((end for end in (".tar", *PACKED) if base.lower().endswith(end)), "")
    return base[: len(base) - len(end)] or base


def is_tar_pattern(source: object, request: Request) -> bool:  # noqa: ARG001
    """Return whether a source names several tar files in braces, and is no path that exists."""
    if not isinstance(source, str | Path) or not is_tar(str(source)):
        return False
    return BRACES.search(str(source)) is not None and not (
        not is_address(source) and Path(source).exists()
    )


def holds_tars(path: Path, request: Request) -> bool:  # noqa: ARG001
    """Return whether a path is a tar file, or a folder of them without loose images."""
    if not path.is_dir():
        return is_tar(path.name)
    places = [path, *(one for one in subfolders(path) if folder_role(one.name))]
    names = [file.name for place in places for file in files_in(place)]
    return any(map(is_tar, names)) and not any(
        PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in names
    )


def one_by_one(source: Any) -> list[Any]:
    """Return the sources that are best read one after the other, each of them once.

    Tars that are named in braces at an address are; any other source is one.
    """
    if isinstance(source, str) and is_address(source) and is_tar(source):
        return list(braced(source))
    return [source]


def braced(text: str) -> list[str]:
    """Return what a name with braces stands for: ``{000..009}``, ``{a,b}``, several of them.

    Raises:
        DataError: there are more than a million.
    """
    found = BRACES.search(text)
    if found is None:
        return [text]
    first, last, listed = found.groups()
    if listed is not None:
        inner = listed.split(",")
    else:
        if abs(int(last) - int(first)) > _MOST_NAMES:
            raise DataError(f"'{text}' stands for more than {_MOST_NAMES:,} files")
        step = 1 if int(last) >= int(first) else -1
        width = len(first) if first.startswith("0") or last.startswith("0") else 0
        inner = [f"{i:0{width}d}" for i in range(int(first), int(last) + step, step)]
    ends = braced(text[found.end() :])
    return [text[: found.start()] + one + end for one in inner for end in ends]


__all__ = ["BRACES", "braced", "holds_tars", "is_tar", "is_tar_pattern", "one_by_one", "tar_title"]
