"""A run folder comes from anybody: opening it, predicting and evaluating run none of its code."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import headstart
from headstart.commands.saved_run import open_run
from headstart.core.errors import BackboneError, DataError, HeadstartError
from headstart.core.progress import SilentReporter

CODE = """
import pathlib
import torch

pathlib.Path(__file__).with_name("was_run").touch()


def make(width=4):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
"""
INPUTS = {"mean": 0.5, "std": 0.5, "size": 8}


def pictures(n: int) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(n).integers(0, 90, (n, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(n) % 2
    return noise + (labels * 120).astype(np.uint8)[:, None, None, None], labels


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``net.py`` and a run that was made with it; the mark of its run removed."""
    place = tmp_path_factory.mktemp("stranger")
    (place / "net.py").write_text(CODE)
    fit(place, f"{place / 'net.py'}:make")
    (place / "was_run").unlink()
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """The same elsewhere: ``run.json`` names the files of this place."""
    shutil.copytree(made, tmp_path / "place")
    edit(tmp_path / "place", lambda run: _moved(run, str(made), str(tmp_path / "place")))
    return tmp_path / "place"


def fit(place: Path, backbone: str, **more: Any) -> None:
    headstart.fit(
        {"train": pictures(24), "test": pictures(12)},
        backbone,
        out=place / "run",
        cache=place / "cache",
        baselines=False,
        reporter=SilentReporter(),
        **{**INPUTS, **more},
    )


def edit(place: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = place / "run" / "run.json"
    run = json.loads(path.read_text())
    run = change(run) or run
    path.write_text(json.dumps(run))


def _moved(value: Any, old: str, new: str) -> Any:
    return json.loads(json.dumps(value).replace(old, new))


def predict(place: Path, **more: Any) -> Any:
    return headstart.predict(
        pictures(3)[0], place / "run", cache=place / "cache", reporter=SilentReporter(), **more
    )


def evaluate(place: Path, **more: Any) -> Any:
    return headstart.evaluate(
        pictures(6), place / "run", cache=place / "cache", reporter=SilentReporter(), **more
    )


def ran(place: Path) -> bool:
    return any(place.rglob("was_run"))


@pytest.mark.parametrize("job", [predict, evaluate])
def test_code_is_refused_before_it_is_imported_and_runs_where_it_is_trusted(place, job):
    with pytest.raises(BackboneError, match=r"net\.py.*trust_code=True"):
        job(place)
    opened = open_run(place / "run")
    with pytest.raises(BackboneError, match="trust_code=True"):
        opened.load_backbone()
    assert not ran(place)
    job(place, trust_code=True)
    assert ran(place)


def test_trust_can_be_given_on_opening(place):
    open_run(place / "run", trust_code=True).load_backbone()
    assert ran(place)


@pytest.mark.parametrize("job", [predict, evaluate])
def test_trusted_code_is_the_code_that_the_run_was_made_with(place, job):
    (place / "net.py").write_text(CODE + "\n# another")
    with pytest.raises(BackboneError, match="has changed since"):
        job(place, trust_code=True)
    assert not ran(place)
    job(place, backbone=f"{place / 'net.py'}:make")  # the user's own word
    assert ran(place)


def test_code_of_the_same_size_and_time_is_still_other_code(place):
    file = place / "net.py"
    before = file.stat()
    file.write_text(CODE.replace("seed(0)", "seed(1)"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BackboneError, match="has changed since"):
        predict(place, trust_code=True)
    assert not ran(place)


def test_a_compiled_file_beside_the_code_is_not_taken_for_it(place):
    import importlib.util
    import py_compile

    evil = place / "evil.py"
    evil.write_text(CODE.replace("was_run", "was_run_compiled"))
    cached = Path(importlib.util.cache_from_source(str(place / "net.py")))
    cached.parent.mkdir(exist_ok=True)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(evil), cfile=str(cached), invalidation_mode=mode)
    predict(place, trust_code=True)
    assert (place / "was_run").exists()
    assert not (place / "was_run_compiled").exists()


def test_an_old_run_folder_has_no_digest_of_its_code_and_says_so(place):
    edit(place, lambda run: {**run, "format": 2, "built_from": {}})
    (note,) = open_run(place / "run").notes
    assert "no digest of the code" in note
    with pytest.raises(BackboneError, match="trust_code=True"):
        predict(place)
    assert not ran(place)
    predict(place, trust_code=True)


def test_a_folder_that_was_moved_with_its_code_still_works(place, tmp_path):
    shutil.move(place / "net.py", place / "run" / "net.py")
    with pytest.raises(BackboneError, match="trust_code=True"):
        predict(place)
    predict(place, trust_code=True)


@pytest.mark.parametrize(
    "source",
    [
        "net.py:make",
        "./net.py:make",
        "../place/net.py:make",
        "run/../net.py:make",
        "~/net.py:make",
        "~nobody-of-this-name/net.py:make",
        "net.py:make.__globals__",
        "//host/share/net.py:make",
        "\\\\host\\share\\net.py:make",
        "http://host/net.py:make",
        "net\0.py:make",
        "timm/hf-hub:someone/net",
        "timm/hf_hub:someone/net",
        "timm/local-dir:.",
        "hf-hub:someone/net",
        "torch.hub:someone/net",
        "os:system",
        "",
    ],
)
def test_no_other_spelling_of_a_source_runs_code(place, monkeypatch, source):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    edit(place, lambda run: run["backbone"].update(source=source))
    for trust in (False, True) if ".py:" not in source else (False,):
        with pytest.raises(HeadstartError):
            predict(place, trust_code=trust)
    assert not ran(place)


def test_the_run_folder_that_names_a_digest_of_its_own_is_refused_all_the_same(place):
    """A stranger can write the digest of the stranger's code: trust is asked for first."""
    evil = place / "run" / "evil.py"
    evil.write_text(CODE)
    from headstart.core.fingerprints import stamp

    edit(place, lambda run: run.update(built_from={"code": stamp(evil)}))
    edit(place, lambda run: run["backbone"].update(source=f"{evil}:make"))
    with pytest.raises(BackboneError, match="trust_code=True"):
        predict(place)
    assert not ran(place)


# -- weights and other files ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose backbone has a file of weights of the user's own."""
    import timm

    place = tmp_path_factory.mktemp("weights")
    network = timm.create_model("test_resnet", num_classes=0)
    save(network.state_dict(), place / "own.safetensors")
    fit(place, "timm/test_resnet", weights=str(place / "own.safetensors"), size=32)
    return place


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, path)


@pytest.fixture
def heavy(weighed: Path, tmp_path: Path) -> Path:
    shutil.copytree(weighed, tmp_path / "place")
    edit(tmp_path / "place", lambda run: _moved(run, str(weighed), str(tmp_path / "place")))
    return tmp_path / "place"


def test_the_weights_that_the_run_was_made_with_are_read(heavy):
    assert len(predict(heavy)) == 3


def test_other_weights_are_not_opened(heavy, monkeypatch):
    secret = heavy.parent / "secret.safetensors"
    shutil.copy(heavy / "own.safetensors", secret)
    edit(heavy, lambda run: {**run, "built_from": {}})
    for name in (str(secret), "../secret.safetensors", "run/../../secret.safetensors"):
        monkeypatch.chdir(heavy)
        edit(heavy, lambda run, name=name: run["backbone"].update(weights=name))
        with pytest.raises(DataError, match=r"not opened.*weights='FILE'"):
            predict(heavy)
    assert len(predict(heavy, weights=str(secret))) == 3  # the user's own word


def test_a_link_in_the_folder_leads_nowhere_else(heavy):
    (heavy / "run" / "w.safetensors").symlink_to(heavy / "own.safetensors")
    edit(heavy, lambda run: {**run, "built_from": {}})
    name = str(heavy / "run" / "w.safetensors")
    edit(heavy, lambda run: run["backbone"].update(weights=name))
    with pytest.raises(DataError, match="not opened"):
        predict(heavy)


def test_changed_weights_are_refused_and_moved_ones_can_be_given(heavy):
    tensors = safetensors.torch.load_file(heavy / "own.safetensors")
    tensors["conv1.0.weight" if "conv1.0.weight" in tensors else next(iter(tensors))] += 1
    shutil.move(heavy / "own.safetensors", heavy / "moved.safetensors")
    with pytest.raises(DataError, match=r"weights file .* no longer exists.*weights='FILE'"):
        predict(heavy)
    assert len(predict(heavy, weights=str(heavy / "moved.safetensors"))) == 3
    save(tensors, heavy / "own.safetensors")
    with pytest.raises(DataError, match="are not those that the run"):
        predict(heavy)
    with pytest.raises(DataError, match="not the one that"):
        predict(heavy, weights=str(heavy / "own.safetensors"))


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "address"])
def test_a_weights_file_that_is_none_ends_in_one_line(heavy, kind):
    path = heavy / "odd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    name = {"device": "/dev/zero", "address": "//host/share/w.safetensors"}.get(kind, str(path))
    edit(heavy, lambda run: run["backbone"].update(weights=name))
    edit(heavy, lambda run: run["built_from"]["weights"].update(path=name))
    with pytest.raises(DataError) as raised:
        predict(heavy)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"pretrained_cfg": {"file": "/etc/hostname"}},
        {"pretrained_cfg": {"url": "http://host/x.pth"}},
        {"pretrained_cfg_overlay": {"hf_hub_id": "someone/net"}},
        {"pretrained_cfg": "other_tag"},
        {"checkpoint_path": "x.pth"},
        {"cache_dir": "elsewhere"},
        {"anything": "../x"},
        {"anything": {"deep": ["C:\\x"]}},
        {"anything": [["http://host"]]},
    ],
)
def test_arguments_of_the_network_name_no_places(heavy, arguments):
    edit(heavy, lambda run: run["backbone"].update(model_args=arguments))
    with pytest.raises(BackboneError, match=r"model_args.*may name a file or an address"):
        predict(heavy)


def test_values_of_the_inputs_name_no_places(heavy):
    edit(heavy, lambda run: run["backbone"]["preprocessing"].update(tokenizer="../x"))
    with pytest.raises(BackboneError, match=r"preprocessing\.tokenizer.*may name a file"):
        predict(heavy)


@pytest.mark.parametrize("name", ["run.json", "head.json", "head.safetensors"])
def test_links_out_of_the_folder_are_not_followed(heavy, name):
    outside = heavy / name
    shutil.move(heavy / "run" / name, outside)
    (heavy / "run" / name).symlink_to(outside)
    with pytest.raises(DataError, match="outside its folder"):
        predict(heavy)


def test_a_link_to_a_device_is_not_read(heavy):
    (heavy / "run" / "head.safetensors").unlink()
    (heavy / "run" / "head.safetensors").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="outside its folder"):
        open_run(heavy / "run")


# -- the command line -----------------------------------------------------------------------------


def test_the_command_names_its_flag(place, monkeypatch, capsys, tmp_path):
    from PIL import Image

    from headstart.commands import cli

    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    words = ["predict", str(place / "run"), str(tmp_path / "one.png"), "--cache", str(place / "c")]
    monkeypatch.setattr("sys.argv", ["headstart", *words])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert "--trust-code" in said
    assert "Traceback" not in said
    assert not ran(place)
    monkeypatch.setattr("sys.argv", ["headstart", *words, "--trust-code"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    assert ran(place)


def test_the_next_commands_of_a_run_of_ones_own_say_what_they_need(tmp_path):
    (tmp_path / "net.py").write_text(CODE)
    data = {"train": pictures(24), "test": pictures(12)}
    more: Any = {**INPUTS, "cache": tmp_path / "cache", "baselines": False}
    run = headstart.fit(data, f"{tmp_path / 'net.py'}:make", out=tmp_path / "run", **more)
    assert all("--trust-code" in command for _, command in run.commands.later)
    plain = headstart.fit(data, out=tmp_path / "plain", cache=tmp_path / "cache", baselines=False)
    assert not any("--trust-code" in command for _, command in plain.commands.later)
