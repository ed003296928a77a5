"""Advice in words: what each measurement usually means, and what follows from all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.core.cards import Card, Grid, Shown
from headstart.core.records import Score
from headstart.core.wording import count as counted
from headstart.core.wording import verb
from headstart.finetuning.gradients import RelativeGradient
from headstart.freezing import LayerDrift
from headstart.heads import LabelBudget
from headstart.heads.task_checks import ItemBudget

Leaning = Literal["unfreeze", "stay frozen", "either"]

_LARGE_SHIFT = 0.5
_SMALL_GAIN = 0.01


@dataclass(frozen=True)
class Indicator:
    """One piece of evidence.

    Attributes:
        name: what was measured.
        value: the number, in words with its unit and interval.
        meaning: what it usually means.
        leaning: to which side it leans.
        recipe: what it recommends, if anything is thawed.
    """

    name: str
    value: str
    meaning: str
    leaning: Leaning
    recipe: str | None = None


@dataclass(frozen=True, repr=False)
class Advice(Shown):
    """Indicators and what follows from them.

    Attributes:
        verdict: one sentence.
        leaning: of the trial, which outweighs the others: it is what unfreezing does here.
        indicators: in the order of their weight.
        figure: that the trial is judged by: accuracy, F1 of items, or R².
        probe: of the frozen backbone's probe, on the items that measured the trial.
        trial: after the trial, on the same items.
        difference: trial less probe, paired, with its interval.
        gradients: relative gradient norm of every block, from the input to the output.
        drift: of every layer with running statistics; empty where there is none.
        command: what to run next.
        commands: all that the measurements recommend, that one first.
        seconds: wall time.
    """

    verdict: str
    leaning: Leaning
    indicators: tuple[Indicator, ...]
    figure: str
    probe: Score
    trial: Score
    difference: Score
    gradients: tuple[RelativeGradient, ...]
    drift: tuple[LayerDrift, ...]
    command: str
    commands: tuple[str, ...]
    seconds: float

    def card(self) -> Card:
        """Return what there is to see: the verdict, and the evidence for it."""
        rows = tuple((each.name, each.value, each.leaning) for each in self.indicators)
        facts = (("next", self.command),) if self.command else ()
        grid = Grid(("indicator", "measured", "leans to"), rows)
        return Card("Advice", self.verdict, facts, (grid,))


def trial_indicator(difference: Score, epochs: int, figure: str = "accuracy") -> Indicator:
    """Read the trial: the interval decides."""
    interval = difference.interval
    if interval is None:
        return Indicator(
            "trial of the last block", "only one group", "no second group to compare on", "either"
        )
    items = counted(interval.items or interval.n, "held-out item")
    if interval.method == "groups":
        items += f" in {counted(interval.n, 'group')}"
    of = "" if figure == "accuracy" else f" of {figure}"
    value = (
        f"{100 * difference.value:+.1f} points{of} ({100 * interval.low:+.1f} to"
        f" {100 * interval.high:+.1f}) on {items} after {counted(epochs, 'epoch')}"
    )
    if interval.low > 0:
        return Indicator(
            "trial of the last block",
            value,
            "thawing one block already beats the probe: more is worth trying",
            "unfreeze",
        )
    if interval.high < _SMALL_GAIN:
        return Indicator(
            "trial of the last block",
            value,
            "thawing one block gains less than a point at best",
            "stay frozen",
        )
    return Indicator(
        "trial of the last block", value, "too few items to tell the two apart", "either"
    )


def curve_indicator(curve: LabelBudget | ItemBudget) -> Indicator:
    """Read the learning curve: labels or features, which is the limit?"""
    name = "learning curve of the probe"
    gain = curve.doubled if isinstance(curve, ItemBudget) else curve.gain
    if gain is None:
        return Indicator(name, "fewer than three points", "too few labels to see a trend", "either")
    last = curve.scores[-1]
    if isinstance(curve, ItemBudget):
        value = (
            f"{curve.figure} {100 * last.value:.1f} % with"
            f" {counted(curve.items[-1], 'training item')};"
            f" the last doubling brought {100 * gain.value:+.1f} points"
        )
    else:
        value = (
            f"{100 * last.value:.1f} % with {curve.shots[-1]} labels per class;"
            f" {100 * gain.value:+.1f} points expected of twice as many"
        )
    if gain.value > _SMALL_GAIN:
        return Indicator(
            name,
            value,
            "the frozen features still gain from labels: more labels may do as much as unfreezing",
            "either",
        )
    if last.value > 0.97:
        return Indicator(name, value, "flat and high: there is little left to gain", "stay frozen")
    return Indicator(
        name,
        value,
        "flat and not high: the features are the limit, not the labels",
        "unfreeze",
    )


def drift_indicator(shifts: tuple[LayerDrift, ...]) -> Indicator:
    """Read the drift of statistics."""
    name = "drift of batch-norm statistics"
    if not shifts:
        return Indicator(name, "no layer keeps statistics", "nothing to say here", "either")
    middle = float(np.median([layer.mean_shift for layer in shifts]))
    worst = max(shifts, key=lambda layer: layer.mean_shift)
    value = (
        f"median shift of the mean {middle:.2f} standard deviations over"
        f" {counted(len(shifts), 'layer')}"
        f" (largest {worst.mean_shift:.2f}, {worst.name})"
    )
    if middle > _LARGE_SHIFT:
        return Indicator(
            name,
            value,
            "the data are unlike those of the pre-training: check the preprocessing first;"
            " thawing only the scales and shifts of the norms may be enough (recipe bn-affine)",
            "unfreeze",
            "bn-affine",
        )
    return Indicator(name, value, "the data look like those of the pre-training", "stay frozen")


def gradient_indicator(found: tuple[RelativeGradient, ...]) -> Indicator:
    """Read relative gradients: does one block stand out?"""
    name = "relative gradients"
    ordered = sorted(found, key=lambda item: -item.ratio)
    value = ", ".join(f"{item.name} {item.ratio:.2g}" for item in ordered[:3])
    if len(ordered) < 2:
        return Indicator(name, value, "one block only", "either")
    middle = float(np.median([item.ratio for item in found]))
    times = ordered[0].ratio / middle if middle else float("inf")
    if times > 3:
        place = [item.name for item in found].index(ordered[0].name)
        early = place < len(found) / 2
        where = "an early block: the inputs differ" if early else "a late block: the classes differ"
        return Indicator(
            name,
            value,
            f"'{ordered[0].name}' stands out ({times:.1f} times the median), {where}; if you"
            " thaw one block, thaw this one (recipe surgical)",
            "unfreeze",
            "surgical",
        )
    return Indicator(name, value, "no block stands out", "either")


def verdict(leaning: Leaning, difference: Score, indicators: tuple[Indicator, ...]) -> str:
    """Return one sentence for all of it."""
    others = sum(item.leaning == "unfreeze" for item in indicators[1:])
    if leaning == "unfreeze":
        return "unfreezing is likely to pay: the trial beats the probe on items neither has seen"
    if leaning == "stay frozen":
        return "unfreezing is unlikely to pay: keep the backbone frozen and put effort into data"
    points = verb(others, "points", "point") if others else "point"
    tail = f"{points} to unfreezing" if others else f"{points} nowhere"
    count = f"{others} of the other indicators" if others else "the other indicators"
    return (
        f"no evidence either way: the trial changed {100 * difference.value:+.1f} points, within"
        f" its interval; {count} {tail}"
    )


def recipes(leaning: Leaning, indicators: tuple[Indicator, ...]) -> tuple[str, ...]:
    """Return the recipes to try, the first one first; none where the backbone is to stay frozen.

    What an indicator names comes before the recipes for any network: ``lp-ft`` where thawing has
    paid, ``gradual``, which stops by itself, where that is open. One block (``surgical``) is the
    smaller step than the norms of all of them.
    """
    if leaning == "stay frozen":
        return ()
    named = [each.recipe for each in reversed(indicators) if each.recipe is not None]
    return tuple(named) or ("lp-ft" if leaning == "unfreeze" else "gradual",)


__all__ = [
    "Advice",
    "Indicator",
    "curve_indicator",
    "drift_indicator",
    "gradient_indicator",
    "recipes",
    "trial_indicator",
    "verdict",
]
