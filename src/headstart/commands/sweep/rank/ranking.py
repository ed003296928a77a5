"""Backbones by accuracy and cost: the front, what cannot be told apart, and which to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.commands.sweep.rank.probe import Probe
from headstart.core.records import Score
from headstart.core.wording import count, format_percent
from headstart.evaluation.item_scores import ITEM_FIGURES
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.heads.transferability import rank_correlation


@dataclass(frozen=True, eq=False)
class Ranked:
    """One backbone of the table.

    Attributes:
        name: as it was named.
        probe: what was found out; None: it could not be tried.
        why: the reason, in one line; empty where it was tried.
        accuracy: on held-out training items, with its interval.
        on_front: whether no other is both cheaper and more accurate.
        behind: accuracy of the most accurate less its own, on the same items.
        apart: whether that difference can be told from 0.
    """

    name: str
    probe: Probe | None
    why: str = ""
    accuracy: Score | None = None
    on_front: bool = False
    behind: Score | None = None
    apart: bool = False


@dataclass(frozen=True, eq=False)
class Ranking:
    """All backbones, the most accurate first, those that could not be tried last.

    Attributes:
        rows: the table.
        recommended: the cheapest that cannot be told from the most accurate; None: none was tried.
        reason: why, in one sentence.
        correlations: by transferability score, Kendall's tau with the accuracy; None where fewer
            than three were tried.
        notes: what was decided on the user's behalf.
        figure: what they are ranked by: accuracy, F1 of items, or R².
    """

    rows: tuple[Ranked, ...]
    recommended: str | None
    reason: str
    correlations: dict[str, float | None]
    notes: tuple[str, ...] = ()
    figure: str = "accuracy"


def rank_probes(tried: Sequence[tuple[str, Probe | str]], notes: Sequence[str] = ()) -> Ranking:
    """Compare probes of the same items, paired.

    Args:
        tried: name and probe, or the reason why there is none, in the order of the user.
        notes: what was decided so far.
    """
    failed = [Ranked(name, None, one) for name, one in tried if isinstance(one, str)]
    found = [(name, one) for name, one in tried if not isinstance(one, str)]
    if not found:
        nothing = "none of the backbones could be tried"
        return Ranking(tuple(failed), None, nothing, {}, tuple(notes))
    items = found[0][1].labels
    other = "could read different items from the first backbone"
    failed += [Ranked(n, None, other) for n, one in found if not np.array_equal(one.labels, items)]
    found = [pair for pair in found if np.array_equal(pair[1].labels, items)]
    # Of equal accuracies the cheaper comes first, and of equal costs the one named first.
    found.sort(key=lambda pair: (-pair[1].right.mean(), *_cost(pair[1])))
    best = found[0][1]
    rows = []
    for name, probe in found:
        behind = best.ahead_of(probe)
        apart = probe is not best and behind.interval is not None and behind.interval.low > 0
        rows.append(
            Ranked(
                name,
                probe,
                accuracy=probe.score,
                on_front=not any(_beats(other, probe) for _, other in found),
                behind=behind,
                apart=apart,
            )
        )
    level = [row for row in rows if not row.apart and row.probe is not None]
    chosen = min(level, key=lambda row: _cost(row.probe))  # type: ignore[arg-type]
    accuracies = [float(probe.right.mean()) for _, probe in found]
    correlations = {
        score: rank_correlation([probe.scores[score] for _, probe in found], accuracies)
        for score in best.scores
    }
    return Ranking(
        (*rows, *failed),
        chosen.name,
        _reason(chosen, rows, len(level)),
        correlations,
        tuple(notes),
        ITEM_FIGURES[best.task],
    )


def _cost(probe: Probe) -> tuple[float, float]:
    return probe.milliseconds, probe.megabytes


def _beats(other: Probe, probe: Probe) -> bool:
    better = other.right.mean(), -other.milliseconds
    own = probe.right.mean(), -probe.milliseconds
    return better != own and better[0] >= own[0] and better[1] >= own[1]


def _best_of(probe: Probe) -> str:
    """Say that a backbone is the best, by the figure that they are ranked by."""
    if probe.task == CLASSIFICATION.name:
        return "is the most accurate"
    return f"has the highest {ITEM_FIGURES[probe.task]}"


def _reason(chosen: Ranked, rows: Sequence[Ranked], level: int) -> str:
    assert chosen.probe is not None
    assert chosen.accuracy is not None
    first = rows[0]
    cost = f"{chosen.probe.milliseconds:.3g} ms per item"
    if len(rows) == 1:
        return f"{chosen.name} is the only backbone that was tried ({cost})"
    if chosen is first:
        others = f"; {count(level - 1, 'other')} cannot be distinguished from it and cost more"
        return f"{chosen.name} {_best_of(chosen.probe)} ({cost}){others if level > 1 else ''}"
    assert chosen.behind is not None
    assert chosen.behind.interval is not None
    plain = chosen.probe.task == CLASSIFICATION.name
    gap, interval = 100 * chosen.behind.value, chosen.behind.interval
    best = format_percent(first.accuracy.value if first.accuracy else 0.0)
    return (
        f"{chosen.name} is the cheapest ({cost}) of the {level} that cannot be distinguished"
        f" from the {'most accurate' if plain else 'best'}, {first.name} ({best}): {gap:.1f}"
        f" points behind it [{100 * interval.low:.1f}, {100 * interval.high:.1f}] on"
        f" {count(len(chosen.probe.labels), 'item')}"
    )


__all__ = ["Ranked", "Ranking", "rank_probes"]
