"""Artefacts on a hub: a folder of this machine, or a repository of Hugging Face."""

from __future__ import annotations

import shutil
from collections.abc import Set
from pathlib import Path

from headstart.core.errors import ConfigError, HeadstartError, MissingExtraError
from headstart.core.files import clear_errors, replacing
from headstart.core.wording import shorten
from headstart.export.artefact import DESCRIPTION, read_artefact

HUB = "hf:"
"""How the address of a repository begins."""
_USUAL = frozenset({
    "README.md", "model.bin", "model.keras", "model.onnx", "model.pt2", "model.safetensors",
    "model.xml", "predict.py", "program.json", "requirements.txt", "tokenizer.json",
})  # fmt: skip
"""Files that artefacts have; what a folder holds beside them is not overwritten."""


def push_artefact(artefact: Path, target: str, *, private: bool = True, message: str = "") -> str:
    """Copy an artefact into a folder, or upload it; files of an earlier one are replaced.

    Args:
        artefact: the folder of an artefact.
        target: a folder, or ``hf:OWNER/NAME``.
        private: whether a repository that is created is private.
        message: of the commit; empty: "Upload NAME".

    Returns:
        Where it is: the folder, or the address of the repository.

    Raises:
        DataError: it is no artefact, or it is damaged.
        ConfigError: the folder holds something else, or the hub refuses.
    """
    described = read_artefact(artefact)
    names = (*described["files"], DESCRIPTION)  # the description last: it makes the others whole
    if target.startswith(HUB):
        return _uploaded(artefact, target.removeprefix(HUB), names, private, message)
    return str(_copied(artefact, Path(target).expanduser(), names))


def check_target(target: str) -> None:
    """Refuse a folder that no artefact can be copied into, before one is made for it.

    Raises:
        ConfigError: it is a file, or holds something else.
        DataError: the artefact in it is damaged.
    """
    if not target.startswith(HUB):
        _old_files(Path(target).expanduser(), _USUAL)


def _old_files(folder: Path, ours: Set[str]) -> set[str]:
    """Return the files of an earlier artefact in a folder, if it holds nothing else."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError((f"'{folder}' is a file, expected a folder",))
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if DESCRIPTION in there:
        return set(read_artefact(folder)["files"])
    foreign = sorted(name for name in there - ours if not name.startswith("."))
    if foreign:
        raise ConfigError(
            (f"'{folder}' holds files that do not belong to an artefact, such as '{foreign[0]}'",),
            hint="choose an empty folder, or one that an artefact was pushed to",
        )
    return set()


def _copied(artefact: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """Copy files one by one, each as a whole; what a version-control system keeps stays."""
    ours = {DESCRIPTION, *names}
    old = _old_files(folder, ours)
    with clear_errors(f"write '{folder}'", ConfigError):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            with replacing(folder / name) as file, (artefact / name).open("rb") as source:
                shutil.copyfileobj(source, file)
        for name in old - ours:
            (folder / name).unlink(missing_ok=True)
    return folder


def _uploaded(
    artefact: Path, name: str, names: tuple[str, ...], private: bool, message: str
) -> str:
    try:
        import huggingface_hub
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
    except ImportError:
        raise MissingExtraError("huggingface_hub", "datasets", f"target='{HUB}…'") from None
    try:
        validate_repo_id(name)
        api = huggingface_hub.HfApi(library_name="headstart")
        made = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=str(artefact),
            allow_patterns=list(names),
            delete_patterns=["model.*", "program.json", "tokenizer.json"],  # of another format
            commit_message=message or f"Upload {artefact.name}",
        )
    except HeadstartError:
        raise
    except Exception as error:  # of its client and of the libraries below it, of many types
        lines = str(error).strip().splitlines() or [""]
        raise ConfigError(
            (f"the hub rejected '{name}': {shorten(lines[0], 160) or type(error).__name__}",),
            hint="log in with: hf auth login; without a network, push to a folder",
        ) from error
    return str(made)


__all__ = ["HUB", "check_target", "push_artefact"]
