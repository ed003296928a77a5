"""Images of 13 bands of 16 bits through every command, as a user."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from headstart.backbones import load_backbone
from headstart.commands import cli
from headstart.core.errors import BackboneError
from headstart.data import Bands

NET = "mobilenetv3_small_050"


def main(arguments: list[str]) -> int:
    """Run a command in this process; returns its exit status."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["headstart", *arguments])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


RANGE = ("--value-range", "0,10000")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``scenes/``: 13 bands, of which the last six tell the class. ``net.safetensors``: RGB."""
    root = tmp_path_factory.mktemp("bands")
    rng = np.random.default_rng(0)
    for label in ("forest", "water"):
        (root / "scenes" / label).mkdir(parents=True)
        for i in range(16):
            values = rng.integers(0, 3000, (20, 24, 13), dtype=np.uint16)
            values[:, :, 7:] += 5000 if label == "forest" else 0
            np.save(root / "scenes" / label / f"scène {i}.npy", values)
    torch.manual_seed(0)
    module = timm.create_model(NET, num_classes=0)
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    save_file(tensors, str(root / "net.safetensors"))
    return root


def net(place: Path, *more: str) -> list[str]:
    return [
        "-b", f"timm/{NET}", "--weights", str(place / "net.safetensors"), "--size", "32",
        "--cache", str(place / "cache"), *more,
    ]  # fmt: skip


ALL = ("--model-args", '{"in_chans": 13}', "--mean", "train", "--std", "train")
THREE = ("--bands", "8,4,3", "--mean", "0.2", "--std", "0.1")


def ran(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert main([str(each) for each in arguments]) == 0
    found = capsys.readouterr()
    return found.out + found.err


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    arguments = ["fit", str(place / "scenes"), *net(place, *ALL), *RANGE, "-o", str(place / "run")]
    assert main(arguments) == 0
    return place / "run"


def test_a_run_keeps_what_it_measured(run: Path) -> None:
    said = json.loads((run / "run.json").read_text())
    inputs = said["backbone"]["preprocessing"]
    assert len(inputs["mean"]) == len(inputs["std"]) == 13
    assert inputs["mean"][7] > inputs["mean"][0] + 0.1
    notes = " ".join(said["notes"])
    assert "normalisation measured on" in notes
    assert "first filters are made for 13 channels" in notes
    assert "all 13 bands from 0 (black) to 1 (white)" in notes
    assert json.loads((run / "metrics.json").read_text())["accuracy"] > 0.8
    assert "data:image/" in (run / "report.html").read_text()


def test_commands_read_their_data_as_the_run_did(
    run: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ("--cache", place / "cache")
    table = tmp_path / "said.csv"
    said = ran(capsys, "predict", run, place / "scenes", *cache, "-o", table)
    assert "value_range=(0, 10000)" in said or "--value-range 0,10000" in said
    rows = list(csv.DictReader(table.open()))
    right = [Path(row["item"]).parts[-2] == row["class"] for row in rows]
    assert len(rows) == 32
    assert np.mean(right) > 0.9
    ran(capsys, "evaluate", run, place / "scenes", *cache, "--include-training")
    more = tmp_path / "more"
    for label in ("forest", "water"):
        (more / label).mkdir(parents=True)
        values = np.load(place / "scenes" / label / "scène 0.npy")
        np.savez(more / label / "one.npz", values[::-1])
    ran(capsys, "update", run, more, *cache, "-o", tmp_path / "updated")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("sweep", ("--layers", "blocks.0,blocks.2")),
        ("compare", ("--repeats", "2", "--configs", "eval,eval+unnormalised")),
        ("examine", ()),
        ("extract", ()),
        ("finetune", ("--epochs", "1", "--views", "2")),
        ("advise", ()),
    ],
)
@pytest.mark.slow
def test_every_command_takes_them(
    command: str, options: tuple[str, ...], place: Path, tmp_path: Path
) -> None:
    out = () if command in ("advise", "extract") else ("-o", str(tmp_path / "out"))
    given = [command, str(place / "scenes"), *net(place, *THREE), *RANGE, *options, *out]
    assert main(given) == 0


def test_a_table_names_them(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "scenes.csv"
    files = sorted((place / "scenes").rglob("*.npy"))
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows((str(path), path.parent.name) for path in files)
    said = ran(
        capsys, "fit", table, *net(place, *THREE), *RANGE, "-o", tmp_path / "run", "--head", "ridge"
    )
    assert "bands 8, 4, 3" in said


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        (("--mean", "0.5", "--std", "0.5", *RANGE), ("13 bands", "--bands 3,2,1", "in_chans")),
        (THREE, ("--value-range",)),
        ((*THREE[2:], "--bands", "8,4", *RANGE), ("2 bands", "3 channels")),
        (("--model-args", '{"in_chans": 13}', *RANGE), ("mean, std", "--mean train")),
        ((*ALL[:2], "--mean", "0.5,0.5", "--std", "1", *RANGE), ("mean has 2 numbers",)),
    ],
)
def test_what_is_not_known_is_asked_for_with_the_ways(
    options: tuple[str, ...], ways: tuple[str, ...], place: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code = main(["fit", str(place / "scenes"), *net(place, *options), "-o", str(tmp_path / "run")])
    said = " ".join(capsys.readouterr().err.split())
    assert code != 0
    for way in ways:
        assert way in said, said


def test_bands_need_a_backbone_that_is_named(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(place / "scenes"), "--bands", "1,2,3"]) != 0
    assert "--bands needs a named backbone" in " ".join(capsys.readouterr().err.split())


def test_one_channel_of_timm_is_three_channels_of_the_same_grey(place: Path) -> None:
    """The first filters are summed: a grey image gives the features of its three copies."""
    given: dict[str, Any] = {"weights": place / "net.safetensors", "size": 32, "mean": 0.4}
    one = load_backbone(f"timm/{NET}", model_args={"in_chans": 1}, std=0.2, **given)
    three = load_backbone(f"timm/{NET}", bands=(1, 1, 1), std=0.2, **given)
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    rows = []
    for backbone in (one, three):
        inputs = backbone.inputs
        with torch.no_grad():
            batch = inputs.finish(inputs.collate([inputs.sample(each) for each in x]))
            rows.append(backbone.features(batch))
    assert torch.allclose(rows[0], rows[1], atol=1e-5)


def test_files_of_as_many_channels_are_loaded_as_they_are(place: Path, tmp_path: Path) -> None:
    module = timm.create_model(NET, num_classes=0, in_chans=4)
    file = tmp_path / "four.safetensors"
    save_file({n: t.contiguous() for n, t in module.state_dict().items()}, str(file))
    given: dict[str, Any] = {"weights": file, "size": 32, "mean": 0.5, "std": 0.5}
    found = load_backbone(f"timm/{NET}", model_args={"in_chans": 4}, **given)
    assert torch.equal(found.module.conv_stem.weight, module.conv_stem.weight)
    assert not any("first filters" in note for note in found.notes)
    with pytest.raises(BackboneError, match="conv_stem"):
        load_backbone(f"timm/{NET}", **given)


def test_a_module_of_ones_own_says_how_many_channels(place: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(5, 8, 3), torch.nn.Flatten())
    found = load_backbone(module, in_channels=5, size=8, mean=0.5, std=0.5)
    assert isinstance(found.inputs, Bands)
    assert found.feature_shape() == (8 * 36,)


def test_16_bit_pngs_say_that_their_lower_bits_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(6):
            values = rng.integers(0, 65536, (16, 16), dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / "data" / label / f"{i}.png")
    given = ("fit", tmp_path / "data", "-b", "headstart/glyphs", "--cache", tmp_path / "cache")
    said = ran(capsys, *given, "-o", tmp_path / "run")
    assert "the upper 8" in said
    assert "--bands 1,1,1" in said
    said = ran(capsys, *given, "--bands", "1,1,1", "-o", tmp_path / "deep")
    assert "the upper 8" not in said
