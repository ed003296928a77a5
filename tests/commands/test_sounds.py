"""What images and texts have, sounds have: every command, on tones, chirps and noise."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headstart.commands import cli
from headstart.commands.compare.job import compare
from headstart.commands.examine.job import examine
from headstart.commands.finetune.job import finetune
from headstart.commands.fit.job import fit
from headstart.commands.predict.job import evaluate, predict
from headstart.commands.sweep.job import sweep
from headstart.commands.update.job import update
from headstart.core.errors import BadFilesError, DataError
from headstart.core.progress import SilentReporter
from headstart.finetuning import Recipe, Stage
from headstart.sklearn import TransferClassifier
from tests.sound_models import encoded, noise, save_model, save_sounds, sounds

QUIET = SilentReporter()
LENGTHS = (0.5, 0.3, 0.4)
LAST = Recipe("last", (Stage("last", ("last:1", "head"), epochs=2, lr=1e-3),), "probe")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds of one length."""
    return save_sounds(tmp_path_factory.mktemp("data") / "sounds", 60, 30, (0.4,))


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds of several lengths."""
    return save_sounds(tmp_path_factory.mktemp("ragged") / "sounds", 60, 30, LENGTHS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"hf/{save_model(tmp_path_factory.mktemp('model') / 'm')}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run(model: str, ragged: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(ragged, model, out=folder, cache=cache, reporter=QUIET)
    return folder


def speaks_of_others(page: str) -> list[str]:
    """Return where the words of a page speak of images or texts; its settings may."""
    words = re.sub(r"<svg.*?</svg>|<[^>]*>", " ", page.split("<body", 1)[1], flags=re.DOTALL)
    words = re.sub(r"\b(image|text)_(column|folder|suffix)", "", words)
    return re.findall(r".{30}\b(?:images?|texts|photos?|pixels)\b.{30}", words.lower())


def test_fit_beats_chance_and_tells_what_bands_alone_would_get(
    model: str, ragged: Path, cache: Path, run: Path
) -> None:
    found = fit(ragged, model, write=False, cache=cache, reporter=QUIET)
    assert found.cache.misses == 0  # the run before it has computed all of them
    assert found.evaluation.accuracy.value > 0.6  # of three kinds, by a random network
    assert [each.name for each in found.baselines] == ["majority class", "log-mel bands"]
    assert found.baselines[1].accuracy.value > 0.9
    page = (run / "report.html").read_text()
    assert "mean and deviation over time of 64 log-mel bands" in page
    assert "data:image/png" in page  # a spectrogram of a mistake
    assert not speaks_of_others(page)


def test_predict_evaluate_and_update(run: Path, ragged: Path, cache: Path, tmp_path: Path) -> None:
    _, files = zip(*sounds(12, 500, LENGTHS), strict=True)
    for i, content in enumerate(files):
        (tmp_path / f"{i:02}.wav").write_bytes(content)
    (tmp_path / "list.csv").write_text(
        "path\n" + "".join(f"{i:02}.wav\n" for i in range(len(files)))
    )
    expected = list(predict(list(files), run, cache=cache, reporter=QUIET).labels)
    for form in (tmp_path / "list.csv", sorted(map(str, tmp_path.glob("*.wav")))):
        assert list(predict(form, run, cache=cache, reporter=QUIET).labels) == expected
    (tmp_path / "list.csv").unlink()
    assert list(predict(tmp_path, run, cache=cache, reporter=QUIET).labels) == expected
    alone = predict(tmp_path / "03.wav", run, cache=cache, reporter=QUIET)
    assert list(alone.labels) == expected[3:4]
    scored = evaluate(ragged, run, cache=cache, reporter=QUIET)
    assert scored.accuracy.value > 0.6


@pytest.mark.slow
def test_update_adds_sounds(model: str, ragged: Path, cache: Path, tmp_path: Path) -> None:
    fit(ragged, model, out=tmp_path / "run", head="ridge", cache=cache, reporter=QUIET)
    for i, (name, content) in enumerate(sounds(9, 700, LENGTHS)):
        (tmp_path / "more" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "more" / name / f"{i}.wav").write_bytes(content)
    found = update(
        tmp_path / "more", tmp_path / "run", out=tmp_path / "new", cache=cache, reporter=QUIET
    )
    assert found.n_train == 69


def test_bad_files_are_listed_or_left_out(
    model: str, ragged: Path, cache: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(ragged, tmp_path / "d")
    (folder / "train" / "tone" / "empty.wav").write_bytes(b"")
    (folder / "train" / "tone" / "silent.wav").write_bytes(encoded(np.zeros(4000, np.float32)))
    (folder / "train" / "noise" / "short.wav").write_bytes(encoded(noise(0.01)))
    (folder / "train" / "noise" / "text.mp3").write_bytes(b"no sound")
    with pytest.raises(BadFilesError) as caught:
        fit(folder, model, write=False, cache=cache, reporter=QUIET)
    said = str(caught.value)
    for words in (
        "the file is empty", "nothing but silence", "not a sound in a known format",
        "0.01 s of sound are less than the 0.0231 s that the network needs",
    ):  # fmt: skip
        assert words in said
    found = fit(folder, model, write=False, on_bad="skip", cache=cache, reporter=QUIET)
    assert found.n_train == 60


def test_longer_sounds_are_cut_and_counted(model: str, ragged: Path, cache: Path) -> None:
    for _ in range(2):  # from the cache, too
        found = fit(ragged, model, seconds=0.35, write=False, cache=cache, reporter=QUIET)
        assert any(
            n.startswith("Longer than 0.35 s; the rest is not read: 60 sounds") for n in found.notes
        ), found.notes
    several = fit(ragged, model, seconds=0.2, windows=2, write=False, cache=cache, reporter=QUIET)
    assert any("2 evenly spaced windows are read: 90 sounds" in n for n in several.notes)


@pytest.mark.slow
def test_sweep_over_layers(model: str, ragged: Path, cache: Path) -> None:
    found = sweep(
        ragged, model, cache=cache, layers=",".join(f"model.encoder.layers.{i}" for i in range(3)),
        heads=("linear",), folds=3, write=False, reporter=QUIET,
    )  # fmt: skip
    assert len({each.view for each in found.sweep.candidates}) == 3


@pytest.mark.slow
def test_compare_names_dropout_and_the_mistakes_of_sounds(
    model: str, data: Path, cache: Path
) -> None:
    configs = "eval,dropout,truncated,slowed,unstandardised"
    found = compare(
        data, model, configs=configs, cache=cache, repeats=2, write=False, seconds=1.0,
        reporter=QUIET,
    ).comparison  # fmt: skip
    said = "\n".join(each.text for each in found.findings)
    assert "With dropout, dropout is on in the frozen backbone" in said
    assert "With truncated, nothing is read of a sound behind 0.1 s, instead of 1 s" in said
    assert "With slowed, the network gets 2 times as many samples per second" in said
    assert "With unstandardised, loudness is not brought to that of pre-training" in said
    assert "image" not in said


@pytest.mark.slow
def test_training_refuses_sounds_of_several_lengths_unless_they_are_filled_up(
    model: str, ragged: Path, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        DataError, match=r"differ in length \(0\.3 to 0\.5 s, 3 lengths\)"
    ) as caught:
        finetune(ragged, model, LAST, cache=cache, write=False, reporter=QUIET)
    assert "short='silence'" in str(caught.value.hint)
    done = finetune(
        ragged, model, LAST, cache=cache, out=tmp_path / "run", short="silence", seconds=0.5,
        baselines=False, reporter=QUIET,
    )  # fmt: skip
    assert done.evaluation.accuracy.value > 0.4
    page = (tmp_path / "run" / "report.html").read_text()
    assert "NEW_SOUNDS" in page
    assert not speaks_of_others(page)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wav2vec2", "whisper", "ast"])
def test_the_last_block_from_stored_rows_is_ordinary_training(
    kind: str, data: Path, cache: Path, tmp_path: Path
) -> None:
    folder = f"hf/{save_model(tmp_path / 'm', kind)}"
    losses = []
    for stored in ("on", "off"):
        done = finetune(
            data, folder, LAST, stored=stored, cache=cache, write=False, baselines=False,
            reporter=QUIET,
        )  # fmt: skip
        curve = next(c for c in done.curves if c.name == "train loss")
        losses.append(curve.y)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.slow
def test_examine_shows_spectrograms(model: str, ragged: Path, cache: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ragged, tmp_path / "d")
    copy = (folder / "train" / "tone" / "002.wav").read_bytes()
    (folder / "test" / "tone" / "copy.wav").write_bytes(copy)
    found = examine(folder, model, cache=cache, out=tmp_path / "run", repetitions=2, reporter=QUIET)
    assert found.near_copies or found.leaks
    page = (tmp_path / "run" / "report.html").read_text()
    assert not speaks_of_others(page)


@pytest.mark.slow
def test_clap_begins_with_texts_about_the_classes(data: Path, cache: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", "clap")
    found = fit(
        data, f"hf/{folder}", start="text", prompt="the {} sings", cache=cache, write=False,
        reporter=QUIET,
    )  # fmt: skip
    assert "zero-shot" in [each.name for each in found.baselines]
    assert found.evaluation.accuracy.value > 0.5


def test_estimators_take_paths_and_tables(model: str, data: Path, cache: Path) -> None:
    paths = sorted((data / "train").rglob("*.wav"))
    labels = [path.parent.name for path in paths]
    estimator = TransferClassifier(model, head="ridge", cache=cache).fit(paths, labels)
    assert estimator.score(paths, labels) > 0.6
    table = pd.DataFrame({"clip": [str(p) for p in paths], "n": range(len(paths))})
    named = TransferClassifier(model, head="ridge", cache=cache, image_column="clip")
    assert np.array_equal(named.fit(table, labels).predict(table), estimator.predict(paths))


def test_the_command_line(
    model: str, ragged: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ["fit", str(ragged), "-b", model, "--out", str(tmp_path / "run"), "--seconds", "0.4"]
    monkeypatch.setattr(sys, "argv", ["headstart", *words, "--cache", str(cache)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    out = capsys.readouterr().out
    assert "NEW_SOUNDS" in out
    assert "image" not in out
    monkeypatch.setattr(sys, "argv", ["headstart", "fit", str(ragged), "--cache", str(cache)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code not in (0, None)
    said = capsys.readouterr()
    assert "the data are sounds" in " ".join((said.out + said.err).split())
