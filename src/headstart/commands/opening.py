"""How a run is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.core.settings import check, option

if TYPE_CHECKING:
    from headstart.commands.settings import BackboneLike


@dataclass(frozen=True)
class OpenConfig:
    """How a run is opened by the commands that use one.

    Attributes:
        backbone: needed for a run that was made with a module of your own, or whose file of code
            has moved or changed: a name, a module or a built backbone.
        weights: needed where the file of weights that the run was made with has moved.
        trust_code: run the file of code that the run was made with. A run folder may come from
            anybody, and its code is not run unasked.
    """

    backbone: BackboneLike | None = option(
        None,
        "The run's backbone, if its code file has moved or changed; it is trusted because you"
        " name it.",
        flags=("--backbone", "-b"),
        metavar="NAME",
        shown="the run's own",
        record=False,
    )
    weights: str | None = option(
        None,
        "The weights file that the run was made with, if it has moved.",
        metavar="FILE",
        shown="where it was",
        record=False,
    )
    trust_code: bool = option(
        False,
        "Run the code file (net.py:make) that the run was made with. A run folder may come from"
        " anyone: read that file first.",
        record=False,
    )

    def __post_init__(self) -> None:
        check(self)


__all__ = ["OpenConfig"]
