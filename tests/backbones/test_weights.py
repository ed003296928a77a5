"""Loading a part of a model from a file: what fits, what does not, and what is left unchanged."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from headstart.backbones.weights import load_weights
from headstart.core.errors import BackboneError


class Composed(nn.Module):
    """An encoder and a decoder, as in a model composed of parts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()
        self.decoder = nn.Linear(4, 2)


def encoder() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Sequential]:
    source = encoder()
    source(torch.randn(8, 3))
    path = tmp_path / "encoder.safetensors"
    save_file(source.state_dict(), str(path))
    return path, source


def test_into_loads_one_part_and_keeps_parameter_identity(
    saved: tuple[Path, nn.Sequential],
) -> None:
    path, source = saved
    model = Composed()
    parameters, decoder = list(model.parameters()), snapshot(model.decoder)
    report = load_weights(model, path, into="encoder")
    assert report.complete
    assert set(report.matched) == {f"encoder.{name}" for name in source.state_dict()}
    assert unchanged(model.encoder, source.state_dict())
    assert unchanged(model.decoder, decoder)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert "7 tensors loaded into 'encoder'" in str(report)


def test_strict_failure_names_every_fault_and_changes_nothing(tmp_path: Path) -> None:
    model = encoder()
    before = snapshot(model)
    state = snapshot(encoder())
    state["0.weigth"] = state.pop("0.weight")
    state["1.bias"] = torch.zeros(5)
    path = tmp_path / "broken.safetensors"
    save_file(state, str(path))
    with pytest.raises(BackboneError) as caught:
        load_weights(model, path)
    message = str(caught.value)
    assert "1 missing: '0.weight'" in message
    assert "'0.weigth' (nearest '0.weight')" in message
    assert "'1.bias': the model has (4,) float32, the file (5,) float32" in message
    assert unchanged(model, before)


def test_not_strict_loads_what_fits(tmp_path: Path) -> None:
    state = snapshot(encoder())
    state["0.weight"] = torch.zeros(9, 9)
    path = tmp_path / "partly.safetensors"
    save_file(state, str(path))
    model = encoder()
    report = load_weights(model, path, strict=False)
    assert [item.name for item in report.misshaped] == ["0.weight"]
    assert torch.equal(model[0].bias, state["0.bias"])
    save_file({"other": torch.zeros(2)}, str(path))
    with pytest.raises(BackboneError, match="no tensor of it fits"):
        load_weights(model, path, strict=False)


def test_allowed_absences(tmp_path: Path) -> None:
    state = snapshot(encoder())
    state["head.weight"] = torch.zeros(2)
    for name in ("1.weight", "1.bias", "1.num_batches_tracked"):
        del state[name]
    path = tmp_path / "less.safetensors"
    save_file(state, str(path))
    model = encoder()
    report = load_weights(
        model, path, allow_missing=["1.weight", "*.bias"], allow_unexpected=["head"]
    )
    assert report.complete
    assert set(report.allowed) == {"1.weight", "1.bias", "1.num_batches_tracked", "head.weight"}
    with pytest.raises(BackboneError, match=r"did you mean '1\.weight'"):
        load_weights(model, path, allow_missing=["1.wieght"])
    with pytest.raises(BackboneError, match="pass a list"):
        load_weights(model, path, allow_missing="1.weight")


def test_rename_by_mapping_and_by_function(tmp_path: Path) -> None:
    source = encoder()
    path = tmp_path / "wrapped.safetensors"
    wrapped = {f"module.net.{name}": tensor for name, tensor in source.state_dict().items()}
    save_file(wrapped | {"module.extra": torch.zeros(1)}, str(path))
    model = Composed()
    with pytest.raises(BackboneError, match=r"rename={'module\.net': ''}"):
        load_weights(model, path, into="encoder")
    report = load_weights(
        model, path, into="encoder", rename={"module.net": ""}, allow_unexpected=["module.extra"]
    )
    assert report.complete
    report = load_weights(
        model,
        path,
        into="encoder",
        rename=lambda name: name.removeprefix("module.net.") if ".net." in name else None,
    )
    assert report.allowed == ("module.extra",)
    assert unchanged(model.encoder, source.state_dict())
    with pytest.raises(BackboneError, match="begins no name"):
        load_weights(model, path, into="encoder", rename={"modul": ""})
    with pytest.raises(BackboneError, match="several tensors"):
        load_weights(model, path, rename=lambda name: "same")


def test_hint_proposes_into(saved: tuple[Path, nn.Sequential]) -> None:
    with pytest.raises(BackboneError, match="into='encoder'"):
        load_weights(Composed(), saved[0])
    with pytest.raises(BackboneError, match="did you mean 'encoder'"):
        load_weights(Composed(), saved[0], into="encodr")


def test_tied_parameters_need_only_one_name(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, 3)
            self.out = nn.Linear(3, 5, bias=False)
            self.out.weight = self.embed.weight

    value = torch.randn(5, 3)
    path = tmp_path / "tied.safetensors"
    save_file({"embed.weight": value}, str(path))
    model = Tied()
    assert load_weights(model, path).complete
    assert torch.equal(model.out.weight, value)
    assert model.out.weight is model.embed.weight
    save_file({"embed.weight": value, "out.weight": value + 1}, str(path))
    with pytest.raises(BackboneError, match="are the same tensor in the model"):
        load_weights(model, path)


def test_precision_is_cast_and_reported_but_kinds_are_not_mixed(tmp_path: Path) -> None:
    state = snapshot(encoder())
    state["0.weight"] = state["0.weight"].half()
    path = tmp_path / "half.safetensors"
    save_file(state, str(path))
    assert load_weights(encoder(), path).cast == ("0.weight",)
    state["0.weight"] = torch.ones(4, 3, dtype=torch.int64)
    save_file(state, str(path))
    with pytest.raises(BackboneError, match="int64"):
        load_weights(encoder(), path)


def test_torch_files_hold_tensors_only(tmp_path: Path) -> None:
    source = encoder()
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": source.state_dict(), "epoch": 3}, path)
    model = encoder()
    assert load_weights(model, path).complete
    assert unchanged(model, source.state_dict())
    marker = tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (marker,))

    path.write_bytes(pickle.dumps({"0.weight": Trap()}, protocol=2))
    with pytest.raises(BackboneError, match="never runs code"):
        load_weights(model, path)
    torch.save({"epoch": Trap()}, path)
    with pytest.raises(BackboneError, match="never runs code"):
        load_weights(model, path)
    assert not marker.exists()


def test_unreadable_files_and_unmade_tensors(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="there is no file"):
        load_weights(encoder(), tmp_path / "none.safetensors")
    path = tmp_path / "torn.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(BackboneError, match="not a readable safetensors file"):
        load_weights(encoder(), path)
    with pytest.raises(BackboneError, match="hold no memory yet"):
        load_weights(nn.Sequential(nn.LazyLinear(3)), path)


@pytest.mark.real
def test_real_imagenet_weights_up_to_the_cut(shared_data: Path) -> None:
    import timm

    model = timm.create_model("mobilenetv1_100", pad_type="same", bn_eps=1e-3)
    path = shared_data / "weights" / "mobilenetv1_imagenet.safetensors"
    with pytest.raises(BackboneError, match=r"blocks\.4\.1"):
        load_weights(model, path)
    beyond = ["blocks.4.1", "conv_head", "bn2", "classifier"]
    present = {name.split(".")[0] for name in model.state_dict()}
    report = load_weights(
        model, path, allow_missing=[name for name in beyond if name.split(".")[0] in present]
    )
    assert report.complete
    assert len(report.matched) == 125
