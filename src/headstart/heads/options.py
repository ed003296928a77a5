"""The options of the built-in heads: what they are, their defaults, and what values are allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headstart.core.settings import Fault, check, option, options_of

ClassWeight = Literal["balanced"] | Sequence[float] | None


class _Options:
    """What the options of several heads share: they are checked, and some may be ``auto``."""

    def __post_init__(self) -> None:
        check(self)

    def faults(self) -> list[str]:
        """Return the texts that were given where a number or ``auto`` is expected."""
        return [
            Fault(each.name, f"must be auto or a number, not {value!r}")
            for each in options_of(type(self))
            if each.default == "auto"
            and isinstance(value := getattr(self, each.name), str)
            and value != "auto"
        ]


_STANDARDISE = "Scale each feature to unit deviation first."
_CLASS_WEIGHT = "'balanced', or one weight per class; with several labels, only 'balanced'."


@dataclass(frozen=True, eq=False)
class LinearOptions(_Options):
    """Options of ``linear``; see :func:`~headstart.heads.penalty.choose_linear`."""

    C: float | Literal["auto"] = option(
        "auto", "Inverse penalty; auto: the best of the grid by cross-validation.", above=0
    )
    grid: tuple[float, ...] | None = option(
        None, "Values of C to choose from; None: the 45 of DINOv2's linear evaluation.", above=0
    )
    folds: int = option(5, "Folds of the cross-validation that chooses C.", at_least=2)
    rule: Literal["best", "one-standard-error", "prior"] = option(
        "best",
        "Which of several indistinguishable values to take; prior: for few labels, weighs"
        " held-out scores against prior knowledge of C.",
    )
    standardise: bool = option(True, _STANDARDISE)
    class_weight: ClassWeight = option(None, _CLASS_WEIGHT)
    tolerance: float | None = option(
        None,
        "Largest gradient at the end; None: 1e-5 where C is chosen, 1e-6 where it is given.",
        above=0,
    )
    device: str = option("cpu", "Device for matrix products: cpu, cuda or auto.")


@dataclass(frozen=True, eq=False)
class RidgeOptions(_Options):
    """Options of ``ridge``; see :func:`~headstart.heads.ridge.fit_ridge`."""

    alpha: float | Literal["auto"] = option(
        "auto", "Penalty; auto: the least leave-one-out error among alphas.", above=0
    )
    alphas: tuple[float, ...] | None = option(
        None, "Penalties to choose from; None: 45 from 1e-3 to 1e8.", above=0
    )
    standardise: bool = option(True, _STANDARDISE)
    class_weight: ClassWeight = option(None, _CLASS_WEIGHT)


@dataclass(frozen=True, eq=False)
class AutoOptions(_Options):
    """Options of ``auto``; see :func:`~headstart.heads.chooser.choose_head`."""

    heads: tuple[str, ...] | None = option(
        None, "Heads to choose from, the favourite first; None: linear, ridge, lda and prototype."
    )
    few: int = option(
        20,
        "Up to this many items per class, rows are scaled in a way suited to few labels.",
        at_least=0,
    )
    folds: int = option(5, "Folds in which the heads are compared.", at_least=2)
    coarse: bool = option(False, "Choose from fewer values: for comparisons that train many heads.")
    class_weight: ClassWeight = option(None, _CLASS_WEIGHT)
    device: str = option("cpu", "Device for matrix products: cpu, cuda or auto.")


@dataclass(frozen=True)
class LDAOptions(_Options):
    """Options of ``lda``; see :func:`~headstart.heads.lda.fit_lda`."""

    shrinkage: float | Literal["auto"] = option(
        "auto",
        "Shrinkage of the covariance, 0 to 1; auto: that of Ledoit and Wolf.",
        at_least=0,
        at_most=1,
    )
    standardise: bool = option(True, _STANDARDISE)


@dataclass(frozen=True)
class NeighboursOptions(_Options):
    """Options of ``knn``; see :class:`~headstart.heads.neighbours.NeighboursHead`."""

    k: int = option(20, "How many neighbours vote; 20 as in DINO.", at_least=1)
    metric: Literal["cosine", "euclidean"] = option("cosine", "Similarity of two rows.")
    weights: Literal["softmax", "uniform"] = option(
        "softmax", "Weigh votes by similarity, or count them."
    )
    softness: float = option(0.07, "Temperature of the softmax weights; 0.07 as in DINO.", above=0)


@dataclass(frozen=True, eq=False)
class MLPOptions(_Options):
    """Options of ``mlp``; see :func:`~headstart.heads.mlp.fit_mlp`."""

    hidden: tuple[int, ...] = option((256,), "Widths of the hidden layers.", at_least=1)
    dropout: float | Literal["auto"] = option(
        "auto",
        "On the inputs of every layer but the first; auto: 0.5, and 0 for regression, where the"
        " noise would bias the scale of the output.",
        at_least=0,
        below=1,
    )
    epochs: int = option(100, "Maximum number of passes over the training rows.", at_least=1)
    batch_size: int = option(256, "Rows per step.", at_least=1)
    lr: float = option(1e-3, "Initial learning rate.", above=0)
    weight_decay: float = option(1e-2, "Decoupled for adamw, L2 otherwise.", at_least=0)
    momentum: float = option(0.9, "Of sgd.", at_least=0, below=1)
    optimizer: Literal["adamw", "adam", "sgd"] = option("adamw", "Optimizer.")
    schedule: Literal["cosine", "step", "constant"] = option("cosine", "Learning-rate schedule.")
    patience: int | None = option(
        10, "Stop after this many epochs without a lower validation loss; None: never.", at_least=1
    )
    validation: float = option(
        0.2, "Share of the rows held out to choose the epoch.", at_least=0, below=1
    )
    class_weight: ClassWeight = option(None, _CLASS_WEIGHT)


@dataclass(frozen=True, eq=False)
class TabICLOptions(_Options):
    """Options of ``tabicl``; see :func:`~headstart.heads.tabicl.fit_tabicl`."""

    checkpoint: str | None = option(
        None, "File with TabICL's weights; None: download them once from the hub."
    )
    components: int | None = option(
        100,
        "Number of principal components of the features to use; None: the features themselves,"
        " at most 2,000.",
        at_least=1,
    )
    estimators: int = option(8, "Number of views of the table to average.", at_least=1)
    device: str = option("cpu", "Device to run on: cpu, cuda or auto.")
