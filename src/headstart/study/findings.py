"""Rules that turn measurements into causes, in plain words with the figures behind them.

A rule is a function from :class:`Evidence` to findings. It claims only what was measured, and says
nothing where its figures are missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from headstart.core.wording import format_number as number
from headstart.core.wording import format_percent as percent
from headstart.core.wording import listed
from headstart.extraction import TOLERANCE
from headstart.study.input_findings import (
    images_are_tiny,
    inputs_fit,
    inputs_look_wrong,
    inputs_unchecked,
)
from headstart.study.results import Evidence, Finding, FrozenOutcome, TunedOutcome
from headstart.study.wording import points

Rule = Callable[[Evidence], Iterator[Finding]]
_LEVELS = {"warning": 0, "advice": 1, "note": 2}
_DEPENDS = 10 * TOLERANCE["float32"]


def find_causes(evidence: Evidence) -> tuple[Finding, ...]:
    """Apply all rules; warnings come first, in the order of the rules otherwise."""
    found = [finding for rule in RULES for finding in rule(evidence)]
    return tuple(sorted(found, key=lambda finding: _LEVELS[finding.level]))


def nothing_to_choose(e: Evidence) -> Iterator[Finding]:
    """Without running statistics, mode and statistics make no difference."""
    if e.facts.norms:
        return
    rest = (
        "Only its sources of chance tell training mode from evaluation mode."
        if e.facts.random
        else "It has no dropout in effect either, so every mode computes the same rows."
    )
    yield Finding(
        "nothing to choose",
        "note",
        f"There is nothing to choose about statistics: up to its cut, {e.backbone} has no layer"
        f" that keeps running statistics. {rest}",
        evidence={"norms": 0, "random": e.facts.random},
    )


def rows_depend_on_batch(e: Evidence) -> Iterator[Finding]:
    """The same items get other rows in other batches."""
    batch = [o for o in e.frozen if o.behaviour.changes.in_another_batch > _DEPENDS]
    if not batch:
        return
    worst = max(batch, key=lambda o: o.behaviour.changes.in_another_batch)
    changes = worst.behaviour.changes
    names = listed([o.name for o in batch])
    layers = f"{len(e.facts.norms)} batch norms from {e.facts.norms[0]} to {e.facts.norms[-1]}"
    yield Finding(
        "rows depend on the batch",
        "warning",
        f"With {names}, a row depends on its batch: the same images in another batch change by up"
        f" to {percent(changes.in_another_batch)} of the largest feature, and a row typically"
        f" by {percent(changes.typical)} of its length. The {layers} take"
        " their statistics from the batch.",
        fix="call backbone.eval(); do not cache such rows, and do not serve one image at a time"
        " with them",
        evidence={o.name: o.behaviour.changes.in_another_batch for o in batch},
    )


def class_order_matters(e: Evidence) -> Iterator[Finding]:
    """A loader without shuffling makes every batch of one class."""
    for outcome in e.frozen:
        if outcome.task.function.order != "class":
            continue
        function = dataclasses.replace(outcome.task.function, order="shuffled")
        twin = _twin(e, outcome, function)
        if twin is None:
            continue
        drop = twin.accuracy.value - outcome.accuracy.value
        ordered = e.class_order[0] > 0.5 + 0.5 * e.class_order[1]
        standing = (
            f" Your test split stands in class order ({percent(e.class_order[0])} of neighbours"
            f" share a class, {percent(e.class_order[1])} by chance), so a loader without"
            " shuffling does just this."
            if ordered
            else f" Your test split does not stand in class order ({percent(e.class_order[0])} of"
            f" neighbours share a class, {percent(e.class_order[1])} by chance)."
        )
        yield Finding(
            "class-ordered batches",
            "warning" if drop > 0.02 and ordered else "note",
            f"Tested one class after the other ({outcome.name}), batch statistics give"
            f" {percent(outcome.accuracy.value)} instead of {percent(twin.accuracy.value)}"
            f" shuffled ({twin.name}): each batch is normalised by the statistics of its own"
            f" class, which takes away what tells it from the others.{standing}",
            fix="call backbone.eval(): then the order makes no difference",
            evidence={"class order": outcome.accuracy.value, "shuffled": twin.accuracy.value},
        )


def dropout_left_on(e: Evidence) -> Iterator[Finding]:
    """Two passes over the same images disagree."""
    noisy = [o for o in e.frozen if o.task.function.dropout]
    if not noisy:
        return
    worst = max(noisy, key=lambda o: o.behaviour.changes.on_second_pass)
    where = listed([f"{name} ({kind})" for name, kind in e.facts.chance], 4)
    source = f"the source is {where}" if where else "the source is in the forward pass itself"
    text = (
        f"With {listed([o.name for o in noisy])}, dropout is on in the frozen backbone: two passes"
        " over the same images differ by up to"
        f" {percent(worst.behaviour.changes.on_second_pass)} of the largest feature; {source}."
    )
    for outcome in noisy:
        quiet = _twin(e, outcome, dataclasses.replace(outcome.task.function, dropout=False))
        if quiet is None and outcome.task.function.statistics == "running":
            plain = dataclasses.replace(outcome.task.function, dropout=False, batch_size=None)
            quiet = _twin(e, outcome, plain)
        if quiet is not None:
            gap = 100 * (outcome.accuracy.value - quiet.accuracy.value)
            text += (
                f" Accuracy: {percent(outcome.accuracy.value)} ({outcome.name}) against"
                f" {percent(quiet.accuracy.value)} ({quiet.name}), {gap:+.1f} points."
            )
            break
    yield Finding(
        "dropout left on",
        "warning",
        text,
        fix="call backbone.eval(): frozen weights cannot adapt to the noise",
        evidence={o.name: o.behaviour.changes.on_second_pass for o in noisy},
    )


def statistics_moved(e: Evidence) -> Iterator[Finding]:
    """``no_grad`` without ``eval`` changes the network."""
    if not e.moved or not any(o.task.function.statistics == "batch" for o in e.frozen):
        return
    moved = {name: shift for name, shift in e.moved.items() if shift > 0}
    if not moved:
        return
    worst = max(moved, key=lambda name: moved[name])
    yield Finding(
        "statistics move",
        "warning",
        f"In training mode the forward pass moves the running statistics of {len(moved)} of"
        f" {len(e.moved)} layers, under torch.no_grad() and inference_mode too: within two"
        f" batches the running mean of {worst} moved by {number(moved[worst])} standard deviations."
        " (This was measured on a copy; your module is as it was.)",
        fix="call backbone.eval() before any forward pass, or headstart.freeze(backbone)",
        evidence=dict(moved),
    )


def ways_are_equal(e: Evidence) -> Iterator[Finding]:
    """Autograd modes do not change what is computed."""
    for proof in e.proofs:
        equality = proof.equality
        if len(proof.configurations) < 2:
            continue
        names = " and ".join(proof.configurations)
        if len(proof.configurations) > 2:
            names = listed(list(proof.configurations))
        batches = "1 batch" if equality.batches == 1 else f"{equality.batches} batches"
        on = f"{equality.images:,} images in {batches}"
        if equality.exact:
            text = f"{names} compute the same rows, bit for bit (run and compared on {on})."
        else:
            text = (
                f"{names} differ by up to {equality.change:.1e} of the largest feature on {on}:"
                " torch takes another kernel without gradients."
            )
        yield Finding("equal by construction", "note", text, evidence={"change": equality.change})


def differences_in_noise(e: Evidence) -> Iterator[Finding]:
    """What the figures cannot tell apart from the reference."""
    others = [o for o in e.frozen if o.difference is not None and e.reference not in o.same_as]
    unclear = [o for o in others if o.difference is not None and not o.difference.significant]
    if not unclear:
        return
    widest = max(
        (o.difference.interval for o in unclear if o.difference and o.difference.interval),
        key=lambda interval: interval.high - interval.low,
        default=None,
    )
    resolution = (
        ""
        if widest is None
        else f" With {e.n_test:,} test items and {len(unclear[0].runs)} repetitions, the widest of"
        f" these differences is known to ±{100 * (widest.high - widest.low) / 2:.1f} points."
    )
    verb = "is" if len(unclear) == 1 else "are"
    yield Finding(
        "within noise",
        "note",
        f"{listed([o.name for o in unclear])} {verb} not distinguishable from {e.reference}"
        f" (Holm-corrected p above 0.05).{resolution}",
        evidence={o.name: o.difference.p_holm for o in unclear if o.difference is not None},
    )


def fine_tuning_gains(e: Evidence) -> Iterator[Finding]:
    """What training the backbone brings over freezing it. What it costs in time is told beside."""
    told: set[str] = set()
    for outcome in e.tuned:
        if outcome.name in told or outcome.difference is None:
            continue
        told |= {outcome.name, *outcome.same_as}
        gap = outcome.difference
        names = listed([outcome.name, *outcome.same_as])
        size = points(gap)
        if not gap.significant:
            text = f"Fine-tuning ({names}) is not distinguishable from {e.reference}: {size}"
            text += "" if gap.p_holm is None else f", Holm-corrected p = {gap.p_holm:.2g}"
        elif gap.value > 0:
            text = f"Fine-tuning ({names}) gains {size} over {e.reference}"
        else:
            text = f"Fine-tuning ({names}) loses {size} against {e.reference}"
        yield Finding(
            "fine-tuning",
            "advice" if gap.significant and gap.value > 0 else "note",
            f"{text}. {_best_epochs(outcome)}",
            evidence={
                "configuration": outcome.name,
                "difference": gap.value,
                "p_holm": gap.p_holm,
                "best_epochs": [run.chosen["best_epoch"] for run in outcome.runs],
            },
        )


def _best_epochs(outcome: TunedOutcome) -> str:
    """Say how well the held-out items were classified, and in which epoch."""
    best = sorted(int(run.chosen["best_epoch"]) for run in outcome.runs)
    epochs = outcome.tuning.epochs
    held = "" if outcome.held_out is None else f" {percent(outcome.held_out.value)},"
    when = f"epoch {best[0]}" if best[0] == best[-1] else f"epochs {best[0]} to {best[-1]}"
    text = f"Best validation accuracy:{held} in {when} of {epochs}"
    # At the end of a run the best epoch may lie beyond it.
    short = 2 * sum(epoch == epochs for epoch in best) > len(best)
    return f"{text}; it may still rise with more epochs." if short else f"{text}."


RULES: tuple[Rule, ...] = (
    inputs_look_wrong,
    inputs_fit,
    inputs_unchecked,
    images_are_tiny,
    nothing_to_choose,
    rows_depend_on_batch,
    class_order_matters,
    dropout_left_on,
    statistics_moved,
    ways_are_equal,
    differences_in_noise,
    fine_tuning_gains,
)
"""All rules; add your own by calling it beside :func:`find_causes`."""


def _twin(e: Evidence, outcome: FrozenOutcome, function: object) -> FrozenOutcome | None:
    return next(
        (
            other
            for other in e.frozen
            if other.task.function == function
            and other.task.cut == outcome.task.cut
            and other.head == outcome.head
        ),
        None,
    )


__all__ = ["RULES", "find_causes"]
