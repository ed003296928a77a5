"""Rules that turn measurements into causes, in plain words with the figures behind them.

A rule is a function from :class:`Evidence` to findings. It claims only what was measured, and says
nothing where its figures are missing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

from headstart.comparison.inputs import TINY, InputCheck, Trial
from headstart.comparison.results import Evidence, Finding, Outcome
from headstart.comparison.statistics import Difference
from headstart.extraction import TOLERANCE

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


def inputs_look_wrong(e: Evidence) -> Iterator[Finding]:
    """Another preprocessing brings the early layers much nearer to their statistics."""
    check = e.inputs
    if check is None or check.correction is None:
        return
    correction = check.correction
    kind = kind_of_fault(check)
    said = {
        "unscaled": "Inputs look unscaled",
        "channels": "Red and blue look swapped",
        "normalisation": "Inputs look normalised by another mean and deviation",
        "overscaled": "Inputs look scaled down too far",
    }[kind]
    text = (
        f"{said}: {correction.name}, the drift of {check.layers[0]} from its running statistics"
        f" falls from {number(check.given.first)} to {number(correction.first)} nats"
        f" ({len(check.layers)} early layers: {number(check.given.early)} to"
        f" {number(correction.early)})."
    )
    if kind == "unscaled":
        scaled = next((t for t in check.trials if t.name.startswith("divided by 255")), None)
        if scaled is not None and scaled is not correction:
            text += f" {scaled.name.capitalize()}: {number(scaled.first)}."
    mended = None if e.suggested is None else e.outcome(e.suggested)
    if mended is not None and mended.difference is not None:
        text += f" Accuracy with this change: {against(mended.difference)}."
    yield Finding(
        f"inputs: {kind}",
        "warning",
        text,
        fix=f"use {correction.preprocessing}",
        evidence={
            "layer": check.layers[0],
            "before": check.given.first,
            "after": correction.first,
            "early_before": check.given.early,
            "early_after": correction.early,
            "images": check.images,
        },
    )
    yield from _hidden_fault(e)


def inputs_fit(e: Evidence) -> Iterator[Finding]:
    """No usual preprocessing suits the network clearly better."""
    check = e.inputs
    if check is None or check.correction is not None:
        return
    best = min(check.trials, key=lambda trial: trial.early)
    yield Finding(
        "inputs: fit",
        "note",
        f"The preprocessing fits: {check.layers[0]} drifts by {number(check.given.first)} nats from"
        f" its running statistics ({len(check.layers)} early layers: {number(check.given.early)}),"
        f" and none of {len(check.trials)} other usual preprocessings is clearly nearer"
        f" (best: {best.name}, {number(best.early)}).",
        evidence={"first": check.given.first, "early": check.given.early, "best": best.early},
    )


def images_are_tiny(e: Evidence) -> Iterator[Finding]:
    """Enlarged images lack the detail that the network was trained on."""
    check = e.inputs
    if check is None or check.own_size is None or check.enlargement < TINY:
        return
    own = check.own_size
    base = check.correction or check.given
    if own.early * 1.5 > base.early:
        return
    yield Finding(
        "tiny images",
        "advice",
        f"Statistics differ because your images are {check.image_side} px and are enlarged to"
        f" {check.resized_side} px: {own.name}, the early drift falls from {number(base.early)} to"
        f" {number(own.early)} nats. Enlarging adds no detail, and no"
        " normalisation brings it back.",
        fix="compare sizes (size=64, size=96, …) and earlier layers; a smaller size is also"
        " cheaper",
        evidence={"side": check.image_side, "drift": base.early, "drift_own_size": own.early},
    )


def rows_depend_on_batch(e: Evidence) -> Iterator[Finding]:
    """The same items get other rows in other batches."""
    batch = [o for o in e.outcomes if o.behaviour.changes.in_another_batch > _DEPENDS]
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
    for outcome in e.outcomes:
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
    noisy = [o for o in e.outcomes if o.task.function.dropout]
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
    if not e.moved or not any(o.task.function.statistics == "batch" for o in e.outcomes):
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
    others = [o for o in e.outcomes if o.difference is not None and e.reference not in o.same_as]
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


RULES: tuple[Rule, ...] = (
    inputs_look_wrong,
    inputs_fit,
    images_are_tiny,
    nothing_to_choose,
    rows_depend_on_batch,
    class_order_matters,
    dropout_left_on,
    statistics_moved,
    ways_are_equal,
    differences_in_noise,
)
"""All rules; add your own by calling it beside :func:`find_causes`."""


def kind_of_fault(check: InputCheck) -> str:
    """Name what the correction mends: ``unscaled``, ``overscaled``, ``channels`` or
    ``normalisation``.
    """
    assert check.correction is not None
    given, right = check.given.preprocessing, check.correction.preprocessing
    if given.scale > 20 * right.scale:
        return "unscaled"
    if right.scale > 20 * given.scale:
        return "overscaled"
    if (given.mean, given.std) == (right.mean, right.std):
        return "channels"
    return "normalisation"


def _hidden_fault(e: Evidence) -> Iterator[Finding]:
    """Batch statistics do better than running ones only because the inputs are wrong."""
    reference = e.reference_outcome
    for outcome in e.outcomes:
        function = outcome.task.function
        same = function.preprocessing == reference.task.function.preprocessing
        if not same or outcome.difference is None or function.statistics == "running":
            continue
        if outcome.difference.significant and outcome.difference.value > 0:
            yield Finding(
                "hidden fault",
                "warning",
                f"{outcome.name} is better than {e.reference} by"
                f" {100 * outcome.difference.value:.1f} points because its statistics come from"
                " your data and absorb the fault of the inputs. It hides the mistake, and does not"
                " mend it.",
                fix="mend the inputs first, then compare again",
                evidence={outcome.name: outcome.difference.value},
            )
            return


def _twin(e: Evidence, outcome: Outcome, function: object) -> Outcome | None:
    return next(
        (
            other
            for other in e.outcomes
            if other.task.function == function
            and other.task.cut == outcome.task.cut
            and other.head == outcome.head
        ),
        None,
    )


def against(difference: Difference) -> str:
    """Word a difference with its interval and p-value."""
    text = f"{100 * difference.value:+.1f} points"
    if difference.interval is not None:
        low, high = 100 * difference.interval.low, 100 * difference.interval.high
        text += f" (95 % interval {low:+.1f} to {high:+.1f}"
        text += f", p = {difference.p_holm:.2g})" if difference.p_holm is not None else ")"
    return text


def number(value: float) -> str:
    """Write a figure with two or three digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else ("0" if value == 0 else f"{value:.1e}")


def percent(value: float) -> str:
    """Write a fraction as per cent."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else "–"


def listed(names: list[str], most: int = 6) -> str:
    """Write names with commas, at most so many."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


__all__ = ["RULES", "Trial", "against", "find_causes", "kind_of_fault", "listed"]
