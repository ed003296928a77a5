"""The table, the picture and the page of a ranking of backbones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from headstart.commands.invocation import Commands
from headstart.commands.page_blocks import command_blocks
from headstart.commands.run_facts import describe_environment
from headstart.commands.sweep.rank.ranking import Ranked, Ranking
from headstart.core.files import write_json
from headstart.core.records import Score, to_plain
from headstart.core.wording import NOT_DEFINED, count, format_number, format_percent
from headstart.report import (
    Callout,
    Notes,
    Page,
    Picture,
    Section,
    Table,
    save_pictures,
    write_page,
)
from headstart.report.figures import cost_figure
from headstart.report.page import Block
from headstart.report.text import flatten

_HEADER = (
    "backbone", "held-out", "behind the best", "features", "ms per item", "MB", "licence",
    "LogME", "H-score", "",
)  # fmt: skip
RIGHT = ("behind the best", "features", "ms per item", "MB", "LogME", "H-score")


def header(found: Ranking) -> tuple[str, ...]:
    """Return the titles of the table."""
    return (_HEADER[0], f"held-out {found.figure}", *_HEADER[2:])


def table_rows(found: Ranking) -> list[tuple[str, ...]]:
    """Return a row of text under :func:`header` for each backbone."""
    return [_row(row, found.recommended) for row in found.rows]


def _row(row: Ranked, recommended: str | None) -> tuple[str, ...]:
    probe = row.probe
    if probe is None or row.accuracy is None:
        return (row.name, "not tried", *[""] * 7, row.why)
    remarks = ["recommended"] * (row.name == recommended) + ["on the front"] * row.on_front
    behind = ""
    if row.behind is not None and row.behind.value > 0:
        behind = f"{100 * row.behind.value:.1f} points" + ("" if row.apart else ", not told apart")
    return (
        row.name,
        _cell(row.accuracy),
        behind,
        f"{probe.features:,}",
        format_number(probe.milliseconds),
        format_number(probe.megabytes),
        probe.licence or "not stated",
        *(
            format_number(probe.scores[name]) if name in probe.scores else NOT_DEFINED
            for name in ("LogME", "H-score")
        ),
        ", ".join(remarks),
    )


def _cell(score: Score) -> str:
    """Return an accuracy with its limits, in per cent."""
    if score.interval is None:
        return format_percent(score.value)
    low, high = 100 * score.interval.low, 100 * score.interval.high
    return f"{format_percent(score.value)} [{low:.1f}, {high:.1f}]"


def correlation_line(found: Ranking) -> str:
    """Say how well the transferability scores ranked the backbones of this table."""
    said = [
        f"{name} {'not defined' if tau is None else f'{tau:+.2f}'}"
        for name, tau in found.correlations.items()
    ]
    tried = sum(row.probe is not None for row in found.rows)
    if not said or tried < 2:  # one backbone has no order
        return ""
    return (
        f"rank correlation (Kendall's tau) of transferability scores with the"
        f" {found.figure}, over {count(tried, 'backbone')}: {', '.join(said)}"
    )


def front_figure(found: Ranking) -> Figure | None:
    """Draw accuracy against cost, with the Pareto front; None where nothing was tried."""
    rows = [row for row in found.rows if row.probe is not None and row.accuracy is not None]
    if not rows:
        return None
    return cost_figure(
        [row.name for row in rows],
        [row.probe.milliseconds / 1000 for row in rows if row.probe],
        [row.accuracy.value for row in rows if row.accuracy],
        [row.accuracy.interval for row in rows if row.accuracy],
        front=[row.on_front for row in rows],
        x_label="time of the network per item, ms",
        y_label=found.figure,
    )


def write_ranking(
    folder: Path, found: Ranking, configuration: Mapping[str, Any], commands: Commands
) -> None:
    """Write ``report.html``, ``cost.png`` and ``sweep.json``.

    Args:
        folder: an existing folder.
        found: the ranking.
        configuration: every setting.
        commands: the call, and what may follow it.
    """
    figure = front_figure(found)
    environment = describe_environment()
    blocks: list[Block] = [Callout(f"{found.reason}.", "advice")]
    blocks += _tables(found)
    if figure is not None:
        blocks.append(
            Picture(
                figure,
                f"{found.figure} of each backbone against the time of its network",
                "Up and left is better. The line joins the backbones that no other beats on both.",
                "cost.png",
            )
        )
    blocks.append(_HOW)
    line = correlation_line(found)
    if line:
        blocks.append(f"{line[0].upper()}{line[1:]}.")
    if found.notes:
        blocks.append(Notes(found.notes))
    settings = Table(("setting", "value"), tuple(flatten(configuration)), "Configuration", "ll",
                     folded=True)  # fmt: skip
    page = Page(
        f"{configuration['data']}: which backbone",
        "",
        (),
        (
            Section("Backbones", tuple(blocks)),
            Section("How to reproduce this", (settings, *command_blocks(commands))),
        ),
    )
    save_pictures(page, folder)
    write_page(page, folder / "report.html")
    document = {
        "command": commands.made,
        "configuration": dict(configuration),
        **plain_ranking(found),
        "environment": environment,
    }
    write_json(folder / "sweep.json", document)


def _tables(found: Ranking) -> list[Block]:
    """Return the table of what was tried, and below it why the others were not."""
    tried = tuple(_row(row, found.recommended) for row in found.rows if row.probe is not None)
    failed = tuple((row.name, row.why) for row in found.rows if row.probe is None)
    blocks: list[Block] = []
    if tried:
        blocks.append(Table(header(found), tried, "", "lrrrrrlrrl"))
    if failed:
        blocks.append(Table(("not tried", "why"), failed, "", "ll"))
    return blocks


_HOW = (
    "Each backbone embedded the training items once. For every fold, a head was trained on the"
    " other folds, making all its choices inside them, and scored on the held-out items. The test"
    " items were neither embedded nor read. Differences are paired: both backbones predicted the"
    " same items."
)


def plain_ranking(found: Ranking) -> dict[str, Any]:
    """Return a ranking as plain values."""
    return {
        "recommended": found.recommended,
        "reason": found.reason,
        "figure": found.figure,
        "correlations": dict(found.correlations),
        "notes": list(found.notes),
        "backbones": [_plain_row(row) for row in found.rows],
    }


def _plain_row(row: Ranked) -> dict[str, Any]:
    probe = row.probe
    if probe is None:
        return {"name": row.name, "why": row.why}
    return {
        "name": row.name,
        "accuracy": to_plain(row.accuracy),
        "behind": to_plain(row.behind),
        "told_apart": row.apart,
        "on_front": row.on_front,
        "features": probe.features,
        "milliseconds": probe.milliseconds,
        "megabytes": probe.megabytes,
        "licence": probe.licence,
        "scores": dict(probe.scores),
        "heads": list(probe.heads),
        "rows_computed": probe.computed,
        "found": probe.found,
    }


__all__ = [
    "RIGHT",
    "correlation_line",
    "front_figure",
    "header",
    "plain_ranking",
    "table_rows",
    "write_ranking",
]
