"""What is wrong with a file of weights that cannot be read, and what to do about it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.core.errors import BackboneError
from headstart.core.wording import quoted

_WEIGHTS = ("*.safetensors", "*.pt", "*.pth", "*.bin", "*.ckpt", "*.tar")

_FORMATS: tuple[tuple[bytes, int, str, str], ...] = (
    (
        b"version https://git-lfs", 0, "a pointer of Git LFS, not the file itself",
        "run: git lfs pull",
    ),
    (
        b"<", 0, "a web page, not weights",
        "download the file itself: from the address of its raw content, with a login if needed",
    ),
    (
        b"\x89HDF", 0, "an HDF5 file, as Keras writes it",
        "load it in Keras, and save the tensors under the names of the network with safetensors",
    ),
    (
        b"\x1f\x8b", 0, "a gzip archive", "unpack it, and give the weights file inside",
    ),
    (b"ustar", 257, "a tar archive", "unpack it, and give the weights file inside"),
    (b"7z\xbc\xaf", 0, "a 7z archive", "unpack it, and give the weights file inside"),
    (b"GGUF", 0, "a GGUF file of a language model", "give a safetensors file of the same weights"),
    (
        b"\x93NUMPY", 0, "a NumPy array",
        "save a mapping of names to tensors with safetensors.torch.save_file",
    ),
)  # fmt: skip
"""First bytes, where they stand, what the file is, and what to do."""


def no_file(path: Path) -> BackboneError:
    """Return the error for a path that is no file."""
    if not path.is_dir():
        return BackboneError(
            f"there is no file {str(path)!r} to load weights from", hint="check the path"
        )
    inside = (each for pattern in _WEIGHTS for each in path.glob(pattern))
    found = sorted(each.name for each in inside if each.is_file())
    hint = f"give one file, such as weights={str(path / found[0])!r}" if found else None
    if len(found) > 1 and any("-of-" in name for name in found):
        hint = "it is split into several files: save all tensors in one with safetensors"
    return BackboneError(
        f"{str(path)!r} is a folder, expected a weights file",
        hint=hint or "give the weights file itself",
    )


def refuse_other_formats(path: Path) -> None:
    """Refuse what is neither a torch file nor safetensors, by its first bytes.

    Raises:
        BackboneError: naming what it is.
    """
    with path.open("rb") as handle:
        head = handle.read(512)
    what, hint = None, None
    if not head:
        what, hint = "empty", "download or copy it again"
    for start, place, name, advice in _FORMATS:
        if what is None and head.lstrip()[place:].startswith(start):
            what, hint = name, advice
    if what is None and path.suffix in {".json", ".yaml", ".yml", ".txt", ".md"}:
        what, hint = "text, not weights", "give the weights file, which it may name"
    if what is None and path.suffix in {".onnx", ".tflite", ".pb", ".engine", ".msgpack", ".h5"}:
        what = f"a file of another kind ({path.suffix})"
        hint = "give a safetensors file, or a torch file of tensors"
    if what is not None:
        raise BackboneError(f"{str(path)!r} is {what}", hint=hint)


def unreadable(path: Path, error: Exception) -> BackboneError:
    """Return the error for a torch file that cannot be opened as tensors only."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0]
    whole = " ".join(lines)
    held = _archived(path)
    if held:
        numpy = all(name.endswith(".npy") for name in held)
        return BackboneError(
            f"{str(path)!r} is {'a NumPy archive' if numpy else 'a zip archive'} with"
            f" {quoted(held, 4)}, not a torch file",
            hint="save its arrays under the names of the network with safetensors"
            if numpy
            else "unpack it, and give the weights file inside",
        )
    unknown = re.search(r"GLOBAL ([\w.]+)", whole)
    if "TorchScript" in whole:
        return BackboneError(
            f"{str(path)!r} is a TorchScript program, and headstart never runs code from a file",
            hint="if you trust it, save its tensors:"
            " safetensors.torch.save_file(torch.jit.load(FILE).state_dict(), ...)",
        )
    if unknown is not None:
        name = unknown.group(1)
        return BackboneError(
            f"{str(path)!r} cannot be opened as tensors only: it holds {name}, and headstart never"
            " runs code from a file",
            hint="if you trust it, save only its tensors with safetensors.torch.save_file:"
            " model.state_dict(), from the code that made the file",
        )
    if "PytorchStreamReader" in whole or "zip archive" in whole or "Ran out of input" in whole:
        return BackboneError(
            f"{str(path)!r} is damaged or incomplete ({reason[:200]}); headstart never runs code"
            " from a file",
            hint="download or copy it again",
        )
    return BackboneError(
        f"{str(path)!r} cannot be opened as tensors only ({reason[:200]}): it is damaged, or holds"
        " more than tensors, and headstart never runs code from a file",
        hint="copy it again, or, if you trust it, save only its tensors with safetensors",
    )


def _archived(path: Path) -> list[str]:
    """Return the files of a zip archive that is not torch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return []
    return [] if any(name.endswith("data.pkl") for name in names) else names


def no_tensors(path: Path, content: Any) -> BackboneError:
    """Return the error for a torch file without a mapping from names to tensors."""
    kind = f"a {type(content).__name__}"
    if isinstance(content, Mapping):
        kind = f"the keys {quoted([str(key) for key in content], 6)}"
    return BackboneError(
        f"{str(path)!r} holds {kind}, not a mapping from names to tensors",
        hint="save the tensors with safetensors.torch.save_file(model.state_dict(), ...)",
    )


__all__ = ["no_file", "no_tensors", "refuse_other_formats", "unreadable"]
