"""What a family of backbones is, and the messages that families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from headstart.core.errors import BackboneError
from headstart.core.wording import nearest


@dataclass(frozen=True)
class Request:
    """What a family is asked to build.

    Attributes:
        name: the name behind the family's prefix ("resnet18.a1_in1k").
        weights: a local file, or None for the weights that the name stands for.
        model_args: further arguments of the architecture.
    """

    name: str
    weights: Path | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Built:
    """What a family built.

    Attributes:
        module: returns features ``(n, d)``; its classifier is removed.
        known: the fields of the inputs that the weights state, as far as they do.
        blocks: names of the main blocks, in forward order.
        classifier: parameter prefixes of the removed classifier, which a local file may have.
        notes: what was decided on the user's behalf.
        kind: of the inputs, by its name in the table of input kinds.
    """

    module: nn.Module
    known: Mapping[str, Any]
    blocks: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kind: str = "image"


@dataclass(frozen=True)
class Family:
    """One kind of backbone."""

    prefix: str
    summary: str
    build: Callable[[Request], Built]
    names: Callable[[], list[str]]


def first_line(error: Exception) -> str:
    """Return the kind and the first line of an error of a library, for use in a sentence."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")


def unknown(family: str, name: str, names: Sequence[str]) -> BackboneError:
    """Return the error for a name that a family does not know."""
    near = nearest(name, names, 4)
    hint = "the nearest are " + ", ".join(f"{family}/{other}" for other in near)
    return BackboneError(
        f"{family} knows no model '{name}'",
        hint=hint if near else f"list them with: headstart backbones {family}",
    )


def bad_arguments(name: str, error: TypeError) -> BackboneError:
    """Return the error for model arguments that the architecture does not take."""
    return BackboneError(
        f"{name} does not take these model arguments: {error}", hint="see --model-args"
    )


def no_download(name: str, reason: str) -> BackboneError:
    """Return the error for weights that cannot be fetched."""
    return BackboneError(
        f"the weights of {name} cannot be downloaded ({reason[:160]})",
        hint="with a file of weights at hand, give --weights FILE.safetensors; "
        "headstart/glyphs needs no download",
    )
