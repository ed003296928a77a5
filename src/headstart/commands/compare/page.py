"""The page and the table of a comparison: figures, causes, what to use, and how to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart.commands.compare.page_training import finding_text, training_blocks, training_table
from headstart.core.records import Interval
from headstart.core.wording import (
    NOT_DEFINED,
    clean,
    format_number,
    format_percent,
    format_seconds,
    shorten,
)
from headstart.report.page import (
    Block,
    Callout,
    Code,
    Headline,
    Page,
    Picture,
    Section,
    Table,
)
from headstart.report.wording import flatten
from headstart.study.results import Comparison, FrozenOutcome, Outcome

if TYPE_CHECKING:
    from rich.console import Group

_SMALL_CHANGE = 1e-3  # below this, rows change by rounding only


def comparison_page(
    comparison: Comparison,
    *,
    title: str,
    subtitle: str = "",
    environment: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> Page:
    """Build the report of ``compare``.

    Args:
        comparison: the finished study.
        title: the page's title.
        subtitle: one line below it.
        environment: versions and hardware.
        notes: what was decided beside the comparison's own notes.
        commands: what to do next, and how to repeat the study.
    """
    sections = (
        Section("Recommendation", tuple(_advice(comparison, commands))),
        Section("Accuracy", tuple(_accuracy(comparison))),
        Section("Training", tuple(training_blocks(comparison))),
        Section("Causes", tuple(_causes(comparison))),
        Section("Cost", tuple(_cost(comparison))),
        Section("Every run", (_runs(comparison),)),
        Section("To repeat this", tuple(_settings(comparison, environment, notes))),
    )
    return Page(
        title=title,
        subtitle=subtitle,
        headlines=_headlines(comparison),
        sections=tuple(section for section in sections if section.blocks),
    )


def comparison_rows(comparison: Comparison) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return header and rows of the table of configurations, as text."""
    header = (
        "configuration",
        "accuracy",
        "95 % interval",
        "difference",
        "p (Holm)",
        "other batch",
        "2nd pass",
        "ms/image",
        "MiB",
    )
    rows = tuple(_row(comparison, outcome) for outcome in comparison.outcomes)
    return header, rows


def comparison_table(comparison: Comparison) -> Group:
    """Return what the terminal shows: the table, the findings and the recommendation."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    header, rows = comparison_rows(comparison)
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position == 0 else "right", no_wrap=True)
    reference = comparison.evidence.reference
    chosen = comparison.recommendation.configuration
    for outcome, row in zip(comparison.outcomes, rows, strict=True):
        style = "bold" if outcome.name == chosen else ""
        table.add_row(*(Text(shorten(cell, 36), style=style) for cell in row))
    legend = (
        f"Differences are paired, from {clean(reference)}. Other batch, 2nd pass: the largest"
        " change of a feature."
    )
    parts: list[Any] = [table, Text(legend, style="dim")]
    if comparison.evidence.tuned:
        parts += [Text(), training_table(comparison)]
    for finding in comparison.findings:
        mark = {"warning": "!", "advice": ">", "note": "·"}[finding.level]
        text = Text(f"\n{mark} {clean(finding_text(comparison, finding))}")
        if finding.fix:
            text.append(f"\n  what to do: {clean(finding.fix)}", style="italic")
        parts.append(text)
    advice = comparison.recommendation
    parts.append(Text(f"\n{clean(advice.text)}", style="bold"))
    parts += [Text(f"  {clean(line)}") for line in (*advice.evidence, advice.doubt)]
    return Group(*parts)


def _headlines(comparison: Comparison) -> tuple[Headline, ...]:
    advice = comparison.recommendation
    e = comparison.evidence
    name = advice.configuration
    shown = e.reference_outcome if name is None else e.outcome(name)
    interval = _interval(shown) or "no interval"
    plan = comparison.plan
    share = plan.saved / plan.alone if plan.alone else 0.0
    return (
        Headline("Recommended", "none of these", "what is missing stands below")
        if name is None
        else Headline("Recommended", shorten(name), "chosen on held-out training items"),
        Headline(
            "Its test accuracy" if name else "The reference's test accuracy",
            format_percent(shown.accuracy.value),
            f"95 % interval {interval}",
        ),
        Headline(
            "Basis",
            f"{len(shown.runs)} × {e.n_test:,}",
            "repetitions × test items" + (", redrawn" if e.redrawn else ""),
        ),
        Headline(
            "Forward passes saved",
            f"{plan.saved:,}",
            f"{format_percent(share)} of {plan.alone:,}; equal functions share rows",
        ),
    )


def _advice(comparison: Comparison, commands: Sequence[str]) -> list[Block]:
    advice = comparison.recommendation
    blocks: list[Block] = [Callout(advice.text, "advice"), *advice.evidence, advice.doubt]
    if advice.code:
        blocks.append(Code(advice.code, "In a loop of your own"))
    if commands:
        blocks.append(Code("\n".join(commands), "On the command line"))
    warnings = [f for f in comparison.findings if f.level == "warning"]
    blocks += [Callout(_with_fix(f.text, f.fix), "warning") for f in warnings]
    return blocks


def _accuracy(comparison: Comparison) -> list[Block]:
    from headstart.report.figures import comparison_figure

    outcomes = comparison.outcomes
    names = [outcome.name for outcome in outcomes]
    figure = comparison_figure(
        names,
        [[run.accuracy for run in outcome.runs] for outcome in outcomes],
        [outcome.accuracy.interval for outcome in outcomes],
        reference=names.index(comparison.evidence.reference),
    )
    alt = "; ".join(f"{o.name}: {format_percent(o.accuracy.value)}" for o in outcomes)
    e = comparison.evidence
    basis = (
        "Every repetition draws its own test split; the intervals allow for the items that"
        " repetitions share (Nadeau and Bengio 2003)."
        if e.redrawn
        else "The intervals count both the repetitions and the choice of the test items."
    )
    header, rows = comparison_rows(comparison)
    blocks: list[Block] = [
        Picture(
            figure,
            alt,
            f"Each light dot is a repetition, each diamond a mean. {basis} The dashed line goes"
            f" through {e.reference}.",
        ),
        Table(header, rows, "All configurations", "l" + "r" * (len(header) - 1)),
        "Differences are paired, from the reference; p-values are corrected after Holm for all"
        " distinct comparisons. “Other batch” is the largest change of a feature when the same"
        " images stand in another batch, “2nd pass” that between two passes over one batch, both"
        f" relative to the largest feature. Time and memory (of tensors, weights not counted)"
        f" are those of one batch of {e.reference_outcome.behaviour.batch}, without decoding."
        + (f" {NOT_DEFINED}: fine-tuning; how it was trained stands below." if e.tuned else ""),
    ]
    return blocks


def _causes(comparison: Comparison) -> list[Block]:
    from headstart.report.figures import drift_figure

    blocks: list[Block] = [
        Callout(_with_fix(finding_text(comparison, f), f.fix), f.level)
        for f in comparison.findings
        if f.level != "warning"
    ]
    drift = comparison.evidence.drift
    if drift:
        layers = [layer.name for layer in next(iter(drift.values()))]
        values = {name: [layer.symmetric_kl for layer in found] for name, found in drift.items()}
        alt = "; ".join(
            f"{name}: first layer {format_number(series[0])} nats"
            for name, series in values.items()
        )
        blocks.append(
            Picture(
                drift_figure(layers, values, x_label="drift from the running statistics, nats"),
                alt,
                "Symmetric Kullback–Leibler divergence between what a layer is given and its"
                " running statistics, the mean over its channels. Near zero, the data look to the"
                " layer like those of pre-training.",
            )
        )
    blocks += _inputs_table(comparison)
    blocks.append(_spread_table(comparison))
    return blocks


def _inputs_table(comparison: Comparison) -> list[Block]:
    check = comparison.evidence.inputs
    if check is None:
        return []
    trials = [check.given, *check.trials]
    trials += [check.own_size] if check.own_size else []
    rows = tuple((t.name, t.first, t.early, str(t.preprocessing)) for t in trials)
    caption = f"Preprocessings that were tried on {check.images} training images, without labels"
    header = ("inputs", f"drift of {check.layers[0]}", "early layers", "preprocessing")
    return [Table(header, rows, caption, "lrrl", folded=True)]


def _spread_table(comparison: Comparison) -> Table:
    rows = tuple(
        (
            outcome.name,
            outcome.spread.width,
            outcome.spread.scale,
            outcome.spread.constant,
            outcome.spread.dimension,
        )
        for outcome in comparison.evidence.frozen
    )
    header = ("configuration", "features", "standard deviation", "constant", "effective dimension")
    return Table(header, rows, "How the features of the training items spread", "lrrrr", True)


def _cost(comparison: Comparison) -> list[Block]:
    from headstart.report.figures import cost_figure

    values = cost_values(comparison)
    figure = cost_figure(*values)
    alt = "; ".join(
        f"{name}: {format_seconds(value)} an image"
        for name, value in zip(values[0], values[1], strict=True)
    )
    plan = comparison.plan
    steps = tuple((name, format_seconds(value)) for name, value in comparison.seconds.items())
    return [
        Picture(figure, alt, "Time of the forward pass alone; memory is in the table above."),
        f"The study needed {plan.images:,} forward passes of one image instead of {plan.alone:,}:"
        f" configurations that compute the same function share rows. {comparison.cache.hits:,}"
        f" rows were in the cache already, {comparison.cache.misses:,} were added to it.",
        Table(("pass",), tuple((line,) for line in plan.lines()), "The plan", "l", folded=True),
        Table(("step", "time"), steps, "Time by step", "lr", folded=True),
    ]


def cost_values(
    comparison: Comparison,
) -> tuple[list[str], list[float], list[float], list[Interval | None]]:
    """Return names, seconds an image, accuracies and intervals of the frozen backbones."""
    frozen = comparison.evidence.frozen
    return (
        [outcome.name for outcome in frozen],
        [comparison.seconds_per_image.get(outcome.name, float("nan")) for outcome in frozen],
        [outcome.accuracy.value for outcome in frozen],
        [outcome.accuracy.interval for outcome in frozen],
    )


def _runs(comparison: Comparison) -> Table:
    rows = tuple(
        (
            outcome.name,
            run.repetition,
            format_percent(run.accuracy, digits=2),
            f"{run.right:,} of {run.n_test:,}",
            NOT_DEFINED if run.held_out is None else format_percent(run.held_out, digits=2),
            ", ".join(f"{key} {value:g}" for key, value in run.chosen.items()),
            _seeds(run.seeds),
        )
        for outcome in comparison.outcomes
        for run in outcome.runs
    )
    header = ("configuration", "repetition", "accuracy", "right", "held out", "chosen", "seeds")
    return Table(header, rows, f"All {len(rows)} runs with their seeds", "lrrrrll", folded=True)


def _settings(
    comparison: Comparison, environment: Mapping[str, Any] | None, notes: Sequence[str]
) -> list[Block]:
    blocks: list[Block] = [Callout(note) for note in (*notes, *comparison.notes)]
    described = tuple(
        (o.name, o.task.configuration.about or NOT_DEFINED, ", ".join(o.same_as) or NOT_DEFINED)
        for o in comparison.outcomes
    )
    header = ("configuration", "what it is", "the same function as")
    blocks.append(Table(header, described, "Configurations", "lll", folded=True))
    for caption, values in (("Settings", comparison.settings), ("Environment", environment)):
        if values:
            rows = tuple(flatten(values))
            blocks.append(Table(("setting", "value"), rows, caption, "ll", folded=True))
    return blocks


def _row(comparison: Comparison, outcome: Outcome) -> tuple[str, ...]:
    difference = outcome.difference
    if difference is None:
        gap, p = "reference", ""
    elif comparison.evidence.reference in outcome.same_as:
        gap, p = "the same", ""
    else:
        gap = f"{100 * difference.value:+.1f}"
        if difference.interval is not None:
            low, high = difference.interval.low, difference.interval.high
            gap += f" ({100 * low:+.1f} to {100 * high:+.1f})"
        p = NOT_DEFINED if difference.p_holm is None else _p_value(difference.p_holm)
    return (
        outcome.name,
        format_percent(outcome.accuracy.value),
        _interval(outcome),
        gap,
        p,
        *_measured(outcome, comparison.seconds_per_image.get(outcome.name)),
    )


def _measured(outcome: Outcome, seconds: float | None) -> tuple[str, str, str, str]:
    if not isinstance(outcome, FrozenOutcome):
        return (NOT_DEFINED,) * 4
    return (
        _change(outcome.behaviour.changes.in_another_batch),
        _change(outcome.behaviour.changes.on_second_pass),
        "" if seconds is None else format_number(1000 * seconds, digits=2),
        f"{outcome.behaviour.peak_bytes / 2**20:,.0f}",
    )


def _interval(outcome: Outcome) -> str:
    interval = outcome.accuracy.interval
    return "" if interval is None else f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def _change(value: float) -> str:
    if value == 0.0:
        return "equal"
    return "rounding" if value < _SMALL_CHANGE else format_percent(value, digits=0)


def _p_value(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _seeds(seeds: Any) -> str:
    parts = [("split", seeds.split), ("held out", seeds.validation), ("order", seeds.order)]
    parts += [("chance", seeds.chance), ("head", seeds.head)]
    return ", ".join(f"{name} {value}" for name, value in parts if value is not None)


def _with_fix(text: str, fix: str) -> str:
    return f"{text} What to do: {fix}." if fix else text


__all__ = ["comparison_page", "comparison_rows", "comparison_table"]
