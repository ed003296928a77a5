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
        "precision": "it is that of the run",
        "storage": "it is that of the run",
        "seed": "it is that of the run",
        "columns": "they are those of the run",
        "test": "the test split stays that of the run",
        "test_fraction": "nothing is set aside: the test split stays that of the run",
    },
    shown={"out": "the run itself, which is replaced"},
    builds=False,
)

__all__ = ["UPDATE", "UpdateConfig"]
