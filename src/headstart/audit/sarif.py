"""Findings as SARIF 2.1.0, which code hosts show beside the lines of a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart._version import __version__
from headstart.audit.records import Finding, Report
from headstart.core.files import write_json
from headstart.core.records import to_plain

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"info": "note", "warning": "warning", "error": "error"}


def to_sarif(report: Report, root: Path) -> dict[str, Any]:
    """Return one run as a SARIF log.

    Args:
        report: the audit.
        root: files below it are named relative to it.
    """
    codes = list(dict.fromkeys(finding.code for finding in report.findings))
    driver = {
        "name": "headstart audit",
        "version": __version__,
        "rules": [_rule(code, report) for code in codes],
    }
    ending = report.ending
    invocation: dict[str, Any] = {
        "executionSuccessful": ending is None or not ending.status,
    }
    if ending is not None:
        invocation["exitCode"] = ending.status
        invocation["exitCodeDescription"] = ending.message
    run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "results": [_result(finding, codes, root) for finding in report.findings],
        "columnKind": "unicodeCodePoints",
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def write_sarif(report: Report, file: Path) -> None:
    """Write a SARIF log.

    Raises:
        OSError: the file cannot be written.
    """
    write_json(file, to_sarif(report, Path.cwd()))


def _rule(code: str, report: Report) -> dict[str, Any]:
    first = next(finding for finding in report.findings if finding.code == code)
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in code.split("-")),
        "shortDescription": {"text": code.replace("-", " ")},
        "defaultConfiguration": {"level": _LEVELS[first.severity]},
    }


def _result(finding: Finding, codes: list[str], root: Path) -> dict[str, Any]:
    text = finding.message
    for label, part in (("Cost", finding.cost), ("Fix", finding.fix)):
        text += f" {label}: {part}." if part else ""
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": codes.index(finding.code),
        "level": _LEVELS[finding.severity],
        "message": {"text": text},
        "properties": {
            "confidence": finding.confidence,
            "module": finding.module,
            "cost": finding.cost,
            "fix": finding.fix,
            "evidence": to_plain(finding.evidence),
        },
    }
    if finding.line:
        result["locations"] = [
            {
                "physicalLocation": {
                    "artifactLocation": _address(finding.file, root),
                    "region": {"startLine": finding.line},
                },
                "logicalLocations": [{"fullyQualifiedName": finding.module, "kind": "module"}]
                if finding.module
                else [],
            }
        ]
    return result


def _address(file: str, root: Path) -> dict[str, str]:
    path = Path(file)
    try:
        return {"uri": path.relative_to(root).as_posix(), "uriBaseId": "%SRCROOT%"}
    except ValueError:
        return {"uri": path.as_uri() if path.is_absolute() else path.as_posix()}


__all__ = ["to_sarif", "write_sarif"]
