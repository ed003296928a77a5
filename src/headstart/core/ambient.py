"""What a caller may have set around a call, which its computations must not inherit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""NumPy's own."""


@contextmanager
def plainly() -> Iterator[None]:
    """Compute as if nothing were set around the call: what is set is there again afterwards.

    That is autocast, inference mode and switched-off gradients, a default device of torch, and
    errors of NumPy for what is not one. Where torch is not imported, nobody has set it.
    """
    torch: Any = sys.modules.get("torch")
    with ExitStack() as stack:
        if np.geterr() != _ERRORS:
            stack.enter_context(np.errstate(**_ERRORS))  # type: ignore[arg-type]
        if torch is not None:
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
            if not torch.is_grad_enabled():
                stack.enter_context(torch.enable_grad())
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
        yield


__all__ = ["plainly"]
