"""A kind of input from outside, in fewer than 60 lines, works with every command."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headstart.commands.cli import main
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import predict
from headstart.commands.sweep.job import sweep
from headstart.core.errors import BadFilesError
from headstart.core.progress import SilentReporter
from headstart.data import INPUT_KINDS

QUIET = SilentReporter()
FILE = Path(__file__).with_name("dna.py")


def sequences(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return sequences of 10 to 60 bases; those of coding regions are rich in G and C."""
    rng = np.random.default_rng(seed)
    rich = np.arange(count) % 2
    shares = ([0.4, 0.1, 0.1, 0.4], [0.15, 0.35, 0.35, 0.15])
    made = ["".join(rng.choice(list("ACGT"), rng.integers(10, 61), p=shares[y])) for y in rich]
    return made, [("other", "coding")[y] for y in rich]


@pytest.fixture
def backbone(tmp_path: Path) -> Iterator[str]:
    shutil.copy(FILE, tmp_path / "dna.py")
    yield f"{tmp_path / 'dna.py'}:make"
    INPUT_KINDS.pop("dna", None)


def table(path: Path, rows: tuple[list[str], list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("sequence", "region"), *zip(*rows, strict=True)])
    return path


def test_it_is_short() -> None:
    assert len(FILE.read_text().splitlines()) < 60


def test_fit_cache_sweep_predict_and_report(backbone: str, tmp_path: Path) -> None:
    data = {"train": sequences(160), "test": sequences(80, 1)}
    run = fit(data, backbone, out=tmp_path / "run", cache=tmp_path / "c", reporter=QUIET)
    assert run.evaluation.accuracy.value > 0.85
    again = fit(data, backbone, write=False, cache=tmp_path / "c", reporter=QUIET)
    assert again.cache.misses == 0
    swept = sweep(
        data, backbone, layers=("layer", None), heads=("linear", "knn"), folds=3,
        cache=tmp_path / "c", out=tmp_path / "swept", reporter=QUIET,
    )  # fmt: skip
    assert {each.head for each in swept.sweep.candidates} == {"linear", "knn"}
    new, truth = sequences(40, 2)
    said = predict(new, tmp_path / "run", trust_code=True, cache=tmp_path / "c", reporter=QUIET)
    assert np.mean([a == b for a, b in zip(said.labels, truth, strict=True)]) > 0.8
    page = (tmp_path / "run" / "report.html").read_text()
    assert any(sequence in page for sequence in data["test"][0])
    assert "NEW_SEQUENCES" in page
    data["train"][0][3] = "ACGX"
    with pytest.raises(BadFilesError, match="not a sequence of A, C, G and T"):
        fit(data, backbone, write=False, cache=tmp_path / "c", reporter=QUIET)


def test_the_command_line(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    train = table(tmp_path / "train.csv", sequences(160))
    new = table(tmp_path / "new.csv", sequences(20, 2))
    run, cache = str(tmp_path / "run"), str(tmp_path / "c")
    for words in (
        ["fit", str(train), "-b", backbone, "--out", run, "--cache", cache],
        ["predict", run, str(new), "--trust-code", "--cache", cache, "--out", f"{run}.csv"],
    ):
        monkeypatch.setattr(sys, "argv", ["headstart", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None), capsys.readouterr()
    assert len(Path(f"{run}.csv").read_text().splitlines()) == 21
    assert "image" not in capsys.readouterr().out
