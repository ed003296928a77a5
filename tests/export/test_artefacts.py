"""Artefacts predict as their run, from the file on, without headstart, or are not made."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import headstart
from headstart.commands.export.job import export
from headstart.core.errors import BackboneError, ConfigError, DataError
from headstart.data import Preprocessing
from headstart.export.artefact import read_artefact
from headstart.export.formats import FORMATS
from headstart.export.parity import outputs_alone
from headstart.export.scripts import images
from headstart.export.scripts.run_safetensors import call_of
from tests.export.conftest import GLYPHS, QUIET
from tests.text_models import questions, save_sentence_model

TORCH_FORMATS = ["onnx", "openvino", "pt2", "safetensors"]


EACH = ["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in TORCH_FORMATS[1:])]


@pytest.fixture(scope="module")
def made(place: Path) -> Callable[[str], Path]:
    """Exports the run, once in every format that is asked for."""

    @functools.cache
    def folder(name: str) -> Path:
        return export(
            place / "run", name, output=place / name, items=10, cache=place / "cache",
            reporter=QUIET,
        ).folder  # fmt: skip

    return folder


def test_the_formats() -> None:
    assert list(FORMATS) == [*TORCH_FORMATS, "keras"]


@pytest.mark.parametrize("name", EACH)
def test_an_artefact_predicts_as_its_run(
    name: str, made: Callable[[str], Path], place: Path
) -> None:
    files = sorted((place / "data").rglob("*.*"))
    expected = headstart.predict(
        [str(file) for file in files], place / "run", cache=place / "cache", reporter=QUIET
    )
    found = outputs_alone(made(name), [file.read_bytes() for file in files])
    np.testing.assert_allclose(found, np.asarray(expected.probabilities), atol=1e-5)
    said = read_artefact(made(name))
    assert said["classes"] == ["dark", "light <b>|`x`"]
    assert said["any_number"]
    assert said["parity"]["items"] == 10
    assert said["parity"]["same"] == 10
    assert 0 <= said["parity"]["largest"] <= said["parity"]["tolerance"] == 1e-4
    assert said["parity"]["data"] == "data"
    assert not (made(name) / "__pycache__").exists()


@pytest.mark.parametrize("name", EACH)
def test_the_script_needs_no_headstart(name: str, made: Callable[[str], Path]) -> None:
    text = (made(name) / "predict.py").read_text(encoding="utf-8")
    imported = [
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert imported
    assert not [each for each in imported if str(each).startswith("headstart")]
    words = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", "-q"]
    done = subprocess.run([*words, str(made(name) / "predict.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_script_as_a_user_runs_it(made: Callable[[str], Path], place: Path) -> None:
    files = [*sorted((place / "data" / "dark").iterdir())[:2], place / "missing.png"]
    broken = place / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no image")
    words = [sys.executable, str(made("onnx") / "predict.py"), *map(str, files), str(broken)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["item"] for line in lines] == [str(file) for file in files[:2]]
    assert sum(lines[0]["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert lines[0]["class"] in lines[0]["probabilities"]
    errors = done.stderr.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("error: ") for line in errors)


def test_what_differs_is_not_written(place: Path) -> None:
    target = place / "too-strict"
    with pytest.raises(DataError, match=r"differs from the run by .* more than the tolerance of"):
        export(
            place / "run", "onnx", output=target, tolerance=1e-12, items=2,
            cache=place / "cache", reporter=QUIET,
        )  # fmt: skip
    assert not target.exists()
    assert not list(place.glob("*too-strict*"))


def test_a_taken_folder_and_lost_data_are_said_before_any_work(
    made: Callable[[str], Path], place: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"already exists, and nothing is overwritten"):
        export(place / "run", "onnx", output=made("onnx"), cache=place / "cache", reporter=QUIET)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"cannot be created: '.*file' is a file"):
        export(place / "run", "onnx", output=tmp_path / "file" / "below", reporter=QUIET)
    run = json.loads((place / "run" / "run.json").read_text())
    moved = tmp_path / "run"
    moved.mkdir()
    for path in (place / "run").iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    run["command"] = run["command"].replace(str(place / "data"), str(tmp_path / "gone"))
    (moved / "run.json").write_text(json.dumps(run))
    with pytest.raises(ConfigError, match=r"cannot be read again .* checked on real items"):
        export(moved, "onnx", cache=place / "cache", reporter=QUIET)
    picture = next((place / "data" / "dark").iterdir())
    done = export(moved, "onnx", data=str(picture), cache=place / "cache", reporter=QUIET)
    assert done.folder == tmp_path / "run-onnx"
    assert done.parity.items == 1


def test_a_changed_file_is_refused(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "artefact"
    folder.mkdir()
    for path in made("onnx").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    read_artefact(folder)
    (folder / "predict.py").write_text("print('other')")
    with pytest.raises(DataError, match=r"predict\.py' is not the file that model\.json"):
        read_artefact(folder)
    (folder / "model.json").write_text("[")
    with pytest.raises(DataError, match=r"model\.json' cannot be used"):
        read_artefact(folder)


@pytest.mark.slow
def test_texts_take_their_tokenizer_along(tmp_path: Path) -> None:
    folder = save_sentence_model(tmp_path / "model", prompt="query: ")
    texts, names = questions(60)
    rows = "".join(f'"{text}",{name}\n' for text, name in zip(texts, names, strict=True))
    (tmp_path / "data.csv").write_text("text,label\n" + rows)
    cache = {"cache": tmp_path / "cache", "reporter": QUIET}
    headstart.fit(
        str(tmp_path / "data.csv"), f"hf/{folder}", head="knn", out=tmp_path / "run", **cache
    )
    expected = np.asarray(headstart.predict(texts, tmp_path / "run", **cache).probabilities)
    for name in ("onnx", "safetensors"):
        done = export(tmp_path / "run", name, output=tmp_path / name, items=8, **cache)
        assert done.files["tokenizer.json"] > 100
        np.testing.assert_allclose(outputs_alone(done.folder, texts), expected, atol=1e-4)
    words = [sys.executable, str(tmp_path / "onnx" / "predict.py"), texts[0], " "]
    said = subprocess.run(words, capture_output=True, text=True)
    assert json.loads(said.stdout)["class"] in ("animal", "thing")
    assert said.stderr.strip() == "error:  : the text is empty"


def test_values_of_black_and_white_are_not_guessed(place: Path, tmp_path: Path) -> None:
    run = headstart.fit(
        str(place / "data"), GLYPHS, value_range=(0, 200), write=False,
        cache=place / "cache", reporter=QUIET,
    )  # fmt: skip
    with pytest.raises(BackboneError, match="0 as black and 200 as white"):
        export(run, "onnx", output=tmp_path / "x", cache=place / "cache", reporter=QUIET)


def test_a_network_that_is_no_keras_model(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras_model = importlib.import_module("headstart.export.keras_model")
    monkeypatch.delattr(keras_model, "load_keras")  # whatever Keras is set to
    with pytest.raises(BackboneError, match="is not a Keras model"):
        export(place / "run", "keras", output=tmp_path / "x", cache=place / "cache", reporter=QUIET)


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"]


SIZES = [(40, 30), (9, 50), (50, 9), pytest.param((2100, 2000), marks=pytest.mark.slow)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_the_script_reads_pixels_as_headstart_does(
    mode: str, size: tuple[int, int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    width, height = size
    noise = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(noise[..., 0].astype(np.float32) / 255)
    elif mode == "PA":
        image = Image.fromarray(noise, "RGBA").convert("PA")
    else:
        image = Image.fromarray(noise, "RGBA").convert(mode)
    suffix = {"CMYK": "tif", "YCbCr": "tif", "F": "tif", "PA": "tif"}.get(mode, "png")
    path = tmp_path / f"image.{suffix}"
    try:
        image.save(path)
    except OSError:
        pytest.skip(f"Pillow writes no {mode}")
    for inputs in (
        Preprocessing((24, 24), 0.5, 0.5, crop_fraction=0.875),  # type: ignore[arg-type]
        Preprocessing((20, 32), 0.5, 0.5, resize="squash", interpolation="lanczos"),  # type: ignore[arg-type]
    ):
        settings = {**inputs.values(), "box": list(inputs.box)}
        found = images.read([path], settings, tmp_path)["pixels"][0]
        np.testing.assert_array_equal(found, inputs.sample(path.read_bytes()))


@pytest.mark.parametrize(
    "name",
    ["os.system", "aten.__class__.x", "aten.add", "prim.device.default", "operator.attrgetter",
     "aten.add.Tensor.x", "builtins.eval", "aten.add.__call__", "aten..default", "",
     "aten.add.overloads", "aten.from_file.default"],
)  # fmt: skip
def test_a_list_of_operators_names_nothing_else(name: str) -> None:
    with pytest.raises(ValueError, match="not an ATen operator"):
        call_of(name)
    assert call_of("aten.add.Tensor") is torch.ops.aten.add.Tensor
