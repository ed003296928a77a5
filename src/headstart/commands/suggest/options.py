"""The options of ``suggest``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headstart.commands.opening import OpenConfig
from headstart.commands.predict.options import PREDICT
from headstart.commands.settings import Signature
from headstart.core.settings import option


@dataclass(frozen=True)
class SuggestConfig(OpenConfig):
    """The settings of :func:`headstart.suggest`.

    Attributes:
        count: how many items to suggest.
        by: how they are chosen; see :mod:`headstart.heads.suggesting`.
        table: write the suggestions to this CSV or Parquet file.
    """

    count: int = option(20, "How many items to suggest.", at_least=1)
    by: Literal["typical", "mix", "margin", "k-centre"] = option(
        "typical",
        "typical: the most typical items of groups of similar, unlabelled items. margin: items"
        " that the head is unsure of. k-centre: items far from all labelled ones. mix: items it"
        " is unsure of that are far from one another.",
    )
    table: Path | None = option(
        None,
        "Write the suggestions to this .csv or .parquet file.",
        metavar="FILE",
        flags=("--out", "-o"),
        record=False,
    )


SUGGEST = Signature("suggest", SuggestConfig(), without=PREDICT.without, builds=False)


__all__ = ["SUGGEST", "SuggestConfig"]
