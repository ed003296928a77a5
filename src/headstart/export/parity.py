"""Whether an artefact predicts what its run predicts: measured from the file on, without headstart.

The script of the artefact runs in a process of its own, in which importing headstart fails. It
reads real items as files, decodes and resizes them, and runs the network.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.core.errors import BackboneError
from headstart.core.scratch import scratch_folder
from headstart.data import Content
from headstart.data.content import text_of
from headstart.data.sample_files import is_samples_file

_ALONE = """
import json, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "headstart":
            raise ImportError("an artefact imports headstart")
sys.meta_path.insert(0, Missing())
sys.path.insert(0, sys.argv[1])
import numpy, predict
with open(sys.argv[2], encoding="utf-8") as file:
    items = json.load(file)
numpy.save(sys.argv[3], predict.model.outputs(items))
assert not any(name.partition(".")[0] == "headstart" for name in sys.modules)
"""


@dataclass(frozen=True)
class OfRows:
    """What it costs that a run was fitted on rows in half precision, and its artefact has float32.

    Attributes:
        precision: that the run's features are computed in.
        largest: the largest difference of a probability between the two.
        items: labelled test items that both were scored on; 0: there are none.
        figure: what they were scored by, such as "accuracy".
        run, artefact: the score of each with its interval, as text.
        difference: of the artefact's score from the run's; of shares a fraction.
        same: items for which both predict the same; None: numbers, or none were scored.
    """

    precision: str
    largest: float
    items: int = 0
    figure: str = ""
    run: str = ""
    artefact: str = ""
    difference: float | None = None
    same: int | None = None

    def sentences(self) -> tuple[str, str, str]:
        """Say it: the cause, what it costs, and what to do."""
        cost = f"predictions differ by up to {self.largest:.2g}"
        if self.items:
            alike = "" if self.same is None else f", the same prediction for {self.same:,}"
            cost += (
                f"; on {self.items:,} labelled test items {self.figure} is {self.run} for the run"
                f" and {self.artefact} for the artefact{alike}"
            )
        else:
            cost += "; no labelled test items are available to say what that costs"
        return (
            f"this run was fitted on {self.precision} rows, and its artefact computes in float32",
            cost,
            "fit with precision='float32' for identical predictions of run and artefact",
        )


@dataclass(frozen=True)
class Parity:
    """How near an artefact comes to its run.

    Attributes:
        items: real items that both have predicted.
        data: where they are from.
        largest: the largest difference of a probability; of a regression, in parts of the largest
            value of the same target.
        tolerance: the largest that was allowed.
        same: items for which both predict the same class, or the same labels; None: values.
        stored: the largest difference from the run's own predictions, where these are made of
            features in half precision and ``largest`` is measured in float32; None: they are not.
        rows: what that costs; None: nothing, they are in float32.
    """

    items: int
    data: str
    largest: float
    tolerance: float
    same: int | None = None
    stored: float | None = None
    rows: OfRows | None = None


def outputs_alone(folder: Path, contents: Sequence[Content]) -> np.ndarray:
    """Return what an artefact predicts in a process without headstart, ``(n, k)``.

    Args:
        folder: of the artefact.
        contents: of items.

    Raises:
        BackboneError: its script fails, or does not read such files.
    """
    if any(isinstance(each, bytes) and is_samples_file(each) for each in contents):
        raise BackboneError(
            "the items are NumPy or DICOM files, which an artefact's script does not read",
            hint="give image files with data=DATA, or use run.to_torch()",
        )
    with scratch_folder() as scratch:
        items: list[str] = []
        for number, content in enumerate(contents):
            if isinstance(content, np.ndarray):
                buffer = io.BytesIO()
                Image.fromarray(content).save(buffer, format="PNG")
                content = buffer.getvalue()
            elif isinstance(content, str) or (folder / "tokenizer.json").exists():
                items.append(text_of(content))
                continue
            path = scratch / f"item-{number}"
            path.write_bytes(content)
            items.append(str(path))
        names, found = scratch / "items.json", scratch / "outputs.npy"
        names.write_text(json.dumps(items), encoding="utf-8")
        words = [sys.executable, "-I", "-B", "-c", _ALONE, str(folder), str(names), str(found)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise BackboneError(f"the artefact's own script fails: {lines[-1][:300]}")
        return np.asarray(np.load(found, allow_pickle=False))


def difference(found: np.ndarray, expected: np.ndarray, task: str) -> np.ndarray:
    """Return by how much each item's outputs differ, ``(n,)``, of the output that differs most.

    Args:
        found, expected: ``(n, k)``, probabilities or the values of a regression.
        task: values are compared in parts of the largest one of their own target: of metres and
            micrometres in one run, the metres would else hide any error of the others.
    """
    gap = np.abs(found.astype(np.float64) - expected)
    if task == "regression":
        gap = gap / np.maximum(np.abs(expected).max(axis=0, initial=0.0), 1e-12)
    return np.asarray(gap.max(axis=1, initial=0.0))


__all__ = ["OfRows", "Parity", "difference", "outputs_alone"]
