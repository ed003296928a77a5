"""Which items are wrong: every job leaves the predictions for all items, and a page shows them."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import headstart
from headstart.commands.prediction_table import prediction_columns, write_predictions
from headstart.core.progress import SilentReporter

from .test_cli import Command, command, make_images, one_error_line  # noqa: F401  fixtures

QUIET = SilentReporter()
EXTRA = {
    "fit": ["--head", "knn"],
    "finetune": ["--recipe", "linear-probe", "--epochs", "1"],
    "sweep": ["--heads", "lda,ridge"],
    "examine": ["--repetitions", "1"],
}


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two classes that cannot be told apart, so that there are mistakes."""
    root = tmp_path_factory.mktemp("noise")
    generator = np.random.default_rng(0)
    for i in range(60):
        label = ("=cat", "café, dog")[i % 2]
        (root / label).mkdir(exist_ok=True)
        pixels = generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / label / f"{i}.png")
    return root


def read(folder: Path) -> tuple[list[dict[str, object]], list[dict[str, str]], list[str]]:
    table = pq.read_table(folder / "predictions.parquet")
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return table.to_pylist(), rows, json.loads(table.schema.metadata[b"classes"])


@pytest.mark.parametrize("name", EXTRA)
def test_every_job_writes_what_it_predicted(command, noise, tmp_path, name):  # noqa: F811
    run = tmp_path / "run"
    status, out, err = command(name, noise, *EXTRA[name], "--out", run)
    assert status == 0, err
    parquet, rows, classes = read(run)
    assert classes == ["=cat", "café, dog"]
    split = "train, held out" if name == "examine" else "test"
    assert {row["split"] for row in parquet} == {split} == {row["split"] for row in rows}
    for row, text in zip(parquet, rows, strict=True):
        assert (noise / str(row["item"])).is_file()
        assert Path(str(row["item"])).parent.name == row["truth"]
        assert row["prediction"] == classes[int(np.argmax(row["probabilities"]))]
        assert row["right"] == (row["truth"] == row["prediction"])
        assert text["right"] == ("true" if row["right"] else "false")
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert float(text["probability of café, dog"]) == pytest.approx(row["probabilities"][1])
        assert text["truth"].removeprefix("'") == row["truth"]
        assert not text["truth"].startswith("=")
    page = (run / "report.html").read_text()
    assert "predictions.csv" in page
    if name == "examine":
        return
    wrong = [row for row in parquet if not row["right"]]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(1 - len(wrong) / len(parquet))
    assert wrong
    assert f"{len(wrong)} of {len(parquet)} test items" in page
    assert f"mistakes: {len(wrong)} of {len(parquet)} test items" in out
    # The first twelve stand beside training items, which explain them; the others in a gallery.
    start = page.index("Some labels may be wrong")
    section = page[start : page.index("</section>", start)]
    cases = section.split('<li><ul class="gallery">')[1:]
    firsts = [case[: case.index("</ul>")] for case in cases]
    rest = section[section.rindex('class="gallery"') :] if len(wrong) > len(cases) else ""
    gallery = "".join([*firsts, rest])
    assert gallery.count("<img ") == min(len(wrong), 24)
    shown = re.findall(r'class="name"><bdi>([^<]*)', gallery)
    by_confidence = sorted(wrong, key=lambda row: -float(row["probability"]))
    assert set(shown) == {str(row["item"]) for row in by_confidence[:24]}


def test_evaluate_writes_a_report(command, noise, tmp_path):  # noqa: F811
    run, out = tmp_path / "run", tmp_path / "it's out"
    assert command("fit", noise, "--out", run)[0] == 0
    other = make_images(tmp_path / "other", 8, ("=cat", "café, dog"))
    status, text, err = command("evaluate", run, other, "--out", out, "--batch-size", "4")
    assert status == 0, err
    parquet, rows, _ = read(out)
    assert len(parquet) == len(rows) == 16
    found = json.loads((out / "evaluation.json").read_text())
    accuracy = np.mean([row["right"] for row in parquet])
    assert found["evaluation"]["accuracy"]["value"] == pytest.approx(accuracy)
    page = (out / "report.html").read_text()
    assert "&lt;" not in found["command"]
    assert page.count("headstart evaluate ") == 1
    assert f"report: {out}/report.html" in text
    status, text, _ = command("evaluate", run, other)
    assert status == 0
    assert "mistakes: " in text
    assert "report:" not in text
    line = one_error_line(command("evaluate", run, other, "--out", run))
    assert "holds a run" in line


def test_evaluate_in_python_writes_where_out_says(noise, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = headstart.fit(noise, cache=tmp_path / "cache", write=False, reporter=QUIET)
    headstart.evaluate(noise, run, cache=tmp_path / "cache", reporter=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    headstart.evaluate(noise, run, cache=tmp_path / "cache", reporter=QUIET, out="evaluated")
    assert (tmp_path / "evaluated" / "report.html").is_file()
    found = json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())
    assert found["command"].startswith("headstart.evaluate(")


def test_the_report_of_a_sweep_holds_the_sweep(command, noise, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    words = ["--heads", "linear,lda", "--grid", "0.01,0.1,1", "--layers", "stage2.0,output"]
    status, _, err = command("sweep", noise, *words, "--out", run)
    assert status == 0, err
    page = (run / "report.html").read_text()
    section = page[page.index("<h2>The sweep</h2>") :]
    section = section[: section.index("</section>")]
    made = json.loads((run / "run.json").read_text())["configuration"]
    assert f"Chosen: {made['chosen']['head']} on {made['chosen']['view']}" in section
    for head in ("linear", "lda"):
        for view in ("stage2.0 avg", "output"):
            pattern = rf"<bdi>{re.escape(view)}</bdi></td><td class=\"l\"><bdi>{head}</bdi>"
            assert re.search(pattern, section), (head, view)
    assert "C 0.01" in section
    assert "<svg" in section
    assert f"The whole grid: {len(made['candidates'])} candidates" in section


def test_a_sweep_over_bare_features_writes_where_out_says(command, tmp_path):  # noqa: F811
    generator = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = generator.normal(size=(80, 5)) + y[:, None]
    arrays = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
    np.savez(tmp_path / "features.npz", **arrays)
    status, out, err = command(
        "sweep", tmp_path / "features.npz", "--heads", "lda,ridge", "--out", tmp_path / "swept"
    )
    assert status == 0, err
    parquet, _, classes = read(tmp_path / "swept")
    assert classes == ["0", "1"]
    assert len(parquet) == 20
    assert json.loads((tmp_path / "swept" / "sweep.json").read_text())["winner"]
    assert "The sweep" in (tmp_path / "swept" / "report.html").read_text()
    assert f"report: {tmp_path / 'swept'}/report.html" in out
    np.savez(tmp_path / "untested.npz", x_train=x, y_train=y)
    status, _, err = command(
        "sweep", tmp_path / "untested.npz", "--heads", "lda", "--out", tmp_path / "untested"
    )
    assert status == 0, err
    assert "The sweep" in (tmp_path / "untested" / "report.html").read_text()
    assert not (tmp_path / "untested" / "predictions.csv").exists()


@pytest.mark.parametrize("n_classes", [2, 100, 101, 3000])
def test_any_number_of_classes(tmp_path, n_classes):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(n_classes), 7)
    classes = [f"class {i}" for i in range(n_classes)]
    origins = ["a\udce9.png", "=1+1.png", "-x", "@y", "+z", "a\tb", "plain"]
    columns = prediction_columns(origins, classes[:1] * 7, classes, probabilities, split="test")
    write_predictions(tmp_path, columns, classes, probabilities)
    parquet, rows, named = read(tmp_path)
    assert named == classes
    assert [row["item"] for row in parquet] == [r"a\xe9.png", *origins[1:]]
    assert [row["item"] for row in rows] == [r"a\xe9.png", "'=1+1.png", "'-x", "'@y", "'+z",
                                             "a\tb", "plain"]  # fmt: skip
    np.testing.assert_allclose([r["probabilities"] for r in parquet], probabilities, rtol=1e-5)
    ranked = np.argsort(-probabilities, axis=1)
    assert [row["prediction"] for row in rows] == [classes[i] for i in ranked[:, 0]]
    assert len(rows[0]) == (6 + n_classes if n_classes <= 100 else 6 + 2 * 4)
    if n_classes > 100:
        assert [row["prediction_5"] for row in rows] == [classes[i] for i in ranked[:, 4]]


def test_no_items(tmp_path):
    empty = np.empty((0, 2))
    columns = prediction_columns((), (), ("a", "b"), empty, split="test")
    write_predictions(tmp_path, columns, ("a", "b"), empty)
    assert read(tmp_path)[0] == []


def test_a_comparison_writes_every_prediction(command, noise, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    words = ["--configs", "no_grad,batch", "--repeats", "2", "--head", "knn"]
    status, _, err = command("compare", noise, *words, "--out", run)
    assert status == 0, err
    found = json.loads((run / "comparison.json").read_text())
    rows = pq.read_table(run / "predictions.parquet").to_pylist()
    for configuration in found["configurations"]:
        for made in configuration["runs"]:
            mine = [row for row in rows if row["repetition"] == made["repetition"]]
            right = sum(
                row[f"prediction of {configuration['name']}"] == row["truth"] for row in mine
            )
            assert (right, len(mine)) == (made["right"], made["n_test"])
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    page = (run / "report.html").read_text()
    section = page[page.index("<h2>Mistakes</h2>") :]
    assert "wrong most often" in section.lower()
    assert "<img " in section[: section.index("</section>")]


def test_writing_predictions_imports_no_pandas(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from headstart.commands.prediction_table import prediction_columns, write_predictions\n"
        "p = np.array([[0.25, 0.75], [0.5, 0.5]]); c = ['no', '=1+1']\n"
        "table = prediction_columns(['a', 'b\\udcff'], ['no', '=1+1'], c, p, split='test')\n"
        "write_predictions(Path(sys.argv[1]), table, c, p)\n"
        "assert 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    read = pq.read_table(tmp_path / "predictions.parquet")
    assert read.column("item").to_pylist() == ["a", "b\\xff"]
    assert read.column("right").to_pylist() == [False, False]
    assert read.column("prediction").to_pylist() == ["=1+1", "no"]
    assert read.column("probability").to_pylist() == [0.75, 0.5]
    assert read.column("probabilities").to_pylist() == [[0.25, 0.75], [0.5, 0.5]]
    text = (tmp_path / "predictions.csv").read_text()
    assert "'=1+1" in text
