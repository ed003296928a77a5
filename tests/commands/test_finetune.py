"""The fine-tuning job: run folders that predict and evaluate open, kills, plans, errors."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbones import load_backbone
from headstart.cache import FeatureCache
from headstart.commands.finetune.job import FinetuneConfig, finetune, plan_finetune
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import evaluate as evaluate_run
from headstart.commands.predict.job import predict
from headstart.commands.saved_run import open_run
from headstart.core.arguments import Arguments
from headstart.core.errors import BadFilesError, ConfigError, DataError
from headstart.core.progress import Progress, SilentReporter
from headstart.data import Dataset, load_data
from headstart.finetuning import Recipe, Stage
from headstart.modules.digests import digests
from tests.finetuning.conftest import squares
from tests.finetuning.models import residual

QUIET = SilentReporter()
SHORT = Recipe(
    "short",
    (
        Stage("block", ("last:1",), epochs=3, batch_size=8, lr=1e-2),
        Stage("two", ("last:2",), epochs=3, batch_size=8, lr=1e-2),
    ),
    head_dropout=0.2,
)
FACTORY = "tests/training/models.py:residual"


def source(n: int = 50) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {"train": squares(n), "test": squares(24, 9)}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_run_folder_predicts_what_the_run_scored(tmp_path: Path, cache: Path) -> None:
    out = tmp_path / "run"
    run = finetune(source(), residual(), SHORT, out=out, cache=cache, reporter=QUIET)
    names = {path.name for path in out.iterdir()}
    assert {
        "run.json", "metrics.json", "plan.json", "head.safetensors", "head.json",
        "backbone.safetensors", "curves.png", "confusion.png", "report.html",
    } <= names  # fmt: skip
    page = (out / "report.html").read_text()
    assert "the cost of every possible cut" in page
    for shown in (">Map<", ">Some test items<", "training items differ most", ">Stages<"):
        assert shown in page, shown
    assert "checkpoint" not in names
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["accuracy"] == run.accuracy
    assert [stage["name"] for stage in metrics["training"]["stages"]] == ["block", "two"]
    assert all("bit-identical" in s["proof"] for s in metrics["training"]["stages"])
    assert len(metrics["training"]["epochs"]) == 7
    # A run of one's own module is opened with that module, as it was before or as it is now.
    for backbone in (residual(), run.backbone):
        before = digests(backbone.module)
        again = evaluate_run(source(), out, backbone=backbone, cache=cache, reporter=QUIET)
        assert again.accuracy == run.evaluation.accuracy
        assert again.log_loss == pytest.approx(run.evaluation.log_loss, abs=1e-6)
        assert digests(backbone.module) == before
    said = predict(squares(6)[0], run, cache=cache, reporter=QUIET)
    assert said.probabilities.shape == (6, 2)


def test_the_probabilities_are_those_of_the_trained_network(tmp_path: Path, cache: Path) -> None:
    out = tmp_path / "run"
    run = finetune(source(), residual(), SHORT, out=out, cache=cache, reporter=QUIET)
    images = squares(5, 3)[0]
    said = predict(images, out, backbone=residual(), cache=cache, reporter=QUIET)
    plan = run.backbone.inputs
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    run.backbone.module.eval()  # the job gave the module the mode back that it had before
    with torch.no_grad():
        rows = run.backbone.features(Arguments((plan.normalise(pixels),)))
    expected = run.head.predict_proba(rows.numpy())
    np.testing.assert_allclose(said.probabilities, expected, atol=1e-5)


def test_a_rebuildable_backbone_is_restored_from_the_folder(tmp_path: Path, cache: Path) -> None:
    out = tmp_path / "run"
    recipe = Recipe("r", (Stage("s", ("last:1",), epochs=1, batch_size=16),), "probe")
    run = finetune(source(), "headstart/glyphs", recipe, out=out, cache=cache, reporter=QUIET)
    assert [b.name for b in run.baselines] == ["linear probe", "majority class", "raw pixels"]
    saved = open_run(out)
    restored = saved.load_backbone()
    assert digests(restored.module) == digests(run.backbone.module)
    assert digests(load_backbone("headstart/glyphs").module) != digests(restored.module)
    scored = evaluate_run(source(), out, cache=cache, reporter=QUIET)
    assert scored.accuracy == run.evaluation.accuracy


def test_tuned_weights_that_were_tampered_with_are_refused(tmp_path: Path, cache: Path) -> None:
    out = tmp_path / "run"
    finetune(source(), residual(), SHORT, out=out, cache=cache, reporter=QUIET)
    path = out / "backbone.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="SHA-256 is not the one"):
        predict(squares(3)[0], out, backbone=residual(), cache=cache, reporter=QUIET)
    path.unlink()
    with pytest.raises(DataError, match="cannot be used"):
        predict(squares(3)[0], out, backbone=residual(), cache=cache, reporter=QUIET)


def test_the_test_split_chooses_nothing(cache: Path) -> None:
    def course(test: tuple[np.ndarray, np.ndarray]) -> object:
        data = {"train": squares(50), "test": test}
        run = finetune(data, residual(), SHORT, write=False, cache=cache, reporter=QUIET)
        return [(e["train_loss"], e["validation_loss"]) for e in run.training["epochs"]], digests(
            run.backbone.module
        )

    images, labels = squares(24, 9)
    assert course((images, labels)) == course((images[::-1].copy(), labels))


def test_a_second_run_finds_the_rows_of_the_first(tmp_path: Path, cache: Path) -> None:
    config = FinetuneConfig(stored="on", baselines=False)
    first = finetune(source(), residual(), SHORT, write=False, cache=cache, config=config,
                     reporter=QUIET)  # fmt: skip
    other = Recipe("other", (Stage("x", ("last:2",), epochs=1, batch_size=5, optimizer="sgd"),))
    second = finetune(source(), residual(), other, write=False, cache=cache, config=config,
                      reporter=QUIET)  # fmt: skip
    assert first.cache.misses > 24
    # Only the test rows behind the newly tuned backbone are new.
    assert second.cache.misses == 24
    assert second.cache.hits == 50


def test_a_dry_run_writes_a_plan_and_trains_nothing(tmp_path: Path, cache: Path) -> None:
    backbone = residual()
    before = digests(backbone.module)
    out = tmp_path / "run"
    plan = plan_finetune(source(), backbone, "gradual", out=out, cache=cache, reporter=QUIET)
    assert [stage.name for stage in plan.stages] == [f"thaw {n}" for n in (1, 2, 3, 4)]
    assert digests(backbone.module) == before
    saved = json.loads((out / "plan.json").read_text())
    assert saved["n_train"] + saved["n_validation"] == 50
    assert {path.name for path in out.iterdir()} == {"plan.json"}


def test_surgical_names_the_block_that_was_measured(cache: Path) -> None:
    plan = plan_finetune(source(), residual(), "surgical", cache=cache, reporter=QUIET)
    (stage,) = plan.stages
    assert set(stage.groups) - {"head"} <= {"stem", "blocks.0", "blocks.1", "blocks.2"}
    assert len(stage.groups) == 2


def test_faults_come_before_any_work(tmp_path: Path, cache: Path) -> None:
    recipe = Recipe("bad", (Stage("s", ("blocks.9",)), Stage("t", ("last:7",))))
    with pytest.raises(ConfigError) as caught:
        finetune(source(), residual(), recipe, out=tmp_path / "r", cache=cache, reporter=QUIET)
    assert len(caught.value.faults) == 2
    assert not cache.exists()
    with pytest.raises(ConfigError, match="finetune has no setting 'stord'"):
        finetune(source(), residual(), SHORT, cache=cache, stord="on")
    with pytest.raises(ConfigError, match="stored must be one of auto, on, off, not 'yes'"):
        FinetuneConfig(stored="yes")  # type: ignore[arg-type]


def test_a_recipe_is_changed_in_every_stage_by_single_settings(cache: Path) -> None:
    plan = plan_finetune(
        source(), residual(), SHORT, epochs=7, lr=0.5, train_batch=3, views=2, cache=cache,
        reporter=QUIET,
    )  # fmt: skip
    for stage in plan.stages:
        assert (stage.epochs, max(rate.lr for rate in stage.rates)) == (7, 0.5)
        assert "batches of 3" in stage.settings
        assert "2 augmented views" in stage.settings
    with pytest.raises(ConfigError, match="finetune does not take precision: the recipe sets"):
        plan_finetune(source(), residual(), SHORT, precision="bfloat16", cache=cache)


def test_one_class_is_refused(cache: Path) -> None:
    images, _ = squares(20)
    data = {"train": (images, np.zeros(20, int)), "test": (images, np.zeros(20, int))}
    with pytest.raises(DataError, match="class"):
        finetune(data, residual(), SHORT, write=False, cache=cache, reporter=QUIET)


class Tasks(SilentReporter):
    """Keeps the names of tasks and their number of items."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Progress]:
        self.seen.append((name, total))
        with super().task(name, total, unit) as task:
            yield task

    def items(self, name: str) -> list[int]:
        return [total for task, total in self.seen if task == name]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders, of which one that trains and one of the test split are no images."""
    from PIL import Image

    root = tmp_path_factory.mktemp("broken") / "data"
    for split, n, seed in (("train", 30, 0), ("test", 8, 1)):
        for number, (image, label) in enumerate(zip(*squares(n, seed), strict=True)):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
        for copy in range(2):  # equal items are decoded once, and both are lost
            (root / split / "class0" / f"broken-{split}{copy}.png").write_bytes(
                f"{split} is no image".encode()
            )
    return root


@pytest.mark.parametrize("start", ["probe", "fresh"])
@pytest.mark.parametrize("stored", ["on", "off"])
def test_broken_files_are_told_together_before_training_or_left_out(
    broken: Path, cache: Path, start: str, stored: str
) -> None:
    recipe = Recipe("r", (Stage("head", ("head",), epochs=1, batch_size=8),), start=start)  # type: ignore[arg-type]
    config = FinetuneConfig(stored=stored)  # type: ignore[arg-type]
    with pytest.raises(BadFilesError) as caught:
        finetune(
            broken, residual(), recipe, write=False, cache=cache, config=config, reporter=QUIET
        )
    assert "broken-train" in str(caught.value)
    assert "broken-test" in str(caught.value)
    config = dataclasses.replace(config, baselines=False)
    run = finetune(
        broken, residual(), recipe, write=False, cache=cache, config=config, on_bad="skip",
        reporter=QUIET,
    )  # fmt: skip
    assert run.n_train + run.training["n_validation"] == 30
    assert run.n_test == 8


def test_no_item_is_decoded_for_nothing_but_a_check_where_its_row_is_stored_next(
    cache: Path,
) -> None:
    recipe = Recipe("r", (Stage("head", ("head",), epochs=1),), start="fresh")
    tasks = Tasks()
    run = finetune(
        source(), residual(), recipe, write=False, cache=cache, stored="on", reporter=tasks,
        baselines=False,
    )  # fmt: skip
    assert tasks.items("check the images") == [run.n_test]
    stored = [run.n_train, run.training["n_validation"]]
    assert tasks.items("store the frozen part") == stored
    probed = Tasks()
    finetune(
        source(), residual(seed=1), dataclasses.replace(recipe, start="probe"), write=False,
        cache=cache, stored="on", reporter=probed,
    )  # fmt: skip
    # Near copies are kept on one side of the training part and the part that chooses the epoch, so
    # that the features of both are extracted before the division, and nothing is left to check.
    assert probed.items("check the images") == []


KILLED = """
import sys
from headstart.data import Dataset, load_data
from headstart.commands.finetune.job import finetune
from headstart.core.progress import PlainReporter
sys.path.insert(0, {root!r})
from tests.commands.test_finetune import SHORT, source
from tests.finetuning.models import residual
finetune(source(), residual(dropout=0.2), SHORT, out={out!r}, cache={cache!r},
         stored={stored!r}, baselines=False, reporter=PlainReporter())
"""


def saves(out: Path) -> int:
    """Return how many epochs a run has saved."""
    try:
        return int(json.loads((out / "checkpoint" / "progress.json").read_text())["number"])
    except OSError:
        return 0


def committed(cache: Path) -> int:
    """Return how many rows a cache holds."""
    return sum(info.rows for info in FeatureCache(cache).store.spaces()) if cache.exists() else 0


@pytest.mark.parametrize(("stored", "epochs"), [("on", 0), ("on", 1), ("off", 4)])
def test_sigkill_in_an_epoch_resumes_to_the_identical_result(
    tmp_path: Path, cache: Path, stored: str, epochs: int
) -> None:
    root = Path(__file__).resolve().parent.parent.parent
    out = tmp_path / "run"
    code = KILLED.format(root=str(root), out=str(out), cache=str(cache), stored=stored)
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        # With no epoch to wait for, it is killed as soon as the first rows are committed.
        if saves(out) >= epochs if epochs else committed(cache):
            break
        time.sleep(0.002)
    child.kill()
    child.wait()
    assert child.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (out / "run.json").exists()
    arguments = {"stored": stored, "baselines": False, "reporter": QUIET}
    resumed = finetune(source(), residual(dropout=0.2), SHORT, out=out, cache=cache, **arguments)
    whole = finetune(
        source(), residual(dropout=0.2), SHORT, write=False, cache=tmp_path / "other", **arguments
    )
    if epochs:
        assert any("continuing after epoch" in note for note in resumed.notes)

    def figures(run: object) -> list[tuple[float, float]]:
        epochs = run.training["epochs"]  # type: ignore[attr-defined]
        return [(e["train_loss"], e["validation_loss"]) for e in epochs]

    assert figures(resumed) == figures(whole)
    assert digests(resumed.backbone.module) == digests(whole.backbone.module)
    assert resumed.evaluation == whole.evaluation


def test_the_command_plans_trains_and_goes_on(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from headstart.commands.cli import app

    images, labels = squares(40)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    common = [
        "finetune", str(tmp_path / "data.npz"), "--epochs", "1", "--quiet",
        "--cache", str(tmp_path / "cache"),
    ]  # fmt: skip
    runner = CliRunner()
    shown = runner.invoke(app, [*common, "-r", "last-block", "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "rates stage3 0.0001, head 0.0001" in " ".join(shown.output.split())
    out = tmp_path / "run"
    ran = runner.invoke(app, [*common, "-r", "last-block", "--json", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["training"]["stages"][0]["epochs"] == 1
    scored = runner.invoke(
        app,
        ["evaluate", str(out), str(tmp_path / "data.npz"), "--json", "--quiet",
         "--cache", str(tmp_path / "cache"), "--include-training"],  # all of it trained
    )  # fmt: skip
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["accuracy"]["value"] == json.loads(ran.stdout)["accuracy"]


@pytest.mark.real
@pytest.mark.slow
def test_real_weights_and_photographs(shared_data: Path, cache: Path) -> None:
    backbone = load_backbone(
        "timm/mobilenetv1_100",
        weights=shared_data / "weights" / "mobilenetv1_imagenet.safetensors",
        model_args={"pad_type": "same", "bn_eps": 1e-3},
        layer="blocks.4.0",
        mean=0.5,
        std=0.5,
        size=96,
    )
    data = load_data(shared_data / "hymenoptera", seed=0)
    recipe = Recipe("r", (Stage("s", ("last:1",), epochs=2, lr=1e-4),), "probe")
    run = finetune(data, backbone, recipe, write=False, cache=cache, stored="on", reporter=QUIET)
    assert run.accuracy > 0.75
    assert run.baselines[0].name == "linear probe"
    assert run.tuned
    assert all(name.startswith("blocks.4.0.") for name in run.tuned)


@pytest.mark.parametrize("layer", [None, "stage2.0"])
def test_a_head_on_the_feature_and_fit_share_every_row(tmp_path: Path, layer: str | None) -> None:
    whole = load_data("digits")
    data = Dataset(
        "digits",
        whole.classes,
        {"train": whole.train.take(np.arange(120)), "test": whole.test.take(np.arange(60))},
    )
    pooling = None if layer is None else "gem"
    backbone = load_backbone("headstart/glyphs", layer=layer, pooling=pooling)
    told = {"reporter": QUIET, "write": False}
    weights = []
    for name, first in (("one", "fit"), ("other", "finetune")):
        cache = FeatureCache(tmp_path / name)
        if first == "fit":
            assert fit(data, backbone, cache=cache, **told).cache.misses == 180
        run = finetune(data, backbone, "linear-probe", stored="on", cache=cache, **told)
        assert run.cache.misses == (0 if first == "fit" else 180)
        weights.append(run.head.weight)
        if first == "finetune":
            assert fit(data, backbone, cache=cache, **told).cache.misses == 0
        (space,) = cache.store.spaces()
        assert space.rows == 180
    np.testing.assert_array_equal(*weights)  # what is stored decides nothing
