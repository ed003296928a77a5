"""The options of ``card``, which ``export`` and ``push`` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.commands.settings import Signature
from headstart.core.settings import check, option

PANEL = "Model card"
"""The panel of the help text."""


@dataclass(frozen=True)
class CardConfig:
    """What a model card says that a run does not know.

    Attributes:
        title: of the model; empty: from the data and the backbone.
        licence: of the model, by the name of the hub, such as ``mit``; empty: that of the weights.
        data_licence: of the data that it was trained on; empty: not known.
    """

    title: str = option(
        "", "Title of the model.", shown="from data and backbone", metavar="TEXT", panel=PANEL
    )
    licence: str = option(
        "",
        "Licence of the model, such as mit.",
        flags=("--licence", "--license"),
        shown="the weights' own",
        metavar="NAME",
        panel=PANEL,
    )
    data_licence: str = option(
        "",
        "Licence of the data that trained it.",
        flags=("--data-licence", "--data-license"),
        shown="not known",
        metavar="NAME",
        panel=PANEL,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class CardFileConfig(CardConfig):
    """The settings of :func:`headstart.card`.

    Attributes:
        output: the file to write; None: none is.
    """

    output: Path | None = option(
        None,
        "File to write, such as README.md.",
        shown="it is printed",
        metavar="FILE",
        flags=("--out", "-o"),
        record=False,
    )


CARD = Signature("card", CardFileConfig(), builds=False)

__all__ = ["CARD", "PANEL", "CardConfig", "CardFileConfig"]
