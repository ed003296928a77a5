"""The memory that tensors take while a network runs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headstart.backbones import Backbone
from headstart.core.arguments import Arguments
from headstart.extraction import Extraction
from headstart.study import network
from headstart.study.configurations import Autograd


def peak_bytes(
    cuts: Sequence[Backbone], inputs: Arguments, autograd: Autograd, settings: Extraction
) -> int:
    """Return the most memory that tensors take at a time while one batch runs."""
    module = cuts[0].module
    for cut in cuts:
        _ = cut.layout  # found by a run of its own, which must not be measured here
    memory = CountingMemory([*module.parameters(), *module.buffers(), *inputs.tensors()])
    with network.seeded(0, inputs.device), memory:
        outputs = network.run_batch(cuts, inputs, autograd, settings)
    del outputs
    return memory.peak


class CountingMemory(TorchDispatchMode):
    """Counts the bytes of storages that operations make, until they are freed.

    Unlike the resident memory of a process, it does not depend on what else the process does.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}
        self.live: int = 0
        self.peak: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **dict(kwargs or {}))
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                self._count(value)
        return output

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.live -= self.sizes.pop(key, 0)


__all__ = ["CountingMemory", "peak_bytes"]
