"""Every command line in the README and in docs/ is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from headstart.commands.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"(?ms)^ *```(\w*)\n(.*?)^ *```")


def lines_of(page: Path) -> list[list[str]]:
    """Return the words of every command of a page, from the name of the command on."""
    found = []
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language not in ("console", "sh", "bash", ""):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = line.strip().removeprefix("$ ")
            begin = re.match(r"(?:[A-Z_]+=\S+ +|srun +|torchrun \S+ \d+ -m +)*headstart +", words)
            if begin is None or "…" in line:
                continue
            split = shlex.split(words[begin.end() :], comments=True)
            found.append([word for word in split if not word.startswith("$")])  # of the shell
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_command_line_takes_it(page: Path) -> None:
    group = typer.main.get_command(app)
    with group.make_context("headstart", ["fit"], resilient_parsing=True) as context:
        for words in lines_of(page):
            command, rest = group, words  # type: ignore[var-annotated]
            while hasattr(command, "get_command") and rest and not rest[0].startswith("-"):
                command, rest = command.get_command(context, rest[0]), rest[1:]  # type: ignore[attr-defined]
                assert command is not None, words
            if not {"--help", "--version"} & set(rest):
                command.make_context(words[0], list(rest), parent=context)  # type: ignore[attr-defined]


def test_there_are_many() -> None:
    assert sum(len(lines_of(page)) for page in PAGES) > 60
