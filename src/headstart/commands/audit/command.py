"""``headstart audit``: run a script under observation, and print what is wrong with it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.commands.audit.options import AUDIT, AuditConfig
from headstart.commands.console import print_json
from headstart.commands.generate import generated
from headstart.commands.settings import BackboneSpec, ReadOptions
from headstart.core.errors import ConfigError
from headstart.core.terminal import say

if TYPE_CHECKING:
    from headstart.audit import Report

SCRIPT_FAILED = 3
"""Exit status where the script crashed, or ended itself with a status other than 0."""


@generated(AUDIT)
def audit(
    config: AuditConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    script: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCRIPT",
            help="A Python file, or a module name as for python -m.",
            show_default=False,
        ),
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- ARGS", help="Arguments for the script.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Check the backbone against these data instead, without any training.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a training script, unmodified, and say what is wrong with it, where, and how to mend it.

    With --data it checks a backbone against data instead, without any training.

    The script computes what it computes without the audit. Findings so far are also printed when
    it crashes or is interrupted. Exit status: 0; 1 with --fail-on and such a finding; 3 if the
    script failed.
    """
    if (script is None) == (data is None):
        raise ConfigError(
            ("audit takes a script, or a backbone and data",),
            hint="headstart audit train.py, or headstart audit --backbone B --data DATA",
        )
    if data is not None:
        from headstart.commands.audit.job import audit_data

        report = audit_data(data, backbone, config=config, reading=reading)
    else:
        from headstart.audit import audit_script

        assert script is not None
        report = audit_script(
            script,
            arguments or (),
            steps=config.steps,
            seconds=config.stop_after,
            stdout_to_stderr=config.json,
            last_resort=lambda found: _leave(found, config),
        )
    status = _deliver(report, config)
    if status:
        raise typer.Exit(status)


def _leave(report: Report, config: AuditConfig) -> None:
    """End a process whose script cannot be ended."""
    status = _deliver(report, config)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _deliver(report: Report, config: AuditConfig) -> int:
    """Print and write what was found; return the exit status."""
    if config.sarif is not None:
        from headstart.audit.sarif import write_sarif

        write_sarif(report, config.sarif)
    if config.json:
        print_json(report.plain())
    else:
        _print(report)
    if config.fail_on is not None and report.at_least(config.fail_on):  # type: ignore[arg-type]
        return 1
    return SCRIPT_FAILED if report.ending is not None and report.ending.status else 0


def _print(report: Report) -> None:
    from headstart.audit.text import lines

    ending = report.ending
    if ending is not None and ending.traceback:
        say(ending.traceback.rstrip(), error=True)
    for line in lines(report):
        say(line)


__all__ = ["SCRIPT_FAILED", "audit"]
