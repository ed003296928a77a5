"""What a run folder may name: a run folder may come from anybody.

Opening a run runs no code and reads nothing outside the folder. Building its backbone reads what
``run.json`` names only in so far:

- **Code** (``net.py:make``) runs only where the user trusts it, and only the very file that the run
  was made with: its digest is in ``run.json``. A file that has changed since has to be given anew.
- **Weights** are read if they lie in the run folder, or if size and SHA-256 are those in
  ``run.json``: what the file holds is then no secret of this machine. Any other has to be given.
- **Arguments** of the network and values of its inputs name neither files nor addresses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.backbones.families import family_of
from headstart.commands.backbone_spec import BackboneSpec
from headstart.core.errors import BackboneError, DataError
from headstart.core.fingerprints import sha256_of_file

_ADDRESS = ("\\\\", "//")
"""How addresses of other machines begin, which look like paths."""


@dataclass(frozen=True)
class Named:
    """What a run folder says its backbone is built from.

    Attributes:
        folder: the run folder.
        spec: how to build the backbone.
        files: by role (``code``, ``weights``) the file, as
            :func:`~headstart.core.fingerprints.stamp` described it when the run was made.
    """

    folder: Path
    spec: BackboneSpec
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def runs_code(self) -> bool:
        """Whether building the backbone runs a file of code."""
        return not self.spec.own_module and family_of(self.spec.source)[0].code is not None

    def lacks(self) -> tuple[str, ...]:
        """Say which digests are missing: an older version of headstart kept none."""
        unpinned = []
        if self.runs_code and "code" not in self.files:
            unpinned.append(f"the code {self._path('code')}")
        if self.spec.weights is not None and "weights" not in self.files:
            unpinned.append(f"the weights {self._path('weights')}")
        return tuple(
            f"run.json in {self.folder} has no digest of {what}: an older version of headstart"
            " wrote it"
            for what in unpinned
        )

    def admitted(
        self, *, trust_code: bool, given: str | None = None, weights: str | None = None
    ) -> tuple[BackboneSpec, str | None]:
        """Return how to build the backbone, as far as that is allowed.

        Args:
            trust_code: whether the user trusts the code that the run folder names.
            given: a backbone that the user names instead: trusted, since it is the user's word.
            weights: a file of weights that the user names instead; likewise.

        Returns:
            The spec, and the digest that its file of code must have; None: any.

        Raises:
            BackboneError: code that is not trusted or has changed, or arguments that name places.
            DataError: the file of weights is missing or has changed.
        """
        spec, digest = self.spec, None
        if given is not None:
            spec = dataclasses.replace(spec, source=given, own_module=False)
        elif self.runs_code:
            path, digest = self._code(trust_code)
            function = spec.source.rpartition(":")[2]
            spec = dataclasses.replace(spec, source=f"{path}:{function}")
        if not trust_code:
            self._refuse_places(spec)
        if given is None and not spec.own_module:
            self._check_folder(spec)
        chosen = weights
        if weights is None and spec.weights is not None:
            chosen = str(self._weights())
        return dataclasses.replace(spec, weights=chosen), digest

    def _code(self, trust_code: bool) -> tuple[Path, str | None]:
        """Return the file of code and the digest that it must have; None: any."""
        path, entry = self._path("code"), self.files.get("code")
        if not trust_code:
            raise BackboneError(
                f"the run in '{self.folder}' builds its backbone by running code, '{path}', and"
                " a run folder may come from anyone",
                hint="read that file; if you trust it, pass trust_code=True",
            )
        again = f"backbone='{path}:{self.spec.source.rpartition(':')[2]}'"
        if not path.is_file():
            raise BackboneError(
                f"the file '{path}', which builds the backbone of the run in '{self.folder}', no"
                " longer exists",
                hint="if it has moved, name it: backbone='FILE.py:FUNCTION'",
            )
        if entry is None:
            return path, None
        changed = _difference(path, entry)
        if changed:
            raise BackboneError(
                f"'{path}' has changed since the run in '{self.folder}' was made with it"
                f" ({changed}): it is not run",
                hint=f"restore it; or read it, and if you trust it, name it yourself: {again}",
            )
        return path, str(entry["sha256"])

    def _weights(self) -> Path:
        """Return the file of weights."""
        entry, path = self.files.get("weights"), self._path("weights")
        give = "give the file that the run was made with: weights='FILE'"
        if not path.is_file():
            raise DataError(
                f"the weights file '{path}' of the run in '{self.folder}' no longer exists",
                hint=give,
            )
        if entry is None:
            if path.resolve().is_relative_to(self.folder.resolve()):
                return path
            raise DataError(
                f"run.json in '{self.folder}' names the weights '{path}', outside of the run"
                " folder and without their digest: they are not opened",
                hint=give,
            )
        changed = _difference(path, entry)
        if changed:
            raise DataError(
                f"the weights '{path}' are not those that the run in '{self.folder}' was made"
                f" with ({changed})",
                hint=give,
            )
        return path

    def _check_folder(self, spec: BackboneSpec) -> None:
        """Refuse a folder of a model whose weights are not those that the run was made with."""
        family, name = family_of(spec.source)
        folder = None if family.folder is None else family.folder(name)
        if folder is None:
            return
        entry, give = (
            self.files.get("weights"),
            f"name it yourself: backbone='{family.name}/FOLDER'",
        )
        path = self._path("weights") if entry is not None else folder
        if entry is None or not (path.parent == folder.absolute() or _lies_in(path, folder)):
            raise DataError(
                f"run.json in '{self.folder}' names the model folder '{folder}', outside of the run"
                " folder and without a digest of its weights: it is not opened",
                hint=give,
            )
        if not path.is_file():
            raise DataError(
                f"the weights file '{path}' of the run in '{self.folder}' no longer exists",
                hint=f"if it has moved, {give}",
            )
        changed = _difference(path, entry)
        if changed:
            raise DataError(
                f"the weights '{path}' are not those that the run in '{self.folder}' was made"
                f" with ({changed})",
                hint=give,
            )

    def _path(self, role: str) -> Path:
        """Return where a file is: where it was, or beside run.json where the folder has moved."""
        entry = self.files.get(role, {})
        named = (
            self.spec.weights or "" if role == "weights" else self.spec.source.rpartition(":")[0]
        )
        text = str(entry.get("path", named))
        if text.startswith(_ADDRESS) or "\0" in text:
            raise DataError(
                f"run.json in '{self.folder}' names {text!r:.200}, which is not a file on this"
                " machine",
                hint="give the file yourself: weights='FILE'" if role == "weights" else None,
            )
        path, beside = Path(text).absolute(), self.folder / Path(text).name
        return beside if entry and not path.is_file() and beside.is_file() else path

    def _refuse_places(self, spec: BackboneSpec) -> None:
        """Refuse arguments by which a library might read a file or an address."""
        loading = () if spec.own_module else family_of(spec.source)[0].loading
        values = {"model_args": spec.model_args, "preprocessing": spec.inputs}
        for name, value in _walk(values):
            key = name.rpartition(".")[2]
            if name == "preprocessing.prompt":
                continue  # put before texts, and never opened
            if key in loading or (isinstance(value, str) and set(value) & set("/\\:")):
                raise BackboneError(
                    f"run.json in '{self.folder}' sets {name} to {value!r:.80}, which may name a"
                    " file or an address, and a run folder may come from anyone",
                    hint="if you trust whoever made it, pass trust_code=True",
                )


def _walk(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value in nested plain values with its dotted name, the containers too."""
    if name:
        yield name, values
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _walk(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _walk(value, name)


def _lies_in(path: Path, folder: Path) -> bool:
    """Return whether a file is one of a model's folder, links followed, as in the hub's cache."""
    files = (*folder.glob("*.safetensors*"), *folder.glob("*/*.safetensors*"))
    return any(file.resolve() == path.resolve() for file in files)


def _difference(path: Path, entry: Mapping[str, Any]) -> str | None:
    """Return how a file differs from what it was; None if it does not."""
    try:
        size = path.stat().st_size
        if size != entry["size"]:
            return f"{size:,} bytes, and it had {entry['size']:,}"
        found = sha256_of_file(path)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if found != entry["sha256"]:
        return f"SHA-256 {found[:12]}…, and it had {str(entry['sha256'])[:12]}…"
    return None


def read_files(description: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the files that a run.json says its backbone was built from, checked.

    Raises:
        ValueError: they are not described as :func:`~headstart.core.fingerprints.stamp` does it.
    """
    files = description.get("built_from", {})
    kinds = {"path": str, "size": int, "sha256": str}
    for role, entry in files.items():
        if role not in ("code", "weights") or any(
            not isinstance(entry[key], kind) for key, kind in kinds.items()
        ):
            raise ValueError(f"built_from.{role} is {entry!r:.60}")
    return {role: dict(entry) for role, entry in files.items()}


__all__ = ["Named", "read_files"]
