"""The settings of a study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.core.settings import check, option
from headstart.heads.registry import describe_heads, head_kind, head_kinds
from headstart.heads.table import unknown

if TYPE_CHECKING:
    from headstart.study.configurations import Configuration
    from headstart.study.heads import HeadSpec


@dataclass(frozen=True)
class CompareConfig:
    """The settings of :func:`headstart.compare` and of a study.

    Attributes:
        configs: names (``"no_grad,eval,reestimated+unscaled"`` or a list) and
            :class:`~headstart.study.Configuration` objects. None: the usual eight, see
            :data:`~headstart.study.DEFAULT`.
        repeats: repetitions with independent seeds. 5 give usable intervals.
        head: kind of head of all configurations that do not bring their own.
        head_options: further options of that head.
        epochs: of a head that is trained in epochs, and of every stage of configurations that
            fine-tune. None: those of the head and of the recipes.
        reference: the configuration that others are compared with. None: ``eval+inference_mode``,
            which is added if it is not there.
        recompute_passes: passes over the training items for ``recompute``.
        train_items, test_items: use at most this many, drawn in proportion to the classes.
        statistics_items: training items that statistics are re-estimated on. None: as many as fit
            into 2 GiB of activations, at least 128.
        redraw: whether every repetition draws its own test split. None: if the data has none.
        suggest: whether to add a configuration with mended inputs where they look wrong.
    """

    configs: str | Iterable[str | Configuration] | None = option(
        None,
        "Configurations: words joined by '+', such as eval+no_grad, reestimated, blend(0.5),"
        " no_grad+unscaled, layer=stage2, finetune+adam, finetune:lp-ft. The word list shows all"
        " of them.",
        metavar="NAME,NAME,…",
        shown="the usual eight, none of which fine-tunes",
        record=False,
    )
    repeats: int = option(5, "Repetitions with independent seeds.", at_least=1)
    head: str = option("linear", describe_heads)
    head_options: Mapping[str, Any] = option({}, "Options of the head by name.")
    epochs: int | None = option(
        None,
        "Epochs of a head that is trained in epochs, and of every fine-tuning stage.",
        shown="those of the head and of the recipe",
        at_least=1,
    )
    reference: str | None = option(
        None, "The configuration to compare with.", shown="eval+inference_mode", metavar="NAME"
    )
    recompute_passes: int = option(5, "Passes of the recompute configuration.", at_least=1)
    train_items: int | None = option(None, "Use at most this many training items.", at_least=2)
    test_items: int | None = option(None, "Use at most this many test items.", at_least=2)
    statistics_items: int | None = option(
        None, "Training items on which statistics are re-estimated.", at_least=2, cli=False
    )
    redraw: bool | None = option(
        None, "Whether every repetition draws its own test split.", cli=False
    )
    suggest: bool = option(
        True, "Whether to add a configuration with corrected inputs if they look wrong.", cli=False
    )

    def __post_init__(self) -> None:
        check(self)

    def faults(self) -> list[str]:
        """Return what is wrong with the head."""
        if not any(self.head in (kind.name, *kind.aliases) for kind in head_kinds()):
            return [unknown(self.head, None)]
        return head_kind(self.head).faults(self.head_options)

    @property
    def head_in_epochs(self) -> bool:
        """Whether the head is trained in epochs."""
        return "epochs" in head_kind(self.head).option_names

    @property
    def head_spec(self) -> HeadSpec:
        """The head of all configurations that do not bring their own."""
        from headstart.study.heads import HeadSpec

        epochs = {"epochs": self.epochs} if self.epochs and self.head_in_epochs else {}
        return HeadSpec(self.head, {**self.head_options, **epochs})


__all__ = ["CompareConfig"]
