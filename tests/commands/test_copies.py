"""No command parts copies of an item, and neither the names of files nor their order decide."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.backbones import load_backbone
from headstart.commands.advise.job import AdviseConfig, _Measurements
from headstart.commands.examine.job import examine
from headstart.commands.finetune.items import Items, _divide
from headstart.commands.finetune.options import FinetuneConfig
from headstart.commands.fit.job import fit
from headstart.commands.session import Session
from headstart.commands.settings import RunOptions
from headstart.commands.sweep.job import sweep
from headstart.core.progress import SilentReporter
from headstart.data import Dataset, load_data
from headstart.finetuning import Recipe, Stage
from headstart.finetuning.devices import ALONE
from headstart.study.repetitions import divide
from headstart.study.settings import CompareConfig

QUIET = SilentReporter()
IMAGES, TIMES = 40, 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def draw(folder: Path, *, times: int, seed: int) -> Path:
    """Write images of noise, every one several times, under names that the seed shuffles."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 16, 16), dtype=np.uint8)
    images[: IMAGES // 2, 4:12, 4:12] //= 3
    names = np.random.default_rng(seed).permutation(IMAGES * times)
    for i, image in enumerate(images):
        target = folder / ("dark" if i < IMAGES // 2 else "light")
        target.mkdir(parents=True, exist_ok=True)
        for copy in range(times):
            Image.fromarray(image).save(target / f"{names[i * times + copy]:04d}.png")
    return folder


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("copied"), times=TIMES, seed=1)


@pytest.fixture(scope="module")
def data(copied: Path) -> Dataset:
    return load_data(copied)


def apart(*parts: object) -> None:
    """Check that no content is in two parts, and that all parts hold something."""
    ids = [set(part.ids) for part in parts]  # type: ignore[attr-defined]
    assert all(ids)
    for i, one in enumerate(ids):
        for other in ids[i + 1 :]:
            assert not one & other


def test_the_test_split(data: Dataset) -> None:
    apart(data.train, data.test)
    assert len(data.train) % TIMES == 0


def test_the_validation_part_of_a_fine_tuning(data: Dataset) -> None:
    train, validation, _ = _divide(data, 0.2, 0)
    apart(train, validation, data.test)


def test_near_copies_and_the_validation_part_of_a_fine_tuning(cache: Path) -> None:
    """Where a fine-tuning starts from a probe, features are known, and so are near copies."""
    rng = np.random.default_rng(0)
    base = np.repeat(rng.integers(20, 236, (IMAGES, 4, 4), dtype=np.uint8), 8, 1).repeat(8, 2)
    images = np.concatenate([base] * TIMES) + rng.integers(0, 2, (IMAGES * TIMES, 32, 32))
    drawing = np.tile(np.arange(IMAGES), TIMES)
    data = load_data((images.astype(np.uint8), drawing % 2))
    whole = {key: drawing[int(o.split()[-1])] for key, o in zip_ids(data)}
    notes: list[str] = []
    session = Session(RunOptions(cache=cache, write=False, reporter=Noting(notes)))
    backbone = load_backbone("headstart/glyphs")
    recipe = Recipe("r", (Stage("head", ("head",), epochs=1),), start="probe")
    items = Items(session, backbone, data, recipe, FinetuneConfig())
    items.check(ALONE)
    train, chosen = ({whole[key] for key in part.ids} for part in (items.train, items.validation))
    assert train
    assert chosen
    assert not train & chosen
    assert sum("nearly equal another" in note for note in notes) == 1
    assert len(items.probe_features("train")) == len(items.train)


def zip_ids(data: Dataset) -> list[tuple[str, str]]:
    """Return id and origin of every training item."""
    return list(zip(data.train.ids, data.train.origins, strict=True))


def test_the_parts_of_advice(data: Dataset, cache: Path) -> None:
    run = RunOptions(cache=cache, write=False, reporter=QUIET)
    found = _Measurements(
        load_backbone("headstart/glyphs"), data.train, AdviseConfig(), Session(run)
    )
    apart(found.train, found.validation, found.held_out)
    assert len(found.keys) == len(data.train)


@pytest.mark.parametrize("most", [None, 60])
def test_the_repetitions_of_a_comparison(data: Dataset, most: int | None) -> None:
    drawn = divide(data, CompareConfig(repeats=3, train_items=most), seed=0)
    for repetition in drawn.repetitions:
        held = drawn.train.take(repetition.train[repetition.held_out])
        kept = drawn.train.take(
            np.setdiff1d(repetition.train, repetition.train[repetition.held_out])
        )
        apart(held, kept, drawn.test.take(repetition.test))


def test_the_folds_of_fit_and_sweep(data: Dataset, cache: Path) -> None:
    """What is found with every image three times is found with every image once."""
    once = {
        role: split.take(np.sort(np.unique(split.ids, return_index=True)[1]))
        for role, split in data.splits.items()
    }
    alone = Dataset("once", data.classes, once)
    for job in (fit, sweep):
        notes: list[str] = []
        more = {"head": "linear"} if job is fit else {}
        a = job(data, write=False, cache=cache, reporter=Noting(notes), **more)
        assert sum("held out together" in note for note in notes) == 1
        b = job(alone, write=False, cache=cache, reporter=QUIET, **more)
        if job is fit:
            step = np.log10(b.configuration["chosen"]["C"] / a.configuration["chosen"]["C"] / TIMES)
            assert abs(step) < 0.25
        else:
            assert a.sweep.n_folds == b.sweep.n_folds


class Noting(SilentReporter):
    """Keeps the notes."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_examine_says_it_once(copied: Path, cache: Path) -> None:
    notes: list[str] = []
    examine(copied, write=False, cache=cache, repetitions=2, reporter=Noting(notes))
    assert sum("held out together" in note for note in notes) == 1


@pytest.mark.parametrize("head", ["linear", "ridge", "mlp"])
def test_other_names_of_the_files_give_the_same_head(
    head: str, copied: Path, cache: Path, tmp_path: Path
) -> None:
    other = draw(tmp_path / copied.name, times=TIMES, seed=2)
    options = {"epochs": 5} if head == "mlp" else {}
    runs = [
        fit(folder, write=False, cache=cache, head=head, head_options=options, reporter=QUIET)
        for folder in (copied, other)
    ]
    chosen = [run.configuration["chosen"] for run in runs]
    assert chosen[0] == pytest.approx(chosen[1])
    rows = np.random.default_rng(0).normal(size=(50, runs[0].head.n_features)).astype(np.float32)
    np.testing.assert_allclose(
        *(run.head.predict_proba(rows) for run in runs), rtol=1e-4, atol=1e-5
    )
    assert runs[0].accuracy == runs[1].accuracy
    assert [b.accuracy.value for b in runs[0].baselines] == pytest.approx(
        [b.accuracy.value for b in runs[1].baselines]
    )


def test_other_names_of_the_files_give_the_same_parts(copied: Path, tmp_path: Path) -> None:
    other = tmp_path / "sub"
    shutil.copytree(copied, other)
    for path in sorted(other.rglob("*.png")):
        path.rename(path.with_name(f"{9999 - int(path.stem):04d}.png"))
    a, b = load_data(copied), load_data(other)
    assert sorted(a.train.ids) == sorted(b.train.ids)
    parts = [_divide(one, 0.2, 0)[:2] for one in (a, b)]
    for one, two in zip(*parts, strict=True):
        assert one.ids == two.ids  # in this order: that of the epochs
    drawn = [divide(one, CompareConfig(repeats=2), seed=3) for one in (a, b)]
    assert drawn[0].sample.ids == drawn[1].sample.ids
    for one, two in zip(drawn[0].repetitions, drawn[1].repetitions, strict=True):
        assert drawn[0].train.take(one.train).ids == drawn[1].train.take(two.train).ids
        assert drawn[0].train.take(one.held_out).ids == drawn[1].train.take(two.held_out).ids
        assert drawn[0].test.take(one.test).ids == drawn[1].test.take(two.test).ids
