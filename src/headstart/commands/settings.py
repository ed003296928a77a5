"""Which settings a command takes, and how it settles them.

An option added to a dataclass of :mod:`headstart.commands.shared_options`, or to a command's own,
is at once a Python parameter, a flag of the command line with help and default, and part of the
record in ``run.json``. Nothing heavy is imported, so that a help text prints at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar, cast

from headstart.commands.backbone_spec import BackboneSpec
from headstart.commands.shared_options import DATA, RUNNING, ReadOptions, RunOptions
from headstart.core.errors import ConfigError
from headstart.core.records import INT8
from headstart.core.settings import options_of, settle
from headstart.extraction.engines import AUTO

if TYPE_CHECKING:
    from torch import nn

    from headstart.backbones import Backbone

Config = TypeVar("Config")
BackboneLike: TypeAlias = "str | Path | BackboneSpec | Backbone | nn.Module"


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
        shown: by option the default as the help text shows it, where it is not what others have.
        builds: whether it builds a backbone; one that takes a run has that of the run.
        weighs: whether it weighs precisions; for one that does not, ``auto`` means float32.
        calibrates: whether it can calibrate a network for int8, on its training items.
    """

    name: str
    config: Config
    run: RunOptions = dataclasses.field(default_factory=RunOptions)
    without: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    shown: Mapping[str, str] = dataclasses.field(default_factory=dict)
    builds: bool = True
    weighs: bool = True
    calibrates: bool = False

    def settle(
        self,
        overrides: Mapping[str, Any],
        config: Config | None,
        run: RunOptions | None,
        reading: ReadOptions | None,
        backbone: BackboneLike | None = None,
    ) -> Settled[Config]:
        """Return the settings with single overrides applied.

        A backbone that is already built can still be cut elsewhere, by ``layer`` and ``pooling``.

        Raises:
            ConfigError: unknown names and everything that is wrong with the settings, together.
        """
        spec = backbone if isinstance(backbone, BackboneSpec) else BackboneSpec()
        named = backbone is None or isinstance(backbone, str | Path)
        if named and backbone is not None:
            spec = dataclasses.replace(spec, source=str(backbone))
        groups = (
            self.config if config is None else self._whole(config),
            self.run if run is None else run,
            ReadOptions() if reading is None else reading,
        )
        if not self.builds:
            own, shared, data = settle(self.name, overrides, *groups)
            self._refuse_unused(shared, data)
            return Settled(own, self._weighed(shared), data, spec)
        own, shared, data, built = settle(self.name, overrides, *groups, spec)
        self._refuse_unused(shared, data)
        if named or backbone is spec:
            return Settled(own, self._weighed(shared), data, built)
        return Settled(own, self._weighed(shared), data, _recut(backbone, built))

    def _whole(self, config: object) -> Config:
        """Return settings of a class that this one extends, of the study itself say, as its own."""
        if isinstance(config, type(self.config)):
            return config
        if not dataclasses.is_dataclass(config) or isinstance(config, type):
            return cast("Config", config)  # refused with everything else that is wrong
        if isinstance(self.config, type(config)):
            values = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
            own: Any = self.config
            return cast("Config", dataclasses.replace(own, **values))
        raise ConfigError(
            (
                f"config of {self.name} must be a {type(self.config).__name__}, not a"
                f" {type(config).__name__}",
            )
        )

    def _weighed(self, run: RunOptions) -> RunOptions:
        """Return the shared settings, with a precision where none is weighed.

        Raises:
            ConfigError: it is int8, which this command does not calibrate.
        """
        if run.precision == INT8 and not self.calibrates:
            raise ConfigError(
                (f"{self.name} does not take precision='int8': only fit calibrates a network",),
                hint="fit with it, and predict, evaluate or serve the run",
            )
        if self.weighs or run.precision != AUTO:
            return run
        return dataclasses.replace(run, precision="float32")

    def _refuse_unused(self, run: RunOptions, reading: ReadOptions) -> None:
        given = {**_differing(run, self.run), **_differing(reading, ReadOptions())}
        unused = [name for name in given if name in self.without]
        if unused:
            raise ConfigError(
                tuple(f"{self.name} does not take {name}: {self.without[name]}" for name in unused)
            )


def threshold_faults(threshold: str, task: str) -> list[str]:
    """Return what is wrong with a rule of thresholds for a task, one sentence each."""
    if threshold not in ("auto", "half") and task == "regression":
        return ["threshold does not apply to regression, which predicts numbers"]
    if threshold == "f1" and task == "classification":
        return ["threshold='f1' is for several labels per item; for classes use 'balanced'"]
    return []


def class_weight_faults(class_weight: str | None, task: str, head: str | None = None) -> list[str]:
    """Return what is wrong with class weights for a task, one sentence each.

    Args:
        class_weight: as it was asked for.
        task: of the data.
        head: the kind of head that they are for; None: whichever can.
    """
    from headstart.heads.registry import head_kind, head_kinds

    if class_weight is None or task == "classification":
        return []
    if task == "regression":
        return ["class_weight does not apply to regression, which has no classes"]
    if head is None or head_kind(head).weighs_labels:
        return []
    names = ", ".join(kind.name for kind in head_kinds(task) if kind.weighs_labels)
    return [f"class_weight with several labels works with the heads {names}, not with {head}"]


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


__all__ = [
    "DATA",
    "RUNNING",
    "BackboneLike",
    "BackboneSpec",
    "ReadOptions",
    "RunOptions",
    "Settled",
    "Signature",
    "class_weight_faults",
    "head_wrong",
    "threshold_faults",
]
