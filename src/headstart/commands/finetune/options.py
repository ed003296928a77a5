"""The options of ``finetune``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from headstart.commands.loggers import LogOptions
from headstart.commands.settings import (
    RUNNING,
    Signature,
    class_weight_faults,
    threshold_faults,
)
from headstart.core.settings import check, like, option
from headstart.finetuning.presets import PRESETS
from headstart.heads.registry import describe_heads, head_fault, head_kind, head_kinds

if TYPE_CHECKING:
    from headstart.finetuning.recipe import Recipe

_RECIPE = "Recipe"


def _probe_wrong(name: str) -> str | None:
    """Return why fine-tuning cannot start from a kind of head, as the end of a sentence."""
    fault = head_fault(name)
    if fault is not None:
        return fault.removeprefix("head ")
    kind = head_kind(name)
    if kind.linear:
        return None
    linear = ", ".join(each.name for each in head_kinds("classification") if each.linear)
    return (
        f"must be one of {linear}: fine-tuning cannot start from '{kind.name}', which does not end"
        " in one linear layer that training could continue with"
    )


@dataclass(frozen=True)
class FinetuneConfig:
    """The settings of :func:`headstart.finetune`.

    Attributes:
        recipe: the name of a recipe, a ``.toml`` file, or a recipe.
        epochs, lr, train_batch, views: in the place of what the recipe says, in every stage.
        stored: ``auto`` trains on stored rows of the frozen part where that is faster; ``on``
            refuses recipes where nothing can be stored; ``off`` computes everything in every
            epoch.
        stored_dtype: of stored rows. ``float32`` gives the same curves as ordinary training;
            ``float16`` and ``bfloat16`` halve the disk space at a measured error.
        probe: kind of head that a recipe with ``start = "probe"`` begins from; one that ends in
            a linear layer, which training continues with. None: ``linear`` for classes and labels,
            ``ridge`` for numbers.
        folds: folds of the cross-validation that chooses the penalty of a probe.
        class_weight: ``balanced`` weighs every class alike in the loss, however many items it has;
            of several labels, items with a label and items without it.
        threshold: where a probability becomes a prediction, found on the items that chose the best
            epoch; see :func:`headstart.heads.thresholds.with_thresholds`.
        baselines: whether to compute figures to beat.
        devices: how many devices share every batch: GPUs, or processes on the CPU. The curves are
            those of one device, up to rounding and random numbers (dropout, mixing, noise).
        loggers: see :class:`headstart.commands.loggers.LogOptions`.
    """

    recipe: str | Path | Recipe = option(
        "lp-ft",
        "A recipe by name, or a TOML file.",
        names=lambda: PRESETS,
        flags=("-r",),
        metavar="NAME|FILE",
        panel=_RECIPE,
        record=False,
    )
    epochs: int | None = option(
        None, "Epochs of every stage, overriding the recipe.", panel=_RECIPE, record=False
    )
    lr: float | None = option(
        None, "Learning rate of every stage, overriding the recipe.", panel=_RECIPE, record=False
    )
    train_batch: int | None = option(
        None, "Images per training step, overriding the recipe.", panel=_RECIPE, record=False
    )
    views: int | None = option(
        None,
        "Numbered augmentations per image, overriding the recipe; 0: none.",
        panel=_RECIPE,
        record=False,
    )
    probe: str | None = option(
        None,
        lambda: (
            "Head used as the probe by recipes that start from one. " + describe_heads(linear=True)
        ),
        shown="linear; ridge for numbers",
        check=_probe_wrong,
        panel=_RECIPE,
    )
    folds: int = option(
        5, "Folds of the cross-validation that chooses the probe.", at_least=2, panel=_RECIPE
    )
    stored: Literal["auto", "on", "off"] = option(
        "auto",
        "auto: train on stored rows of the frozen part where that is faster. on: refuse a recipe"
        " that cannot. off: compute everything in every epoch.",
        panel=RUNNING,
    )
    stored_dtype: Literal["float32", "float16", "bfloat16"] = option(
        "float32", "Data type of stored rows.", panel=RUNNING
    )
    devices: int = option(
        1,
        "Number of GPUs that share each batch, or of processes on the CPU.",
        at_least=1,
        panel=RUNNING,
    )
    loggers: tuple[str, ...] = like(LogOptions, "loggers")
    class_weight: Literal["balanced"] | None = option(
        None, "balanced: every class has the same weight in the loss, however many items it has."
    )
    threshold: Literal["auto", "half", "balanced", "f1"] = option(
        "auto",
        "Threshold above which a label is predicted. auto: highest F1 on validation items"
        " (several labels); balanced: rare classes and labels count as much as frequent ones;"
        " half: 0.5.",
    )
    baselines: bool = option(True, "Baselines to compare with, on the same test items.")

    def __post_init__(self) -> None:
        check(self)

    def load_recipe(self) -> Recipe:
        """Return the recipe, with what is given in its place.

        Raises:
            ConfigError: there is no such recipe, or it has faults; all are listed.
        """
        from headstart.finetuning.recipe_file import load_recipe

        return load_recipe(self.recipe).with_changes(
            epochs=self.epochs, lr=self.lr, batch_size=self.train_batch, views=self.views
        )

    def faults_for(self, task: str) -> list[str]:
        """Return what has no meaning for a task, one sentence each."""
        found = threshold_faults(self.threshold, task)
        found += class_weight_faults(self.class_weight, task, self.probe_for(task))
        fault = None if self.probe is None else head_fault(self.probe, task)
        if fault is not None:
            found.append(f"probe: {fault}")
        if task == "regression" and any(s.label_smoothing for s in self.load_recipe().stages):
            found.append("the recipe's label_smoothing does not apply to regression")
        return found

    def probe_for(self, task: str) -> str:
        """Return the kind of head that a recipe with a probe starts from."""
        return self.probe or ("ridge" if task == "regression" else "linear")

    def with_recipe(self) -> FinetuneConfig:
        """Return the same settings with the recipe loaded."""
        return dataclasses.replace(
            self, recipe=self.load_recipe(), epochs=None, lr=None, train_batch=None, views=None
        )


FINETUNE = Signature(
    "finetune",
    FinetuneConfig(),
    without={
        "precision": "the recipe sets the precision of each stage",
        "columns": "the network itself is trained, and it takes only items; fit and sweep join"
        " columns to the features of a frozen backbone",
    },
    hidden=("storage", "engine"),
    weighs=False,
)


__all__ = ["FINETUNE", "FinetuneConfig"]
