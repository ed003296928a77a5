"""From items to what is predicted for them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Model:
    """A folder with a model: reads items, runs the network, names what it says.

    Args:
        folder: with ``model.json`` and the network.
        read: items → what the network takes.
        network: opens the network.
    """

    def __init__(
        self,
        folder: Path,
        read: Callable[..., Mapping[str, np.ndarray]],
        network: Callable[..., Any],
    ) -> None:
        self.folder = folder
        self.about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.classes = self.about["classes"]
        self.read, self.network = read, network(folder, self.about)

    def outputs(self, items: Sequence[Any], batch: int = 16) -> np.ndarray:
        """Return probabilities ``(n, classes)``, or the values of a regression.

        Args:
            items: image files, or texts.
            batch: how many are read and run at a time.
        """
        size = batch if self.about["any_number"] else 1
        parts = [
            self.network(self.read(items[at : at + size], self.about["input"], self.folder))
            for at in range(0, len(items), size)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)))

    def said(self, outputs: np.ndarray) -> Any:
        """Return what one item's outputs mean, in plain values."""
        numbers = {name: float(value) for name, value in zip(self.classes, outputs, strict=True)}
        if self.about["task"] == "regression":
            return {"values": numbers}
        if self.about["task"] == "multi-label":
            above = zip(self.classes, outputs, self.about["thresholds"], strict=True)
            labels = [name for name, value, threshold in above if value > threshold]
            return {"labels": labels, "probabilities": numbers}
        best = self.classes[int(np.argmax(outputs))]
        return {"class": best, "probabilities": numbers}


def main(model: Model, words: Sequence[str] | None = None) -> int:
    """Predict for what the command line names, one line of JSON an item."""
    noun = "image file" if model.about["kind"] == "image" else "text"
    parser = argparse.ArgumentParser(description=f"Predict: one line of JSON for each {noun}.")
    parser.add_argument("items", nargs="+", metavar=noun.upper().replace(" ", "_"))
    status = 0
    for item in parser.parse_args(words).items:
        try:
            found = model.said(model.outputs([item])[0])
        except (OSError, ValueError) as error:
            print(f"error: {item}: {error}", file=sys.stderr)
            status = 1
            continue
        print(json.dumps({"item": item, **found}, ensure_ascii=False))
    return status


__all__ = ["Model", "main"]
