"""The settings that commands share, and how a command settles them.

An option added to a dataclass here, or to a command's own, is at once a Python parameter, a flag
of the command line with help and default, and part of the record in ``run.json``. Nothing heavy is
imported, so that a help text prints at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from headstart.backbones.families import families
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.settings import PER_CHANNEL, SIZE, check, option, options_of, recorded, settle
from headstart.extraction.settings import Extraction

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones import Backbone
    from headstart.cache import FeatureCache
    from headstart.core.progress import Reporter

BACKBONE, DATA, RUNNING = "Backbone", "Data", "Running"
"""The panels of the help text."""

OnBad = Literal["raise", "skip"]
Config = TypeVar("Config")
BackboneLike: TypeAlias = "str | Path | BackboneSpec | Backbone | nn.Module"


@dataclass(frozen=True)
class BackboneSpec:
    """How to build a backbone: the arguments of :func:`headstart.load_backbone`.

    Attributes:
        source: name of the backbone; for a module of the user's own, the name of its class.
        layer, pooling: the cut.
        weights: path of a local checkpoint, or None.
        model_args: further arguments of the architecture.
        mean, std, size, scale, crop_fraction, interpolation, channels: single values of the
            preprocessing, in the place of those that the weights state.
        preprocessing: further values of the inputs, by name.
        kind: of the inputs, where all of their values are given; None: that of the weights.
        own_module: whether ``source`` is a module that only its owner can build again.
    """

    source: str = option(
        "headstart/glyphs",
        " or ".join(family.form for family in families()) + ".",
        flags=("--backbone", "-b"),
        panel=BACKBONE,
    )
    layer: str | None = option(
        None,
        "Cut after this layer; 'headstart backbones NAME' lists them.",
        shown="the input of the classifier",
        panel=BACKBONE,
    )
    pooling: str | None = option(
        None, "avg, cls, gem or none.", shown="avg at a layer", panel=BACKBONE
    )
    weights: str | None = option(
        None,
        "A local checkpoint instead of the weights of that name.",
        metavar="FILE",
        panel=BACKBONE,
    )
    model_args: Mapping[str, Any] = option(
        {},
        'Further arguments of the architecture, such as \'{"pad_type": "same"}\'.',
        panel=BACKBONE,
    )
    mean: Any = option(
        None,
        "Mean of the inputs in pre-training, on scaled values.",
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
    preprocessing: Mapping[str, Any] = option({}, "Further values.", cli=False)
    kind: str | None = option(None, "The kind of inputs.", cli=False)
    own_module: bool = option(False, "Whether only its owner can build it.", cli=False)

    def __post_init__(self) -> None:
        if self.weights is not None:
            # Another working directory must find the file again.
            path = str(Path(self.weights).expanduser().absolute())
            object.__setattr__(self, "weights", path)
        check(self)

    def load(self) -> Backbone:
        """Build the backbone.

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
        return self._load(self.source)

    def load_module(self, module: nn.Module) -> Backbone:
        """Return a module of the user's own as a backbone, with these settings."""
        return self._load(module)

    def _load(self, source: str | nn.Module) -> Backbone:
        from headstart.backbones import load_backbone
        from headstart.data import inputs_kind

        values = self.inputs
        given = values if self.kind is None else {"inputs": inputs_kind(self.kind)(**values)}
        return load_backbone(
            source,
            weights=self.weights,
            model_args=self.model_args,
            layer=self.layer,
            pooling=self.pooling,
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


INPUTS = ("mean", "std", "size", "scale", "crop_fraction", "interpolation", "channels")
"""The values of the inputs that are options of their own."""


@dataclass(frozen=True)
class RunOptions(Extraction):
    """How to run a backbone over items, and where results go: what all commands share.

    Attributes:
        seed: of every random choice.
        on_bad: ``raise`` at the end of reading if items cannot be read, or ``skip`` them.
        cache: place of the feature cache: a folder, an address such as ``s3://bucket/features``,
            or a :class:`~headstart.cache.FeatureCache`. None: ``$HEADSTART_CACHE`` or the
            platform's cache folder.
        out: the run folder. None: ``runs/TIME-NAME`` in the working directory.
        write: whether to write a run folder at all.
        reporter: where notes and progress go. None: standard error.
    """

    seed: int = option(0, "Seed of every random choice.", at_least=0, panel=RUNNING)
    on_bad: OnBad = option(
        "raise",
        "raise: stop after reading everything, listing what cannot be read. skip: leave it out.",
        flags=("--bad-files",),
        panel=DATA,
    )
    cache: str | Path | FeatureCache | None = option(
        None,
        "Folder of the feature cache, or an address such as s3://bucket/features.",
        shown="$HEADSTART_CACHE or the platform's",
        metavar="PLACE",
        panel=RUNNING,
        record=False,
    )
    out: str | Path | None = option(
        None, "Run folder.", shown="runs/TIME-NAME", metavar="DIR", flags=("-o",), record=False
    )
    write: bool = option(True, "Whether to write a run folder.", cli=False, record=False)
    reporter: Reporter | None = option(None, "Where notes go.", cli=False, record=False)

    def faults(self) -> list[str]:
        """Refuse modes of fine-tuning in the place of a folder."""
        if self.cache in ("auto", "on", "off"):
            return [
                f"cache='{self.cache}' would be a folder of that name: the mode of fine-tuning is"
                f" stored='{self.cache}', and a folder can be written cache='./{self.cache}'"
            ]
        return []

    def extraction(self) -> Extraction:
        """Return the part that an extractor takes."""
        return Extraction(
            **{each.name: getattr(self, each.name) for each in options_of(Extraction)}
        )

    def open_cache(self) -> FeatureCache:
        """Open the feature cache."""
        from headstart.cache import FeatureCache

        return self.cache if isinstance(self.cache, FeatureCache) else FeatureCache(self.cache)

    def open_reporter(self) -> Reporter:
        """Return where notes and progress go."""
        from headstart.core.progress import console_reporter

        return self.reporter or console_reporter()


@dataclass(frozen=True)
class ReadOptions:
    """How to read the data; see :func:`headstart.load_data`.

    Attributes:
        image_column, label_column: columns of a table; None: found where unambiguous.
        train, test: the folder, table, key or split that trains or tests, where names do not say.
        test_fraction: share set aside where the source has no test split.
    """

    image_column: str | None = option(
        None, "Column of a table with images or their paths.", metavar="NAME", panel=DATA
    )
    label_column: str | None = option(
        None, "Column of a table with labels.", metavar="NAME", panel=DATA
    )
    train: str | None = option(
        None,
        "The folder, table or split that trains, where its name does not say so.",
        metavar="NAME",
        panel=DATA,
    )
    test: str | None = option(
        None,
        "The folder, table or split that tests, where its name does not say so.",
        metavar="NAME",
        panel=DATA,
    )
    test_fraction: float = option(
        0.2,
        "Share set aside for testing where the data has no test split.",
        above=0,
        below=1,
        panel=DATA,
    )

    def __post_init__(self) -> None:
        check(self)


class Settled(NamedTuple, Generic[Config]):
    """What a command works with."""

    config: Config
    run: RunOptions
    reading: ReadOptions
    backbone: BackboneSpec | Backbone


@dataclass(frozen=True)
class Signature(Generic[Config]):
    """Which settings a command takes: ``command(data, backbone, *, config, run, reading, **…)``.

    Attributes:
        name: of the command.
        config: the defaults of its own settings.
        run: the defaults of what it shares with others.
        without: shared options that have no meaning for it, with the reason.
        hidden: options of the backbone that only Python offers.
    """

    name: str
    config: Config
    run: RunOptions = RunOptions()
    without: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hidden: tuple[str, ...] = ()

    def settle(
        self,
        overrides: Mapping[str, Any],
        config: Config | None,
        run: RunOptions | None,
        reading: ReadOptions | None,
        backbone: BackboneLike = "",
    ) -> Settled[Config]:
        """Return the settings with single overrides applied.

        A backbone that is already built can still be cut elsewhere, by ``layer`` and ``pooling``.

        Raises:
            ConfigError: unknown names and everything that is wrong with the settings, together.
        """
        spec = backbone if isinstance(backbone, BackboneSpec) else BackboneSpec()
        named = isinstance(backbone, str | Path)
        if named and str(backbone):
            spec = dataclasses.replace(spec, source=str(backbone))
        own, shared, data, built = settle(
            self.name,
            overrides,
            self.config if config is None else config,
            self.run if run is None else run,
            ReadOptions() if reading is None else reading,
            spec,
        )
        self._refuse_unused(shared, data)
        if named or backbone is spec:
            return Settled(own, shared, data, built)
        return Settled(own, shared, data, _recut(backbone, built))

    def _refuse_unused(self, run: RunOptions, reading: ReadOptions) -> None:
        given = {**_differing(run, self.run), **_differing(reading, ReadOptions())}
        unused = [name for name in given if name in self.without]
        if unused:
            raise ConfigError(
                tuple(f"{self.name} does not take {name}: {self.without[name]}" for name in unused)
            )


def head_wrong(name: str) -> str | None:
    """Return what is wrong with the name of a head, as the end of a sentence."""
    from headstart.heads.registry import head_fault

    fault = head_fault(name)
    return None if fault is None else fault.removeprefix("head ")


def _differing(settings: Any, defaults: Any) -> dict[str, Any]:
    values = {each.name: getattr(settings, each.name) for each in options_of(type(settings))}
    return {name: value for name, value in values.items() if value != getattr(defaults, name)}


def _recut(backbone: Any, spec: BackboneSpec) -> Backbone:
    """Return a backbone or module that was passed, with the settings that still apply."""
    from headstart.backbones import Backbone

    if not isinstance(backbone, Backbone):
        return spec.load_module(backbone)
    given = _differing(spec, BackboneSpec())
    late = sorted(set(given) - {"layer", "pooling"})
    if late:
        raise ConfigError(
            tuple(f"{name} cannot be set for a backbone that is already built" for name in late),
            hint="pass it to load_backbone",
        )
    if not given:
        return backbone
    return backbone.at(given.get("layer", backbone.layer), given.get("pooling"))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


__all__ = [
    "INPUTS",
    "BackboneLike",
    "BackboneSpec",
    "ReadOptions",
    "RunOptions",
    "Settled",
    "Signature",
    "head_wrong",
]
