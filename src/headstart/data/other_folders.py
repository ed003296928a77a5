"""Folders of texts or sounds: one folder a class, with or without train and test above them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import DataError
from headstart.core.wording import count, quoted
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.items import FileItems, SoundFileItems, TextFileItems
from headstart.data.sound_files import AUDIO_SUFFIXES, CONVERT, UNREAD_SUFFIXES
from headstart.data.source import WHOLE, Part, Request, Source, roles, table_files, unlabelled
from headstart.data.walking import any_file, files_in, subfolders, survey


@dataclass(frozen=True)
class FileKind:
    """Files of one kind, which are known by their endings.

    Attributes:
        name: of the kind of items.
        unit: what to call several.
        suffixes: their endings, in lower case.
        items: what holds them.
        certain: whether an ending says for certain that a file is an item.
        unread: endings of files of this kind that are not read.
        way: what to do about those.
    """

    name: str
    unit: str
    suffixes: frozenset[str]
    items: type[FileItems]
    certain: bool = False
    unread: frozenset[str] = frozenset()
    way: str = ""

    def holds(self, path: Path, request: Request) -> bool:
        """Return whether a path is files of this kind: class folders, without images or tables.

        Where the backbone takes this kind, images beside the files do not count; without labels,
        any such file below the folder is an item, and one file will do.
        """
        wanted = request.kind == self.name
        if path.is_file():
            suffix = path.suffix.lower()
            known = suffix in self.suffixes or (wanted and suffix in self.unread)
            return (wanted or self.certain) and not request.labels_required and known
        if not path.is_dir() or table_files(path) or _named_column(request):
            return False
        others = not wanted and any_file(path, IMAGE_SUFFIXES)
        endings = self.suffixes | (self.unread if wanted else frozenset())
        if others or not any_file(path, endings):
            return False
        if wanted or (self.certain and not request.labels_required):
            return True
        return request.labels_required and len(self.classes(self.top(path, request))) > 1

    def read(self, path: Path, request: Request) -> Source:
        """Read the files; the names of their folders are their labels, where labels are wanted.

        Raises:
            DataError: no class folders, or a training split without a test split's name beside it.
        """
        name = path.resolve().name
        if path.is_dir() and not any_file(path, self.suffixes):
            raise DataError(f"'{path}' holds no {self.unit} in a supported format", hint=self.way)
        if not request.labels_required:
            files = [path] if path.is_file() else self.files(path)
            root = path if path.is_dir() else path.parent
            part = unlabelled(self.made(files, root, request), name)
            return Source(name, {WHOLE: part}, notes=self.left_out(path))
        splits = self.splits(path, request)
        notes = list(self.left_out(path))
        if not splits:
            whole = self.labelled(path, path, request, notes)
            return Source(name, {WHOLE: whole}, notes=tuple(notes))
        parts = {r: self.labelled(each, path, request, notes) for r, each in splits.items()}
        others = [each.name for each in self.classes(path) if each not in splits.values()]
        if others:
            notes.append(f"Not read, because they are not splits: {quoted(others, 5)}.")
        return Source(name, parts, notes=tuple(notes))

    def splits(self, path: Path, request: Request) -> dict[str, Path]:
        """Return the folders of the splits by role; nothing where names do not say so."""
        if request.splits == "none":
            return {}
        found = roles([each.name for each in self.classes(path)], request)
        if "train" not in found.values():
            return {}
        twins = [role for role in found.values() if list(found.values()).count(role) > 1]
        if twins:
            raise DataError(
                f"'{path}' holds more than one {twins[0]} split",
                hint=f"choose one with {'train' if twins[0] == 'train' else 'test'}=NAME",
            )
        return {role: path / name for name, role in found.items()}

    def top(self, path: Path, request: Request) -> Path:
        """Return the folder whose subfolders are classes: that of the training split, if any.

        This must not raise: it is asked of every folder.
        """
        names = [each.name for each in self.classes(path)]
        found = {} if request.splits == "none" else roles(names, request)
        train = [name for name, role in found.items() if role == "train"]
        return path / train[0] if train else path

    def labelled(self, folder: Path, root: Path, request: Request, notes: list[str]) -> Part:
        """Read the class folders of a split."""
        classes = self.classes(folder)
        if not classes:
            raise DataError(
                f"'{folder}' holds {self.unit} but no class folders",
                hint=f"put the {self.unit} of each class into a folder with the class's name, or"
                f" give a table (CSV, Parquet) with a column of {self.unit} and one of labels",
            )
        loose = [each.name for each in files_in(folder)]
        if loose:
            files = count(len(loose), "file")
            notes.append(
                f"{files} of '{folder.name}' skipped, because they are not in a class folder:"
                f" {quoted(loose, 3)}."
            )
        files_of = {each.name: self.files(each) for each in classes}
        paths = [path for files in files_of.values() for path in files]
        names = tuple(name for name, files in files_of.items() for _ in files)
        return Part(self.made(paths, root, request), names, f"'{folder.name}'")

    def left_out(self, path: Path) -> tuple[str, ...]:
        """Return a note on files of this kind that are not read."""
        if not self.unread or not path.is_dir():
            return ()
        below = survey([path])[0].files
        left = [p.relative_to(path).as_posix() for p in below if p.suffix.lower() in self.unread]
        if not left:
            return ()
        return (f"{count(len(left), 'file')} not read ({self.way}): {quoted(left, 3)}.",)

    def classes(self, folder: Path) -> list[Path]:
        """Return the folders that hold such files."""
        return [each for each in subfolders(folder) if any_file(each, self.suffixes)]

    def files(self, folder: Path) -> list[Path]:
        """Return such files below a folder, sorted by path."""
        return [p for p in survey([folder])[0].files if p.suffix.lower() in self.suffixes]

    def made(self, paths: Sequence[Path], root: Path, request: Request) -> FileItems:
        """Return the items of some files."""
        origins = [path.relative_to(root).as_posix() for path in paths]
        return self.items(paths, origins, request.memo)


def _named_column(request: Request) -> bool:
    return request.image_column is not None or request.audio_column is not None


TEXT_FILES = FileKind("text", "texts", frozenset((".txt",)), TextFileItems)
SOUND_FILES = FileKind(
    "audio", "sounds", AUDIO_SUFFIXES, SoundFileItems, True, UNREAD_SUFFIXES, CONVERT
)

__all__ = ["SOUND_FILES", "TEXT_FILES", "FileKind"]
