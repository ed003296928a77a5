"""The command line as a user meets it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.commands.cli import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Run the command line in this process: status, standard output, standard error."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headstart", *map(str, words)])
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def make_images(root: Path, count: int = 6, labels: tuple[str, ...] = ("cat", "dog")) -> Path:
    generator = np.random.default_rng(0)
    for k, label in enumerate(labels):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = generator.integers(0, 128, (12, 12, 3), dtype=np.uint8) + 100 * (k % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{i}.png")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images")


def test_fit_predict_evaluate(command, folder, tmp_path):
    run = tmp_path / "run"
    status, out, _ = command("fit", folder, "--out", run)
    assert status == 0
    assert "accuracy" in out
    assert f"{run}/report.html" in out
    assert f"headstart predict {run}" in out
    status, out, _ = command("predict", run, folder, "--out", tmp_path / "p.csv")
    assert status == 0
    assert "12 predictions written" in out
    assert (tmp_path / "p.csv").read_text().count("\n") == 13
    # Ten of the twelve trained the head: scored as new before, left out now.
    status, out, err = command("evaluate", run, folder, "--json")
    assert status == 0
    assert json.loads(out)["n"] == 2
    assert "10 of 12 items have trained this run" in err
    _, out, _ = command("evaluate", run, folder, "--json", "--include-training")
    assert json.loads(out)["n"] == 12
    status, out, _ = command("predict", run, folder / "dog" / "1.png", "--json", "--quiet")
    assert json.loads(out)[0]["item"] == "1.png"


def test_fit_prints_json_and_nothing_else(command, folder, tmp_path):
    status, out, err = command("fit", folder, "--out", tmp_path / "run", "--json", "--quiet")
    assert status == 0
    assert err == ""
    metrics = json.loads(out)
    assert metrics["n_train"] + metrics["n_test"] == 12
    assert metrics["folder"] == str(tmp_path / "run")


def test_backbones(command):
    status, out, _ = command("backbones")
    assert status == 0
    assert "headstart/" in out
    status, out, _ = command("backbones", "headstart/glyphs")
    assert "307,360 parameters, 128 features" in out
    assert "stage2.0" in out
    status, out, _ = command("backbones", "timm/resnet18")
    assert "timm/resnet18.a1_in1k" in out
    status, out, _ = command("backbones", "torchvision/resnet18", "--json")
    assert json.loads(out) == ["torchvision/resnet18.IMAGENET1K_V1"]


def one_error_line(result: tuple[int, str, str]) -> str:
    """Return the one line on standard error that a mistake gives."""
    status, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 1, err
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


BROKEN = {
    "zero bytes": b"",
    "not an image": b"hello, world",
    "truncated": None,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_bad_images_are_named(command, folder, kind):
    path = folder / "dog" / "3.png"
    content = BROKEN[kind]
    path.write_bytes(path.read_bytes()[:150] if content is None else content)
    line = one_error_line(command("fit", folder, "--out", folder.parent / "run"))
    assert "dog/3.png" in line
    assert "--bad-files skip" in line
    status, _, err = command("fit", folder, "--out", folder.parent / "run", "--bad-files", "skip")
    assert status == 0
    assert "dog/3.png" in err


def odd_images(folder: Path) -> None:
    base = Image.open(folder / "cat" / "0.png")
    base.convert("CMYK").save(folder / "cat" / "cmyk.jpg")
    base.convert("P").save(folder / "cat" / "palette.png")
    base.convert("RGBA").save(folder / "cat" / "alpha.png")
    base.convert("LA").save(folder / "cat" / "grey alpha.png")
    base.convert("1").save(folder / "cat" / "bits.png")
    Image.fromarray((np.arange(144, dtype=np.uint16) * 400).reshape(12, 12)).save(
        folder / "dog" / "sixteen.png"
    )
    base.save(folder / "dog" / "moving.gif", save_all=True, append_images=[base.rotate(90)])
    base.save(folder / "dog" / "really a png.jpg", format="PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    base.save(folder / "dog" / "turned.jpg", exif=exif)


def test_odd_images_are_handled(command, folder, tmp_path):
    odd_images(folder)
    status, _, err = command("fit", folder, "--out", tmp_path / "run")
    assert status == 0, err
    run = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert run["n_train"] + run["n_test"] == 21


def test_labels_of_any_kind(command, tmp_path):
    names = ("two words", "größer", "7", "<b>&amp;", "[red]x")
    folder = make_images(tmp_path / "images", 6, names)
    status, out, err = command("fit", folder, "--out", tmp_path / "run")
    assert status == 0, err
    assert "[red]x" in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<b>&amp;" not in page
    assert "&lt;b&gt;" in page


def test_mistakes_about_data(command, folder, tmp_path):
    run = tmp_path / "run"
    assert "images2" in one_error_line(command("fit", tmp_path / "images2", "--out", run))
    (tmp_path / "empty").mkdir()
    assert "empty" in one_error_line(command("fit", tmp_path / "empty", "--out", run))
    single = make_images(tmp_path / "single", 4, ("only",))
    assert "only one class" in one_error_line(command("fit", single, "--out", run))
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    line = one_error_line(command("fit", table, "--out", run))
    assert "t.csv" in line or "column" in line
    line = one_error_line(command("fit", table, "--image-column", "nope", "--out", run))
    assert "nope" in line


def test_missing_and_nan_labels(command, folder, tmp_path):
    rows = [f"images/{label}/{i}.png,{label}" for label in ("cat", "dog") for i in range(6)]
    rows[2] = "images/cat/2.png,"
    (tmp_path / "t.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    line = one_error_line(command("fit", tmp_path / "t.csv", "--out", tmp_path / "run"))
    assert "label" in line


def test_mistakes_about_backbones(command, folder, tmp_path):
    run = tmp_path / "run"
    for words, expected in {
        ("--backbone", "nothing"): "is not the name of a backbone",
        ("--backbone", "timm/resnet999"): "the nearest are",
        ("--layer", "stage7"): "nearest names are",
        ("--mean", "a,b"): "--mean takes one number, or one for each channel",
        ("--size", "-3"): "--size takes",
        ("--model-args", "{"): "not valid JSON",
        ("--model-args", "[1]"): "takes a JSON object",
        ("-b", "headstart/glyphs", "--weights", "no.safetensors"): "no weights file",
        ("--weights", "no.safetensors"): "--weights needs a named backbone",
        ("--pooling", "max"): "pooling must be one of",
        ("--head", "forest"): "--head must be one of auto,",
        ("--precision", "float8"): "--precision must be one of auto, float32,",
        ("--device", "cuda:77"): "cannot be used",
        ("--bad-files", "eat"): "--bad-files must be raise or skip, not 'eat'",
    }.items():
        line = one_error_line(command("fit", folder, "--out", run, *words))
        assert expected in line, line


def test_two_faults_are_reported_together(command, folder):
    line = one_error_line(command("fit", folder, "--mean", "x", "--size", "y"))
    assert "--mean" in line
    assert "--size" in line


def test_mistakes_about_runs_and_outputs(command, folder, tmp_path):
    assert "not a run folder" in one_error_line(command("predict", folder, folder))
    (tmp_path / "file").write_text("x")
    line = one_error_line(command("fit", folder, "--out", tmp_path / "file"))
    assert "is a file" in line
    run = tmp_path / "run"
    command("fit", folder, "--out", run)
    line = one_error_line(command("predict", run, folder, "--out", tmp_path / "p.xls"))
    assert ".csv" in line
    line = one_error_line(command("predict", run, folder, "--out", tmp_path / "no" / "p.csv"))
    assert "no folder" in line
    head = run / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"!")
    assert "head" in one_error_line(command("predict", run, folder))


def test_a_full_disk_is_one_line(command, folder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    command("fit", folder, "--out", run)

    def full(_, file):
        file.write(b"half of a line")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pyarrow.csv.write_csv", full)
    line = one_error_line(command("predict", run, folder, "--out", tmp_path / "p.csv"))
    assert "cannot write" in line
    assert "p.csv" in line
    assert not list(tmp_path.glob("*p.csv*"))


def start(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headstart", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **more,
    )


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "sys.argv = ['headstart', '--help']\n"
        "from headstart.commands.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'timm', 'torchvision', 'numpy', 'pyarrow', 'sklearn', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "fit" in done.stdout
    assert done.stderr.strip() == "[]"


def test_import_changes_nothing():
    code = (
        "import os, sys, warnings\n"
        "before = (dict(os.environ), list(warnings.filters))\n"
        "import headstart\n"
        "assert before == (dict(os.environ), list(warnings.filters))\n"
        "print(sorted({'torch', 'numpy'} & set(sys.modules)), headstart.fit.__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[] fit"


def test_version_and_module():
    done = start("--version")
    assert done.stdout.startswith("headstart 0.")
    done = start("fit", "no-such-folder")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_sweep(command, folder, tmp_path):
    status, out, err = command(
        "sweep", folder, "--layers", "stage2.0,output", "--heads", "ridge,prototype",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert status == 0, err
    assert "stage2.0 avg" in out
    assert "on the test split" in out
    status, out, _ = command("predict", tmp_path / "run", folder, "--json", "--quiet")
    assert len(json.loads(out)) == 12
    for words, expected in {
        ("--heads", "forest"): "--heads must be one of auto, linear,",
        ("--grid", "a"): "--grid takes numbers",
        ("--standardise", "maybe"): "yes, no or both",
        ("--layers", "stage9"): "nearest names",
        ("--poolings", "avg,gem"): "--layers",
        ("--seeds", "1,1"): "given twice",
        ("--seeds", "0,-1"): "--seeds must be at least 0, not -1",
    }.items():
        assert expected in one_error_line(command("sweep", folder, *words))


def test_examine(command, folder, tmp_path):
    words = ("examine", folder, "--repetitions", "2", "--out", tmp_path / "found")
    status, out, err = command(*words, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["labels_per_class"][0] == 1
    assert isinstance(found["near_copies"], list)
    status, out, _ = command(*words)
    assert "labels per class" in out
    assert "near copies" in out
    assert (tmp_path / "found" / "report.html").is_file()


@pytest.mark.parametrize("name", ["fit", "compare", "examine", "finetune", "advise"])
def test_seeds_start_at_zero(command, folder, name):
    line = one_error_line(command(name, folder, "--seed", "-1"))
    assert line == "error: --seed must be at least 0, not -1"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk quota is used up; free some space"),
        (errno.EFBIG, "the file would grow too large for this disk; raise"),
        (errno.EROFS, "the disk is read-only; choose another location"),
        (errno.EXDEV, os.strerror(errno.EXDEV)),
    ],
)
def test_a_run_that_cannot_be_written_says_where_and_what_to_do(
    number: int, said: str, command, folder, tmp_path, monkeypatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("headstart.commands.run_report.write_tested", fail)
    run = tmp_path / "run"
    status, _, err = command("fit", folder, "-b", "headstart/glyphs", "--out", run)
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: '{run}': {said}")
