"""An artefact of ONNX, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class Network:
    """``model.onnx`` on the CPU."""

    def __init__(self, folder: Any, description: Mapping[str, Any]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.names = description["inputs"]
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the outputs ``(n, k)``."""
        return np.asarray(self.session.run(None, {n: arrays[n] for n in self.names})[0])


__all__ = ["Network"]
