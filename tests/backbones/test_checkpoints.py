"""Checkpoints as people have them: every usual form loads, or the refusal says what to do."""

from __future__ import annotations

import argparse
import collections
import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from typer.testing import CliRunner

from headstart.backbones import load_backbone
from headstart.commands.cli import app
from headstart.commands.settings import BackboneSpec
from headstart.core.errors import BackboneError, ConfigError

COLOURS = {"mean": 0.5, "std": 0.5, "size": 64}
NAME = "timm/resnet10t"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=5)


@pytest.fixture(scope="module")
def state(whole: nn.Module) -> State:
    return whole.state_dict()


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def other(state: State) -> State:
    return {name: tensor + 1 for name, tensor in state.items()}


def trunk(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def projected(state: State, prefix: str = "") -> State:
    head = {f"{prefix}fc.0.weight": torch.ones(4, 512), f"{prefix}fc.2.bias": torch.ones(4)}
    return under(prefix, trunk(state)) | head


def timm_training(state: State, **more: Any) -> dict[str, Any]:
    """What timm's CheckpointSaver writes."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "epoch": 7, "arch": "resnet10t", "state_dict": state, "version": 2,
        "optimizer": optimizer.state_dict(), "metric": np.float64(71.3),
        "args": argparse.Namespace(lr=0.1, data_dir=Path("data"), best=np.float32(1)), **more,
    }  # fmt: skip


def lightning_checkpoint(state: State) -> dict[str, Any]:
    return {
        "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.4.0", "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {"Checkpoint": {"best": 1.0}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}], "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1, "args": argparse.Namespace(a=1)},
    }  # fmt: skip


# name: (what torch.save gets, the prefix that the note names)
FORMS: dict[str, tuple[Callable[[State], Any], str]] = {
    "bare": (lambda s: s, ""),
    "ordered": (collections.OrderedDict, ""),
    "with epoch": (lambda s: {"state_dict": s, "epoch": 3}, "state_dict"),
    "module": (lambda s: under("module.", s), "module"),
    "state_dict and module": (
        lambda s: {"state_dict": under("module.", s), "epoch": 3}, "state_dict.module",
    ),
    "compiled": (lambda s: under("_orig_mod.", s), "_orig_mod"),
    "compiled in DDP": (lambda s: under("module._orig_mod.", s), "module._orig_mod"),
    "compiled blocks": (
        lambda s: {n.replace("layer1.0.", "layer1.0._orig_mod."): t for n, t in s.items()}, "",
    ),
    "checkpointed blocks": (
        lambda s: {
            n.replace("layer2.0.", "layer2.0._checkpoint_wrapped_module."): t for n, t in s.items()
        },
        "",
    ),
    "backbone": (lambda s: under("backbone.", trunk(s)) | {"head.bias": torch.ones(2)}, "backbone"),
    "teacher.backbone": (lambda s: under("teacher.backbone.", trunk(s)), "teacher.backbone"),
    "encoder": (lambda s: {"model": under("encoder.", s)}, "model.encoder"),
    "model_state": (lambda s: {"model_state": s, "optimizer_state": {"a": torch.ones(1)}},
                    "model_state"),
    "model_state_dict": (lambda s: {"model_state_dict": s, "loss": 0.3}, "model_state_dict"),
    "model": (lambda s: {"model": s, "optimizer": {}, "scaler": None}, "model"),
    "net": (lambda s: {"net": under("module.", s), "acc": 93.1, "epoch": 9}, "net.module"),
    "weights": (lambda s: {"weights": s}, "weights"),
    "state_dict_ema": (lambda s: {"state_dict_ema": s, "epoch": 1}, "state_dict_ema"),
    "ema": (lambda s: {"ema": {"module": s}, "best": 1}, "ema.module"),
    "timm training": (timm_training, "state_dict"),
    "timm training, EMA alike": (lambda s: timm_training(s, state_dict_ema=copy.deepcopy(s)), ""),
    "Lightning model": (lambda s: lightning_checkpoint(under("model.", s)), "state_dict.model"),
    "Lightning net": (
        lambda s: lightning_checkpoint(under("net.", s) | {"criterion.weight": torch.ones(5)}),
        "state_dict.net",
    ),
    "Lightning compiled": (
        lambda s: lightning_checkpoint(under("model._orig_mod.", s)), "state_dict.model._orig_mod",
    ),
    "MoCo query alone": (
        lambda s: {"arch": "resnet10t", "state_dict": projected(s, "module.encoder_q.")
                   | {"module.queue": torch.ones(4, 8), "module.queue_ptr": torch.zeros(1)}},
        "state_dict.module.encoder_q",
    ),
    "MoCo both alike": (
        lambda s: {"state_dict": projected(s, "module.encoder_q.")
                   | projected(s, "module.encoder_k.")},
        "",
    ),
    "DINO teacher": (
        lambda s: {"teacher": under("backbone.", trunk(s))
                   | {"head.mlp.0.bias": torch.ones(3), "head.last_layer.weight_g": torch.ones(3)},
                   "epoch": 100, "args": argparse.Namespace(arch="x")},
        "teacher.backbone",
    ),
    "SimCLR": (
        lambda s: {"epoch": 200, "arch": "resnet10t", "optimizer": {},
                   "state_dict": projected(s, "backbone.")},
        "state_dict.backbone",
    ),
    "SimCLR projector": (
        lambda s: trunk(s) | {"projector.0.weight": torch.ones(2), "proj_head.1": torch.ones(2)},
        "",
    ),
    "children by position": (
        lambda s: positions(s, "backbone."), "backbone",
    ),
    "fastai body": (lambda s: {"model": positions(s, "0.") | {"1.8.weight": torch.ones(2)}},
                    "model.0"),
    "AveragedModel": (
        lambda s: under("module.", s) | {"n_averaged": torch.tensor(3)}, "module",
    ),
    "no counters": (
        lambda s: {n: t for n, t in s.items() if not n.endswith("num_batches_tracked")}, "",
    ),
    "half": (lambda s: {n: t.half() if t.is_floating_point() else t for n, t in s.items()}, ""),
    "parameters": (
        lambda s: {n: nn.Parameter(t) if t.is_floating_point() else t for n, t in s.items()}, "",
    ),
    "junk counters": (lambda s: s | {"conv1.0.total_ops": torch.zeros(1)}, ""),
    "deep": (lambda s: {"a": {"b": {"c": under("d.e.", s)}}}, "a.b.c.d.e"),
}  # fmt: skip


def positions(state: State, prefix: str) -> State:
    """``nn.Sequential(*network.children())``, as lightly and fastai make it."""
    children = [key for key, _ in timm.create_model("resnet10t").named_children()]
    named = ((name.partition("."), tensor) for name, tensor in trunk(state).items())
    return {f"{prefix}{children.index(key)}.{rest}": t for (key, _, rest), t in named}


def loads(network: Any, state: State, tolerance: float = 0.0) -> bool:
    mine = network.module.state_dict()
    return all(
        torch.allclose(tensor, state[name].to(tensor.dtype), atol=tolerance, rtol=0)
        for name, tensor in mine.items()
    )


@pytest.mark.parametrize(
    "suffix", [".pth", ".safetensors", pytest.param(".ckpt-old", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("form", FORMS)
def test_a_usual_form_loads_and_says_where_it_was_found(
    form: str, suffix: str, state: State, tmp_path: Path
) -> None:
    make, prefix = FORMS[form]
    path = tmp_path / f"weights{suffix}"
    content = make(state)
    if suffix == ".safetensors":
        flat = dict(flattened(content))
        save_file({name: tensor.clone().contiguous() for name, tensor in flat.items()}, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=suffix == ".pth")
    network = load_backbone(NAME, weights=path, **COLOURS)
    assert loads(network, state, 1e-3 if form == "half" else 0.0)
    (note,) = [note for note in network.notes if "loaded from" in note]
    tensors = 70 if form == "no counters" else 84
    assert note.startswith(f"{tensors} tensors loaded from weights")
    assert f"under '{prefix}'" in note if prefix else True
    assert "\n" not in note
    assert not network.module.training


def flattened(content: Any, at: str = "") -> Any:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{at}{key}", value.detach()
        elif isinstance(value, dict) and "optim" not in key and key not in ("loops", "callbacks"):
            yield from flattened(value, f"{at}{key}.")


def test_an_averaged_model_and_a_wrapped_one(whole: nn.Module, tmp_path: Path) -> None:
    for wrapped in (AveragedModel(whole), torch.compile(whole), nn.DataParallel(whole)):
        torch.save({"ema": wrapped.state_dict()}, tmp_path / "w.pt")
        assert loads(load_backbone(NAME, weights=tmp_path / "w.pt", **COLOURS), whole.state_dict())


AMBIGUOUS: dict[str, tuple[Callable[[State], Any], str, str]] = {
    "student and teacher": (
        lambda s: {"student": under("module.backbone.", trunk(other(s))),
                   "teacher": under("backbone.", trunk(s))},
        "student.module.backbone", "teacher.backbone",
    ),
    "EMA beside": (
        lambda s: timm_training(other(s), state_dict_ema=s), "state_dict", "state_dict_ema",
    ),
    "MoCo": (
        lambda s: {"state_dict": projected(other(s), "module.encoder_k.")
                   | projected(s, "module.encoder_q.")},
        "state_dict.module.encoder_k", "state_dict.module.encoder_q",
    ),
    "model and ema": (
        lambda s: {"model": other(s), "ema": s, "optimizer": {}}, "model", "ema",
    ),
    "root and teacher": (lambda s: trunk(other(s)) | under("teacher.", trunk(s)), "", "teacher"),
    "Lightning, two": (
        lambda s: lightning_checkpoint(under("net.", other(s)) | under("net_ema.", s)),
        "state_dict.net", "state_dict.net_ema",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", AMBIGUOUS)
def test_two_networks_in_a_file_are_asked_about(form: str, state: State, tmp_path: Path) -> None:
    make, one, two = AMBIGUOUS[form]
    path = tmp_path / "two.pth"
    torch.save(make(state), path)
    with pytest.raises(BackboneError, match="several times") as caught:
        load_backbone(NAME, weights=path, **COLOURS)
    for prefix in (one, two):
        assert (f"'{prefix}'" if prefix else "no prefix") in caught.value.message
    assert "rename={" in str(caught.value.hint)
    network = load_backbone(NAME, weights=path, rename={two: ""}, **COLOURS)
    assert loads(network, state)
    if one:
        first = load_backbone(NAME, weights=path, rename={one: ""}, **COLOURS)
        assert loads(first, other(state))
        short = one.split(".", 1)[-1]
        if short != one and form != "MoCo":
            assert loads(
                load_backbone(NAME, weights=path, rename={short: ""}, **COLOURS), other(state)
            )


def test_names_that_nobody_can_guess_are_given(state: State, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    renamed = {f"trunk.{n}".replace("trunk.conv1", "trunk.stem"): t for n, t in state.items()}
    torch.save({"net": renamed | {"trunk.extra.weight": torch.ones(1)}}, path)
    with pytest.raises(BackboneError, match=r"leave them out|rename="):
        load_backbone(NAME, weights=path, **COLOURS)
    rename = {"trunk.stem": "conv1", "trunk": "", "trunk.extra": None}
    assert loads(load_backbone(NAME, weights=path, rename=rename, **COLOURS), state)
    with pytest.raises(BackboneError, match=r"'trunc', which begins no name.*did you mean.*trunk"):
        load_backbone(NAME, weights=path, rename={"trunc": ""}, **COLOURS)
    with pytest.raises(BackboneError, match="applies to names in a weights file"):
        load_backbone("headstart/glyphs", rename={"trunk": ""})


def test_a_renaming_is_proposed_where_it_mends_all(state: State, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    renamed = {n.replace("conv1.", "stem.", 1) if n.startswith("conv1.") else n: t
               for n, t in state.items()}  # fmt: skip
    torch.save(renamed, path)
    with pytest.raises(BackboneError, match=r"it fits with rename=\{'stem': 'conv1'\}"):
        load_backbone(NAME, weights=path, **COLOURS)
    assert loads(load_backbone(NAME, weights=path, rename={"stem": "conv1"}, **COLOURS), state)


def test_a_renaming_is_part_of_the_run_folder(state: State, tmp_path: Path) -> None:
    path = tmp_path / "two.pth"
    torch.save({"model": other(state), "ema": state}, path)
    network = load_backbone(NAME, weights=path, rename={"ema": ""}, **COLOURS)
    spec = BackboneSpec.of(network)
    again = BackboneSpec.from_plain(spec.plain()).load()
    assert again.identity() == network.identity()
    with pytest.raises(ConfigError, match="rename must map names to names"):
        BackboneSpec(rename={"a": 3})


# Refusals


def test_position_tables_of_another_size_are_resampled(tmp_path: Path) -> None:
    for name, args in (
        ("vit_tiny_patch16_224", {"img_size": 96}),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "window_size": 2, "depths": [1, 1, 1, 1]},
        ),
    ):
        full = dict(args, img_size=64) if "window_size" in args else {}
        if "window_size" in args:
            full = {"img_size": 112, "window_size": 7, "depths": [1, 1, 1, 1]}
        torch.manual_seed(0)
        path = tmp_path / "w.pth"
        source = timm.create_model(name, **full)
        torch.save({"model": source.state_dict()}, path)
        network = load_backbone(
            f"timm/{name}", weights=path, model_args=args, mean=0.5, std=0.5, size=args["img_size"]
        )
        assert any("resampled by timm" in note for note in network.notes)
        pairs = [
            (network.module.state_dict()[n], t) for n, t in source.state_dict().items()
            if n in network.module.state_dict() and t.shape == network.module.state_dict()[n].shape
        ]  # fmt: skip
        assert all(torch.equal(a, b) for a, b in pairs)


def test_torchvisions_positions_are_resampled_too(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(torchvision.models.vit_b_32(image_size=64).state_dict(), path)
    network = load_backbone(
        "torchvision/vit_b_32", weights=path, model_args={"image_size": 96}, mean=0, std=1, size=96
    )
    assert any(
        "'encoder.pos_embedding' from (1, 5, 768) to (1, 10, 768)" in n for n in network.notes
    )


def refusal(content: Any, path: Path, name: str = NAME, **more: Any) -> str:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(BackboneError) as caught:
        load_backbone(name, weights=path, **COLOURS, **more)
    assert caught.value.hint
    assert "cut the network" not in str(caught.value)
    return str(caught.value)


def test_every_misfit_has_a_hint_that_is_true_for_it(state: State, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    big = timm.create_model("resnet18").state_dict()
    assert "larger network" in refusal(state | {"layer1.1.conv1.weight": torch.ones(2)}, path)
    assert "another variant" in refusal(big, path, "timm/resnet50") or True
    said = refusal(trunk({n: t for n, t in state.items() if not n.startswith("layer4")}), path)
    assert "choose a layer before what is missing, such as layer='layer3'" in said
    load_backbone(NAME, weights=path, layer="layer3", **COLOURS)
    said = refusal(timm.create_model("vit_tiny_patch16_224").state_dict(), path)
    assert "no tensor of" in said or "another network" in said
    said = refusal({n: t[:1] if t.ndim else t for n, t in state.items()}, path)
    assert "of another shape: 'conv1.0.weight' has (1, 3, 3, 3) in the file" in said
    assert "model_args={…}" in said
    said = refusal(state | {"side.weight": torch.ones(2)}, path)
    assert "ignore them: rename={'side': None}" in said
    assert loads(load_backbone(NAME, weights=path, rename={"side": None}, **COLOURS), state)
    levit = timm.create_model("levit_128s", img_size=64).state_dict()
    torch.save(levit, path)
    with pytest.raises(BackboneError, match=r"tables of positions belong to an input size"):
        load_backbone("timm/levit_128s", weights=path, mean=0, std=1)


class Custom:
    """Of a module that a checkpoint may name."""


def test_every_file_that_cannot_be_read_says_why(whole: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    stream = io.BytesIO()
    torch.save(whole.state_dict(), stream)
    good = stream.getvalue()
    assert "damaged or incomplete" in refusal(good[: len(good) // 2], path)
    assert "empty" in refusal(b"", path)
    assert "a web page" in refusal(b"<!DOCTYPE html><html>", path)
    assert "git lfs pull" in refusal(b"version https://git-lfs.github.com/spec/v1\noid", path)
    assert "HDF5" in refusal(b"\x89HDF\r\n\x1a\n", path)
    assert "gzip archive" in refusal(b"\x1f\x8b\x08\x00", path)
    assert "not a readable safetensors file" in refusal(b"\xff" * 64, path)
    assert "the keys 'epoch', 'acc'" in refusal({"epoch": 3, "acc": 0.5}, path)
    assert "a list" in refusal([1, 2], path)
    assert "test_checkpoints.Custom" in refusal({"state_dict": {}, "config": Custom()}, path)
    assert "save only its tensors" in refusal(whole, path)
    stream = io.BytesIO()
    np.savez(stream, kernel=np.ones(3))
    assert "NumPy archive with 'kernel.npy'" in refusal(stream.getvalue(), path)
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    assert "TorchScript program" in refusal(path.read_bytes(), path)
    assert "tensors only" in refusal(pickle.dumps({"a": np.ones(3)}, protocol=4), path)
    with pytest.raises(BackboneError, match=r"is a folder.*give one file, such as weights="):
        load_backbone(NAME, weights=tmp_path, **COLOURS)
    with pytest.raises(BackboneError, match="there is no weights file"):
        load_backbone(NAME, weights=tmp_path / "none.pth", **COLOURS)


def test_a_safetensors_file_that_begins_like_a_pickle(tmp_path: Path) -> None:
    """The length of its header is its first bytes: 0x280 reads like the opcode of protocol 2."""
    path = tmp_path / "w.safetensors"
    layer = nn.Linear(2, 2)
    for size in range(300, 700):
        save_file(layer.state_dict(), path, metadata={"format": "pt", "x": "y" * size})
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    assert path.read_bytes()[:2] == b"\x80\x02"
    from headstart.backbones.weights import load_weights

    assert load_weights(nn.Linear(2, 2), path).complete


@pytest.mark.parametrize("name", ["levit_128s", "efficientvit_m0", "efficientvit_b0"])
def test_complete_files_whose_classifier_has_a_norm(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=7)
    for form in ({"model": source.state_dict()}, under("module.", source.state_dict())):
        torch.save(form, tmp_path / "w.pth")
        network = load_backbone(f"timm/{name}", weights=tmp_path / "w.pth", mean=0, std=1)
        assert loads(network, source.state_dict())


@pytest.mark.parametrize("auxiliary", [True, False])
def test_torchvision_files_with_and_without_auxiliary_classifiers(
    auxiliary: bool, tmp_path: Path
) -> None:
    source = torchvision.models.googlenet(init_weights=False, aux_logits=auxiliary)
    torch.save({"model": source.state_dict()}, tmp_path / "w.pth")
    network = load_backbone("torchvision/googlenet", weights=tmp_path / "w.pth", **COLOURS)
    assert loads(network, source.state_dict())


def test_the_command_line_renames(state: State, tmp_path: Path) -> None:
    path = tmp_path / "two.pth"
    extra = {"ema.side.weight": torch.ones(1)}
    torch.save({"model": other(state), **under("ema.", state), **extra}, path)
    words = ["backbones", NAME, "--weights", str(path), "--mean", "0.5", "--std", "0.5"]
    words += ["--size", "64"]
    refused = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert refused.exit_code != 0
    for given in (["--rename", "ema.side=-,ema="], ["--rename", "ema.side=-", "--rename", "ema="]):
        shown = CliRunner().invoke(app, words + given, env={"COLUMNS": "300"})
        assert shown.exit_code == 0, shown.output
        assert "84 tensors loaded from two.pth" in shown.output
    wrong = CliRunner().invoke(app, [*words, "--rename", "ema"], env={"COLUMNS": "300"})
    assert "--rename takes OLD=NEW" in str(wrong.exception)


class Wrapped(nn.Module):
    """A network of one's own around one of timm's."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("resnet10t", num_classes=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_a_module_around_the_network(state: State, tmp_path: Path) -> None:
    for form in (state, under("net.", state), {"state_dict": under("model.net.", state)}):
        torch.save(form, tmp_path / "w.pth")
        network = load_backbone(Wrapped(), weights=tmp_path / "w.pth", **COLOURS)
        assert loads(network, under("net.", state))


def families() -> list[str]:
    """The smallest model of every family of timm, as far as timm has it."""
    from tests.backbones.families import SMALLEST

    return list(SMALLEST)


@pytest.mark.slow
@pytest.mark.walk(keep=20)
@pytest.mark.parametrize("name", families())
def test_a_complete_file_of_every_timm_family_loads(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model(name)
    torch.save(
        {"state_dict": under("module.", source.state_dict()), "epoch": 1}, tmp_path / "w.pth"
    )
    network = load_backbone(f"timm/{name}", weights=tmp_path / "w.pth", mean=0, std=1)
    own = network.module.state_dict()
    assert all(torch.equal(t, source.state_dict()[n]) for n, t in own.items())
