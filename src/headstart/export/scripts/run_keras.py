"""A ``keras.Model``, from pixels to probabilities."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import numpy as np


class Network:
    """``model.keras``, by whatever backend of Keras is installed."""

    def __init__(self, folder: Any, description: Mapping[str, Any]) -> None:  # noqa: ARG002
        if "KERAS_BACKEND" not in os.environ:
            modules = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
            found = [name for name, module in modules.items() if importlib.util.find_spec(module)]
            os.environ["KERAS_BACKEND"] = found[0]
        import keras

        self.model = keras.saving.load_model(folder / "model.keras", compile=False)

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the outputs ``(n, k)``."""
        pixels = arrays["pixels"].transpose(0, 2, 3, 1).astype(np.float32)
        return np.asarray(self.model.predict(pixels, verbose=0))


__all__ = ["Network"]
