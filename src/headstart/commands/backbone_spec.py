"""How to build a backbone: the options of every command that runs one. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart.backbones.families import families, in_folder, whole_file
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.kinds import PER_CHANNEL, RENAMES, SIZE
from headstart.core.settings import Fault, check, option, recorded
from headstart.core.wording import any_of
from headstart.modules.pooling import pooling_kinds

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones import Backbone

BACKBONE = "Backbone"
"""The panel of the help text."""

INPUTS = (
    "mean", "std", "size", "scale", "crop_fraction", "interpolation", "channels", "bands",
    "decoder", "max_length", "seconds", "windows", "short",
)  # fmt: skip
"""The values of the inputs that are options of their own."""


def _wrong_renames(value: Any) -> str | None:
    if isinstance(value, Mapping) and all(
        isinstance(old, str) and old and (new is None or isinstance(new, str))
        for old, new in value.items()
    ):
        return None
    return f"must map names to names, such as {{'module': ''}}, not {value!r}"


@dataclass(frozen=True)
class BackboneSpec:
    """How to build a backbone: the arguments of :func:`headstart.load_backbone`.

    Attributes:
        source: name of the backbone, or ``auto``; for a module of the user's own, the name of its
            class.
        layer, pooling: the cut.
        weights: path of a local checkpoint, or None.
        rename: new names for names in that file.
        model_args: further arguments of the architecture.
        mean, std, size, scale, crop_fraction, interpolation, channels, bands, decoder, max_length,
            seconds, windows, short: single values of the preprocessing, in the place of those that
            the weights state.
        preprocessing: further values of the inputs, by name.
        kind: of the inputs, where all of their values are given; None: that of the weights.
        own_module: whether ``source`` is a module that only its owner can build again.
    """

    source: str = option(
        "auto",
        lambda: (
            "auto: chosen from the data, and the reason is printed. Or "
            + any_of([family.form for family in families()])
            + "."
        ),
        flags=("--backbone", "-b"),
        panel=BACKBONE,
        check=lambda name: None if name.strip() else "is empty: omit it, or name a backbone",
    )
    layer: str | None = option(
        None,
        "Cut after this layer; 'headstart backbones NAME' lists them.",
        shown="the input of the classifier",
        panel=BACKBONE,
    )
    pooling: str | None = option(
        None,
        lambda: f"{any_of(kind.name for kind in pooling_kinds())}.",
        shown="avg at a layer",
        panel=BACKBONE,
    )
    weights: str | None = option(
        None,
        "A local checkpoint instead of the named weights.",
        metavar="FILE",
        panel=BACKBONE,
    )
    rename: Mapping[str, Any] = option(
        {},
        "Replace the prefix OLD of names in the weights file by NEW, where this is not detected.",
        kind=RENAMES,
        check=_wrong_renames,
        panel=BACKBONE,
    )
    model_args: Mapping[str, Any] = option(
        {},
        'Further arguments of the architecture, such as \'{"pad_type": "same"}\'.',
        panel=BACKBONE,
    )
    mean: Any = option(
        None,
        "Mean of the inputs in pre-training, on scaled values; for bands, train measures it.",
        kind=PER_CHANNEL,
        shown="the weights' own",
        panel=BACKBONE,
    )
    std: Any = option(
        None,
        "Standard deviation, likewise.",
        kind=PER_CHANNEL,
        metavar="S|R,G,B",
        shown="the weights' own",
        panel=BACKBONE,
    )
    size: Any = option(
        None, "Input size in pixels.", kind=SIZE, shown="the weights' own", panel=BACKBONE
    )
    scale: float | None = option(
        None,
        "Factor on the 0..255 values before mean and std.",
        shown="1/255",
        panel=BACKBONE,
    )
    crop_fraction: float | None = option(
        None,
        "Part of the resized image that the centre crop keeps, in (0, 1].",
        flags=("--crop",),
        panel=BACKBONE,
    )
    interpolation: str | None = option(
        None, "nearest, box, bilinear, hamming, bicubic or lanczos.", panel=BACKBONE
    )
    channels: str | None = option(None, "RGB or BGR.", panel=BACKBONE)
    bands: tuple[int, ...] | None = option(
        None,
        "Which bands of an image the network sees, as floats at full bit depth: 4,3,2, or 1,1,1"
        " for a grey image.",
        shown="8-bit RGB",
        metavar="N,…",
        panel=BACKBONE,
    )
    decoder: Literal["pillow", "nvjpeg"] | None = option(
        None,
        "pillow; or nvjpeg, which decodes and resizes JPEGs on a CUDA device. Its pixels differ"
        " slightly, so its rows are cached separately.",
        shown="pillow",
        panel=BACKBONE,
    )
    max_length: int | None = option(
        None,
        "Longest text that is read, in tokens.",
        shown="the weights' own",
        metavar="TOKENS",
        at_least=3,
        panel=BACKBONE,
    )
    seconds: float | None = option(
        None,
        "Length of the window that is read from a sound, in seconds.",
        shown="the weights' own, or 30",
        metavar="S",
        above=0,
        panel=BACKBONE,
    )
    windows: int | None = option(
        None,
        "Number of windows read from a longer sound, evenly spaced; a row is their mean.",
        shown="1, the first",
        at_least=1,
        panel=BACKBONE,
    )
    short: Literal["own", "silence", "repeat"] | None = option(
        None,
        "How to treat a sound shorter than the window: keep its length, or pad it with silence"
        " or with repeats of itself.",
        shown="own",
        panel=BACKBONE,
    )
    preprocessing: Mapping[str, Any] = option({}, "Further values.", cli=False)
    kind: str | None = option(None, "The kind of inputs.", cli=False)
    own_module: bool = option(False, "Whether only its owner can build it.", cli=False)

    def __post_init__(self) -> None:
        if self.weights is None and (named := whole_file(self.source)) is not None:
            object.__setattr__(self, "weights", self.source)
            object.__setattr__(self, "source", named)
        source, weights = in_folder(self.source, self.weights)
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "weights", weights)
        if self.weights is not None:
            # Another working directory must find the file again.
            object.__setattr__(self, "weights", _absolute(self.weights))
        check(self)

    def named(self, name: str) -> BackboneSpec:
        """Return the same settings with the backbone that was chosen for ``auto``.

        Raises:
            ConfigError: some of them belong to one architecture, and none was named.
        """
        given = [n for n in ("weights", "rename", "model_args", "bands") if getattr(self, n)]
        if given:
            said = "needs a named backbone, and backbone='auto' names none"
            raise ConfigError(
                tuple(Fault(each, said) for each in given),
                hint="name the architecture: backbone='NAME'",
            )
        return dataclasses.replace(self, source=name)

    def load(self, code_sha256: str | None = None, *, checked: bool = False) -> Backbone:
        """Build the backbone.

        Args:
            code_sha256: digest that a file of code must have to be run; None: any.
            checked: an earlier run has seen that the network runs, so that it need not now.

        Raises:
            BackboneError: see :func:`headstart.load_backbone`; also for a module of the user's
                own, which has to be passed again.
        """
        if self.own_module:
            raise BackboneError(
                f"the run was made with a module of your own ({self.source}), "
                "which a run folder cannot hold",
                hint="pass it again: predict(data, run, backbone=load_backbone(module, ...))",
            )
        return self._load(self.source, code_sha256, checked=checked)

    def load_module(self, module: nn.Module) -> Backbone:
        """Return a module of the user's own as a backbone, with these settings."""
        return self._load(module)

    def _load(
        self, source: str | nn.Module, code_sha256: str | None = None, *, checked: bool = False
    ) -> Backbone:
        from headstart.backbones.load import build_backbone, load_backbone
        from headstart.data import inputs_kind

        values = self.inputs
        given = values if self.kind is None else {"inputs": inputs_kind(self.kind)(**values)}
        load: Callable[..., Backbone] = build_backbone if checked else load_backbone
        return load(
            source,
            weights=self.weights,
            rename=self.rename,
            model_args=self.model_args,
            layer=self.layer,
            pooling=self.pooling,
            code_sha256=code_sha256,
            **given,
        )

    @property
    def inputs(self) -> dict[str, Any]:
        """The values of the inputs that are given, by name."""
        single = {name: getattr(self, name) for name in INPUTS}
        given = {name: value for name, value in single.items() if value is not None}
        return {name: _tuple(value) for name, value in {**self.preprocessing, **given}.items()}

    def with_inputs(self, values: Mapping[str, Any]) -> BackboneSpec:
        """Return the same backbone with other values of its inputs."""
        single = {name: value for name, value in values.items() if name in INPUTS}
        more = {name: value for name, value in values.items() if name not in INPUTS}
        return dataclasses.replace(self, **single, preprocessing={**self.preprocessing, **more})

    @classmethod
    def of(cls, backbone: Backbone) -> BackboneSpec:
        """Describe a backbone that is already built, with all values of its inputs."""
        values = backbone.inputs.values()
        return cls(
            source=backbone.name,
            layer=backbone.layer,
            pooling=backbone.pooling,
            weights=backbone.origin.get("weights"),
            rename=dict(backbone.origin.get("rename", {})),
            model_args=dict(backbone.origin.get("model_args", {})),
            own_module=not backbone.origin.get("rebuildable", False),
            **{name: values.pop(name, None) for name in INPUTS},
            preprocessing=values,
            kind=backbone.inputs.kind,
        )

    def plain(self) -> dict[str, Any]:
        """Return what ``run.json`` says of the backbone, in plain values."""
        from headstart.core.records import to_plain

        plain = {name: value for name, value in recorded(self).items() if name not in INPUTS}
        return dict(to_plain({**plain, "preprocessing": self.inputs}))

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> BackboneSpec:
        """Rebuild from what :meth:`plain` returned.

        Raises:
            BackboneError: names that a spec does not have.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise BackboneError(f"a backbone has no settings {', '.join(unknown)}")
        inputs = {name: _tuple(value) for name, value in values.get("preprocessing", {}).items()}
        single = {name: inputs.pop(name) for name in INPUTS if name in inputs}
        return cls(**{**values, **single, "preprocessing": inputs})


def _absolute(path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:  # the home of an unknown user
        raise ConfigError((Fault("weights", f"'{path}' cannot be found: {error}"),)) from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


__all__ = ["INPUTS", "BackboneSpec"]
