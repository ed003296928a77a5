"""Data sets that are Python objects: Hugging Face ``datasets`` and map-style torch data sets.

Neither library is imported here unless the user has brought such an object.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import DataError, MissingExtraError
from headstart.core.progress import Reporter
from headstart.core.wording import quoted
from headstart.data import column_types, columns, label_columns
from headstart.data.arrays import as_array, image_content
from headstart.data.content import Content, UndecodableError, digest
from headstart.data.item_columns import item_column
from headstart.data.item_files import DigestMemo, read_file
from headstart.data.item_groups import groups_of_values
from headstart.data.items import ArrowItems, Items, ObjectItems, SoundItems, TextItems
from headstart.data.source import WHOLE, Part, Request, Source, roles, split_keys, unlabelled
from headstart.data.targets import read_columns, read_labels, read_matrix


def is_hub_dataset(source: Any) -> bool:
    """Return whether this is an object of the package ``datasets``, without importing it."""
    module = sys.modules.get("datasets")
    if module is None:
        return False
    kinds = ("Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict")
    return isinstance(source, tuple(getattr(module, kind) for kind in kinds))


def is_saved_hub_dataset(folder: Path) -> bool:
    """Return whether ``save_to_disk`` of the package ``datasets`` has written this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def read_saved_hub_dataset(folder: Path, request: Request) -> Source:
    """Read what ``save_to_disk`` wrote (Arrow files and JSON; no code).

    Raises:
        MissingExtraError: the package ``datasets`` is not installed.
        DataError: the folder is damaged, and as for :func:`read_hub_dataset`.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "datasets", f"the saved data set '{folder}'") from None
    try:
        source = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises what the damage happens to cause
        raise DataError(
            f"the saved data set '{folder}' cannot be opened: {error}", hint="save it again"
        ) from error
    return dataclasses.replace(read_hub_dataset(source, request), name=folder.resolve().name)


def is_map_style(source: Any) -> bool:
    """Return whether this is a map-style data set in PyTorch's sense."""
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def are_torch_datasets(source: Any) -> bool:
    """Return whether this is a mapping to map-style data sets, none of them a pair or an array."""
    return isinstance(source, Mapping) and all(
        is_map_style(v) and not isinstance(v, tuple | list | np.ndarray) and not hasattr(v, "shape")
        for v in source.values()
    )


def read_hub_dataset(source: Any, request: Request) -> Source:
    """Read a ``datasets.Dataset`` or ``DatasetDict``.

    Raises:
        DataError: a streamed data set, no image or label column, no known split.
    """
    import datasets

    if isinstance(source, datasets.IterableDataset | datasets.IterableDatasetDict):
        raise DataError(
            "this is a streaming data set, which has no length and no random access",
            hint="load it with streaming=False",
        )
    if not isinstance(source, Mapping):
        part, declared = _hub_part(source, "the data set", request)
        return Source(_hub_name(source), {WHOLE: part}, declared)
    chosen = roles(list(source), request)
    if not chosen and len(source) == 1:
        chosen = {next(iter(source)): WHOLE}
    if not chosen:
        raise DataError(
            f"none of the splits {quoted(list(source), 5)} is called train",
            hint="name them with train=... and test=...",
        )
    parts, order = {}, None
    for name, role in chosen.items():
        parts[role], order = _hub_part(source[name], name, request)
    left = [name for name in source if name not in chosen]
    notes = (f"Not read, because they are not splits: {quoted(left, 5)}.",) if left else ()
    return Source(_hub_name(next(iter(source.values()))), parts, order, notes)


def _hub_name(dataset: Any) -> str:
    return str(getattr(dataset.info, "dataset_name", None) or "dataset")


def _hub_part(dataset: Any, name: str, request: Request) -> tuple[Part, tuple[str, ...] | None]:
    import datasets

    if len(dataset) == 0:
        raise DataError(f"{name} has no rows", hint="expected one row per item")
    features = dataset.features
    encoded = {
        what: [key for key, kind in features.items() if isinstance(kind, feature)]
        for what, feature in (("image", datasets.Image), ("audio", datasets.Audio))
    }
    schema = dataset.with_format("arrow")[:200]
    request = _with_encoded(request, encoded)
    item, found = item_column(schema, name, Path(), request)
    label = label_columns.label_column(
        schema,
        name,
        request.label_column,
        item,
        required=request.labels_required,
        beside=request.beside,
        task=request.task,
    )
    group = columns.group_column(schema, name, request.group_column)
    items = (
        _hub_texts(dataset, item, name)
        if found == "text"
        else _hub_items(dataset, item, name, request.memo, found)
    )
    if label is None:
        return unlabelled(items, name), None
    groups = None
    if group is not None:
        groups = groups_of_values(_hub_values(dataset, group), f"column '{group}' of {name}")
    scalar = columns.metadata(schema, (item, *([label] if isinstance(label, str) else label)))
    about = None
    if scalar is not None:
        about = dataset.with_format("arrow").select_columns(scalar.schema.names)[:]
    if isinstance(label, tuple):
        table = dataset.with_format("arrow").select_columns(list(label))[:]
        if label_columns.are_classes(table, label, request.task):
            where = f"the one-hot columns of {name}"
            return Part(
                items, label_columns.one_hot_names(table, label), where, groups, about
            ), None
        where = f"the columns {quoted(label, 3)} of {name}"
        many = read_columns({c: table.column(c).to_pylist() for c in label}, where, request.task)
        return Part(items, many.names, where, groups, about, many.targets), None
    kind = features[label]
    if hasattr(kind, "feature"):  # a list of them
        kind = kind.feature
    declared = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else None
    where = f"column '{label}' of {name}"
    values = _hub_values(dataset, label)
    said = read_labels(values, where, request.task, declared, label)
    return Part(items, said.names, where, groups, about, said.targets, said.doubt), declared


def _with_encoded(request: Request, encoded: Mapping[str, list[str]]) -> Request:
    """Return a request that names the column whose feature says that it holds images or sounds."""
    named = (request.image_column, request.audio_column, request.text_column)
    if request.kind == "text" or any(name is not None for name in named):
        return request
    for kind in sorted(encoded, key=lambda kind: kind != request.kind):
        if len(encoded[kind]) == 1:
            name = encoded[kind][0]
            if kind == "audio":
                return dataclasses.replace(request, audio_column=name)
            return dataclasses.replace(request, image_column=name)
    return request


def _hub_values(dataset: Any, column: str) -> list[Any]:
    rows = dataset.with_format("arrow").select_columns([column])[:]
    values: list[Any] = rows.column(column).to_pylist()
    return values


def _hub_texts(dataset: Any, column: str, name: str) -> Items:
    plain = dataset.select_columns([column]).with_format("arrow")
    return TextItems(column_types.as_text(plain[:].column(column)), f"{name} row")


def _hub_items(dataset: Any, image: str, name: str, memo: DigestMemo | None, found: str) -> Items:
    plain = dataset.select_columns([image]).with_format("arrow")
    kind, noun = dataset.features[image], "sound" if found == "audio" else "image"
    type_ = plain[:1].column(image).type
    has_bytes = column_types.is_bytes(type_)
    if not has_bytes and not column_types.is_text(type_):
        raise DataError(f"column '{image}' of {name} has the type {kind}, expected {noun}s")

    def fetch(i: int) -> Content:
        value = plain[i].column(image)[0].as_py()
        if isinstance(value, dict):
            value = value["bytes"] if value.get("bytes") is not None else value.get("path")
        if value is None:
            raise UndecodableError(f"the data set has no {noun} in this row")
        return read_file(Path(value)) if isinstance(value, str) else value

    # without a selection on top, the table itself is the data set: no copy, no row-wise detour
    if getattr(dataset, "_indices", True) is None:
        data, paths = column_types.image_parts(dataset.data.column(image))
        kinds: type[ArrowItems] = SoundItems if found == "audio" else ArrowItems
        return kinds(data, paths, Path(), name, memo)
    return ObjectItems(len(dataset), fetch, name, encoded=found == "image")


def read_torch_dataset(
    source: Any, request: Request, name: str | None = None
) -> tuple[Part, tuple[str, ...] | None]:
    """Read a map-style data set of pairs (image, label).

    Images are PIL images, arrays or tensors: ``uint8``, or floats in [0, 1] as ``ToTensor`` makes
    them. Labels come from ``targets`` where the data set has them, else from one pass over it.

    Returns:
        The part, and the data set's own order of classes where it declares one.

    Raises:
        DataError: items that are not pairs, that change between two reads, or are not images.
    """
    name = name or type(source).__name__
    length = len(source)
    if length == 0:
        raise DataError(f"{name} has no items", hint="expected pairs (image, label)")
    convert = partial(image_content, value_range=request.value_range, native=request.native)
    items = ObjectItems(length, partial(_item, source, name, convert), name)
    _require_constant(source, name, convert)
    declared = _declared_classes(source)
    where = f"the labels of {name}"
    targets = _targets(source)
    if targets is None and request.labels_required:
        targets = _read_targets(source, name, request.reporter)
    if targets is None:
        return unlabelled(items, where), None
    if isinstance(targets, np.ndarray) and targets.ndim == 2:
        said = read_matrix(targets, where, request.task)
    else:
        said = read_labels(targets, where, request.task, declared)
    return Part(items, said.names, where, None, None, said.targets, said.doubt), declared


def read_whole_torch_dataset(source: Any, request: Request) -> Source:
    """Read a map-style data set as a source that is not divided.

    Raises:
        DataError: as for :func:`read_torch_dataset`.
    """
    part, declared = read_torch_dataset(source, request)
    return Source(type(source).__name__, {WHOLE: part}, declared)


def read_torch_datasets(source: Mapping[str, Any], request: Request) -> Source:
    """Read a mapping from split names to map-style data sets.

    Raises:
        DataError: no key names a split, and as for :func:`read_torch_dataset`.
    """
    chosen = split_keys(source, request, "expected {'train': ..., 'test': ...}")
    parts, order = {}, None
    for key, role in chosen.items():
        parts[role], order = read_torch_dataset(source[key], request, key)
    return Source(type(next(iter(source.values()))).__name__, parts, order)


def _item(source: Any, name: str, convert: Callable[[Any], Content], i: int) -> Content:
    return convert(_pair(source[i], name, i)[0])


def _pair(item: Any, name: str, i: int) -> tuple[Any, Any]:
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, Mapping):
        keys = {str(key).casefold(): key for key in item}
        image = next((keys[k] for k in ("image", "img", "pixel_values", "x") if k in keys), None)
        label = next((keys[k] for k in ("label", "labels", "target", "y") if k in keys), None)
        if image is not None and label is not None:
            return item[image], item[label]
    raise DataError(
        f"item {i} of {name} is a {type(item).__name__}, expected a pair (image, label)",
        hint="wrap the data set so that each item is (image, label)",
    )


def _require_constant(source: Any, name: str, convert: Callable[[Any], Content]) -> None:
    """Refuse items that differ between two reads: a stored row could not belong to them."""
    probes = sorted({0, len(source) // 2, len(source) - 1})
    reasons: list[str] = []
    for i in probes:
        try:
            changed = _probe(source, name, i, convert) != _probe(source, name, i, convert)
        except DataError:
            raise
        except Exception as error:  # one bad item is listed when it is read in earnest
            reasons.append(str(error) or type(error).__name__)
            continue
        if changed:
            raise DataError(
                f"item {i} of {name} changes from one read to the next, expected the same image"
                " each time",
                hint="remove the random transforms from the data set; use numbered views as"
                " augmentation, which can be cached",
            )
    if len(reasons) == len(probes):
        raise DataError(f"the items of {name} are not usable as images: {reasons[0]}")


def _probe(source: Any, name: str, i: int, convert: Callable[[Any], Content]) -> str:
    return digest(convert(_pair(source[i], name, i)[0]))


def _declared_classes(source: Any) -> tuple[str, ...] | None:
    classes = getattr(source, "classes", None)
    if classes is None and hasattr(source, "indices") and hasattr(source, "dataset"):
        return _declared_classes(source.dataset)  # torch.utils.data.Subset
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        return tuple(str(c) for c in classes)
    return None


def _targets(source: Any) -> Any:
    """Return all labels without reading any image, or None if the data set does not offer them."""
    if hasattr(source, "indices") and hasattr(source, "dataset"):
        below = _targets(source.dataset)
        return None if below is None else below[np.asarray(source.indices, np.int64)]
    targets = getattr(source, "targets", None)
    # torchvision keeps the labels as they are on disk there, before any target_transform
    if targets is None or getattr(source, "target_transform", None) is not None:
        return None
    array = as_array(targets)
    return array if array.ndim in (1, 2) and len(array) == len(source) else None


def _read_targets(source: Any, name: str, reporter: Reporter) -> Any:
    targets: list[Any] = []
    with reporter.task("Reading labels", len(source), "items") as task:
        for i in range(len(source)):
            try:
                label = _pair(source[i], name, i)[1]
            except DataError:
                raise
            except Exception as error:
                raise DataError(
                    f"item {i} of {name} cannot be read: {type(error).__name__}: {error}",
                    hint="give the data set an attribute 'targets' with all labels, so that bad"
                    " items can be skipped",
                ) from error
            whole = np.ndim(label) == 0 and hasattr(label, "item")
            targets.append(label.item() if whole else label)
            task.advance()
    if targets and all(np.ndim(one) == 1 and hasattr(one, "shape") for one in targets):
        return np.stack([as_array(one) for one in targets])
    return targets
