"""Reading ``run.json``, which may be damaged, half of another run, or made by anybody.

Nothing in it is trusted: whatever is wrong ends in one line that says what, and where.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from headstart.commands.backbone_spec import BackboneSpec
from headstart.commands.run_place import RUN
from headstart.core.errors import DataError, HeadstartError
from headstart.core.files import own_file
from headstart.core.fingerprints import sha256_of_file
from headstart.core.records import Precision, Storage
from headstart.core.wording import shorten
from headstart.extraction.settings import Extraction

FORMAT = 3
"""Of ``run.json``. Format 2 had no digests of the other files."""

_READ = (2, FORMAT)
_MOST_BYTES = 256 * 2**20
_TIED = ("head.json", "head.safetensors")

T = TypeVar("T")


@dataclass(frozen=True)
class Described:
    """What ``run.json`` says, checked.

    Attributes:
        classes: class names.
        spec: how to build the backbone.
        precision, storage: of its features.
        fingerprint: of the backbone, its inputs and the cut.
        files: SHA-256 by name of file; empty where an older version listed none.
        values: all of it.
    """

    classes: tuple[str, ...]
    spec: BackboneSpec
    precision: Precision
    storage: Storage
    fingerprint: str
    files: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


def read_description(place: Path, folder: Path) -> Described:
    """Read ``run.json``.

    Args:
        place: where the files of the run lie.
        folder: the run folder, for messages.

    Raises:
        DataError: there is none, or something is wrong with it.
    """
    path = own_file(place, RUN)
    if not path.is_file():
        raise DataError(
            f"'{folder}' is not a run folder: it has no run.json",
            hint="fit, sweep and finetune make one",
        )
    return guarded(path, lambda: _read(path))


def guarded(path: Path, read: Callable[[], T]) -> T:
    """Call a function that reads an untrusted file; whatever goes wrong is one line about it.

    Raises:
        DataError: it has raised anything but a fault that is described already.
    """
    try:
        return read()
    except DataError:
        raise
    except RecursionError as error:
        raise DataError(f"{path} is damaged (nested too deeply)", hint="fit again") from error
    except FileNotFoundError as error:
        raise DataError(f"'{path}' is missing", hint="restore it, or fit again") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}", hint="check its permissions"
        ) from error
    except KeyError as error:
        raise DataError(f"{path} is damaged (it lacks {error})", hint="fit again") from error
    except Exception as error:
        reason = error.message if isinstance(error, HeadstartError) else str(error)
        told = shorten(reason, 200) or type(error).__name__
        raise DataError(f"{path} is damaged ({told})", hint="fit again") from error


def check_files(place: Path, files: Mapping[str, str], *more: str) -> None:
    """Refuse files that are not those that ``run.json`` was written with.

    Args:
        place: where they lie.
        files: SHA-256 by name.
        more: names to be checked if they are there, beside those of the head.

    Raises:
        DataError: naming the file.
    """
    for name in (*_TIED, *more):
        path = own_file(place, name)
        if name not in files or (name in more and not path.exists()):
            continue
        if not path.is_file():
            raise DataError(f"'{path}' is missing", hint="restore it, or fit again")
        if guarded(path, lambda path=path: sha256_of_file(path)) != files[name]:  # type: ignore[misc]
            raise DataError(
                f"'{path}' is not the file that run.json was written with (its SHA-256 differs):"
                " it belongs to another run, or is damaged",
                hint="restore it, or fit again",
            )


def _read(path: Path) -> Described:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size:,} bytes")
    values = json.loads(path.read_bytes())
    _expect("it", values, dict)
    if values.get("kind") == "comparison":
        raise DataError(
            f"'{path.parent}' holds a comparison, which has no head to predict with",
            hint="fit, sweep and finetune make a run with a head",
        )
    number = values.get("format")
    if type(number) is int and number > FORMAT:
        raise DataError(
            f"{path} was written by a later version of headstart (format {number}; this one reads"
            f" formats up to {FORMAT})",
            hint="install that version, or fit again",
        )
    if type(number) is not int or number not in _READ:
        raise ValueError(f"its format is {shorten(number)}, expected {FORMAT}")
    classes = _expect("classes", values["classes"], list)
    if not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are not a list of names")
    if len(set(classes)) < len(classes):
        raise ValueError("a class is named twice")
    spec = BackboneSpec.from_plain(_expect("backbone", values["backbone"], dict))
    configuration = _expect("configuration", values["configuration"], dict)
    chosen = Extraction(precision=configuration["precision"], storage=configuration["storage"])
    fingerprints = _expect("fingerprints", values["fingerprints"], dict)
    files = _expect("files", values["files"] if number > 2 else values.get("files", {}), dict)
    if not all(isinstance(text, str) for text in files.values()):
        raise ValueError("files are not described by their digests")
    if number > 2 and not set(_TIED) <= set(files):
        raise ValueError("it has no digests of the head")
    return Described(
        tuple(classes),
        spec,
        chosen.precision,
        chosen.storage,
        _expect("fingerprints.backbone", fingerprints["backbone"], str),
        files,
        values,
    )


def _expect(name: str, value: Any, kind: type[T]) -> T:
    if not isinstance(value, kind):
        wanted = {"dict": "an object", "list": "a list", "str": "text"}[kind.__name__]
        raise ValueError(f"{name} is {shorten(value)}, expected {wanted}")
    return value


__all__ = ["FORMAT", "Described", "check_files", "guarded", "read_description"]
