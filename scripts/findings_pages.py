"""Write ``docs/findings``: a page for every finding of the audit, from its check and its scripts.

python scripts/findings_pages.py          # write them
python scripts/findings_pages.py --check  # exit with 1 where a page is not up to date
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.audit.expected import FAULTY, FIELD  # noqa: E402

from headstart.audit.check import Check  # noqa: E402
from headstart.audit.checks import CHECKS  # noqa: E402

PAGES = ROOT / "docs" / "findings"
SCRIPTS = ROOT / "tests" / "audit" / "scripts"


def pages() -> dict[str, str]:
    """Return every page, by the name of its file."""
    found = {f"{check.code}.md": page(check) for check in CHECKS}
    return {"README.md": overview(), **found}


def overview() -> str:
    """Return the list of all findings."""
    rows = [
        f"| [{each.code}]({each.code}.md) | {each.severity} | {summary(each)} | {shown(each)} |"
        for each in sorted(CHECKS, key=lambda check: check.code)
    ]
    return "\n".join(
        [
            "# Findings of the audit",
            "",
            "`headstart audit SCRIPT.py` runs a training script unmodified and prints what is"
            " wrong with it. Each finding below has its own page, with a script that shows the"
            " mistake and a corrected one.",
            "",
            "```console",
            "$ headstart audit train.py --steps 200 -- --epochs 3",
            "$ headstart audit train.py --json > findings.json",
            "$ headstart audit train.py --sarif audit.sarif --fail-on warning",
            "```",
            "",
            "The audit does not change what the script computes: it draws no random numbers, and it"
            " takes its measurements on stand-ins.",
            "",
            "| severity | meaning |",
            "| --- | --- |",
            "| `error` | makes results wrong |",
            "| `warning` | is likely to cost accuracy, time or memory |",
            "| `info` | a remark |",
            "",
            "| exit status | meaning |",
            "| --- | --- |",
            "| 0 | the script ran; with `--fail-on`, no finding was of that severity or worse |",
            "| 1 | with `--fail-on`, one was; or there is nothing to run (no such file, an"
            " empty file, a notebook, not Python) |",
            "| 2 | wrong options |",
            "| 3 | the script failed: it crashed, or exited with a status other than 0 |",
            "",
            "To run a module of a package, give its name, as with `python -m`: `headstart audit"
            " package.train`. Data loader workers, threads and processes of the script run as they"
            " do without the audit, but it does not observe what happens in other processes.",
            "",
            "From inside a program, use `with headstart.audit.watch(model) as watch: ...`, then"
            " read `watch.findings`.",
            "",
            "| finding | severity | what it is | scripts that show it |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "See also [published cases](../published-cases.md) that an audit catches.",
            "",
            "To add a check, see the docstring of `headstart.audit.checks`."
            " `scripts/findings_pages.py` writes these pages.",
            "",
        ]
    )


def shown(check: type[Check]) -> str:
    """Return links to the scripts of the tests that show a finding."""
    names = [each.script for each in FAULTY if check.code in each.codes]
    names += [name for name, codes in FIELD.items() if check.code in codes]
    return ", ".join(f"[{name}](../../tests/audit/scripts/{name}.py)" for name in names)


def page(check: type[Check]) -> str:
    """Return the page of one finding."""
    lines = [
        f"# {check.code}",
        "",
        summary(check),
        "",
        *([] if prose(check) == summary(check) else [prose(check), ""]),
        f"**Severity:** {check.severity}.",
    ]
    if check.cost:
        lines += ["", f"**What it costs:** {check.cost}."]
    script = next((each.script for each in FAULTY if check.code in each.codes), None)
    if script is not None:
        for title, name in (("The mistake", script), ("Corrected", f"{script}_mended")):
            source = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8").rstrip()
            lines += ["", f"## {title}", "", "```python", source, "```"]
        lines += [
            "",
            "A comment `# <-` marks the lines that the finding may name. `zoo` is"
            " [a test module](../../tests/audit/scripts/zoo.py) with images and weights.",
        ]
    lines += ["", "[All findings](README.md)", ""]
    return "\n".join(lines)


def summary(check: type[Check]) -> str:
    """Return the first line of the module that holds the check alone, or of its class."""
    module = inspect.getmodule(check)
    alone = sum(other.__module__ == check.__module__ for other in CHECKS) == 1
    text = (module.__doc__ if alone and module is not None else check.__doc__) or ""
    return markdown(" ".join(text.strip().split("\n\n")[0].split()))


def prose(check: type[Check]) -> str:
    """Return what the class says of itself, in Markdown."""
    text = inspect.cleandoc(check.__doc__ or "")
    return "\n\n".join(" ".join(part.split()) for part in markdown(text).split("\n\n"))


def markdown(text: str) -> str:
    """Return text of a docstring with its code and its references as Markdown."""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")


def main() -> None:
    """Write the pages, or compare them."""
    wanted = pages()
    if "--check" in sys.argv:
        stale = [
            name
            for name, text in wanted.items()
            if not (PAGES / name).is_file() or (PAGES / name).read_text(encoding="utf-8") != text
        ]
        if stale:
            sys.exit(f"not up to date: {', '.join(stale)}; run python scripts/findings_pages.py")
        return
    PAGES.mkdir(exist_ok=True)
    for name, text in wanted.items():
        (PAGES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
