"""The settings of a fine-tuning beside its recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headstart.commands.finetune.loggers import LOGGERS
from headstart.core.errors import ConfigError
from headstart.data.reading import OnBad
from headstart.extraction import Extraction
from headstart.finetuning.costs import StoredMode
from headstart.heads.registry import head_fault, head_kind, head_kinds
from headstart.prefix.precision import Dtype


@dataclass(frozen=True)
class FinetuneConfig:
    """The settings of :func:`finetune` beside the recipe.

    Attributes:
        stored: ``auto`` trains on stored rows of the frozen part where that is faster; ``on``
            refuses recipes where nothing can be stored; ``off`` computes everything in every
            epoch.
        stored_dtype: type of stored rows. ``float32`` gives the very curves of ordinary training;
            ``float16`` and ``bfloat16`` halve the disk space at a measured error.
        probe: kind of head that a recipe with ``start = "probe"`` begins from; one that ends in
            a linear layer, which training goes on with.
        folds: folds of the cross-validation that chooses the penalty of a probe.
        seed: of every random choice.
        extraction: batch size, device and threads of forward passes outside training; its
            precision must be ``float32``, since stages have precisions of their own.
        on_bad: ``raise`` before training if items cannot be read, or ``skip`` them.
        baselines: whether to compute figures to beat.
        devices: how many devices share every batch: GPUs, or processes on the CPU. The curves are
            those of one, up to rounding and to chance (dropout, mixing, noise).
        loggers: ``tensorboard`` and ``mlflow``, beside the report; they write into the run folder.
    """

    stored: StoredMode = "auto"
    stored_dtype: Dtype = "float32"
    probe: str = "linear"
    folds: int = 5
    seed: int = 0
    extraction: Extraction = field(default_factory=Extraction)
    on_bad: OnBad = "raise"
    baselines: bool = True
    devices: int = 1
    loggers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = []
        if self.stored not in ("auto", "on", "off"):
            faults.append(f"the cache is auto, on or off, not {self.stored!r}")
        if self.stored_dtype not in ("float32", "float16", "bfloat16"):
            faults.append(
                f"rows are stored as float32, float16 or bfloat16, not {self.stored_dtype!r}"
            )
        if self.on_bad not in ("raise", "skip"):
            faults.append(f"bad files are raised or skipped, not {self.on_bad!r}")
        if self.devices < 1:
            faults.append(f"devices must be at least 1, not {self.devices}")
        known = " and ".join(LOGGERS)
        faults += [
            f"the loggers are {known}, not {name!r}" for name in self.loggers if name not in LOGGERS
        ]
        faults += probe_faults(self.probe)
        if self.folds < 2:
            faults.append(f"folds must be at least 2, not {self.folds}")
        if self.extraction.precision != "float32":
            faults.append(
                "fine-tuning takes its precision from the recipe: write precision ="
                f" '{self.extraction.precision}' into its stages"
            )
        if faults:
            raise ConfigError(tuple(faults))


def probe_faults(name: str) -> list[str]:
    """Return why fine-tuning cannot start from a kind of head, as one sentence; none if it can."""
    fault = head_fault(name)
    if fault is not None:
        return [fault.replace("head must", "probe must", 1)]
    kind = head_kind(name)
    if kind.linear:
        return []
    linear = ", ".join(each.name for each in head_kinds("classification") if each.linear)
    return [
        f"fine-tuning cannot start from '{kind.name}', which does not end in one linear layer that"
        f" training could go on with; probe must be one of {linear}"
    ]


def settle(config: FinetuneConfig | None, settings: Mapping[str, Any]) -> FinetuneConfig:
    """Return the settings, given whole or one by one.

    Raises:
        ConfigError: both, or names that are none.
    """
    if config is not None and settings:
        raise ConfigError(("give either config or single settings, not both",))
    known = [f.name for f in dataclasses.fields(FinetuneConfig)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ConfigError(
            tuple(f"finetune has no setting '{name}'" for name in unknown),
            hint="it has " + ", ".join(known),
        )
    return config if config is not None else FinetuneConfig(**settings)


__all__ = ["FinetuneConfig", "settle"]
