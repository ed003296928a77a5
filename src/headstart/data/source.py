"""Sources: what a reader is given and what it returns, and the table of kinds of sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.wording import quoted
from headstart.data.item_files import DigestMemo
from headstart.data.items import Items
from headstart.data.levels import ValueRange
from headstart.data.roles import overridden, role_of
from headstart.data.targets import Asked, RawTargets
from headstart.data.walking import files_in

TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
Splits = Literal["auto", "none"]
NATIVE = "bands"
"""The kind of inputs that take samples as they are."""
WHOLE = "all"
"""The name of the only part of a source that is not divided."""


@dataclass(frozen=True)
class Request:
    """How to read a source.

    Attributes:
        image_column: the column of images; None: find it.
        label_column: the column of labels; None: find it.
        text_column: the column of texts; None: find it, where the items are texts.
        columns: those that join the features, with commas between them; they hold no labels.
        audio_column: the column of sounds; None: find it, where the items are sounds.
        kind: what the backbone takes, ``image``, ``bands``, ``audio`` or ``text``; None: not known.
            It decides where a source holds several, and whether images are 8-bit RGB.
        group_column: the column that says which rows belong together; None: none does.
        group_pattern: a regular expression that says it of names of files; None: none does.
        image_folder: where the paths of a table start; None: in the table's own folder.
        image_suffix: the ending of image files that a table names without it.
        encoding: of a CSV or JSON Lines file; None: UTF-8, or what its first bytes say.
        train: what holds the training split, where its name does not say so.
        test: what holds the test split, where its name does not say so.
        splits: ``auto``: names such as train and test say what is a split. ``none``: they say
            nothing; every folder is a class, and no column divides a table.
        value_range: the values of black and white, where types do not say.
        task: what labels mean; ``auto``: what they look like.
        labels_required: whether it is an error that there are no labels.
        memo: remembers digests of files between sessions.
        reporter: shown the progress of reading.
    """

    image_column: str | None = None
    label_column: str | None = None
    text_column: str | None = None
    audio_column: str | None = None
    columns: str | None = None
    kind: str | None = None
    group_column: str | None = None
    group_pattern: str | None = None
    image_folder: str | Path | None = None
    image_suffix: str | None = None
    encoding: str | None = None
    train: str | None = None
    test: str | None = None
    splits: Splits = "auto"
    value_range: ValueRange | None = None
    task: Asked = "auto"
    labels_required: bool = True
    memo: DigestMemo | None = None
    reporter: Reporter = field(default_factory=SilentReporter)

    @property
    def wants_images(self) -> bool:
        """Whether the backbone is known to take images."""
        return self.kind in ("image", "patches", NATIVE)

    @property
    def native(self) -> bool:
        """Whether samples of images stay as they are: no 8 bits, no red, green and blue."""
        return self.kind == NATIVE

    @property
    def beside(self) -> tuple[str, ...]:
        """The columns that hold no labels unless asked for: groups, and what joins the features."""
        joined = () if self.columns is None else column_names(self.columns)
        return joined if self.group_column is None else (self.group_column, *joined)


def column_names(text: str) -> tuple[str, ...]:
    """Return the names in ``age,site``.

    Raises:
        ConfigError: a name is empty or comes twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise ConfigError(
            (f"columns='{text}' names a column twice, or has nothing between two commas",)
        )
    return names


@dataclass(frozen=True)
class Part:
    """One split as the source gives it.

    Attributes:
        items: its items, in the source's order.
        names: class name of every item; None for one without a label; empty where ``targets`` say
            it.
        where: what to call the labels in messages.
        groups: what every item belongs to; None where nothing says so.
        metadata: what else the source says of every item, a ``pyarrow.Table`` in the items' order.
        targets: of any other task than classification; None for classes.
        doubt: what is to be said of how the labels were read, a sentence; empty for none.
    """

    items: Items
    names: tuple[str | None, ...]
    where: str
    groups: tuple[str, ...] | None = None
    metadata: Any = None
    targets: RawTargets | None = None
    doubt: str = ""


def unlabelled(items: Items, where: str, metadata: Any = None) -> Part:
    """Return a split without any label."""
    return Part(items, (None,) * len(items), where, metadata=metadata)


@dataclass(frozen=True)
class Source:
    """A source that has been read.

    Attributes:
        name: short name.
        parts: by role (``train``, ``validation``, ``test``), or one part named ``all``.
        classes: the source's own order of classes, where it declares one.
        notes: what was decided or skipped.
    """

    name: str
    parts: dict[str, Part]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceKind:
    """One kind of source that data can be loaded from.

    Attributes:
        name: what it is, as messages list it ("a table file").
        accepts: whether the kind reads a source; called for one kind after another, so it has to
            be cheap and must not raise.
        read: reads it.
        path: whether it reads files. It is then given paths that exist; other kinds are given
            the source as the user wrote it.
    """

    name: str
    accepts: Callable[[Any, Request], bool]
    read: Callable[[Any, Request], Source]
    path: bool = False


_REGISTERED: list[SourceKind] = []


def register_source(kind: SourceKind) -> SourceKind:
    """Add a kind of source, and return it; it comes before all others."""
    _REGISTERED.insert(0, kind)
    return kind


def registered_sources() -> tuple[SourceKind, ...]:
    """Return the kinds that were added, the newest first."""
    return tuple(_REGISTERED)


def is_table(path: Path) -> bool:
    """Return whether a file's name is that of a table."""
    return path.suffix.lower() in TABLE_SUFFIXES


def table_files(folder: Path) -> list[Path]:
    """Return the tables directly in a folder, sorted by name."""
    return [path for path in files_in(folder) if is_table(path)]


def split_keys(source: Mapping[Any, Any], request: Request, hint: str) -> dict[str, str]:
    """Return the role of every key of a mapping from splits to their data.

    Raises:
        DataError: no key names a split; with the hint.
    """
    chosen = roles([str(key) for key in source], request)
    if not chosen:
        raise DataError(f"none of the keys {quoted(list(source), 5)} names a split", hint=hint)
    return chosen


def roles(names: Sequence[str], request: Request) -> dict[str, str]:
    """Return the role of each name; the request's ``train`` and ``test`` override what it says.

    Names that mean nothing are left out, and so is a name that lost its role to an override.
    """
    found = {name: role for name in names if (role := role_of(name))}
    return overridden(names, found, request.train, request.test)
