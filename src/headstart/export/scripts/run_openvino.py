"""An artefact of OpenVINO's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class Network:
    """``model.xml`` and ``model.bin`` on the CPU, in float32."""

    def __init__(self, folder: Any, description: Mapping[str, Any]) -> None:
        import openvino

        self.names = description["inputs"]
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        self.model = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", settings)

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the outputs ``(n, k)``."""
        found = self.model([arrays[name] for name in self.names])
        return np.array(found[0])


__all__ = ["Network"]
