"""Stored rows for a loop of the user's own: ``freeze_and_cache``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from headstart.cache import Block, FeatureCache, Filling
from headstart.core.arguments import Arguments
from headstart.core.errors import ConfigError, DataError, FreezeError
from headstart.core.progress import Reporter, SilentReporter
from headstart.finetuning.rows import compute_columns, stored_tensors
from headstart.freezing import FreezeHandle, freeze
from headstart.freezing.contract import contract_on
from headstart.freezing.plan import Spec
from headstart.modules.digests import digest
from headstart.prefix import Cut, NoCut, find_cut
from headstart.prefix.boundary import Dtype
from headstart.store import FeatureSet, Space

_CHECKED_ITEMS = 3


class StoredRows(Dataset[Any]):
    """What a data set yields, with stored boundary rows in place of the inputs.

    ``rows[i]`` is ``(boundary, *rest)`` where the data set has ``(inputs, *rest)``, and
    ``boundary`` alone where it has ``inputs`` alone. ``boundary`` is one tensor, or a tuple where
    the cut has several. ``DataLoader`` fetches a batch in one read; worker processes are not
    needed.
    """

    def __init__(self, cut: Cut, rows: FeatureSet, rest: Sequence[tuple[Any, ...] | None]) -> None:
        self._cut, self._rows, self._rest = cut, rows, rest

    def __len__(self) -> int:
        """The number of items."""
        return len(self._rest)

    def __getitem__(self, index: int) -> Any:
        """Return one item."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Return several items, read together."""
        if any(not -len(self) <= index < len(self) for index in indices):
            raise IndexError(f"an index is out of range for {len(self)} items")
        tensors = stored_tensors(self._cut, self._rows[np.asarray(indices, np.int64)])
        items = []
        for place, index in enumerate(indices):
            parts = tuple(tensor[place] for tensor in tensors)
            boundary: Any = parts[0] if len(parts) == 1 else parts
            rest = self._rest[index]
            items.append(boundary if rest is None else (boundary, *rest))
        return items


class Suffix(nn.Module):
    """The rest of a model behind its cut: takes what :class:`StoredRows` yields.

    Parameters, buffers and submodules are those of the model, under the same names.
    """

    def __init__(self, cut: Cut) -> None:
        super().__init__()
        self.rest = cut.suffix

    def forward(self, boundary: Any) -> Any:
        """Return what the model returns for the items whose boundary rows these are."""
        tensors = boundary if isinstance(boundary, tuple | list) else (boundary,)
        return self.rest(*tensors)


def freeze_and_cache(
    model: nn.Module,
    dataset: Any,
    spec: Spec | None = None,
    *,
    dtype: Dtype = "float32",
    batch_size: int = 64,
    cache: Path | str | FeatureCache | None = None,
    reporter: Reporter | None = None,
) -> tuple[Suffix, StoredRows]:
    """Run the frozen part of a model once over a data set, and return what is left to train.

    Two lines of a training loop change::

        suffix, rows = headstart.freeze_and_cache(model, dataset, {"": "frozen", "fc": "trainable"})
        for boundary, labels in DataLoader(rows, batch_size=32, shuffle=True):
            loss = criterion(suffix(boundary), labels)

    An optimizer of ``model.parameters()`` stays valid, and ``model.state_dict()`` has what was
    trained. Rows are kept in the feature cache under the content of the inputs: a second call,
    another head or another order of the data computes nothing.

    Args:
        model: any module that takes one tensor per batch, on the device where it is to run.
        dataset: map-style (``len`` and indexing); an item is the input tensor, or a tuple or list
            that begins with it. Inputs must be the same at every access: augment with numbered
            views, or behind the cut.
        spec: what to freeze, as for :func:`headstart.freeze`; None: the contract that the model
            already has.
        dtype: of stored rows.
        batch_size: items per forward pass of the frozen part.
        cache: folder of the cache; None: ``$HEADSTART_CACHE`` or the platform's.
        reporter: shown progress; silent by default.

    Returns:
        The suffix and the stored rows, items in the order of the data set.

    Raises:
        FreezeError: no contract, or nothing of the model can be computed once (with the reason).
        DataError: inputs that change from access to access, or are not tensors.
    """
    if batch_size < 1:
        raise ConfigError((f"batch_size must be at least 1, not {batch_size}",))
    store = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    if spec is None and contract_on(model) is None:
        raise FreezeError(
            "nothing says which part of the model is frozen",
            hint="pass spec, such as {'': 'frozen', 'fc': 'trainable'}, or call freeze first",
        )
    _check_repeatable(dataset)
    example = torch.stack([_inputs(dataset[i]) for i in range(min(8, len(dataset)))])
    handle = FreezeHandle.of(model) if spec is None else freeze(model, spec)
    cut = find_cut(model, example.to(_device(model)), handle, dtype=dtype, measure=False)
    if isinstance(cut, NoCut):
        raise FreezeError(
            f"no part of the model can be computed once: {cut.reason}",
            hint="freeze more, with running statistics and without dropout",
        )
    space = store.store.space(
        {"version": 1, "kind": "boundary", "cut": cut.describe(), "inputs": "tensors"}
    )
    ids, rest = _fill(cut, space, dataset, _device(model), batch_size, reporter or SilentReporter())
    return Suffix(cut), StoredRows(cut, space.read(ids), rest)


def _fill(
    cut: Cut,
    space: Space,
    dataset: Any,
    device: torch.device,
    batch_size: int,
    reporter: Reporter,
) -> tuple[list[str], list[tuple[Any, ...] | None]]:
    """Read the data once: collect ids and what comes with the inputs, compute missing rows."""
    ids: list[str] = []
    rest: list[tuple[Any, ...] | None] = []
    waiting: dict[str, Tensor] = {}

    def compute(keys: list[str]) -> Iterator[Block]:
        batch = Arguments((torch.stack([waiting[key] for key in keys]).to(device),))
        yield Block(keys, [compute_columns(cut, batch, batch_size)])

    with (
        reporter.task("store the frozen part", len(dataset), "items") as task,
        Filling((space,), batch_size=batch_size, reporter=reporter) as filling,
    ):
        for index in range(len(dataset)):
            item = dataset[index]
            inputs = _inputs(item)
            ids.append(digest(inputs))
            rest.append(tuple(item[1:]) if isinstance(item, tuple | list) else None)
            waiting[ids[-1]] = inputs
            if len(waiting) == batch_size or index + 1 == len(dataset):
                filling.fill(list(waiting), compute)
                waiting.clear()
            task.advance()
    return ids, rest


def _inputs(item: Any) -> Tensor:
    inputs = item[0] if isinstance(item, tuple | list) and item else item
    if not isinstance(inputs, Tensor):
        raise DataError(
            f"an item of the data set has a {type(inputs).__name__} as its input, expected a"
            " tensor",
            hint="let it return (tensor, label), with all transforms applied",
        )
    return inputs


def _check_repeatable(dataset: Any) -> None:
    """Refuse a data set with random inputs: stored rows would freeze one draw."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"a {type(dataset).__name__} has no length and no indexing",
            hint="pass a map-style data set",
        )
    if not len(dataset):
        raise DataError("the data set is empty")
    for index in sorted({0, len(dataset) // 2, len(dataset) - 1})[:_CHECKED_ITEMS]:
        if digest(_inputs(dataset[index])) != digest(_inputs(dataset[index])):
            raise DataError(
                f"item {index} of the data set is a different tensor on every access",
                hint="remove random augmentation, and use numbered views or noise after the cut",
            )


def _device(model: nn.Module) -> torch.device:
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


__all__ = ["StoredRows", "Suffix", "freeze_and_cache"]
