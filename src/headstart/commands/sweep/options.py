"""The options of ``sweep``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from headstart.commands.loggers import LogOptions
from headstart.commands.settings import Signature, class_weight_faults, head_wrong, threshold_faults
from headstart.core.errors import ConfigError
from headstart.core.kinds import Kind, words_of
from headstart.core.seeds import seed_faults
from headstart.core.settings import check, like, option
from headstart.heads.registry import describe_heads, head_fault

_SCALED = {"yes": (True,), "no": (False,), "both": (True, False)}


def _scaled(text: str) -> tuple[bool, ...]:
    if text not in _SCALED:
        raise ValueError(text)
    return _SCALED[text]


def _names(text: str) -> tuple[str, ...]:
    names = words_of(text)
    if not names:  # an empty variable of a shell, say, which does not mean the default
        raise ValueError(text)
    return names


def _layers(text: str) -> tuple[str | None, ...]:
    return tuple(None if name == "output" else name for name in _names(text))


_LAYERS = Kind(
    "NAME,…",
    "layer names with commas",
    _layers,
    lambda layers: ",".join("output" if layer is None else layer for layer in layers),
)
_NAMES = Kind("NAME,…", "names with commas", _names, ",".join)
_STANDARDISE = Kind(
    "yes|no|both",
    "yes, no or both",
    _scaled,
    lambda value: next(word for word, scaled in _SCALED.items() if set(scaled) == set(value)),
)


@dataclass(frozen=True)
class SweepConfig:
    """The settings of :func:`headstart.sweep`.

    Attributes:
        layers: cuts to try; None is the backbone's own feature. Empty: only the backbone's own cut.
        poolings: poolings to try at each layer; not at None, which is pooled already.
        heads: kinds of head to try. None: all but the slow ones; the perceptron (``mlp``) takes
            longer than all others together.
        grid: values of C for logistic regression. None: the 45 of DINOv2's evaluation.
        standardise: whether features are scaled to unit deviation; both may be tried.
        folds: of the cross-validation.
        seeds: one division into folds for each, no seed twice.
        backbones: compare these instead of heads, see :func:`headstart.rank`.
        backbone_options: a TOML file of options for single backbones.
        most: backbones that a pattern with ``*`` may stand for.
        labels_per_class: choose by so many training items of each class, drawn with the first seed.
        loggers: see :class:`headstart.commands.loggers.LogOptions`.
        class_weight: ``balanced`` weighs every class alike in the heads that can; the others
            compete as they are.
        threshold: where a probability of the winner becomes a prediction; see
            :func:`headstart.heads.thresholds.with_thresholds`.
    """

    layers: tuple[str | None, ...] = option(
        (), "Layers; 'output' is the network's own feature.", kind=_LAYERS
    )
    poolings: tuple[str, ...] = option((), "Poolings, at each of the layers.", kind=_NAMES)
    heads: tuple[str, ...] | None = option(
        None,
        lambda: f"Kinds of head to try. {describe_heads()}",
        shown="all but the slow ones",
        check=head_wrong,
    )
    grid: tuple[float, ...] | None = option(
        None, "Values of C.", shown="45 from 1e-6 to 1e5", above=0
    )
    standardise: tuple[bool, ...] = option(
        (True,), "Whether to scale features to unit standard deviation.", kind=_STANDARDISE
    )
    folds: int = option(5, "Folds of the cross-validation.", at_least=2)
    seeds: tuple[int, ...] = option(
        (0,), "Seeds, one split into folds each, no duplicates.", at_least=0
    )
    backbones: tuple[str, ...] = option(
        (),
        "Compare backbones instead of heads: names, or patterns such as timm/resnet*.",
        kind=_NAMES,
    )
    backbone_options: str | None = option(
        None,
        "TOML file of options for single backbones: a table for each name, such as"
        ' ["timm/mobilenetv1_100"] with weights, size, mean, std, layer.',
        metavar="FILE",
    )
    most: int = option(12, "Most backbones to try for a name with *.", at_least=1)
    labels_per_class: int | None = option(
        None,
        "Choose by only this many training items per class, if using all would take too long.",
        shown="all",
        at_least=2,
    )
    loggers: tuple[str, ...] = like(LogOptions, "loggers")
    class_weight: Literal["balanced"] | None = option(
        None, "balanced: every class or label has the same weight, in heads that support it."
    )
    threshold: Literal["auto", "half", "balanced", "f1"] = option(
        "auto",
        "Threshold above which the winner predicts a label. auto: highest F1 on held-out items"
        " (several labels); balanced: rare classes and labels count as much as frequent ones;"
        " half: 0.5.",
    )

    def __post_init__(self) -> None:
        layers: Any = self.layers
        if isinstance(layers, str) and words_of(layers):  # as on a command line
            object.__setattr__(self, "layers", _layers(layers))
        check(self)

    def faults(self) -> list[str]:
        """Look for an empty list, and for a seed that is given twice."""
        if not self.seeds or not self.standardise or self.heads == () or self.grid == ():
            return ["a sweep needs a head, a value of C, a seed and a standardisation"]
        return seed_faults(*self.seeds)


SWEEP = Signature(
    "sweep",
    SweepConfig(),
    without={"seed": "every one of its seeds divides the data anew"},
    hidden=("layer", "pooling"),
)


def refuse_for_task(config: SweepConfig, task: str) -> None:
    """Refuse heads and settings that have no meaning for the task of the data.

    Raises:
        ConfigError: all of them together.
    """
    faults = threshold_faults(config.threshold, task)
    if task != "classification":
        faults += _beyond_classes(config, task)
    if faults:
        raise ConfigError(tuple(faults))


def _beyond_classes(config: SweepConfig, task: str) -> list[str]:
    """Return what has no meaning for several labels an item, or for numbers."""
    faults = [fault for name in config.heads or () if (fault := head_fault(name, task)) is not None]
    if config.labels_per_class is not None:
        faults.append(
            f"labels_per_class does not apply to {task}: items do not have exactly one class"
        )
    faults += class_weight_faults(config.class_weight, task)
    if config.grid is not None:
        faults.append(
            f"grid lists values of C for classification; for {task}, heads choose their own penalty"
        )
    return faults


__all__ = ["SWEEP", "SweepConfig", "refuse_for_task"]
