"""The options of ``similar``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headstart.commands.opening import OpenConfig
from headstart.commands.settings import Signature
from headstart.core.settings import check, like, option

Compared = Literal["centred", "cosine", "euclidean"]


@dataclass(frozen=True)
class LookConfig:
    """How ``similar`` and ``view`` open a run.

    Attributes:
        data: where the data of a run lie, where that is not where they lay.
        trust_code: run the file of code that the run was made with.
    """

    data: str | None = option(
        None,
        "Where the data of the run lie, where they have moved.",
        metavar="DATA",
        shown="where they lay",
        record=False,
    )
    trust_code: bool = like(OpenConfig, "trust_code")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class SimilarConfig(LookConfig):
    """The settings of :func:`headstart.similar`.

    Attributes:
        k: items that are found for each query.
        compare: ``centred``: the cosine once the mean of all features is taken out, which is what
            ``examine`` finds near copies by; ``cosine``: of the features as they are, always taken
            for texts about images; ``euclidean``: the distance.
        text: a query that is a text, whatever files there are.
        index: a file with an index, for millions of items: used if it is that of these features,
            else built. None: every row is compared.
        table: write what is found to this CSV or Parquet file.
        page: write a page with thumbnails or excerpts to this HTML file.
    """

    k: int = option(10, "Items per query.", flags=("-k",), at_least=1)
    compare: Compared = option(
        "centred",
        "centred: the cosine once the mean of all features is taken out. cosine: as they are."
        " euclidean: the distance.",
    )
    text: str | None = option(
        None,
        "A query that is a text, whatever files there are. Of pictures it finds those that it"
        " describes, where the backbone has a tower of texts.",
        metavar="TEXT",
        record=False,
    )
    index: Path | None = option(
        None,
        "File of an index for millions of items, built at its first use. Without it every row is"
        " compared.",
        metavar="FILE",
        record=False,
    )
    table: Path | None = option(
        None,
        "Write the items to this .csv or .parquet file.",
        metavar="FILE",
        flags=("--out", "-o"),
        record=False,
    )
    page: Path | None = option(
        None,
        "Write a page with thumbnails or excerpts to this .html file.",
        metavar="FILE",
        record=False,
    )


LOOKED = {
    "seed": "nothing is drawn",
    "out": "there is no run folder",
    "write": "there is no run folder",
    "columns": "items are alike by their features",
    "group_column": "nothing is divided",
    "group_pattern": "nothing is divided",
    "train": "the items of all splits are taken",
    "test": "the items of all splits are taken",
    "splits": "the items of all splits are taken",
    "test_fraction": "nothing is set aside",
}
SIMILAR = Signature("similar", SimilarConfig(), without=LOOKED)


__all__ = ["LOOKED", "SIMILAR", "Compared", "LookConfig", "SimilarConfig"]
