"""The backbone's own classifier as a baseline of every fit, and as a start of the head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import evaluate, fit, open_run, predict, rank, update
from headstart.backbones.photos import PHOTOS, weights_path
from headstart.commands.fit.options import CLASS_NAMES, FitConfig
from headstart.commands.own_classifier import ZERO_LABEL
from headstart.core.errors import BackboneError, ConfigError, DataError
from headstart.core.progress import SilentReporter
from headstart.heads.started import StartedHead

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "hymenoptera"


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    try:
        weights_path(PHOTOS)
    except BackboneError:
        pytest.skip("the weights of headstart/photos are not installed")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def pictures(n: int, seed: int, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a colour of each class; ImageNet's classifier has to guess."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(classes)
    tint = np.random.default_rng(9).integers(0, 160, (len(classes), 1, 1, 3))
    images = rng.integers(0, 96, (n, 48, 48, 3)) + tint[labels]
    return images.astype(np.uint8), np.array(classes)[labels]


def data(*classes: str, train: int = 12) -> dict[str, Any]:
    return {"train": pictures(train, 1, classes), "test": pictures(8, 2, classes)}


def made(source: Any, cache: Path, **options: Any) -> tuple[Any, str]:
    notes = Notes()
    options = {"out": None, "write": False, **options}
    run = fit(source, "headstart/photos", cache=cache, size=64, reporter=notes, **options)
    return run, " ".join(notes.said)


def baselines(run: Any) -> dict[str, Any]:
    return {each.name: each for each in run.baselines}


def test_it_is_a_baseline_where_the_classes_have_names_of_imagenet(cache: Path) -> None:
    run, _ = made(data("ants", "bees"), cache)
    found = baselines(run)[ZERO_LABEL]
    assert "without a label: 'ants' is 'ant', 'bees' is 'bee'" in found.description
    alone, said = made(data("ants", "bees"), cache, start="classifier", labels_per_class=0)
    assert "using no training items and no labels" in said
    assert "every head gets them wrong" not in said
    assert alone.accuracy == found.accuracy.value
    assert alone.n_train == 0
    assert list(baselines(alone)) == [ZERO_LABEL]
    again, _ = made(data("ants", "bees"), cache)
    assert baselines(again)[ZERO_LABEL] == found
    assert ZERO_LABEL not in baselines(made(data("ants", "bees"), cache, baselines=False)[0])
    assert ZERO_LABEL not in baselines(made(data("ants", "bees"), cache, layer="blocks.2")[0])


def test_names_that_are_no_class_are_told_where_others_are(cache: Path) -> None:
    run, said = made(data("ants", "cats"), cache)
    assert ZERO_LABEL not in baselines(run)
    assert "no zero-label baseline: no class of ImageNet-1k is called 'cats'" in said
    run, said = made(data("left", "right"), cache)
    assert ZERO_LABEL not in baselines(run)
    assert "zero-label" not in said
    run, said = made(data("ants", "cats"), cache, class_names={"cats": ["tabby", "Persian cat"]})
    assert "'cats' is 'tabby', 'Persian cat'" in baselines(run)[ZERO_LABEL].description


def test_a_start_is_refused_where_names_do_not_say_the_classes(cache: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        made(data("crane", "cat"), cache, start="classifier")
    assert len(refused.value.faults) == 2
    assert "class_names" in str(refused.value)
    with pytest.raises(ConfigError, match=r"up to blocks\.2 has no ImageNet-1k classifier"):
        made(data("ants", "bees"), cache, start="classifier", layer="blocks.2")
    with pytest.raises(DataError, match=r"only one class \('ants'\)"):
        made(data("ants"), cache, start="classifier")
    with pytest.raises(ConfigError, match="headstart/glyphs has no ImageNet-1k classifier"):
        fit(data("ants", "bees"), "headstart/glyphs", start="classifier", cache=cache, write=False)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"start": "classifier", "head": "ridge"}, "start has a head of its own"),
        ({"labels_per_class": 0}, "labels_per_class must be at least 1 unless"),
        ({"labels_per_class": -1, "start": "classifier"}, "labels_per_class must be at least 0"),
        ({"class_names": {"a": 3}}, "class_names must give one name or a list of names"),
        ({"class_names": {"a": []}}, "class_names must give one name or a list of names"),
        ({"start": "imagenet"}, "start must be classifier"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        FitConfig(**settings)


def test_names_are_read_from_toml_or_json(tmp_path: Path) -> None:
    file = tmp_path / "names.toml"
    file.write_text('cat = ["tabby", "Persian cat"]\n"my ant" = "ant"\n', encoding="utf-8")
    names = CLASS_NAMES.parse(str(file))
    assert names == {"cat": ["tabby", "Persian cat"], "my ant": "ant"}
    assert CLASS_NAMES.parse(CLASS_NAMES.write(names)) == names
    assert FitConfig(class_names=str(file)).class_names == names
    with pytest.raises(ConfigError, match=r"class_names cannot be read: .*nothing\.toml"):
        FitConfig(class_names=tmp_path / "nothing.toml")
    file.write_text("cat = tabby")
    for wrong in (str(file), str(tmp_path / "nothing.toml"), "{", "[1]"):
        with pytest.raises(ValueError, match=r"cat|nothing|JSON|\[1\]|names\.toml"):
            CLASS_NAMES.parse(wrong)


def test_a_run_that_began_as_the_classifier_is_a_run(cache: Path, tmp_path: Path) -> None:
    given = {"cats": ["tabby", "Persian cat"]}
    run, said = made(
        data("ants", "cats"),
        cache,
        start="classifier",
        class_names=given,
        out=tmp_path / "run",
        write=True,
    )
    assert "begins as the network's own classifier" in said
    assert type(run.head) is StartedHead
    images = pictures(6, 3, ("ants", "cats"))
    found = predict(images[0], tmp_path / "run", cache=cache, reporter=SilentReporter())
    assert found.probabilities.shape == (6, 2)
    assert open_run(tmp_path / "run").accuracy == run.accuracy
    record = json.loads((tmp_path / "run" / "run.json").read_text())["configuration"]
    assert (record["start"], record["class_names"]) == ("classifier", given)
    assert "compare" not in " ".join(run.commands.next)
    assert "zero-label" in (tmp_path / "run" / "report.html").read_text()

    more = update(images, tmp_path / "run", cache=cache, reporter=SilentReporter())
    whole = data("ants", "cats")
    whole["train"] = tuple(np.concatenate(p) for p in zip(whole["train"], images, strict=True))
    again, _ = made(whole, cache, start="classifier", class_names=given)
    rows = more.rows.test.rows
    np.testing.assert_allclose(
        more.head.predict_proba(rows), again.head.predict_proba(rows), atol=1e-6
    )
    with pytest.raises(ConfigError, match="is called 'wombat of mine'"):
        new = pictures(4, 5, ("wombat of mine",))
        update(new, tmp_path / "run", cache=cache, reporter=SilentReporter())
    others = pictures(6, 7, ("ants", "cats"))
    scored = evaluate(others, tmp_path / "run", cache=cache, reporter=SilentReporter())
    assert scored.n == 6


def test_some_labels_of_each_class_train(cache: Path) -> None:
    run, said = made(data("ants", "bees", train=20), cache, labels_per_class=3, seed=4)
    assert run.n_train == 6
    assert "using the labels of 6 of 20 training items: at most 3 per class" in said
    found = rank(
        data("ants", "bees", train=20),
        ["headstart/glyphs"],
        labels_per_class=4,
        cache=cache,
        write=False,
        reporter=SilentReporter(),
    )
    (row,) = found.ranking.rows
    assert row.probe is not None
    assert len(row.probe.labels) == 8


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.chosen
def test_ants_and_bees_without_a_label_and_with_all(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip("the photographs are not there")
    quiet = {"cache": tmp_path, "write": False, "reporter": SilentReporter()}
    run = fit(REAL, start="classifier", **quiet)
    assert round(153 * baselines(run)[ZERO_LABEL].accuracy.value) == 149
    assert run.accuracy >= 0.96
    few = fit(REAL, start="classifier", labels_per_class=2, **quiet)
    assert few.accuracy >= 0.95
