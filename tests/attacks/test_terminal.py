"""Names of files and classes reach a terminal, a table and a page without doing anything there."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.live import Live
from rich.table import Table
from rich.text import Text

import headstart
from headstart.commands import cli
from headstart.commands.console import plain_table, stdout
from headstart.core.progress import PlainReporter, RichReporter
from headstart.core.terminal import console, harmless, say, say_json

PACKAGE = Path(headstart.__file__).parent
EVIL = [
    "\x1b[2Jcleared", "\x1b]0;title\x07", "\x1b]52;c;cm0gLXJm\x07", "\x9b31mred", "\x90dcs\x9c",
    "\x08\x08over", "\x7fdel", "\x00nul", "right\u202eleft", "\u2066isolate\u2069", "\u200fmark",
    "\u061carabic", "caf\udce9", "line\rback", "a\x0bb", "tab\there", "\u2028line",
]  # fmt: skip
RAW = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@pytest.mark.parametrize("name", EVIL)
def test_nothing_raw_is_printed(name, capsys):
    say(name)
    say(name, error=True)
    console().print(name)
    console().print(Text(name), f"of {name}", sep="\n")
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    console().print(table)
    stdout().print(plain_table([name], [[name]]))
    PlainReporter().note(name)
    with PlainReporter().task(name, 2, name) as task:
        task.advance(2)
    RichReporter().note(name)
    out, err = capsys.readouterr()
    assert RAW.search(out + err) is None
    assert len(out.splitlines()) < 60


def test_live_progress_keeps_its_own_codes_and_no_others(monkeypatch):
    import io

    reporter = RichReporter()
    reporter._console.file = io.StringIO()
    reporter._console._force_terminal = True
    with reporter.task("\x1b[2Jevil\u202e", 2, "images") as task:
        reporter.note("\x1b]0;evil\x07")
        task.advance(2)
    shown = reporter._console.file.getvalue()
    assert "\x1b[2J" not in shown
    assert "\x1b]0;" not in shown
    assert "\u202e" not in shown
    assert "evil" in shown
    assert issubclass(Live, object)


@pytest.mark.parametrize("name", EVIL)
def test_json_on_the_terminal_says_the_same_and_does_nothing(name, capsys):
    say_json({"item": name, "é": [name]})
    out = capsys.readouterr().out
    assert RAW.search(out) is None
    assert json.loads(out) == {"item": name, "é": [name]}


def test_plain_text_stays_as_it_is():
    for text in ("naïve – “quoted” 日本語 👩‍🔬 עברית", "two\nlines", ""):
        assert harmless(text) == text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_locale_without_the_letters_ends_no_job(encoding):
    code = (
        "from headstart.core.terminal import say, say_json, console;"
        "say('naïve – 日本 caf\\udce9'); say_json({'x': '日本 caf\\udce9'});"
        "console().print('naïve – 日本 caf\\udce9')"
    )
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(PACKAGE.parent)}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    document = ended.stdout.decode(encoding).split("\n", 1)[1].rsplit("}", 1)[0] + "}"
    assert json.loads(document) == {"x": "日本 caf\udce9"}


def test_text_reaches_a_terminal_in_one_place():
    """Nothing else prints, or makes a console of rich.

    The script of an exported artefact runs without headstart, as a program of its own.
    """
    printing = re.compile(r"^\s*print\(|\bConsole\(|sys\.(stdout|stderr)\.write\(", re.MULTILINE)
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        if printing.search(path.read_text(encoding="utf-8"))
        and path.parent != PACKAGE / "export" / "scripts"
    ]
    assert found == ["core/terminal.py"]


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["headstart", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in classes whose names are bytes, escapes and formulas, and so are theirs."""
    root = tmp_path_factory.mktemp("hostile") / "data"
    classes = [b"caf\xe9", b"\x1b[2Jevil", b"=cmd|calc"]
    for i in range(36):
        folder = os.path.join(os.fsencode(root), classes[i % 3])  # noqa: PTH118
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        noise = np.random.default_rng(i).integers(0, 60, (8, 8, 3)) + (i % 3) * 80
        names = [b"im\xff", b"\x1b]0;evil\x07", b"@SUM(1)"]
        name = names[i % 3] + str(i).encode() + b".png"
        Image.fromarray(noise.astype(np.uint8)).save(os.fsdecode(os.path.join(folder, name)))  # noqa: PTH118
    return root


def test_hostile_names_survive_every_job_and_reach_no_terminal(
    hostile, tmp_path, monkeypatch, capsys
):
    place, cache = tmp_path / "run", ("--cache", tmp_path / "cache")
    assert run(monkeypatch, "fit", hostile, "--out", place, *cache) == 0
    for name in ("p.csv", "p.parquet"):
        assert run(monkeypatch, "predict", place, hostile, "--out", tmp_path / name, *cache) == 0
    assert run(monkeypatch, "predict", place, hostile, "--json", *cache) == 0
    assert run(monkeypatch, "evaluate", place, hostile, "--out", tmp_path / "e", *cache) == 0
    out, err = capsys.readouterr()
    assert RAW.search(out + err) is None
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    assert not any(row["class"].startswith(("=", "@", "+", "-")) for row in rows)
    import pyarrow.parquet as pq

    assert "=cmd|calc" in pq.read_table(tmp_path / "p.parquet")["class"].to_pylist()
    for folder in (place, tmp_path / "e"):
        for path in folder.glob("*.json"):
            json.loads(path.read_bytes())
        (folder / "report.html").read_text(encoding="utf-8")
    # As classes, the names come back as they were.
    assert set(headstart.open_run(place).classes) == {"caf\udce9", "\x1b[2Jevil", "=cmd|calc"}


def test_errors_and_usage_with_hostile_names(hostile, tmp_path, monkeypatch, capsys):
    evil = hostile.parent / "\x1b[2Jevil\u202e.png"
    evil.write_bytes(b"no image")
    assert run(monkeypatch, "predict", evil, evil) != 0
    assert run(monkeypatch, "predict", evil, evil, evil) != 0  # one argument too many
    assert run(monkeypatch, "fit", evil, "--no-such-\x1b[2J") != 0
    assert run(monkeypatch, "\x1b[2J") != 0
    out, err = capsys.readouterr()
    assert RAW.search(out + err) is None
    assert "evil" in err
