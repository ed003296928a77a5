"""Blocks that several pages share: curves, cost, settings, and the commands that come next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from headstart.commands.invocation import Commands
from headstart.core.records import (
    CacheUse,
    Curve,
)
from headstart.core.wording import format_number, format_seconds
from headstart.report.page import (
    Block,
    Code,
    Picture,
    Table,
)
from headstart.report.text import (
    flatten,
)


def curve_pictures(curves: Sequence[Curve]) -> list[Block]:
    """Return a picture for all curves with the same x axis: ``curves.png``, ``curves-2.png``…"""
    from headstart.report.figures import curves_figure

    blocks: list[Block] = []
    families: dict[tuple[str, bool], list[Curve]] = {}
    for curve in curves:
        families.setdefault((curve.x_label, curve.log_x), []).append(curve)
    for number, family in enumerate(families.values(), 1):
        names = ", ".join(dict.fromkeys(curve.name for curve in family))
        against = f"against {family[0].x_label}"
        told = f"{names[:1].upper()}{names[1:]}"
        whats = tuple(dict.fromkeys(curve.y_label for curve in family))
        if len(whats) == 1 and whats[0] not in names:
            told = f"{told}: {whats[0]} {against}"
        file = "curves.png" if number == 1 else f"curves-{number}.png"
        blocks.append(Picture(curves_figure(family), f"{names} {against}", f"{told}.", file))
    return blocks


def cost_blocks(
    timing: Mapping[str, float], images_per_second: float | None, cache: CacheUse | None
) -> list[Block]:
    """Return the table of seconds and of rows found and computed."""
    rows = [(name, format_seconds(value)) for name, value in timing.items()]
    if images_per_second is not None and math.isfinite(images_per_second):
        rows.append(("items per second", format_number(images_per_second)))
    if cache is not None:
        rows.append(("rows from the cache", f"{cache.hits:,}"))
        rows.append(("rows computed", f"{cache.misses:,}"))
    return [Table(("", ""), tuple(rows), align="lr")] if rows else []


def settings_blocks(
    commands: Commands | Sequence[str],
    configuration: Mapping[str, Any] | None,
    environment: Mapping[str, Any] | None,
) -> list[Block]:
    """Return the end of a page: settings, versions, commands."""
    blocks: list[Block] = []
    for caption, values in (("Configuration", configuration), ("Environment", environment)):
        if values:
            rows = tuple(flatten(values))
            blocks.append(Table(("setting", "value"), rows, caption, "ll", folded=True))
    named = commands if isinstance(commands, Commands) else Commands(next=tuple(commands))
    return [*blocks, *command_blocks(named)]


def command_blocks(commands: Commands) -> list[Block]:
    """Return the end of a page: what may follow, and the command that made it."""
    blocks: list[Block] = []
    if commands.next:
        blocks.append(Code("\n".join(commands.next), "Next steps", wrapped=True))
    blocks += [Code(command, f"With {what}", wrapped=True) for what, command in commands.later]
    if commands.made:
        blocks.append(Code(commands.made, "The command that made this report", wrapped=True))
    return blocks


__all__ = ["command_blocks", "cost_blocks", "curve_pictures", "settings_blocks"]
