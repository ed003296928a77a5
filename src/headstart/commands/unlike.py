"""Which items are unlike anything a run was trained on: for ``fit``, ``predict``, ``evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import BadFilesError
from headstart.core.records import Unlike
from headstart.core.wording import count, verb
from headstart.data import Inputs, Split
from headstart.evaluation.targets import FloatArray
from headstart.heads.outliers import Method, Outliers
from headstart.report.page import Block, Example, Gallery

OWN = "features"
"""What the features of the head are called beside those of other layers."""
UNLIKE_TITLE = "Unlike anything seen"
_EXAMPLES = 12


@dataclass(frozen=True)
class Wanted:
    """What was asked for: the method, and the share of ordinary items that may be flagged."""

    method: Method
    false_alarms: float


@dataclass(frozen=True, eq=False)
class Strangeness:
    """How far out each item is.

    Attributes:
        record: what was flagged, in all.
        scores: ``(n,)``; more is farther.
        p_values: ``(n,)``, the share of training items that are at least as far out.
        flagged: ``(n,) bool``.
    """

    record: Unlike
    scores: FloatArray
    p_values: FloatArray
    flagged: NDArray[np.bool_]

    @classmethod
    def of(cls, outliers: Outliers, views: Sequence[object], false_alarms: float) -> Strangeness:
        """Judge items by their features at every layer that judges.

        Raises:
            HeadError: too few training items for so few false alarms.
        """
        scores = outliers.scores(views)
        flagged = outliers.flagged(scores, false_alarms)
        record = Unlike(
            outliers.method,
            outliers.layers,
            len(scores),
            int(flagged.sum()),
            false_alarms,
            outliers.independent,
        )
        return cls(record, scores, outliers.p_values(scores), flagged)

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns of a table of predictions."""
        return {
            "ood": [bool(each) for each in self.flagged],
            "ood_p": self.p_values.tolist(),
            "ood_score": self.scores.tolist(),
        }

    def examples(self, split: Split, inputs: Inputs) -> tuple[Example, ...]:
        """Return the flagged items that are farthest out, with a glimpse of each."""
        order = np.argsort(-self.scores, kind="stable")
        found = []
        for i in order[self.flagged[order]][:_EXAMPLES].tolist():
            try:
                glimpse = inputs.excerpt(split.content(i))
            except BadFilesError:
                glimpse = None
            facts = (("score", f"{self.scores[i]:.2f}"), ("p", f"{self.p_values[i]:.3f}"))
            found.append(Example(split.origins[i], facts, glimpse))
        return tuple(found)


def named_views(sets: Sequence[Any], layers: Sequence[str]) -> dict[str, Any]:
    """Return the features that judge, by name: of these layers, or of the head where none is named.

    Args:
        sets: features ``(n, d)`` of the head, and behind them those of the layers.
        layers: their names.
    """
    return dict(zip(layers, sets[1:], strict=True)) if layers else {OWN: sets[0]}


def views_of(outliers: Outliers, sets: Mapping[str, Any]) -> list[Any]:
    """Return the features of every layer that judges, in their order.

    Args:
        outliers: which judge.
        sets: features ``(n, d)`` by the name of their layer; those of the head are :data:`OWN`.
    """
    return [sets[name] for name in outliers.layers]


def unlike_line(found: Unlike) -> str:
    """Say how many items are unlike the training items, and how many would be by chance."""
    by = "distance to the nearest training items" if found.method == "knn" else (
        "Mahalanobis distance to the nearest class mean"
    )  # fmt: skip
    layers = "" if found.layers == (OWN,) else f" at {', '.join(found.layers)}"
    chance = found.false_alarms * found.n
    return (
        f"of {count(found.n, 'item')}, {found.flagged:,} {verb(found.flagged)} unlike anything"
        f" in the training split ({by}{layers}; if all were like it, {chance:.1f} would be"
        f" flagged: false alarms of {100 * found.false_alarms:g} %)"
    )


def unlike_blocks(found: Unlike | None, examples: Sequence[Example] = ()) -> list[Block]:
    """Return the section of a report; nothing where nobody asked."""
    if found is None:
        return []
    line = unlike_line(found)
    blocks: list[Block] = [
        f"{line[:1].upper()}{line[1:]}. The threshold rests on"
        f" {count(found.calibrated_on, 'independent training item')}, each judged by items of"
        " other folds; no test item was used to choose it."
    ]
    if examples:
        title = "The flagged items, most unusual first." if len(examples) == found.flagged else (
            f"The {len(examples)} most unusual of {found.flagged:,} flagged items."
        )  # fmt: skip
        blocks.append(Gallery(tuple(examples), title))
    return blocks


__all__ = [
    "OWN",
    "UNLIKE_TITLE",
    "Strangeness",
    "Wanted",
    "named_views",
    "unlike_blocks",
    "unlike_line",
    "views_of",
]
