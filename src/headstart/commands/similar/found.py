"""What ``similar`` finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.commands.collection import Collection
from headstart.commands.prediction_table import save_table
from headstart.commands.similar.queries import Query
from headstart.heads.contract import NEAR


@dataclass(frozen=True)
class Match:
    """An item that is like a query.

    Attributes:
        item: where it is.
        split: which it is in.
        label: its class, labels or targets in words; empty without.
        similarity: the cosine, or minus the squared distance.
        copies: how many more items have the same content.
        at: its place in the collection.
    """

    item: str
    split: str
    label: str
    similarity: float
    copies: int
    at: int


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found for one query, the most similar first.

    Attributes:
        query: what was searched for.
        itself: the items of the data that have the content of the query; they are left out.
        matches: the others.
    """

    query: Query
    itself: tuple[str, ...]
    matches: tuple[Match, ...]


@dataclass(frozen=True, eq=False)
class Similar:
    """What :func:`similar` found.

    Attributes:
        answers: one for each query.
        among: the items that were searched.
        compare: how they were compared.
        recall: of the index, the share of the true ten nearest that it finds; None: all rows were
            compared.
        notes: what is to be said of it.
    """

    answers: tuple[Answer, ...]
    among: Collection
    compare: str
    recall: float | None
    notes: tuple[str, ...]

    def columns(self) -> dict[str, list[Any]]:
        """Return a table: a row for each query and each item found for it."""
        table: dict[str, list[Any]] = {
            name: [] for name in ("query", "rank", "item", "split", "label", "similarity", "copies")
        }
        for answer in self.answers:
            for rank, match in enumerate(answer.matches, start=1):
                row = (answer.query.name, rank, match.item, match.split, match.label,
                       match.similarity, match.copies)  # fmt: skip
                for column, value in zip(table.values(), row, strict=True):
                    column.append(value)
        return table

    def write(self, path: Path | str) -> Path:
        """Write the table as CSV or Parquet, by the suffix of ``path``.

        Raises:
            ConfigError: another suffix, or the file cannot be written.
        """
        return save_table(self.columns(), path)


def near_copy(compare: str, similarity: float) -> bool:
    """Return whether a match nearly equals its query, as ``examine`` says it."""
    return compare == "centred" and similarity >= NEAR


__all__ = ["Answer", "Match", "Similar", "near_copy"]
