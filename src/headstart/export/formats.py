"""The table of artefacts. Importing it loads no numerical library: help texts read it.

To add a format, write a function of :mod:`headstart.export.writers` and a file of
``export/scripts`` that runs what it writes, and enter both here.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from headstart.core.errors import MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.export.predictor import Predictor

    Writer = Callable[[Predictor, Path], "Written"]


@dataclass(frozen=True)
class Written:
    """What a format has written.

    Attributes:
        inputs: names of what the network takes, in order.
        any_number: whether it takes any number of items at a time; else one.
    """

    inputs: tuple[str, ...]
    any_number: bool = True


@dataclass(frozen=True)
class Format:
    """One kind of artefact.

    Attributes:
        name: what ``to`` takes.
        summary: one line for help texts.
        function: of :mod:`headstart.export.writers`, which writes the network into a folder.
        script: the file of ``export/scripts`` that runs it.
        packages: that the script needs, as pip names them.
        needs: modules that writing needs, and the extra of headstart that installs them.
    """

    name: str
    summary: str
    function: str
    script: str
    packages: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def writer(self) -> Writer:
        """Return the function that writes the network."""
        module = importlib.import_module("headstart.export.writers")
        return cast("Writer", getattr(module, self.function))

    def missing(self) -> MissingExtraError | None:
        """Return what is not installed that writing needs, as an error."""
        for module in self.needs:
            if importlib.util.find_spec(module) is None:
                return MissingExtraError(module, self.name, f"to='{self.name}'")
        return None


_ONNX = ("onnxruntime", "onnx", "onnxscript")
_FORMATS = (
    Format("onnx", "ONNX", "write_onnx", "run_onnx", ("onnxruntime",), _ONNX),
    Format(
        "openvino",
        "Intel's representation",
        "write_openvino",
        "run_openvino",
        ("openvino",),
        ("openvino",),
    ),
    Format("pt2", "a program of torch.export", "write_pt2", "run_pt2", ("torch",)),
    Format(
        "safetensors",
        "tensors and a list of PyTorch operators, which cannot contain code",
        "write_safetensors",
        "run_safetensors",
        ("torch", "safetensors"),
    ),
    Format(
        "keras",
        "a keras.Model, from a Keras backbone",
        "write_keras",
        "run_keras",
        ("keras",),
        ("keras",),
    ),
)
FORMATS = {kind.name: kind for kind in _FORMATS}
"""Every kind of artefact, by name."""


def format_names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return tuple(FORMATS)


def describe_formats() -> str:
    """Return all formats with their summaries in one line, for ``--help``."""
    return " ".join(f"{kind.name}: {kind.summary}." for kind in _FORMATS)


__all__ = ["FORMATS", "Format", "Written", "describe_formats", "format_names"]
