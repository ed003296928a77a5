"""The settings of a study."""

from __future__ import annotations

from dataclasses import dataclass, field

from headstart.core.errors import ConfigError
from headstart.core.seeds import seed_faults
from headstart.data.reading import OnBad
from headstart.extraction import Extraction
from headstart.study.heads import HeadSpec


@dataclass(frozen=True)
class StudySettings:
    """The settings of a study.

    Attributes:
        repeats: repetitions with independent seeds. 5 gives usable intervals.
        head: of all configurations that do not bring their own.
        seed: of everything.
        extraction: precision and device; ``batch_size`` is that of the loaders, 32 by default, as
            in most tutorials.
        recompute_passes: walks over the training items for ``recompute``.
        epochs: of every stage of configurations that fine-tune. None: those of their recipes.
        statistics_items: training items that statistics are re-estimated on. None: as many as fit
            into 2 GiB of activations, at least 128.
        redraw: whether every repetition draws its own test split. None: if the data has none.
        train_items, test_items: use at most so many.
        on_bad: ``raise`` or ``skip`` items that cannot be read.
        reference: the configuration that others are compared with. None: the first that is
            ``eval+inference_mode``, which is added if need be.
        suggest: whether to add a configuration with mended inputs where they look wrong.
    """

    repeats: int = 5
    head: HeadSpec = field(default_factory=HeadSpec)
    seed: int = 0
    extraction: Extraction = field(default_factory=lambda: Extraction(batch_size=32))
    recompute_passes: int = 5
    epochs: int | None = None
    statistics_items: int | None = None
    redraw: bool | None = None
    train_items: int | None = None
    test_items: int | None = None
    on_bad: OnBad = "raise"
    reference: str | None = None
    suggest: bool = True

    def __post_init__(self) -> None:
        faults = []
        if self.extraction.batch_size < 2:
            faults.append("batch_size must be at least 2: a batch of one has no statistics")
        if self.recompute_passes < 1:
            faults.append(f"recompute_passes must be at least 1, not {self.recompute_passes}")
        if self.epochs is not None and self.epochs < 1:
            faults.append(f"epochs must be at least 1, not {self.epochs}")
        if self.statistics_items is not None and self.statistics_items < 2:
            faults.append(f"statistics_items must be at least 2, not {self.statistics_items}")
        if self.on_bad not in ("raise", "skip"):
            faults.append(f"bad files are raised or skipped, not {self.on_bad!r}")
        if self.extraction.compile:
            faults.append("a comparison does not compile the network")
        faults += seed_faults(self.seed)
        if faults:
            raise ConfigError(tuple(faults))


__all__ = ["StudySettings"]
