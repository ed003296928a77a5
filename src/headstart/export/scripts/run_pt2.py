"""A program of PyTorch's, as ``torch.export`` saves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class Network:
    """``model.pt2``."""

    def __init__(self, folder: Any, description: Mapping[str, Any]) -> None:
        import torch

        self.names = description["inputs"]
        self.module = torch.export.load(folder / "model.pt2").module()

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the outputs ``(n, k)``."""
        import torch

        with torch.no_grad():
            found = self.module(*(torch.from_numpy(arrays[name]) for name in self.names))
        return np.asarray(found.numpy())


__all__ = ["Network"]
