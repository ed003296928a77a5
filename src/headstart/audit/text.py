"""A report as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from headstart.audit.records import Finding, Report
from headstart.core.wording import count

_WIDTH = 96


def lines(report: Report) -> Iterator[str]:
    """Yield the lines that the command line prints."""
    yield ""
    for finding in report.findings:
        yield from _finding(finding)
        yield ""
    counts = [
        count(number, word)
        for word in ("error", "warning", "remark")
        if (number := sum(_word(finding) == word for finding in report.findings))
    ]
    seen = (
        f"{count(report.steps, 'optimizer step')} and"
        f" {count(report.passes, 'forward pass', 'forward passes')} observed"
    )
    yield f"{', '.join(counts) or 'nothing found'}; {seen}"
    if report.ending is not None and report.ending.how != "end":
        yield f"the script {report.ending.message}"
    for note in report.notes:
        yield f"note: {note}"


def _word(finding: Finding) -> str:
    return "remark" if finding.severity == "info" else finding.severity


def _finding(finding: Finding) -> Iterator[str]:
    where = f"{_shorter(finding.file)}:{finding.line}" if finding.line else ""
    parts = [finding.code, *([finding.module] if finding.module else []), where]
    yield f"{finding.severity}: {'  '.join(part for part in parts if part)}"
    yield from _wrapped(finding.message)
    if finding.cost:
        yield from _wrapped(f"cost: {finding.cost}")
    if finding.fix:
        yield f"  fix:  {finding.fix}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _shorter(file: str) -> str:
    """Return a path from the working directory on, where it lies below it."""
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return file


__all__ = ["lines"]
