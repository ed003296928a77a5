"""What a family of backbones is, and the messages that families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.errors import BackboneError
from headstart.core.wording import nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

IMAGENET = "ImageNet-1k"
"""What classifiers are known of, by the name that :class:`About` states."""


@dataclass(frozen=True)
class Request:
    """What a family is asked to build.

    Attributes:
        name: the name within the family ("resnet18.a1_in1k").
        weights: a local file, or None for the weights that the name stands for.
        model_args: further arguments of the architecture.
        code_sha256: digest that a file of code must have to be run; None: any.
    """

    name: str
    weights: Path | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    code_sha256: str | None = None


@dataclass(frozen=True)
class About:
    """What is stated of weights, for listings and reports; empty where nothing is.

    Attributes:
        licence: its usual short name ("Apache-2.0").
        origin: who made them, or where they are published.
        data: what they were trained on.
        made_for: kinds of items that they were made for, as
            :mod:`headstart.data.looking` names them; empty: any.
    """

    licence: str = ""
    origin: str = ""
    data: str = ""
    made_for: tuple[str, ...] = ()

    def __str__(self) -> str:
        trained = f"trained on {self.data}" if self.data else ""
        return "; ".join(filter(None, (self.licence, self.origin, trained)))


NOTHING_STATED = About()


@dataclass(frozen=True, eq=False)
class Built:
    """What a family built.

    Attributes:
        module: returns features ``(n, d)``; its classifier is removed.
        known: the fields of the inputs that the weights state, as far as they do.
        blocks: names of the main blocks, in forward order: the layers that are listed first.
        classifier: parameter prefixes of the removed classifier, which a local file may have.
        notes: what was decided on the user's behalf.
        kind: of the inputs, by its name in the table of input kinds.
        code: the file of code that was run, as :func:`~headstart.core.fingerprints.stamp`
            describes it; None: no file was.
        loaded: whether the family itself has loaded the requested file of weights.
        files: by role (``weights``) the files of a local folder that the module was built from,
            as :func:`~headstart.core.fingerprints.stamp` describes them.
        tokens: the layer whose output a pooling is about that the user names without a layer;
            None: the network's own output.
        about: what is stated of the weights; of a file of the user's own nothing is.
        unstated: why the weights do not say everything about their inputs, as a sentence without a
            full stop; empty: nothing is to be said.
        adapt: changes the tensors of a file that was made for images of three channels into those
            of a network of others, and says what it did; None: the network takes what such files
            are made for.
        scaling: the layer that scales pixels of 0 to 255 inside the module; empty: none does.
    """

    module: nn.Module
    known: Mapping[str, Any]
    blocks: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kind: str = "image"
    code: Mapping[str, Any] | None = None
    loaded: bool = False
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tokens: str | None = None
    about: About = NOTHING_STATED
    adapt: Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], str]] | None = None
    scaling: str = ""
    unstated: str = ""


@dataclass(frozen=True, eq=False)
class Classifier:
    """The last linear layer of a network, as it was pre-trained.

    Attributes:
        weight: ``(d, c) float64``; logits are ``features @ weight + bias``.
        bias: ``(c,) float64``.
        data: what it was trained on, which says what its classes are.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    data: str = IMAGENET


@dataclass(frozen=True, eq=False)
class TextVectors:
    """What the tower of texts of a model makes of texts.

    Attributes:
        vectors: ``(k, d) float64``, one text a row, in the space of the images' rows.
        factor: by which a cosine becomes a logit.
        cut: texts that are longer than the tower reads.
    """

    vectors: NDArray[np.float64]
    factor: float
    cut: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """One kind of backbone.

    Attributes:
        name: of the family; its backbones are written ``name/...``.
        form: how its backbones are written, for help texts ("timm/NAME[.TAG]").
        summary: one line, for listings.
        build: builds a backbone.
        names: returns the names that have weights, for listings; there may be none to list.
        claims: returns the name within the family of a source that it builds, or None. By
            default: of ``name/...`` what follows the slash.
        groups: returns the parameter names of a network of this family, block by block from the
            input to the output, or None for a network of another family; see
            :func:`headstart.backbones.groups.block_groups`.
        code: returns the file of code that building a name of this family runs; None: no name
            runs any. What a run folder names is run only where the user trusts it.
        suffix: of files that hold a whole network, which a user may name instead of a name: they
            are the file of weights of ``name/model``.
        folder: returns the folder that a source names for weights, or None; a family that reads
            folders takes them as ``weights``, too.
        loading: names of model arguments by which the library reads files or addresses; a run
            folder may not set them.
        fixed: whether name, arguments, the requested file of weights and the versions of the
            libraries decide what is built: nothing is downloaded, and no code of the user's runs.
            What is known of such a backbone is kept, and the next run builds it only to run it.
        classifier: returns a function that loads the classifier of ImageNet's 1,000 classes that
            reads the features of a backbone, with the weights that its name stands for; None: it
            states none.
        texts: embeds texts by the tower of texts of a model whose module has ``way == "tower"``;
            None: no model of this family has one.
    """

    name: str
    form: str
    summary: str
    build: Callable[[Request], Built]
    names: Callable[[], Sequence[str]] = tuple
    claims: Callable[[str], str | None] | None = None
    groups: Callable[[nn.Module], Sequence[Sequence[str]] | None] | None = None
    code: Callable[[str], Path] | None = None
    suffix: str = ""
    folder: Callable[[str], Path | None] | None = None
    loading: tuple[str, ...] = ()
    about: Callable[[str], About] | None = None
    fixed: Callable[[Request], bool] = lambda _: False
    classifier: Callable[[Request], Callable[[], Classifier | None] | None] = lambda _: None
    texts: Callable[[Request, Sequence[str]], TextVectors] | None = None

    def claimed(self, source: str) -> str | None:
        """Return the name within the family of a source, or None if it is not of this family."""
        if self.claims is not None:
            return self.claims(source)
        family, _, name = source.partition("/")
        return name if family == self.name and name else None


def unknown(family: str, name: str, names: Sequence[str]) -> BackboneError:
    """Return the error for a name that a family does not know."""
    near = ", ".join(f"{family}/{other}" for other in nearest(name, names, 4))
    return BackboneError(
        f"{family} knows no model '{name}'",
        hint=f"the nearest are {near}" if near else f"list them with: headstart backbones {family}",
    )


def bad_arguments(name: str, error: TypeError) -> BackboneError:
    """Return the error for model arguments that the architecture does not take."""
    return BackboneError(
        f"{name} does not take these model arguments: {error}", hint="change model_args=…"
    )


def no_download(name: str, reason: str) -> BackboneError:
    """Return the error for weights that cannot be fetched."""
    return BackboneError(
        f"the weights of {name} cannot be downloaded ({reason[:160]})",
        hint="if you have a weights file, pass weights='FILE.safetensors'; headstart/photos and"
        " headstart/glyphs need no download",
    )


__all__ = [
    "IMAGENET",
    "NOTHING_STATED",
    "About",
    "Built",
    "Classifier",
    "Family",
    "Request",
    "TextVectors",
    "bad_arguments",
    "no_download",
    "unknown",
]
