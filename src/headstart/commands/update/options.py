"""The options of ``update``."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.commands.opening import OpenConfig
from headstart.commands.settings import Signature


@dataclass(frozen=True)
class UpdateConfig(OpenConfig):
    """The settings of :func:`headstart.update`: how the run is opened."""


UPDATE = Signature(
    "update",
    UpdateConfig(),
    without={
        "precision": "the run determines it",
        "storage": "the run determines it",
        "seed": "the run determines it",
        "columns": "the run determines them",
        "test": "the run keeps its test split",
        "test_fraction": "no test split is set aside: the run keeps its own",
    },
    shown={"out": "the run itself, which is replaced"},
    builds=False,
)

__all__ = ["UPDATE", "UpdateConfig"]
