"""What the user's own framework calls the ways of running a backbone: PyTorch's words, or Keras's.

Names of configurations are the same for every backbone. A Keras user does not call ``eval()``:
there the mode is an argument of every call (``training``), and whether a batch norm follows it
hangs on ``trainable`` as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from headstart.data import Inputs, Preprocessing
from headstart.modules.keras import KerasPart
from headstart.study.configurations import Configuration

Way = Callable[[Configuration, Mapping[str, Any] | None], str]


@dataclass(frozen=True)
class Terms:
    """The words of one framework.

    Attributes:
        framework: its name.
        evaluation: what puts a backbone in evaluation mode, as an instruction.
        keep: what keeps its statistics where they are, as an instruction.
        way: from a configuration, and its recipe where it fine-tunes, to what one writes for it;
            empty where its name says it already.
        imports: what the code begins with.
        code: from inputs that need changing (None: none), what several items are called and the
            configuration's autograd mode, to lines of Python that compute rows in evaluation mode.
    """

    framework: str
    evaluation: str
    keep: str
    way: Way
    imports: tuple[str, ...]
    code: Callable[[Inputs | None, str, str], list[str]]


def terms_of(module: nn.Module) -> Terms:
    """Return the words of the framework that a network was written in."""
    return KERAS if isinstance(module, KerasPart) else PYTORCH


def _keras_way(configuration: Configuration, recipe: Mapping[str, Any] | None) -> str:
    """Return ``training`` of the call and ``trainable`` of the base that do the same in Keras."""
    if recipe is not None:
        norms = "" if recipe.get("norm") == "batch" else "; batch norms with training=False"
        return f"fit with trainable=True{norms}"
    statistics, draws = configuration.normalises_by, configuration.draws
    if configuration.recompute:
        return "training=True, trainable=True in each epoch; training=False in the test"
    if statistics == "batch" and not draws:
        return 'no call: FreezePolicy(norm="batch", stochastic="off")'
    if statistics == "batch":
        words = "training=True, trainable=True"
    else:
        words = "training=True, trainable=False" if draws else "training=False"
    if statistics in ("reestimated", "blend"):
        words += (
            f" after headstart.{'reestimate' if statistics == 'reestimated' else 'freezing.blend'}"
        )
    return f"{words}, shuffle=False" if configuration.order == "class" else words


def _torch_code(changed: Inputs | None, unit: str, autograd: str) -> list[str]:
    lines = ["backbone.eval()", *(changed.code() if changed is not None else ())]
    context = "no_grad" if autograd == "no_grad" else "inference_mode"
    return [*lines, f"with torch.{context}():", f"    rows = backbone({unit})"]


def _keras_code(changed: Inputs | None, unit: str, autograd: str) -> list[str]:
    del autograd  # `predict` never records gradients
    lines = ["backbone.trainable = False"]
    if isinstance(changed, Preprocessing):
        flip = "[..., ::-1]" if changed.channels == "BGR" else ""
        lines += [
            f"# {unit}: RGB, 0..255, (n, h, w, 3)",
            f"{unit} = ({unit}{flip} * {changed.scale:.8g} - {list(changed.mean)})"
            f" / {list(changed.std)}",
        ]
    return [*lines, f"rows = backbone.predict({unit})  # training=False"]


PYTORCH = Terms(
    framework="PyTorch",
    evaluation="call backbone.eval()",
    keep="call backbone.eval() before any forward pass, or headstart.freeze(backbone)",
    way=lambda _configuration, _recipe: "",
    imports=("import torch",),
    code=_torch_code,
)

KERAS = Terms(
    framework="Keras",
    evaluation="call base(x, training=False)",
    keep="set base.trainable = False while it is frozen, and afterwards headstart.freeze(model,"
    ' {base: "trainable-fixed-norm"}), which holds in fit as well',
    way=_keras_way,
    imports=(),
    code=_keras_code,
)

__all__ = ["KERAS", "PYTORCH", "Terms", "terms_of"]
