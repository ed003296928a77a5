"""The job and the command: what a folder holds, what is printed."""

from __future__ import annotations

import json
import re

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from headstart.backbones import load_backbone
from headstart.commands.cli import app
from headstart.commands.compare.job import compare
from headstart.commands.compare.tables import comparison_rows
from headstart.commands.settings import BackboneSpec
from headstart.core.errors import BackboneError, ConfigError
from headstart.core.progress import SilentReporter
from headstart.study import PRESETS, Configuration, register

from .conftest import QUICK, picture_data, planted, quick

FILES = {
    "predictions.csv",
    "predictions.parquet",
    "comparison.json",
    "comparison.png",
    "cost.png",
    "drift.png",
    "report.html",
    "run.json",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    name = "<b>mine</b> & co"
    register(Configuration(name, statistics="blend", alpha=0.5))
    try:
        return compare(
            picture_data(),
            planted(dropout=0.2),
            config=quick(["no_grad", "reestimated", name, "class-ordered"]),
            batch_size=QUICK.batch_size,
            device=QUICK.device,
            out=folder / "run",
            cache=folder / "cache",
            reporter=SilentReporter(),
        )
    finally:
        del PRESETS[name]


def test_the_folder(run):
    assert {path.name for path in run.folder.iterdir()} == FILES
    document = json.loads((run.folder / "comparison.json").read_text())
    assert document["reference"] == "eval+inference_mode"
    assert document["configurations"][0]["name"] == "eval+inference_mode"
    for configuration in document["configurations"]:
        assert len(configuration["runs"]) == 2
        assert {"order", "chance", "head", "validation"} <= set(configuration["runs"][0]["seeds"])
    assert len(document["drift"]["inputs as given"]) == 3
    assert document["plan"]["images_saved"] > 0
    text = json.dumps(document)
    assert "seconds" not in text
    assert "environment" not in text
    described = json.loads((run.folder / "run.json").read_text())
    assert set(described["seconds_per_image"]) == {c["name"] for c in document["configurations"]}


def test_the_page(run):
    page = (run.folder / "report.html").read_text()
    assert "<b>mine" not in page
    assert "&lt;b&gt;mine" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    for words in ("Recommendation", "backbone.eval()", "drift", "forward passes", "dropout"):
        assert words in page


def test_the_table(run):
    header, rows = comparison_rows(run.comparison)
    assert len(rows) == 5
    assert all(len(row) == len(header) for row in rows)
    assert rows[0][3] == "reference"
    assert rows[0][5:7] in (("equal", "equal"), ("rounding", "equal"))
    assert rows[1][5].endswith("%")


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["compare", "digits", "--configs", "no_grad,unscaled", "--repeats", "1"]
    words += ["--train-items", "200", "--test-items", "60", "--cache", str(tmp_path / "cache")]
    done = CliRunner().invoke(app, [*words, "--out", "run"])
    assert done.exit_code == 0, done.output
    assert "eval+inference_mode" in done.output
    assert "too few repetitions to see small differences; use --repeats 5 or more." in done.output
    assert "report: run/report.html" in done.output
    assert "headstart fit digits --backbone headstart/glyphs" in done.output
    done = CliRunner().invoke(app, [*words, "--out", "json", "--quiet", "--json"])
    document = json.loads(done.output)
    assert 190 <= document["data"]["n_train"] <= 200
    assert document["folder"] == "json"


def test_faults_of_the_command_line():
    with pytest.raises(ConfigError, match="nearest: eval"):
        CliRunner().invoke(app, ["compare", "digits", "--configs", "evel"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="--epochs belongs to --head mlp"):
        CliRunner().invoke(app, ["compare", "digits", "--epochs", "3"], catch_exceptions=False)
    listed = CliRunner().invoke(app, ["compare", "digits", "--configs", "list"])
    assert "class-ordered" in listed.output
    assert "finetune:NAME" in listed.output


def test_unknown_settings():
    with pytest.raises(ConfigError, match="no setting 'repeat'"):
        compare("digits", repeat=3)


def test_what_cannot_be_written_is_not_lost(tmp_path, monkeypatch):
    def run():
        return compare(
            picture_data(),
            planted(dropout=0.2),
            config=quick(["no_grad", "recompute"]),
            batch_size=QUICK.batch_size,
            device=QUICK.device,
            out=tmp_path / "run",
            cache=tmp_path / "cache",
            reporter=SilentReporter(),
        )

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def never(*_: object) -> None:
        raise AssertionError("a forward pass")

    state = tmp_path / "cache" / "results" / "study"
    with monkeypatch.context() as patched:
        patched.setattr("headstart.commands.compare.job.write_comparison", full)
        with pytest.raises(OSError, match="No space left"):
            run()
    assert any(state.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr("headstart.study.rows._keep_batch_rows", never)
        resumed = run()
    assert resumed.comparison.resumed > 0
    assert resumed.comparison.cache.misses == 0
    assert (resumed.folder / "comparison.json").is_file()
    assert not state.exists()


def test_weights_have_to_reach_the_deepest_configuration(tmp_path):
    whole = load_backbone("headstart/glyphs").module.state_dict()
    path = tmp_path / "half.safetensors"
    save_file({k: v for k, v in whole.items() if not k.startswith("stage3")}, path)
    colours = {"mean": 0.5, "std": 0.5}
    spec = BackboneSpec(
        "headstart/glyphs", weights=str(path), layer="stage2.0", preprocessing=colours
    )
    with pytest.raises(BackboneError, match=r"missing: .*stage3"):
        configs = "eval,layer=stage3.0"
        compare("digits", spec, configs=configs, write=False, cache=tmp_path / "cache")


def test_negative_seeds_are_one_clear_error():
    with pytest.raises(ConfigError, match="seed must be at least 0, not -1"):
        compare("digits", seed=-1)
