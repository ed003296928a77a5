"""``headstart sweep --backbones``: names, patterns, options, failures, what is kept, and choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import headstart
from headstart.backbones.families import timm_models
from headstart.commands.cli import app
from headstart.commands.settings import BackboneSpec
from headstart.commands.sweep.rank import job, named, probe
from headstart.commands.sweep.rank.named import named_backbones, read_options
from headstart.commands.sweep.rank.probe import Probe
from headstart.commands.sweep.rank.ranking import rank_probes
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import SilentReporter

NET = """
import torch
from torch import nn
from headstart.data.preprocessing import Preprocessing

def small():
    convolution = nn.Conv2d(3, 6, 5, stride=2)
    weights = torch.linspace(-1, 1, 450).sin().reshape(6, 3, 5, 5)
    convolution.load_state_dict({"weight": weights, "bias": torch.zeros(6)})
    net = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return net, Preprocessing(mean=0.5, std=0.5, size=16, crop_fraction=1.0)

def broken():
    raise RuntimeError("CUDA out of memory: a test")
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder of two classes that are told by their brightness."""
    rng = np.random.default_rng(0)
    for split, each in (("train", 12), ("test", 3)):
        for label, level in (("dark", 60), ("light", 190)):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for i in range(each):
                pixels = np.clip(rng.normal(level, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    return tmp_path / "data"


def run(pictures: Path, *backbones: str, **more: Any) -> job.RankResult:
    return headstart.rank(
        pictures,
        backbones,
        cache=pictures.parent / "cache",
        reporter=SilentReporter(),
        **{"write": False, **more},
    )


def made(right: list[int], milliseconds: float = 1.0, **more: Any) -> Probe:
    """Return a probe that is right where it is said, of items that are all of class 1."""
    scores = more.pop("scores", {"LogME": float(np.mean(right))})
    labels = np.ones(len(right), np.int64)
    return Probe(
        np.array(right), labels, 8, milliseconds, more.pop("mb", 1.0), "", scores, ("linear",)
    )


GOOD, SAME, BAD = [1] * 95 + [0] * 5, [1] * 93 + [0] * 7, [1] * 60 + [0] * 40


def test_the_cheaper_of_what_cannot_be_told_apart_is_recommended() -> None:
    found = rank_probes([("best", made(GOOD, 9)), ("cheap", made(SAME, 2)), ("bad", made(BAD, 1))])
    assert [row.name for row in found.rows] == ["best", "cheap", "bad"]
    assert [row.apart for row in found.rows] == [False, False, True]
    assert [row.on_front for row in found.rows] == [True, True, True]
    assert found.recommended == "cheap"
    assert "cannot be distinguished from the most accurate, best (95.0 %)" in found.reason
    assert found.correlations["LogME"] == pytest.approx(1.0)


def test_ties_go_to_the_cheaper_the_lighter_and_the_first() -> None:
    equal = [("a", made(GOOD, 2)), ("b", made(GOOD, 1)), ("c", made(GOOD, 1, mb=0.5))]
    assert rank_probes(equal).recommended == "c"
    same = [("x", made(GOOD)), ("y", made(GOOD))]
    assert rank_probes(same).recommended == "x"
    assert rank_probes(same[::-1]).recommended == "y"


def test_what_another_beats_in_both_is_not_on_the_front() -> None:
    found = rank_probes(
        [("best", made(GOOD, 1)), ("worse", made(SAME, 2)), ("equal", made(GOOD, 1))]
    )
    assert {row.name: row.on_front for row in found.rows} == {
        "best": True, "equal": True, "worse": False,
    }  # fmt: skip


def test_nothing_that_could_be_tried_is_no_recommendation() -> None:
    found = rank_probes([("a", "no weights"), ("b", "out of memory")])
    assert found.recommended is None
    assert [row.why for row in found.rows] == ["no weights", "out of memory"]
    one = rank_probes([("a", "no weights"), ("b", made(GOOD))])
    assert one.recommended == "b"
    assert one.correlations == {"LogME": None}


def test_a_pattern_is_bounded_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"resnet{i}.{tag}" for i in range(40) for tag in ("a1", "a2")] + ["vit.x"]
    monkeypatch.setattr(timm_models, "timm_names", lambda: names)
    family = next(one for one in named.families() if one.name == "timm")
    monkeypatch.setattr(named, "families", lambda: (_with_names(family, names),))
    found, notes = named_backbones(["timm/resnet*", "timm/vit*"], BackboneSpec(), {}, 5)
    assert [one.name for one in found] == [
        *(f"timm/resnet{i}.a1" for i in range(5)), "timm/vit.x",
    ]  # fmt: skip
    (note,) = notes
    assert "'timm/resnet*' matches 80 backbones" in note
    assert "most=5" in note
    (none,), said = named_backbones(["timm/nothing*"], BackboneSpec(), {}, 5)
    assert none.spec is None
    assert "matches no backbone" in none.why
    assert not said


def _with_names(family: Any, names: list[str]) -> Any:
    import dataclasses

    return dataclasses.replace(family, names=lambda: names)


def test_a_pattern_loads_no_library_of_another_family() -> None:
    found, _ = named_backbones(["headstart/*"], BackboneSpec(), {}, 12)
    assert "headstart/glyphs" in [one.name for one in found]
    assert all(one.name.startswith("headstart/") for one in found)


def test_options_of_single_backbones(tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text(
        '["timm/resnet18"]\nweights = "w.safetensors"\nmean = [0.1, 0.2, 0.3]\nsize = 64\n'
        '["early"]\nbackbone = "headstart/glyphs"\nlayer = "stage2.0"\n',
        encoding="utf-8",
    )
    base = BackboneSpec(size=32)
    names = ["timm/resnet18", "early", "headstart/glyphs"]
    found, _ = named_backbones(names, base, read_options(file), 12)
    first, early, plain = (one.spec for one in found)
    assert first is not None
    assert early is not None
    assert plain is not None
    assert (first.weights, first.mean, first.size) == (
        str(tmp_path / "w.safetensors"), (0.1, 0.2, 0.3), 64,
    )  # fmt: skip
    assert (early.source, early.layer, early.size) == ("headstart/glyphs", "stage2.0", 32)
    assert (plain.source, plain.layer, plain.size) == ("headstart/glyphs", None, 32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["headstart/glyphs"]\nlayr = "x"\n', "no option 'layr' (did you mean 'layer')"),
        ('glyphs = "x"\n', "must be a table"),
        ("[[[", "cannot be read"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "options.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_options(file)
    assert expected in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_options(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match=r"'glyphs'.*not among the backbones.*headstart/glyphs"):
        named_backbones(["headstart/glyphs"], BackboneSpec(), {"glyphs": {}}, 3)


def test_options_in_python_are_checked_as_those_of_a_file(pictures: Path) -> None:
    wrong: dict[str, Any] = {"headstart/glyphs": {"sise": 32, "own_module": True}}
    with pytest.raises(ConfigError, match=r"have no 'sise' \(did you mean 'size'\)") as caught:
        run(pictures, "headstart/glyphs", options=wrong)
    assert len(caught.value.faults) == 2
    with pytest.raises(ConfigError, match="must be a mapping"):
        run(pictures, "headstart/glyphs", options={"headstart/glyphs": 32})


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('["headstart/glyphs"]\nsize = 64\n', encoding="utf-8-sig")
    assert read_options(file) == {"headstart/glyphs": {"size": 64}}


def test_backbones_that_fail_are_rows_that_say_why(pictures: Path) -> None:
    net = pictures.parent / "net.py"
    options = {"headstart/glyphs": {"weights": str(pictures.parent / "missing.safetensors")}}
    found = run(
        pictures, "timm/resnet", f"{net}:broken", f"{net}:small", "headstart/glyphs",
        options=options,
    ).ranking  # fmt: skip
    why = {row.name: row.why for row in found.rows}
    assert found.recommended == f"{net}:small"
    assert "knows no model 'resnet'" in why["timm/resnet"]
    assert "out of memory" in why[f"{net}:broken"]
    assert "no weights file" in why["headstart/glyphs"]
    assert all("\n" not in line for line in why.values())


def test_a_second_call_computes_nothing(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net = f"{pictures.parent / 'net.py'}:small"
    first = run(pictures, net, "headstart/glyphs", out=tmp_path / "run", write=True)
    assert first.folder is not None
    assert {"report.html", "cost.png", "sweep.json"} <= {p.name for p in first.folder.iterdir()}

    def fails(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed again")

    for name in ("Extractor", "nested_cross_validation", "_seconds_per_item", "log_evidence"):
        monkeypatch.setattr(probe, name, fails)
    again = run(pictures, net, "headstart/glyphs", out=tmp_path / "run", write=True)
    for before, now in zip(first.ranking.rows, again.ranking.rows, strict=True):
        assert before.probe is not None
        assert now.probe is not None
        assert (before.name, before.accuracy) == (now.name, now.accuracy)
        assert before.probe.milliseconds == now.probe.milliseconds
        assert now.probe.found
    assert again.ranking.recommended == first.ranking.recommended
    other = run(pictures, net, seeds=(1,)).ranking.rows  # an error of a backbone is its row
    assert other[0].why == "AssertionError: computed again"


def test_an_interrupted_call_goes_on(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = f"{pictures.parent / 'net.py'}:small"
    plain, seen = probe._probe, []

    def interrupted(network: Any, *rest: Any) -> Probe:
        seen.append(network.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return plain(network, *rest)

    monkeypatch.setattr(probe, "_probe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(pictures, net, "headstart/glyphs")
    found = run(pictures, net, "headstart/glyphs").ranking
    assert seen == [net, "headstart/glyphs", "headstart/glyphs"]
    probes = {row.name: row.probe for row in found.rows}
    assert probes[net].found
    assert not probes["headstart/glyphs"].found
    assert probes["headstart/glyphs"].computed == 0  # its rows had been embedded


def test_an_unforeseen_error_of_one_does_not_end_the_others(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = job.probe_backbone

    def probed(spec: BackboneSpec, *more: Any) -> Probe:
        if spec.source == "headstart/photos":
            raise KeyError("missing")
        return real(spec, *more)

    monkeypatch.setattr(job, "probe_backbone", probed)
    found = run(pictures, "headstart/photos", "headstart/glyphs").ranking
    assert found.recommended == "headstart/glyphs"
    assert {row.name: row.why for row in found.rows}["headstart/photos"] == "KeyError: 'missing'"


def test_memory_that_runs_out_does_not_lose_the_others(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = probe._probe

    def too_large(network: Any, *rest: Any) -> Probe:
        if network.name == "headstart/glyphs":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return plain(network, *rest)

    monkeypatch.setattr(probe, "_probe", too_large)
    net = f"{pictures.parent / 'net.py'}:small"
    found = run(pictures, "headstart/glyphs", net).ranking
    assert found.recommended == net
    assert found.rows[-1].why == "out of memory: a smaller batch_size may help"


def test_faults_of_the_data_and_of_settings_are_errors(pictures: Path) -> None:
    with pytest.raises(DataError):
        run(pictures.parent / "nothing", "headstart/glyphs")
    with pytest.raises(ConfigError, match="layers and poolings"):
        run(pictures, "headstart/glyphs", layers=("stage1",))
    with pytest.raises(ConfigError, match=r"headstart\.rank"):
        headstart.sweep(pictures, backbones=("headstart/glyphs",), reporter=SilentReporter())
    with pytest.raises(ConfigError, match="backbone_options requires backbones"):
        headstart.sweep(pictures, backbone_options="options.toml", reporter=SilentReporter())


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"grid": (1.0,)}, "grid and standardise"),
        ({"standardise": (True, False)}, "grid and standardise"),
        ({"seeds": (0, 1)}, "seeds must be a single seed"),
        ({"backbone": BackboneSpec("headstart/photos")}, "given as well as backbones"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    pictures: Path, settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault) as caught:
        run(pictures, "headstart/glyphs", **settings)
    assert caught.value.hint is None


@pytest.mark.parametrize("names", ["", ","])
def test_no_names_are_not_no_option(pictures: Path, names: str) -> None:
    found = CliRunner().invoke(app, ["sweep", str(pictures), "--backbones", names])
    assert "--backbones takes names with commas" in str(found.exception)


def test_the_test_split_is_not_touched(pictures: Path) -> None:
    net = f"{pictures.parent / 'net.py'}:small"
    before = run(pictures, net).ranking.rows[0]
    for path in (pictures / "test").rglob("*.png"):
        Image.new("RGB", (16, 16)).save(path)
    after = run(pictures, net).ranking.rows[0]
    assert before.probe is not None
    assert after.probe is not None
    assert after.probe.found
    assert len(before.probe.labels) == 24


def test_the_command(pictures: Path, tmp_path: Path) -> None:
    net = f"{pictures.parent / 'net.py'}:small"
    words = [
        "sweep", str(pictures), "--backbones", f"{net},headstart/nothing",
        "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "recommended: " in shown.output
    assert "not tried" in shown.output
    assert "is the only backbone that was tried" in shown.output
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert ">not tried</th>" in page
    assert "headstart fit" in shown.output
    told = CliRunner().invoke(app, [*words, "--json"])
    document = json.loads(told.stdout)
    assert document["backbones"][0]["found"]
    assert "knows no model 'nothing'" in document["backbones"][1]["why"]
