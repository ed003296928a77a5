"""What commands print: quietly, with time for the whole command, and with numbers that agree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import headstart
from headstart.commands import cli
from headstart.core.errors import HeadstartError
from headstart.core.progress import SilentReporter

from .test_cli import Command, command, folder, make_images, one_error_line  # noqa: F401

EXTRA = {
    "fit": [],
    "sweep": ["--heads", "lda"],
    "examine": ["--repetitions", "1"],
    "compare": ["--configs", "no_grad", "--repeats", "1"],
    "finetune": ["--recipe", "linear-probe", "--epochs", "1"],
}


@pytest.mark.parametrize("name", EXTRA)
def test_quiet_prints_only_where_the_run_is(command, folder, tmp_path, monkeypatch, name):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    make_images(folder, 12)
    status, out, err = command(name, folder, *EXTRA[name], "--quiet")
    assert (status, err) == (0, "")
    (line,) = out.splitlines()
    assert (Path(line) / "report.html").is_file()
    status, out, err = command(name, folder, *EXTRA[name], "-q", "--out", tmp_path / "run")
    assert (status, out, err) == (0, "", "")


def test_quiet_prints_what_was_asked(command, folder, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    make_images(folder, 12)
    assert command("fit", folder, "--out", run, "--quiet")[0] == 0
    status, out, err = command("predict", run, folder, "--quiet")
    assert (status, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert len(lines) == 24
    assert {words[1] for words in lines} <= {"cat", "dog"}
    assert command("predict", run, folder, "-q", "--out", tmp_path / "p.csv")[:2] == (0, "")
    status, out, err = command("evaluate", run, folder, "--quiet")
    assert (status, err) == (0, "")
    # Most of the folder trained the run; what rests on few items says so first.
    assert re.fullmatch(r"accuracy (only \d+ items: )?[\d.]+ % .*\n", out)
    status, out, err = command("advise", folder, "--quiet", "--epochs", "1", "--repetitions", "2")
    assert status == 0
    verdict, *commands = out.splitlines()
    assert "unfreezing" in verdict or "evidence" in verdict
    assert all(line.startswith("headstart ") for line in commands)
    status, out, _ = command("fit", folder, "--out", run, "--quiet", "--json")
    assert json.loads(out)["folder"] == str(run)


@pytest.mark.parametrize("name", EXTRA)
def test_the_run_folder_is_named_before_any_work(command, folder, tmp_path, name):  # noqa: F811
    make_images(folder, 12)
    status, _, err = command(name, folder, *EXTRA[name], "--out", tmp_path / "a run")
    assert status == 0
    lines = err.splitlines()
    place = lines.index(f"run folder: {tmp_path / 'a run'}")
    work = [i for i, line in enumerate(lines) if re.search(r"\d of \d.*\bs\b", line)]
    assert not [i for i in work if i < place and "Identifying" not in lines[i]]


def test_the_time_is_that_of_the_whole_command(command, folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(cli, "_IMPORTED", 3600.0)  # as if importing had taken an hour
    for name in ("fit", "sweep"):
        status, out, _ = command(name, folder, *EXTRA[name], "--out", tmp_path / name)
        assert status == 0
        (line,) = [line for line in out.splitlines() if line.startswith("time:")]
        assert line.startswith("time:   1 h 0")
        assert "load" in line
        assert "imports and report 1 h 0" in line
    assert cli._BEGUN > 0


EMPTY = [
    ("fit", ""),
    ("fit", "  "),
    ("sweep", ""),
    ("examine", ""),
    ("compare", ""),
    ("finetune", ""),
    ("advise", ""),
    ("fit", "DATA", "--out", ""),
    ("fit", "DATA", "--cache", ""),
    ("fit", "DATA", "--backbone", ""),
    ("compare", "DATA", "--out", " "),
    ("predict", "", "DATA"),
    ("predict", "RUN", ""),
    ("evaluate", "RUN", ""),
    ("evaluate", "RUN", "DATA", "--out", ""),
]


@pytest.mark.parametrize("words", EMPTY, ids=" ".join)
def test_an_empty_name_is_no_name(command, folder, tmp_path, monkeypatch, words):  # noqa: F811
    if "RUN" in words:
        assert command("fit", folder, "--out", tmp_path / "RUN")[0] == 0
    monkeypatch.chdir(folder)  # where an empty path would find data
    before = sorted(folder.rglob("*"))
    given = {"DATA": folder, "RUN": tmp_path / "RUN"}
    line = one_error_line(command(*(given.get(word, word) for word in words)))
    assert "empty" in line or "not a run folder" in line
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("call", ["load_data", "load_items", "fit"])
def test_an_empty_name_is_none_in_python(folder, tmp_path, monkeypatch, call):  # noqa: F811
    monkeypatch.chdir(folder)
    more = {"reporter": SilentReporter(), "cache": tmp_path} if call == "fit" else {}
    with pytest.raises(HeadstartError, match="empty"):
        getattr(headstart, call)("", **more)


SINGULAR = {"class", "pass", "is", "has", "was", "bias", "loss", "across", "this", "its", "less"}


def plurals_of_one(text: str) -> list[str]:
    """Return places where a noun in the plural follows directly after the number 1."""
    found = re.findall(r"(?<![\d.,\-–+×/])\b1 ([a-z]+)\b", text)
    return [word for word in found if word.endswith("s") and word not in SINGULAR]


@pytest.mark.slow  # a dozen commands
def test_nouns_agree_with_the_number_one(command, tmp_path, monkeypatch):  # noqa: F811
    """Every command on the smallest data there is: one of everything."""
    monkeypatch.chdir(tmp_path)
    data = make_images(tmp_path / "data", 6)
    for part, count in (("train", 6), ("test", 1)):
        make_images(tmp_path / "split" / part, count, ("cat",))
        make_images(tmp_path / "split" / part, count, ("cat", "dog")[: 1 + (part == "train")])
    written = ""
    calls = [
        ("fit", data, "--head-options", '{"grid": [1]}', "--folds", "2", "--out", "fit"),
        ("fit", tmp_path / "split", "--out", "split-fit"),
        ("predict", "fit", data / "cat" / "0.png"),
        ("evaluate", "fit", data, "--out", "evaluated"),
        ("sweep", data, "--heads", "linear", "--grid", "1", "--folds", "2", "--out", "sweep"),
        ("examine", data, "--repetitions", "1", "--out", "examine"),
        ("compare", data, "--configs", "no_grad", "--repeats", "1", "--out", "compare"),
        ("finetune", data, "--recipe", "lp-ft", "--epochs", "1", "--out", "finetune"),
        ("finetune", data, "--recipe", "lp-ft", "--epochs", "1", "--dry-run"),
        ("cache", "ls"),
        ("cache", "verify"),
    ]
    for words in calls:
        status, out, err = command(*words)
        assert status == 0, (words, err)
        written += out + err
    for page in sorted(tmp_path.rglob("report.html")):
        text = page.read_text()
        written += re.sub(r"<[^>]*>", "\n", text[text.index("<body>") :])
    assert plurals_of_one(written) == []


def test_the_check_of_plurals_finds_some() -> None:
    assert plurals_of_one("1 values of C, 1 class, 1 images, 11 images, 0.1 s, 1 pass") == [
        "values", "images"
    ]  # fmt: skip
