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
        "Where the run's data are, if they have moved.",
        metavar="DATA",
        shown="where they were",
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

    k: int = option(10, "Results per query.", flags=("-k",), at_least=1)
    compare: Compared = option(
        "centred",
        "centred: the cosine after subtracting the mean of all features. cosine: without"
        " subtracting it. euclidean: the distance.",
    )
    text: str | None = option(
        None,
        "Take the query as text, whatever files exist. Text finds the images it describes, if"
        " the backbone has a text tower.",
        metavar="TEXT",
        record=False,
    )
    index: Path | None = option(
        None,
        "Index file for millions of items, built on first use. Without it every row is compared.",
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
    "seed": "it makes no random choices",
    "out": "it writes no run folder",
    "write": "it writes no run folder",
    "columns": "items are compared by their features only",
    "group_column": "the data are not split",
    "group_pattern": "the data are not split",
    "train": "items of all splits are used",
    "test": "items of all splits are used",
    "splits": "items of all splits are used",
    "test_fraction": "no test split is set aside",
}
SIMILAR = Signature("similar", SimilarConfig(), without=LOOKED)


__all__ = ["LOOKED", "SIMILAR", "Compared", "LookConfig", "SimilarConfig"]
