"""What an audit says: findings, how the script ended, and the report that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from headstart.core.records import to_plain

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
"""From a remark to what certainly makes results wrong."""
How = Literal["end", "steps", "seconds", "exit", "crash", "interrupt"]


@dataclass(frozen=True, order=True)
class Place:
    """A line of the user's code.

    Attributes:
        file: its path, as Python knows it.
        line: counted from 1; 0 where no line can be named.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


NOWHERE = Place("", 0)
"""Where no line of the user's code can be named."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a script, or worth a remark.

    Attributes:
        code: names the kind of finding; its page is ``docs/findings/CODE.md``.
        severity: ``error``: results are wrong, or something does not do what it is there for.
            ``warning``: it is likely to cost accuracy, time or memory. ``info``: a remark.
        confidence: from 0 to 1, how sure it is that this is a mistake and not meant.
        module: the path of the module, as ``named_modules`` has it, or the class of a whole
            network; empty where no module is concerned.
        file, line: the line of the user's code, the nearest outside libraries; "" and 0 where there
            is none.
        message: one or two sentences, with the figures.
        evidence: what was measured; plain values only.
        cost: what it costs: accuracy, time or memory.
        fix: a line of code that mends it.
    """

    code: str
    severity: Severity
    confidence: float
    module: str
    file: str
    line: int
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    cost: str = ""
    fix: str = ""

    @property
    def place(self) -> Place:
        """The line of the user's code."""
        return Place(self.file, self.line)

    def plain(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        plain: dict[str, Any] = to_plain(self)
        return plain


@dataclass(frozen=True)
class Ending:
    """How the script ended.

    Attributes:
        how: ``end``: it ran to its end. ``steps``, ``seconds``: it was stopped, as asked.
            ``exit``: it ended itself with ``sys.exit``. ``crash``: an exception.
            ``interrupt``: Ctrl-C or a signal.
        message: in words.
        status: the exit status that the script alone would have had.
        traceback: of a crash, from the user's code on.
    """

    how: How
    message: str
    status: int = 0
    traceback: str = ""


@dataclass(frozen=True)
class Report:
    """The result of an audit.

    Attributes:
        findings: the worst first.
        steps: steps of optimizers that were seen.
        passes: forward passes of networks with parameters that were seen.
        ending: how the script ended; None inside of ``watch``.
        notes: what could not be observed, and other remarks about the audit itself.
    """

    findings: tuple[Finding, ...]
    steps: int
    passes: int
    ending: Ending | None = None
    notes: tuple[str, ...] = ()

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of this severity or a worse one."""
        least = SEVERITIES.index(severity)
        return tuple(f for f in self.findings if SEVERITIES.index(f.severity) >= least)

    def plain(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return {
            "findings": [finding.plain() for finding in self.findings],
            "steps": self.steps,
            "passes": self.passes,
            "ended": None if self.ending is None else to_plain(self.ending),
            "notes": list(self.notes),
        }


__all__ = ["NOWHERE", "SEVERITIES", "Ending", "Finding", "How", "Place", "Report", "Severity"]
