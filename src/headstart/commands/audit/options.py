"""The options of ``audit``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.commands.settings import Signature
from headstart.core.settings import check, option


@dataclass(frozen=True)
class AuditConfig:
    """How a script is audited.

    Attributes:
        steps: stop it after so many steps of its optimizers; None: at its end.
        stop_after: stop it after so many seconds; None: at its end. (``seconds`` is the window of a
            sound.)
        json: print one JSON object on standard output, and what the script prints on standard
            error.
        sarif: write the findings to this file, in SARIF 2.1.0.
        fail_on: exit with status 1 if there is a finding of this severity or a worse one.
    """

    steps: int | None = option(
        None, "Stop the script after this many optimizer steps. Default: let it finish.", at_least=1
    )
    stop_after: float | None = option(
        None, "Stop the script after this many seconds. Default: let it finish.", above=0
    )
    json: bool = option(
        False,
        "Print one JSON object on standard output; what the script prints goes to standard error.",
    )
    sarif: Path | None = option(
        None, "Write the findings to this file, as SARIF 2.1.0.", metavar="FILE"
    )
    fail_on: str | None = option(
        None,
        "Exit with status 1 on a finding of this severity or worse. Default: never.",
        choices=("info", "warning", "error"),
        metavar="SEVERITY",
    )

    def __post_init__(self) -> None:
        check(self)


AUDIT = Signature(
    "audit",
    AuditConfig(),
    without={"columns": "it checks the network and its items, which columns do not affect"},
)


__all__ = ["AUDIT", "AuditConfig"]
