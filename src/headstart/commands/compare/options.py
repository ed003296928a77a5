"""The options of ``compare``; the settings of the study itself are in ``study/settings.py``."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.commands.loggers import LogOptions
from headstart.commands.settings import RunOptions, Signature
from headstart.core.settings import like
from headstart.study import settings as study


@dataclass(frozen=True)
class CompareConfig(study.CompareConfig):
    """The settings of :func:`headstart.compare`.

    Attributes:
        loggers: see :class:`headstart.commands.loggers.LogOptions`.
    """

    loggers: tuple[str, ...] = like(LogOptions, "loggers")


COMPARE = Signature(
    "compare",
    CompareConfig(),
    # 32 images per batch, as in most tutorials: what depends on the batch depends on its size.
    run=RunOptions(batch_size=32, precision="float32"),
    without={
        "columns": "they are the same for every way of running the network; fit and sweep join"
        " them",
        "engine": "the network is run in ways that engines do not support",
        "storage": "rows are compared as the network returns them",
    },
    weighs=False,
)

__all__ = ["COMPARE", "CompareConfig"]
