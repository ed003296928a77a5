"""Progress as a person sees it: on terminals of any width, in logs, and where there is neither."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

import pytest

from headstart.core import progress
from headstart.core.progress import PlainReporter, SilentReporter, Work, console_reporter
from headstart.core.wording import columns

WORK = [
    Work("extract features", 782_000, "images", 359, 3.0),
    Work("extract features", 782_000, "images", 0, 0.0),
    Work("train 'thaw the last three blocks'", 1_000_000, "items", 999_999, 80_000.0),
    Work("sweep", 12, "kinds of head", 1, 100.0),
    Work("日本語のフォルダー", 5, "画像", 2, 0.1),
    Work("check the images", 0, "images", 0, 0.0),
    Work("check the images", 1, "images", 1, 2.0),
    Work("check the images", 3, "images", 7, 2.0),
]


@pytest.mark.parametrize("work", WORK, ids=lambda work: f"{work.name}, {work.done}")
@pytest.mark.parametrize("width", [1, 5, 10, 20, 39, 40, 60, 79, 80, 100, 120, 200])
def test_a_line_fits_any_width(work: Work, width: int) -> None:
    line = work.line(width)
    assert columns(line) <= width
    assert "\n" not in line
    if width >= 20:
        assert "%" in line


def test_what_is_told_at_80_and_at_40_columns() -> None:
    work = WORK[0]
    assert work.line(79).startswith("extract features  ")
    assert "359 of 782,000 images" in work.line(79)
    assert "images/s" in work.line(120)
    assert "left" in work.line(79)
    assert "extract features" in work.line(39)
    assert "0 %" in work.line(39)
    assert "left" in work.line(39)
    assert "…" not in work.line(79) + work.line(39)


def test_numbers_agree_with_their_nouns() -> None:
    assert Work("read", 1, "images", 1, 2.0).plain() == "read: 1 of 1 image (2.0 s/image, 2.0 s)"
    assert Work("read", 2, "classes", 1, 4.0).plain() == (
        "read: 1 of 2 classes (4.0 s/class, 4.0 s left)"
    )
    assert Work("read", 40, "passes", 20, 1.0).rate == "20 passes/s"
    assert Work("read", 40, "images", 3, 2.0).rate == "1.5 images/s"


def test_a_log_of_hours_stays_short(monkeypatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with PlainReporter().task("extract features", 36_000, "images") as task:
        for _ in range(36_000):
            now[0] += 1.0
            task.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) < 50
    assert "left" in lines[0]
    assert all(line.startswith("extract features: ") for line in lines)
    assert lines[-1] == "extract features: 36,000 of 36,000 images (1.0 images/s, 10 h 00 min)"
    assert not any("\x1b" in line or "\r" in line for line in lines)


SCRIPT = """
import time
from headstart.core.progress import console_reporter
reporter = console_reporter()
reporter.note("run folder: " + "x" * 70)
with reporter.task("extract features", 782_000, "images") as task:
    for _ in range(6):
        task.advance(60)
        time.sleep(0.15)
print("the end")
"""


def in_a_terminal(width: int, **variables: str) -> str:
    """Run the script on a terminal of its own, and return what it wrote there."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "CI", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=theirs, stdout=theirs, stderr=theirs,
        env={**environment, "TERM": "xterm", **variables},
    )  # fmt: skip
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # the other side is closed
        pass
    assert process.wait(timeout=60) == 0
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize("width", [80, 40])
def test_a_terminal_shows_whole_lines(width: int) -> None:
    written = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", in_a_terminal(width))
    lines = [line for line in re.split(r"[\r\n]+", written) if "%" in line]
    assert lines
    for line in lines:
        assert columns(line.rstrip()) <= width
        assert "…" not in line
        assert line.startswith("extract features")
    assert "left" in lines[-1]
    assert ("360 of 782,000 images" in lines[-1]) == (width == 80)
    assert "x" * 70 in written  # a path is never broken: it can be copied
    assert "the end" in written


def test_a_terminal_without_a_cursor_has_plain_lines() -> None:
    written = in_a_terminal(80, TERM="dumb")
    assert "\x1b" not in written
    assert "extract features: 360 of 782,000 images" in written


def test_no_standard_error(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(console_reporter(), SilentReporter)
