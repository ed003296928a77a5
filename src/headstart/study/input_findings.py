"""What a comparison says of inputs that were changed on purpose, such as padding that counts."""

from __future__ import annotations

from collections.abc import Iterator

from headstart.core.wording import format_percent
from headstart.study.results import Evidence, Finding, capital


def inputs_changed(e: Evidence) -> Iterator[Finding]:
    """What changed inputs mean for the items, with what they cost."""
    reference = e.reference_outcome
    given = reference.case.function.inputs
    for outcome in e.frozen:
        changed = outcome.case.function.inputs
        means = given.consequence(changed) if changed != given else ""
        gap = outcome.difference
        if not means or gap is None:
            continue
        noise = "" if gap.significant else ", which is within noise"
        yield Finding(
            "inputs changed",
            "warning" if gap.significant and gap.value < 0 else "note",
            f"With {outcome.name}, {means}."
            f" {capital(e.figure)}: {format_percent(outcome.accuracy.value)}"
            f" against {format_percent(reference.accuracy.value)} ({reference.name}),"
            f" {100 * gap.value:+.1f} points{noise}.",
            evidence={outcome.name: outcome.accuracy.value, reference.name: gap.value},
        )


__all__ = ["inputs_changed"]
