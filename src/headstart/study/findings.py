"""Rules that turn measurements into causes, in plain words with the figures behind them.

A rule is a function from :class:`Evidence` to findings. It claims only what was measured, and says
nothing where its figures are missing. All rules are in :data:`RULES`; :func:`register_rule` adds
one from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from headstart.core.wording import count, format_percent, listed
from headstart.core.wording import count as counted
from headstart.core.wording import format_number as number
from headstart.extraction import TOLERANCE
from headstart.study.finding_words import named, points
from headstart.study.input_findings import (
    images_are_tiny,
    inputs_changed,
    inputs_fit,
    inputs_look_wrong,
    inputs_unchecked,
)
from headstart.study.keras_findings import inference_mode_and_frozen
from headstart.study.results import (
    Evidence,
    Finding,
    FrozenOutcome,
    TunedOutcome,
    capital,
)

Rule = Callable[[Evidence], Iterator[Finding]]
_LEVELS = {"warning": 0, "advice": 1, "note": 2}
_DEPENDS = 10 * TOLERANCE["float32"]


def find_causes(evidence: Evidence) -> tuple[Finding, ...]:
    """Apply all rules; warnings come first, in the order of the rules otherwise."""
    found = [finding for rule in RULES for finding in rule(evidence)]
    return tuple(sorted(found, key=lambda finding: _LEVELS[finding.level]))


def register_rule(rule: Rule) -> Rule:
    """Add a rule of your own behind the others, and return it; usable as a decorator."""
    RULES.append(rule)
    return rule


def nothing_to_choose(e: Evidence) -> Iterator[Finding]:
    """Without running statistics, mode and statistics make no difference."""
    if e.facts.norms:
        return
    rest = (
        "Only its random layers distinguish training mode from evaluation mode."
        if e.facts.random
        else "It has no dropout in effect either, so every mode computes the same rows."
    )
    yield Finding(
        "nothing to choose",
        "note",
        f"There is no choice of statistics: up to its cut, {e.backbone} has no layer that keeps"
        f" running statistics. {rest}",
        evidence={"norms": 0, "random": e.facts.random},
    )


def rows_depend_on_batch(e: Evidence) -> Iterator[Finding]:
    """The same items get other rows in other batches."""
    batch = [o for o in e.frozen if o.behaviour.changes.in_another_batch > _DEPENDS]
    if not batch:
        return
    changes = max((o.behaviour.changes for o in batch), key=lambda c: c.in_another_batch)
    norms = e.facts.norms
    yield Finding(
        "rows depend on the batch",
        "warning",
        f"With {named(e, batch)}, a row depends on its batch: the same {e.unit}"
        f" in another batch change by up to {format_percent(changes.in_another_batch)} of the"
        f" largest feature, and a row typically by {format_percent(changes.typical)} of its length."
        f" The {len(norms)} batch norms from {norms[0]} to {norms[-1]} take their statistics from"
        " the batch.",
        fix=f"{e.terms.evaluation}; do not cache such rows, and do not serve one item at a time"
        " with them",
        evidence={o.name: o.behaviour.changes.in_another_batch for o in batch},
    )


def class_order_matters(e: Evidence) -> Iterator[Finding]:
    """A loader without shuffling makes every batch of one class."""
    found, at_random = e.class_order
    ordered = found > 0.5 + 0.5 * at_random
    neighbours = (
        f"({format_percent(found)} of neighbours share a class, {format_percent(at_random)} at"
        " random)"
    )
    for outcome in e.frozen:
        if outcome.case.function.order != "class":
            continue
        twin = _twin(e, outcome, outcome.case.function.but(order="shuffled"))
        if twin is None:
            continue
        drop = twin.accuracy.value - outcome.accuracy.value
        yield Finding(
            "class-ordered batches",
            "warning" if drop > 0.02 and ordered else "note",
            f"Tested one class after the other ({outcome.name}), batch statistics give"
            f" {format_percent(outcome.accuracy.value)} instead of"
            f" {format_percent(twin.accuracy.value)} shuffled ({twin.name}): each batch is"
            " normalised by the statistics of its own class, which removes what sets it apart"
            " from the others. "
            + (
                f"Your test split is in class order {neighbours}, so a loader without shuffling"
                " does exactly this."
                if ordered
                else f"Your test split is not in class order {neighbours}."
            ),
            fix=f"{e.terms.evaluation}: then the order makes no difference",
            evidence={"class order": outcome.accuracy.value, "shuffled": twin.accuracy.value},
        )


def dropout_left_on(e: Evidence) -> Iterator[Finding]:
    """Two passes over the same items disagree."""
    noisy = [o for o in e.frozen if o.case.function.dropout]
    if not noisy:
        return
    worst = max(o.behaviour.changes.on_second_pass for o in noisy)
    where = listed((f"{name} ({kind})" for name, kind in e.facts.chance), 4)
    source = f"the source is {where}" if where else "the source is in the forward pass itself"
    text = (
        f"With {named(e, noisy)}, dropout is on in the frozen backbone: two passes"
        f" over the same {e.unit} differ by up to {format_percent(worst)} of the largest feature;"
        f" {source}."
    )
    for outcome in noisy:
        function = outcome.case.function.but(dropout=False)
        quiet = _twin(e, outcome, function)
        if quiet is None and function.statistics == "running":
            quiet = _twin(e, outcome, function.but(batch_size=None))
        if quiet is not None:
            gap = 100 * (outcome.accuracy.value - quiet.accuracy.value)
            text += (
                f" {capital(e.figure)}: {format_percent(outcome.accuracy.value)}"
                f" ({outcome.name}) against"
                f" {format_percent(quiet.accuracy.value)} ({quiet.name}), {gap:+.1f} points."
            )
            break
    yield Finding(
        "dropout left on",
        "warning",
        text,
        fix=f"{e.terms.evaluation}: frozen weights cannot adapt to the noise",
        evidence={o.name: o.behaviour.changes.on_second_pass for o in noisy},
    )


def statistics_moved(e: Evidence) -> Iterator[Finding]:
    """``no_grad`` without ``eval`` changes the network."""
    if not e.moved or not any(o.case.function.statistics == "batch" for o in e.frozen):
        return
    moved = {name: shift for name, shift in e.moved.items() if shift > 0}
    if not moved:
        return
    worst = max(moved, key=lambda name: moved[name])
    yield Finding(
        "statistics move",
        "warning",
        f"In training mode the forward pass moves the running statistics of {len(moved)} of"
        f" {counted(len(e.moved), 'layer')}, under torch.no_grad() and inference_mode too: within"
        f" two"
        f" batches the running mean of {worst} moved by {number(moved[worst])} standard deviations."
        " (This was measured on a copy; your module is unchanged.)",
        fix=e.terms.keep,
        evidence=dict(moved),
    )


def ways_are_equal(e: Evidence) -> Iterator[Finding]:
    """Autograd modes do not change what is computed."""
    for proof in e.proofs:
        names = proof.configurations
        if len(names) < 2:
            continue
        who = " and ".join(names) if len(names) == 2 else listed(names)
        on = f"{proof.items:,} {e.unit} in {count(proof.batches, 'batch', 'batches')}"
        if proof.exact:
            text = f"{who} compute the same rows, bit for bit (run and compared on {on})."
        else:
            text = (
                f"{who} differ by up to {proof.change:.1e} of the largest feature on {on}: torch"
                " uses another kernel without gradients."
            )
        yield Finding("equal by construction", "note", text, evidence={"change": proof.change})


def differences_in_noise(e: Evidence) -> Iterator[Finding]:
    """What the figures cannot distinguish from the reference."""
    unclear = {
        o.name: o.difference
        for o in e.frozen
        if o.difference is not None
        and not o.difference.significant
        and e.reference not in o.same_as
    }
    if not unclear:
        return
    intervals = [gap.interval for gap in unclear.values() if gap.interval is not None]
    resolution = ""
    if intervals:
        widest = max(interval.high - interval.low for interval in intervals)
        resolution = (
            f" With {counted(e.n_test, 'test item')} and"
            f" {counted(len(e.reference_outcome.runs), 'repetition')}, the"
            f" widest of these differences is known to ±{100 * widest / 2:.1f} points."
        )
    yield Finding(
        "within noise",
        "note",
        f"{listed(unclear)} {'is' if len(unclear) == 1 else 'are'} not distinguishable from"
        f" {e.reference} (Holm-corrected p above 0.05).{resolution}",
        evidence={name: gap.p_holm for name, gap in unclear.items()},
    )


def fine_tuning_gains(e: Evidence) -> Iterator[Finding]:
    """What training the backbone gains over freezing it; what that costs is reported beside."""
    told: set[str] = set()
    for outcome in e.tuned:
        gap = outcome.difference
        if outcome.name in told or gap is None:
            continue
        told |= {outcome.name, *outcome.same_as}
        who = f"Fine-tuning ({listed([outcome.name, *outcome.same_as])})"
        if not gap.significant:
            text = f"{who} is not distinguishable from {e.reference}: {points(gap)}"
            text += "" if gap.p_holm is None else f", Holm-corrected p = {gap.p_holm:.2g}"
        elif gap.value > 0:
            text = f"{who} gains {points(gap)} over {e.reference}"
        else:
            text = f"{who} loses {points(gap)} against {e.reference}"
        yield Finding(
            "fine-tuning",
            "advice" if outcome.gains else "note",
            f"{text}. {_best_epochs(e, outcome)}",
            evidence={
                "configuration": outcome.name,
                "difference": gap.value,
                "p_holm": gap.p_holm,
                "best_epochs": [run.chosen["best_epoch"] for run in outcome.runs],
            },
        )


def _best_epochs(e: Evidence, outcome: TunedOutcome) -> str:
    """Say how well the held-out items were classified, and in which epoch."""
    best = sorted(int(run.chosen["best_epoch"]) for run in outcome.runs)
    epochs = outcome.tuning.epochs
    held = "" if outcome.held_out is None else f" {format_percent(outcome.held_out.value)},"
    when = f"epoch {best[0]}" if best[0] == best[-1] else f"epochs {best[0]} to {best[-1]}"
    text = f"Best validation {e.figure}:{held} in {when} of {epochs}"
    # At the end of a run the best epoch may lie beyond it.
    short = 2 * sum(epoch == epochs for epoch in best) > len(best)
    return f"{text}; it may still rise with more epochs." if short else f"{text}."


RULES: list[Rule] = [
    inputs_look_wrong,
    inputs_fit,
    inputs_unchecked,
    images_are_tiny,
    nothing_to_choose,
    rows_depend_on_batch,
    class_order_matters,
    dropout_left_on,
    inputs_changed,
    statistics_moved,
    ways_are_equal,
    differences_in_noise,
    fine_tuning_gains,
    inference_mode_and_frozen,
]
"""All rules; :func:`register_rule` adds to them."""


def _twin(e: Evidence, outcome: FrozenOutcome, function: object) -> FrozenOutcome | None:
    """Return the configuration that differs from an outcome in its function only."""
    for other in e.frozen:
        same = (other.case.cut, other.head) == (outcome.case.cut, outcome.head)
        if same and other.case.function == function:
            return other
    return None


__all__ = ["RULES", "Rule", "find_causes", "register_rule"]
